"""DINOv3 by its own name: transformers' encoder, run by timm."""

import json
import sys

import pytest
import torch
from safetensors.torch import load_file

from vitft import tasks
from vitft.architectures.dinov3 import _ratio
from vitft.errors import ModelError
from vitft.model.load import load_finished, load_for_training
from vitft.recipe.keys import ModelRecipe

SMALL = {
    "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3,
    "num_register_tokens": 4, "image_size": 64,
}  # fmt: skip
GATED = {"use_gated_mlp": True, "hidden_act": "silu"}
needs_timm = pytest.mark.timm


def encoder(folder, **changes):
    """Write a random DINOv3 encoder as transformers does, with a card and a processor of its own."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    torch.manual_seed(0)
    model = DINOv3ViTModel(DINOv3ViTConfig(**SMALL | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor", "size": {"height": 64, "width": 64},
        "image_mean": [0.43, 0.4, 0.3], "image_std": [0.2, 0.18, 0.18],
        "do_normalize": True, "do_resize": True, "do_rescale": True,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    card = "---\nlicense: other\nlicense_name: dinov3-license\nlicense_link: https://x.org/license\n---\n"
    (folder / "README.md").write_text(card)
    return model


def features(classifier, pixels):
    network = classifier.model.eval().timm_model
    with torch.no_grad():
        return network.forward_head(network.forward_features(pixels), pre_logits=True)


@needs_timm
@pytest.mark.parametrize(
    "changes",
    [
        {},
        GATED | {"num_register_tokens": 2, "intermediate_size": 136},
        {"query_bias": False, "value_bias": False, "num_register_tokens": 0, "rope_theta": 50.0},
    ],
    ids=["plain", "gated", "without biases and registers"],
)
def test_features_are_those_of_transformers(changes, tmp_path):
    own = encoder(tmp_path, **changes)
    ours = load_for_training(ModelRecipe(checkpoint=str(tmp_path)), ["a", "b"], "squash")
    assert ours.image_size == (64, 64) and ours.head == ("timm_model.head.weight", "timm_model.head.bias")
    assert any("built as timm's DINOv3" in note for note in ours.notes)
    assert not any("newly initialised" in note for note in ours.notes)
    for size in ((64, 64), (48, 96)):
        pixels = torch.randn(2, 3, *size)
        with torch.no_grad():
            expected = own(pixels).pooler_output
        torch.testing.assert_close(features(ours, pixels), expected, atol=1e-4, rtol=0)


@needs_timm
def test_licence_and_processor_are_kept_and_the_saved_model_loads(tmp_path):
    encoder(tmp_path / "own")
    made = load_for_training(ModelRecipe(checkpoint=str(tmp_path / "own")), ["a", "b"], "squash")
    assert made.origin.license["license_name"] == "dinov3-license"
    assert made.pixel_values.mean == pytest.approx((0.43, 0.4, 0.3))
    with torch.no_grad():
        made.model.timm_model.head.weight.normal_()
    made.save(tmp_path / "saved")
    pixels = torch.randn(2, 3, 64, 64)
    again = load_finished(tmp_path / "saved", "saved")
    with torch.no_grad():
        assert torch.equal(again.model(pixels).logits, made.model.eval()(pixels).logits)


@needs_timm
def test_it_is_looked_at_and_resized_by_its_own_name(tmp_path):
    own = encoder(tmp_path / "own")
    seen = tasks.inspect(str(tmp_path / "own"), out=tmp_path / "seen", only=["filters"])
    assert seen.pictures["filters"].is_file()
    tasks.resize(str(tmp_path / "own"), tmp_path / "large", image_size=(96, 96))
    settings = json.loads((tmp_path / "large" / "config.json").read_text())
    assert settings["model_type"] == "timm_wrapper" and "hidden_size" not in settings
    assert "cls_token" in load_file(tmp_path / "large" / "model.safetensors")
    resized = load_for_training(ModelRecipe(checkpoint=str(tmp_path / "large")), ["a", "b"], "squash")
    pixels = torch.randn(1, 3, 96, 96)
    assert resized.image_size == (96, 96)
    with torch.no_grad():
        expected = own(pixels).pooler_output
    torch.testing.assert_close(features(resized, pixels), expected, atol=1e-4, rtol=0)


@needs_timm
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"key_bias": True}, "key_bias True"),
        ({"layer_norm_eps": 1e-6}, "layer_norm_eps 1e-06"),
        ({"hidden_act": "relu"}, "hidden_act relu"),
        (GATED | {"intermediate_size": 100}, "intermediate_size 100, not divisible by 8"),
    ],
)
def test_a_kind_that_timm_does_not_have_is_refused(changes, said, tmp_path):
    encoder(tmp_path, **changes)
    with pytest.raises(ModelError, match=said):
        load_for_training(ModelRecipe(checkpoint=str(tmp_path)), ["a", "b"], "squash")


def test_without_timm_the_error_says_what_to_install(tmp_path, monkeypatch):
    encoder(tmp_path)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="is a DINOv3 ViT, which vitft runs with timm") as caught:
        load_for_training(ModelRecipe(checkpoint=str(tmp_path)), ["a", "b"], "squash")
    assert "pip install" in str(caught.value)


@pytest.mark.parametrize(("hidden", "width"), [(1536, 384), (96, 48), (29, 3), (1376, 512), (4099, 1283)])
def test_timms_factor_gives_the_hidden_width(hidden, width):
    assert int(width * _ratio(hidden, width)) == hidden

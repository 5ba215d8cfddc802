"""Low-rank adapters: where they sit, what they change, and that peft reads what is kept of them."""

import json
import sys
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForImageClassification
from zoo import images_for, model_of, save

from vitft.architectures.families import FAMILIES
from vitft.errors import ModelError
from vitft.model.adapter import Adapter, _Dropout, require_peft
from vitft.model.load import load_for_training
from vitft.model.trainable import choose_trainable, freeze_unused
from vitft.recipe.keys import ModelRecipe

HEAD = ("classifier.weight", "classifier.bias")
FAMILIES_OF_ADAPTERS = sorted(
    {name for name, family in FAMILIES.items() if family.attention} - {"swiftformer", "mobilevitv2"}
)


def adapted(family="vit", **changes):
    """A model with adapters that change its output, in evaluation mode."""
    model = model_of(family)
    adapter = Adapter(model, ModelRecipe(**{"train": "lora", "lora_rank": 4, **changes}), seed=1)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval(), adapter


@torch.no_grad()
def logits(model, images):
    return model(images).logits


@pytest.mark.parametrize("family", FAMILIES_OF_ADAPTERS)
def test_in_every_family_adapters_start_without_effect_train_and_merge(family):
    model = model_of(family).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # random families give next to nothing
            parameter.add_(0.2 * torch.randn(parameter.shape))
    images, _ = images_for(model)
    before, plain = logits(model, images), set(model.state_dict())
    kind = "dora" if family in ("vit", "swin") else "lora"
    adapter = Adapter(model, ModelRecipe(train=kind, lora_rank=4), seed=1)
    scale = float(before.abs().max())
    torch.testing.assert_close(logits(model, images), before, rtol=0, atol=1e-5 * scale)
    choose_trainable(model, kind, [name for name in plain if name.startswith("classifier")])
    assert freeze_unused(model, tuple(images.shape[2:])) == []
    with torch.no_grad():
        for name in (name for name, p in model.named_parameters() if p.requires_grad and "lora_" in name):
            model.get_parameter(name).add_(0.3 * torch.randn(model.get_parameter(name).shape))
    changed = logits(model.eval(), images)
    assert float((changed - before).abs().max()) > 3e-5 * scale  # more than what is tolerated below
    merged = adapter.merged(model)
    assert set(merged.state_dict()) == plain
    torch.testing.assert_close(logits(merged, images), changed, rtol=0, atol=1e-5 * float(changed.abs().max()))
    torch.testing.assert_close(logits(model, images), changed, rtol=0, atol=0)  # the original is as it was


def test_rank_and_targets_say_how_many_parameters_there_are():
    width, hidden, blocks = 16, 32, 3
    for rank in (1, 4):
        model, adapter = adapted(lora_rank=rank)
        choose_trainable(model, "lora", HEAD)
        trained = sum(p.numel() for name, p in model.named_parameters() if p.requires_grad and name not in HEAD)
        assert trained == blocks * 2 * rank * (width + width)
        assert str(adapter) == f"LoRA of rank {rank} in 6 layers (q_proj, v_proj)"
    model, _ = adapted(lora_targets="all-linear")
    choose_trainable(model, "lora", HEAD)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert set(HEAD) < set(trained)
    in_adapters = sum(p.numel() for name, p in trained.items() if name not in HEAD)
    assert in_adapters == blocks * 4 * (4 * (width + width) + 2 * (width + hidden))


def test_alpha_over_rank_scales_what_is_added():
    model, adapter = adapted(lora_rank=2, lora_alpha=6)
    name = "vit.layers.1.attention.v_proj"
    a, b = (model.get_parameter(f"{name}.lora_{each}.default.weight") for each in "AB")
    before = model.get_parameter(f"{name}.base_layer.weight").clone()
    after = adapter.merged(model).get_parameter(f"{name}.weight")
    torch.testing.assert_close(after - before, 3 * b @ a)


def test_dora_trains_the_length_of_each_row():
    model, adapter = adapted(train="dora")
    name = "vit.layers.0.attention.q_proj"
    lengths = model.get_parameter(f"{name}.lora_magnitude_vector.default.weight")
    merged = adapter.merged(model).get_parameter(f"{name}.weight")
    torch.testing.assert_close(merged.norm(dim=1), lengths.abs())


def test_the_first_weights_are_a_function_of_the_seed():
    first, again, other = (
        Adapter(model, ModelRecipe(train="lora"), seed) and model.state_dict()
        for seed, model in ((1, model_of()), (1, model_of()), (2, model_of()))
    )
    name = "vit.layers.0.attention.q_proj.lora_A.default.weight"
    assert torch.equal(first[name], again[name]) and not torch.equal(first[name], other[name])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks for it by its old name
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_plain_peft_loads_what_is_kept(tmp_path, kind):
    checkpoint = save(model_of(), tmp_path / "checkpoint")
    classifier = load_for_training(ModelRecipe(checkpoint=checkpoint), ["a", "b", "c"], "squash")
    classifier.add_adapter(ModelRecipe(checkpoint=checkpoint, train=kind, lora_rank=3, adapter=True), seed=2)
    with torch.no_grad():
        for name, parameter in classifier.model.named_parameters():
            if "lora_" in name or name in HEAD:
                parameter.add_(0.3 * torch.randn(parameter.shape))
    classifier.save_adapter(tmp_path / "adapter")
    classifier.save(tmp_path / "model")
    images, _ = images_for(classifier.model)
    expected = logits(classifier.model.eval(), images)
    base = AutoModelForImageClassification.from_pretrained(checkpoint)
    base.classifier = torch.nn.Linear(base.config.hidden_size, 3)
    ours = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    torch.testing.assert_close(logits(ours, images), expected, rtol=0, atol=1e-5)
    whole = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(logits(whole, images), expected, rtol=0, atol=1e-5)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["modules_to_save"]) == (checkpoint, ["classifier"])
    assert config["target_modules"] == sorted(config["target_modules"])
    classifier.merge_adapter()
    torch.testing.assert_close(logits(classifier.model, images), expected, rtol=0, atol=1e-5)
    assert classifier.adapter is None


# --- dropout -----------------------------------------------------------------------------------------------


def test_what_is_dropped_depends_on_the_sample_and_the_layer_alone():
    model, adapter = adapted(lora_dropout=0.3)
    dropouts = [module.train() for module in model.modules() if isinstance(module, _Dropout)]
    assert len(dropouts) == 6
    adapter.sample_indices = torch.arange(40)
    values = torch.ones(40, 17, 16)
    made, other = dropouts[0](values), dropouts[1](values)
    kept = made != 0
    torch.testing.assert_close(made[kept], torch.full_like(made[kept], 1 / 0.7), rtol=1e-4, atol=0)
    share = float(kept.double().mean())
    assert abs(share - 0.7) < 4 * (0.3 * 0.7 / kept.numel()) ** 0.5  # four standard deviations
    together = float((kept & (other != 0)).double().mean())
    assert abs(together - 0.49) < 4 * (0.49 * 0.51 / kept.numel()) ** 0.5  # layers drop independently
    adapter.sample_indices = torch.tensor([7, 3])
    assert torch.equal(dropouts[0](values[:2]), made[[7, 3]])
    windows = dropouts[0](values[:2].reshape(34, 1, 16))  # parts of an image lie together, as Swin's windows do
    assert torch.equal(windows.reshape(2, 17, 16), made[[7, 3]])
    adapter.sample_indices = None
    assert dropouts[0](values) is values
    adapter.sample_indices = torch.arange(40)
    assert dropouts[0].eval()(values) is values


def test_without_dropout_there_is_no_module_for_it():
    model, _ = adapted(lora_dropout=0)
    assert not any(isinstance(module, _Dropout) for module in model.modules())


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "targets", "says"),
    [
        ("convnext", "attention", "all-linear"),
        ("swiftformer", "attention", "all-linear"),
        ("resnet", "all-linear", "vit"),
    ],
)
def test_a_model_without_such_layers_is_refused_with_what_is_possible(family, targets, says):
    with pytest.raises(ModelError, match=f"finds no .* of a {family} model") as error:
        Adapter(model_of(family), ModelRecipe(train="lora", lora_targets=targets), seed=0)
    assert says in error.value.allowed


def test_layers_that_the_model_does_not_call_are_not_adapted(monkeypatch):
    model = model_of()
    monkeypatch.setattr("vitft.model.adapter.modules_in_order", lambda _: ["vit.layers.2.attention.v_proj"])
    assert Adapter(model, ModelRecipe(train="lora"), seed=0).layers == ["vit.layers.2.attention.v_proj"]


def test_without_peft_the_command_that_installs_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    require_peft(ModelRecipe(train="attention"))
    with pytest.raises(ModelError, match="dora needs the package peft") as error:
        require_peft(ModelRecipe(train="dora"))
    assert error.value.hint == "pip install 'vitft[lora]'"


def test_an_adapter_for_a_checkpoint_that_nobody_has_is_refused(tmp_path):
    checkpoint = save(model_of(), tmp_path / "checkpoint")
    recipe = ModelRecipe(checkpoint=checkpoint, image_size=48, train="lora", adapter=True)
    classifier = load_for_training(recipe, ["a", "b"], "squash")
    with pytest.raises(ModelError, match="no checkpoint that peft could load") as error:
        classifier.add_adapter(recipe, seed=0)
    assert f"vitft resize {checkpoint}" in error.value.hint


# --- real data ---------------------------------------------------------------------------------------------


@pytest.mark.real
def test_under_three_percent_of_vit_tiny_are_trained():
    path = Path(__file__).parents[3] / "shared" / "data" / "vit-tiny-patch16-224"
    classifier = load_for_training(ModelRecipe(checkpoint=str(path)), [f"{n}" for n in range(12)], "squash")
    classifier.add_adapter(ModelRecipe(train="lora"), seed=0)
    choose_trainable(classifier.model, "lora", classifier.head)
    sizes = [(p.numel(), p.requires_grad) for p in classifier.model.parameters()]
    assert sum(size for size, trained in sizes if trained) == 12 * 2 * 16 * (192 + 192) + 12 * 192 + 12
    assert sum(size for size, trained in sizes if trained) < 0.03 * sum(size for size, _ in sizes)

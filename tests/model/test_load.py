"""Checkpoints as they are: what is read, what is made of it, what is refused."""

import json
from pathlib import Path

import pytest
import torch
import transformers
import zoo
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification

from vitft.architectures.config import image_size_of
from vitft.cli import main
from vitft.errors import ModelError
from vitft.model.load import load_finished, load_for_training
from vitft.recipe.keys import ModelRecipe

CLASSES = ["ant", "bee", "cat"]


def loaded(folder, fit="squash", **recipe):
    return load_for_training(ModelRecipe(checkpoint=str(folder), **recipe), CLASSES, fit)


def refusal(folder, **recipe):
    """The error that loading ends with; nothing else may."""
    with pytest.raises(ModelError) as error:
        loaded(folder, **recipe)
    assert error.value.exit_code == 1
    return str(error.value)


def edit(folder, change):
    """Change the tensors of a checkpoint."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def features(model, images):
    """What the head of a model sees."""
    seen = []
    hook = model.classifier.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.no_grad():
        model.eval()(images)
    hook.remove()
    return seen[0]


def images_of(side=32):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


# --- the new head ------------------------------------------------------------------------------------------


def test_the_head_is_new_zero_and_named_by_the_classes(folder, tmp_path):
    pretrained = loaded(folder)
    config = pretrained.model.config
    assert pretrained.head == ("classifier.weight", "classifier.bias")
    assert pretrained.model.classifier.weight.shape == (3, 16)
    assert not pretrained.model.classifier.weight.any() and not pretrained.model.classifier.bias.any()
    assert config.id2label == {0: "ant", 1: "bee", 2: "cat"}
    pretrained.model.save_pretrained(tmp_path / "again")
    again = transformers.AutoConfig.from_pretrained(tmp_path / "again")
    assert again.id2label == {0: "ant", 1: "bee", 2: "cat"}
    assert again.label2id == {"ant": 0, "bee": 1, "cat": 2}
    assert again.architectures == ["ViTForImageClassification"]
    assert any("new head: classifier.weight, classifier.bias for 3 classes" in note for note in pretrained.notes)


def test_a_head_of_the_right_size_is_replaced_too(tmp_path):
    model = zoo.classifier(zoo.config("vit", num_labels=3))
    assert model.classifier.weight.any()
    assert not loaded(zoo.save(model, tmp_path / "three")).model.classifier.weight.any()


def test_the_backbone_is_kept_bit_for_bit(folder):
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert torch.equal(features(model, images_of()), features(loaded(folder).model, images_of()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_become_float32(dtype, tmp_path):
    model = zoo.classifier(zoo.config("vit")).to(dtype)
    pretrained = loaded(zoo.save(model, tmp_path / "half"))
    assert {p.dtype for p in pretrained.model.parameters()} == {torch.float32}
    assert pretrained.model.get_parameter("vit.layernorm.weight").tolist() == [1.0] * 16
    assert any(str(dtype).removeprefix("torch.") in note and "float32" in note for note in pretrained.notes)
    pretrained.model.save_pretrained(tmp_path / "again")
    assert {t.dtype for t in load_file(tmp_path / "again" / "model.safetensors").values()} == {torch.float32}
    assert json.loads((tmp_path / "again" / "config.json").read_text())["dtype"] == "float32"


def test_the_family_s_own_drop_path_is_off_and_said(tmp_path):
    pretrained = loaded(zoo.save(zoo.classifier(zoo.config("beit", drop_path_rate=0.3)), tmp_path / "beit", "beit"))
    assert pretrained.model.config.drop_path_rate == 0.0
    assert any("0.3" in note and "drop_path" in note for note in pretrained.notes)
    model = pretrained.model.train()
    model.classifier.weight.data.normal_()
    assert torch.equal(model(images_of()).logits, model(images_of()).logits)


def test_global_randomness_is_left_alone(folder):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    loaded(folder, init="random")
    assert torch.equal(torch.rand(1), expected)


# --- forms of files ----------------------------------------------------------------------------------------


def test_bin_files_are_read_with_a_note(folder):
    expected = features(loaded(folder).model, images_of())
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    pretrained = loaded(folder)
    assert torch.equal(features(pretrained.model, images_of()), expected)
    assert any("pytorch_model.bin" in note and "no code" in note for note in pretrained.notes)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_and_a_missing_one_is_named(suffix, folder):
    expected = features(loaded(folder).model, images_of())
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = {"safetensors": "model", "bin": "pytorch_model"}[suffix]
    names = [f"{stem}-0000{number}-of-00003.{suffix}" for number in (1, 2, 3)]
    for number, name in enumerate(names):
        part = dict(list(state.items())[number::3])
        if suffix == "safetensors":
            save_file(part, folder / name)
        else:
            torch.save(part, folder / name)
    torch.save({"not": "ours"}, folder / "training_args.bin")
    assert torch.equal(features(loaded(folder).model, images_of()), expected)
    (folder / names[1]).unlink()
    assert names[1] in refusal(folder)


def test_shards_that_transformers_wrote_are_read(tmp_path):
    model = zoo.classifier(zoo.config("vit"))
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    assert torch.equal(features(model, images_of()), features(loaded(tmp_path).model, images_of()))


def test_a_pickle_that_wants_to_run_code_is_refused_and_has_not_run(folder, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (folder / "model.safetensors").unlink()
    torch.save({"vit.embeddings.cls_token": Hostile()}, folder / "pytorch_model.bin")
    message = refusal(folder)
    assert "wants to run code" in message and "pytorch_model.bin" in message
    assert not (tmp_path / "ran").exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists(), "the pickle would have run"


@pytest.mark.parametrize(
    ("name", "content"),
    [("model.safetensors", b"\x10\0\0\0\0\0\0\0not json at all."), ("model.safetensors", b""),
     ("pytorch_model.bin", b"hello"), ("pytorch_model.bin", b"")],
)  # fmt: skip
def test_damaged_weights_are_a_clear_error(name, content, folder):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    message = refusal(folder)
    assert name in message and "run code" not in message


def test_a_bin_with_something_else_in_it_is_a_clear_error(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"model": {"a": torch.zeros(1)}, "epoch": 3}, folder / "pytorch_model.bin")
    assert "not tensors by name" in refusal(folder)


def test_no_weights_is_an_error_that_random_initialisation_passes(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "training_args.bin")
    assert "has no weights" in refusal(folder)
    model = loaded(folder, init="random").model
    assert model.get_parameter("vit.layers.0.mlp.fc1.weight").std() > 0


# --- what does not fit -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("in_file", "in_memory"),
    [("vit.encoder.layer.1.intermediate.dense.weight", "vit.layers.1.mlp.fc1.weight"),
     ("vit.embeddings.position_embeddings", "vit.embeddings.position_embeddings")],
)  # fmt: skip
def test_a_missing_tensor_stops_and_is_named_as_in_the_file_and_in_memory(in_file, in_memory, folder):
    edit(folder, lambda state: state.pop(in_file))
    message = refusal(folder)
    assert in_file in message and in_memory in message
    allowed = loaded(folder, allow_new=(in_memory,))
    assert any("newly initialised" in note and in_memory in note for note in allowed.notes)
    loaded(folder, allow_new=(in_memory[:12] + "*",))
    refusal(folder, allow_new=(in_memory[:12],))


def test_the_command_line_ends_with_1_and_names_it(folder, tmp_path, capsys):
    edit(folder, lambda state: state.pop("vit.layernorm.weight"))
    with pytest.raises(SystemExit) as ended:
        main(
            ["finetune", "--model", str(folder), "--dataset", "builtin:digits", "--output-dir", str(tmp_path / "runs")]
        )
    said = capsys.readouterr().err
    assert ended.value.code == 1, said
    assert "vit.layernorm.weight" in said and "Traceback" not in said
    assert not (tmp_path / "runs").exists()


def test_a_config_with_more_layers_than_the_file_names_what_is_missing(folder):
    edit_config(folder, num_hidden_layers=4)
    assert "vit.encoder.layer.3." in refusal(folder)


def test_a_config_with_fewer_layers_than_the_file_names_what_is_left(folder):
    edit_config(folder, num_hidden_layers=2)
    message = refusal(folder)
    assert "does not describe" in message and "layer.2." in message


def test_a_config_of_another_width_is_an_error_that_shows_the_shapes(folder):
    edit_config(folder, hidden_size=24)
    message = refusal(folder)
    assert "does not fit its own config.json" in message and "16" in message and "24" in message
    assert "ignore_mismatched" not in message


def test_a_position_table_of_another_size_is_an_error(folder):
    edit_config(folder, image_size=64)
    assert "position_embeddings" in refusal(folder)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model_type": "no-such-thing"}', '{"model_type": "vit", "hidden_size": "wide"}',
                '{"model_type": "vit", "hidden_size": 15, "num_attention_heads": 4}']
)  # fmt: skip
def test_a_broken_config_is_a_clear_error(content, folder):
    (folder / "config.json").write_text(content)
    assert "config.json" in refusal(folder)


def test_code_of_the_checkpoint_s_own_is_never_run(folder):
    (folder / "mine.py").write_text("raise SystemExit('it ran')")
    edit_config(folder, auto_map={"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Model"})
    assert loaded(folder).model.config.model_type == "vit"
    edit_config(folder, model_type="mine")
    assert "config.json" in refusal(folder)


def test_a_folder_without_config_is_no_checkpoint(tmp_path):
    assert "no config.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model_type": "bert"}, "bert"),
        ({"model_type": "dinov3_convnext"}, "timm/convnext_tiny.dinov3_lvd1689m"),
        ({"model_type": "siglip2"}, "fixed size, such as google/siglip2-base-patch16-224"),
        ({"model_type": "siglip2_vision_model"}, "fixed size, such as google/siglip2-base-patch16-224"),
        ({"model_type": "imagegpt"}, "imagegpt"),
        ({"model_type": "perceiver"}, "perceiver"),
        ({"model_type": "shieldgemma2"}, "language model"),
        ({"model_type": "pp_lcnet"}, "no logits"),
        ({"model_type": "dinat"}, "natten"),
    ],
)
def test_what_is_no_image_classifier_is_refused_by_name(settings, said, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert said in refusal(tmp_path)


# --- encoders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "vit."])
def test_a_headless_vit_with_and_without_prefix(prefix, tmp_path):
    torch.manual_seed(0)
    encoder = transformers.ViTModel(zoo.config("vit"))
    encoder.save_pretrained(tmp_path)
    if prefix:
        edit(tmp_path, lambda state: state.update({prefix + key: state.pop(key) for key in list(state)}))
    pretrained = loaded(tmp_path)
    with torch.no_grad():
        hidden = encoder.eval()(images_of()).last_hidden_state
    assert torch.allclose(features(pretrained.model, images_of()), hidden[:, 0], atol=1e-6)
    assert any("pooler" in note for note in pretrained.notes)


@pytest.mark.parametrize(
    ("family", "encoder"),
    [("dinov2", "Dinov2Model"), ("swin", "SwinModel"), ("beit", "BeitModel"), ("convnext", "ConvNextModel"),
     ("resnet", "ResNetModel"), ("levit", "LevitModel")],
)  # fmt: skip
def test_headless_encoders_get_a_head(family, encoder, tmp_path):
    torch.manual_seed(0)
    model = getattr(transformers, encoder)(zoo.config(family))
    pretrained = loaded(zoo.save(model, tmp_path / "encoder", family))
    ours = pretrained.model.base_model.state_dict()
    for name, tensor in model.state_dict().items():
        assert name not in ours or torch.equal(ours[name], tensor), name
    assert len(ours.keys() & model.state_dict().keys()) > 0.9 * len(ours)


def test_mae_becomes_a_vit_that_computes_the_same(tmp_path):
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(**zoo.PLAIN, mask_ratio=0.0, decoder_hidden_size=16, decoder_num_hidden_layers=1,
                                       decoder_num_attention_heads=2, decoder_intermediate_size=16)  # fmt: skip
    mae = transformers.ViTMAEForPreTraining(config)
    pretrained = loaded(zoo.save(mae, tmp_path / "mae"))
    noise = torch.arange(16.0).repeat(2, 1)  # the order in which patches are kept
    with torch.no_grad():
        expected = mae.eval().vit(images_of(), noise=noise).last_hidden_state
        ours = pretrained.model.eval().vit(images_of()).last_hidden_state
    assert type(pretrained.model).__name__ == "ViTForImageClassification"
    assert torch.allclose(ours, expected, atol=1e-5)
    assert expected.std() > 0.1
    assert any("decoder" in note for note in pretrained.notes)


def test_distilled_deit_becomes_plain_deit(tmp_path):
    torch.manual_seed(0)
    teacher = transformers.DeiTForImageClassificationWithTeacher(zoo.config("deit"))
    folder = zoo.save(teacher, tmp_path / "deit", "deit")
    pretrained = loaded(folder)
    assert type(pretrained.model).__name__ == "DeiTForImageClassification"
    with torch.no_grad():
        expected = teacher.eval().deit(images_of()).last_hidden_state[:, 0]
    assert torch.allclose(features(pretrained.model, images_of()), expected, atol=1e-6)
    assert any("distillation_classifier" in note for note in pretrained.notes)


def test_distilled_levit_becomes_plain_levit(tmp_path):
    teacher = transformers.LevitForImageClassificationWithTeacher(zoo.config("levit"))
    teacher.classifier.batch_norm.running_mean.fill_(0.25)
    pretrained = loaded(zoo.save(teacher, tmp_path / "levit", "levit"))
    assert type(pretrained.model).__name__ == "LevitForImageClassification"
    assert pretrained.model.classifier.batch_norm.running_mean[0] == 0.25
    assert any("classifier_distill" in note for note in pretrained.notes)


@pytest.mark.parametrize(("family", "whole"), [("clip", "CLIPModel"), ("siglip", "SiglipModel")])
@pytest.mark.parametrize("alone", [False, True])
def test_the_image_tower_of_a_pair_becomes_a_classifier(family, whole, alone, tmp_path):
    torch.manual_seed(0)
    if alone:
        config = zoo.config(family).vision_config
        model = getattr(transformers, whole.replace("Model", "VisionModel"))(config)
        tower = model
    else:
        model = getattr(transformers, whole)(zoo.config(family))
        tower = model.vision_model
    pretrained = loaded(zoo.save(model, tmp_path / "pair", family))
    with torch.no_grad():
        expected = tower.eval()(images_of()).last_hidden_state
        ours = pretrained.model.eval().vision_model(images_of()).last_hidden_state
    assert torch.allclose(ours, expected, atol=1e-6)
    assert pretrained.image_size == (32, 32)
    assert any("text_model" in note for note in pretrained.notes) != alone


def test_siglip2_of_a_fixed_size_is_of_the_family_siglip(tmp_path):
    """As google/siglip2-base-patch16-224 is on the Hub, whose files transformers 4.49 wrote."""
    folder = tmp_path / "siglip2-base-patch16-224"
    zoo.save(transformers.SiglipModel(zoo.config("siglip")), folder, "siglip", size=32)
    edit_config(folder, torch_dtype="float32", transformers_version="4.49.0.dev0")
    processor = {
        "do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3,
        "image_processor_type": "SiglipImageProcessor", "image_std": [0.5] * 3, "processor_class": "SiglipProcessor",
        "resample": 2, "rescale_factor": 1 / 255, "size": {"height": 32, "width": 32},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    pretrained = loaded(folder)
    model = pretrained.model.train()
    assert (type(model).__name__, pretrained.image_size) == ("SiglipForImageClassification", (32, 32))
    for _ in range(2):  # at first the head is zero, and passes nothing back
        torch.nn.functional.cross_entropy(model(images_of()).logits, torch.tensor([0, 2])).backward()
        torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert model.vision_model.embeddings.patch_embedding.weight.grad.any()
    pretrained.save(tmp_path / "tuned")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "tuned")
    assert torch.allclose(again(images_of()).logits, model.eval()(images_of()).logits, atol=1e-6)
    saved = json.loads((tmp_path / "tuned" / "preprocessor_config.json").read_text())
    assert (saved["image_processor_type"], saved["size"]) == ("SiglipImageProcessor", {"height": 32, "width": 32})


# --- size --------------------------------------------------------------------------------------------------


def test_the_processor_is_fitted_to_the_model_s_own_size(folder):
    pretrained = loaded(folder)
    assert pretrained.image_size == (32, 32)
    assert dict(pretrained.processor.size)["height"] == 32


def test_a_size_that_the_patch_does_not_divide_is_an_error_with_the_two_nearest(folder):
    for init in ("pretrained", "random"):
        message = refusal(folder, image_size=44, init=init)
        assert "44x44 is not divisible by 8" in message and "40 and 48" in message
    assert "--image-size 8" in refusal(folder, image_size=5)


@pytest.mark.parametrize(
    ("family", "size"), [("vit", 48), ("clip", 48), ("hiera", 96), ("beit", 48), ("pvt", 128), ("swin", 64)]
)
def test_random_weights_take_another_size(family, size, tmp_path):
    folder = zoo.save(zoo.classifier(zoo.config(family)), tmp_path / family, family)
    pretrained = loaded(folder, image_size=size, init="random")
    assert pretrained.image_size == image_size_of(pretrained.model.config) == (size, size)
    assert pretrained.model(images_of(size)).logits.shape == (2, 3)
    assert any(f"{size}x{size} instead of" in note for note in pretrained.notes)
    assert any("all weights are random" in note for note in pretrained.notes)


def test_random_weights_are_the_same_in_every_process(folder):
    first, second = (loaded(folder, init="random").model.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_family_of_any_size_takes_it_with_its_weights(tmp_path):
    folder = zoo.save(zoo.classifier(zoo.config("convnext")), tmp_path / "convnext", "convnext", size=96)
    assert loaded(folder).image_size == (96, 96), "its processor says it, not its config"
    pretrained = loaded(folder, image_size=80)
    assert pretrained.image_size == (80, 80)
    assert pretrained.model.config.image_size == 80


def test_a_size_that_a_family_cannot_run_at_is_a_clear_error(tmp_path):
    folder = zoo.save(zoo.classifier(zoo.config("pvt")), tmp_path / "pvt", "pvt")
    assert "not divisible by 32" in refusal(folder, image_size=80, init="random")
    folder = zoo.save(zoo.classifier(zoo.config("hiera")), tmp_path / "hiera", "hiera")
    assert "72" in refusal(folder, image_size=72, init="random")


# --- a finished model --------------------------------------------------------------------------------------


def test_a_finished_model_is_loaded_as_it_is(folder):
    finished = load_finished(folder, "mine")
    model = finished.model
    plain = AutoModelForImageClassification.from_pretrained(folder)
    assert not model.training
    assert torch.equal(model(images_of()).logits, plain(images_of()).logits)
    assert finished.processor.to_dict()["image_processor_type"] == "ViTImageProcessor"
    assert not finished.retargeting and finished.retargeting.new == (32, 32)


def test_a_distilled_finished_model_keeps_both_heads(tmp_path):
    teacher = transformers.DeiTForImageClassificationWithTeacher(zoo.config("deit")).eval()
    model = load_finished(Path(zoo.save(teacher, tmp_path / "deit", "deit")), "deit").model
    assert torch.allclose(model(images_of()).logits, teacher(images_of()).logits, atol=1e-6)


def test_an_encoder_is_no_finished_model(tmp_path):
    transformers.ViTModel(zoo.config("vit")).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"classifier\.weight") as error:
        load_finished(tmp_path, "mine")
    assert "fine-tune it first" in str(error.value)


def test_a_finished_model_that_lacks_a_tensor_names_it(folder):
    edit(folder, lambda state: state.pop("vit.encoder.layer.0.output.dense.bias"))
    with pytest.raises(ModelError, match=r"vit\.encoder\.layer\.0\.output\.dense\.bias"):
        load_finished(folder, "mine")


@pytest.mark.real
def test_the_real_checkpoint():
    path = Path(__file__).parents[3] / "shared" / "data" / "vit-tiny-patch16-224"
    pretrained = loaded(path)
    plain = AutoModelForImageClassification.from_pretrained(path, dtype=torch.float32)
    assert torch.equal(features(pretrained.model, images_of(224)), features(plain, images_of(224)))
    assert pretrained.image_size == (224, 224)

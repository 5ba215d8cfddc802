"""timm's models: what is asked of every family of transformers' own, and what only the wrapper brings up."""

import json
import sys

import numpy as np
import pytest
import torch
from model import zoo
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageClassification, pipeline
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vitft import cli, tasks
from vitft.architectures.blocks import blocks, checkpoint_activations, layer_groups
from vitft.architectures.config import image_size_of
from vitft.architectures.families import family_of, vision_config
from vitft.errors import ModelError
from vitft.model.adapter import Adapter
from vitft.model.drop_path import DropPath, check_drop_path
from vitft.model.head_input import HeadAlone, features_of, head_input
from vitft.model.load import load_finished, load_for_training
from vitft.model.opening import open_checkpoint
from vitft.model.pixels import ImageProcess
from vitft.model.processor import made_size
from vitft.model.trainable import choose_trainable
from vitft.recipe.keys import ModelRecipe, OptimRecipe
from vitft.resolution.multisize import MultiSize
from vitft.resolution.retarget import Target
from vitft.resolution.tables import resample_table
from vitft.train.optim import parameter_groups

CLASSES = ["ant", "bee", "cat", "dog", "eel"]
TOKENS = {"img_size": 32, "patch_size": 8, "depth": 3, "embed_dim": 16, "num_heads": 2}

# name here: (architecture, arguments, number of blocks, position tables, whether the patch size can change)
MODELS = {
    "vit": ("vit_tiny_patch16_224", TOKENS, 3, 1, True),
    "no class in the table": ("deit3_small_patch16_224", TOKENS, 3, 1, True),
    "two tokens": ("deit_tiny_distilled_patch16_224", TOKENS, 3, 1, True),
    "pooled by attention": ("vit_base_patch16_siglip_224", TOKENS, 3, 1, True),
    "registers": ("vit_small_patch14_reg4_dinov2", TOKENS, 3, 1, True),
    "rotary and table": ("eva02_tiny_patch14_224", TOKENS, 3, 1, True),
    "rotary": ("vit_small_patch16_dinov3", TOKENS, 3, 0, True),
    "learned rotary": ("vit_small_patch16_rope_mixed_224", TOKENS, 3, 0, True),
    "offsets": ("beit_base_patch16_224", TOKENS, 3, 3, True),
    "windows": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2], "window_size": 4},
        3, 0, False,
    ),
    "convnext": ("convnext_tiny", {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 2]}, 5, 0, False),
    "resnet": ("resnet18", {"layers": [1, 1, 1, 2], "channels": [8, 8, 16, 16]}, 5, 0, False),
}  # fmt: skip
FREE = {"convnext", "resnet"}
PATCHES = [kind for kind, (*_, can) in MODELS.items() if can]
WITH_TABLES = [kind for kind, (*_, count, _) in MODELS.items() if count]
FREE_SIZE = (64, 64)

needs_timm = pytest.mark.timm
every_kind = pytest.mark.parametrize("kind", MODELS)


def classifier(kind, **changes):
    """A random model of timm in its wrapper, whose tables are anything but constant."""
    from transformers import TimmWrapperConfig

    architecture, arguments, *_ = MODELS[kind]
    config = TimmWrapperConfig(architecture=architecture, model_args={**arguments, **changes})
    config.num_labels, config.label_names = 5, CLASSES
    model = zoo.classifier(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 or kind not in FREE:
                parameter.normal_(std=0.3)
    return model


def checkpoint(kind, folder, **changes):
    """Write a tiny model as transformers does: timm's processor has no file of its own."""
    model = classifier(kind, **changes)
    if kind in FREE:
        model.config.pretrained_cfg = {"input_size": [3, *FREE_SIZE], "mean": [0.5] * 3, "std": [0.5] * 3}
    model.save_pretrained(folder / "timm")
    return model, str(folder / "timm")


def plain(folder):
    """The model as plain transformers loads it, which must find every tensor and no other."""
    model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


def images_of(size, count=2):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def logits_of(model, size):
    with torch.no_grad():
        output = model(images_of(size))
    return getattr(output, "logits", output)


def without_wrapper(folder, kind, **changes):
    """The model as timm alone builds it, with the tensors of a saved folder; its buffers come from nowhere else."""
    import timm

    architecture, arguments, *_ = MODELS[kind]
    model = timm.create_model(architecture, num_classes=5, **{**arguments, **changes}).eval()
    state = load_file(folder / "model.safetensors")
    model.load_state_dict({name.removeprefix("timm_model."): tensor for name, tensor in state.items()})
    return model


# --- another size ------------------------------------------------------------------------------------------


@needs_timm
@pytest.mark.parametrize("size", [(96, 96), (64, 96), (96, 64)], ids=str)
@every_kind
def test_a_resized_checkpoint_is_a_plain_one(kind, size, tmp_path):
    _, folder = checkpoint(kind, tmp_path)
    out = tmp_path / "out"
    result = tasks.resize(folder, out, image_size=size)
    model = plain(out)
    assert image_size_of(model.config, made_size(AutoImageProcessor.from_pretrained(out))) == size
    logits = logits_of(model, size)
    assert logits.std() > 1e-4, "a model that says the same of all images proves nothing"
    assert torch.allclose(
        logits, logits_of(load_finished(tmp_path / "timm", "mine", Target(size)).model, size), atol=1e-5
    )
    changes = {} if kind in FREE else {"img_size": size}
    assert torch.allclose(logits, logits_of(without_wrapper(out, kind, **changes), size), atol=1e-5)

    record = json.loads((out / "resize.json").read_text())
    assert record["image_size"]["after"] == list(size) and record["method"] == "bicubic"
    assert len(record["tensors"]) == MODELS[kind][3]
    assert all(each["method"] == "bicubic" for each in record["tensors"])
    assert any("ViTImageProcessor" in line for line in result.lines)
    assert any(
        ("left out of config.json" if kind in FREE else "has no pretrained_cfg") in line for line in result.lines
    )


@needs_timm
@every_kind
def test_pipeline_runs_what_was_resized_as_vitft_does(kind, tmp_path):
    _, folder = checkpoint(kind, tmp_path)
    tasks.resize(folder, tmp_path / "out", image_size=(64, 96))
    zoo.photo(70, 90).save(tmp_path / "photo.png")
    theirs = pipeline("image-classification", model=str(tmp_path / "out"), device="cpu")
    assert type(theirs.image_processor).__name__.startswith("ViTImageProcessor")
    (ours,) = tasks.predict(tmp_path / "out", [tmp_path / "photo.png"], device="cpu", precision="fp32")
    expected = {each["label"]: each["score"] for each in theirs(str(tmp_path / "photo.png"))}
    assert expected.keys() == set(CLASSES)
    assert {each["label"]: each["score"] for each in ours["predictions"]} == pytest.approx(expected, abs=2e-3)


@needs_timm
@pytest.mark.parametrize("size", [(48, 48), (16, 16), (24, 64)], ids=str)
@pytest.mark.parametrize("kind", [kind for kind in WITH_TABLES if kind != "offsets"])
def test_timm_s_own_way_finds_the_same(kind, size, tmp_path):
    model, folder = checkpoint(kind, tmp_path)
    tasks.resize(folder, tmp_path / "out", image_size=size)
    theirs = model.timm_model
    theirs.set_input_size(size)
    assert torch.allclose(logits_of(plain(tmp_path / "out"), size), logits_of(theirs, size), atol=1e-4)
    other = tasks.resize(folder, tmp_path / "other", image_size=size, method="corners")
    assert not torch.allclose(logits_of(plain(other.folder), size), logits_of(theirs, size), atol=1e-4)


@needs_timm
def test_timm_s_own_way_with_offsets_is_called_geometric(tmp_path):
    model, folder = checkpoint("offsets", tmp_path)
    result = tasks.resize(folder, tmp_path / "out", image_size=(64, 64), method="geometric")
    assert {each["method"] for each in result.record["tensors"]} == {"geometric"}
    before = logits_of(model, (32, 32))
    theirs = model.timm_model
    theirs.set_input_size((64, 64))
    ours = plain(tmp_path / "out")
    name = "blocks.0.attn.relative_position_bias_table"
    assert torch.allclose(ours.timm_model.get_parameter(name), theirs.get_parameter(name), atol=1e-3)
    assert torch.equal(ours.timm_model.get_parameter(name)[-3:], load_file(tmp_path / "timm" / "model.safetensors")[
        f"timm_model.{name}"
    ][-3:])  # fmt: skip
    assert before.shape == (2, 5)


@needs_timm
def test_tokens_without_a_place_keep_their_positions(tmp_path):
    model, folder = checkpoint("two tokens", tmp_path)
    result = tasks.resize(folder, tmp_path / "out", image_size=(48, 64), method="bilinear")
    table = plain(tmp_path / "out").timm_model.pos_embed
    before = model.timm_model.pos_embed
    assert torch.equal(table, resample_table(before, (4, 4), (6, 8), prefix=2, method="bilinear"))
    assert torch.equal(table[:, :2], before[:, :2])
    assert result.record["fixed_tokens"] == 2
    assert any("4x4 -> 6x8 (bilinear)" in line for line in result.lines)


@needs_timm
@pytest.mark.parametrize("kind", PATCHES)
def test_larger_patches_of_an_enlarged_image_give_the_same_answer(kind, tmp_path):
    model, folder = checkpoint(kind, tmp_path)
    tasks.resize(folder, tmp_path / "out", image_size=(64, 64), patch_size=16)
    resized = plain(tmp_path / "out")
    assert vision_config(resized.config).patch_size == 16
    patches = torch.randn(2, 3, 4, 8, 4, 8, generator=torch.Generator().manual_seed(0))
    small = patches.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, 8, 8)
    large = torch.nn.functional.interpolate(small, size=(16, 16), mode="bilinear")
    large = large.reshape(2, 4, 4, 3, 16, 16).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(patches.reshape(2, 3, 32, 32)).logits
        assert torch.allclose(resized(large).logits, expected, atol=1e-3)


@needs_timm
@pytest.mark.parametrize("kind", ["vit", "offsets", "rotary and table", "windows", "convnext"])
def test_one_model_at_several_sizes(kind, tmp_path):
    checkpoint(kind, tmp_path)
    finished = load_finished(tmp_path / "timm", "mine")
    own, other = finished.retargeting.new, (96, 96)
    several = MultiSize(finished.model, own, [other, own], "bicubic")
    expected = load_finished(tmp_path / "timm", "mine", Target(other)).model
    assert torch.allclose(logits_of(several, other), logits_of(expected, other), atol=1e-5)
    several(images_of(other)).logits.square().sum().backward()
    for name, parameter in finished.model.named_parameters():
        for table in family_of(finished.model.config).tables:
            if table.grid_of(name, vision_config(finished.model.config), own):
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


# --- as other families -------------------------------------------------------------------------------------


def trained(kind, tmp_path, **changes):
    _, folder = checkpoint(kind, tmp_path, **changes)
    return load_for_training(ModelRecipe(checkpoint=folder), ["a", "b", "c"], "squash")


@needs_timm
@every_kind
def test_only_the_head_is_new(kind, tmp_path):
    model, folder = checkpoint(kind, tmp_path)
    pretrained = trained(kind, tmp_path)
    ours, before = pretrained.model.state_dict(), model.state_dict()
    assert pretrained.head and not any(ours[name].any() for name in pretrained.head)
    assert all(torch.equal(ours[name], before[name]) for name in before if name not in pretrained.head)
    assert pretrained.model.config.label_names == ["a", "b", "c"]
    name = next(name for name, _ in model.named_parameters() if name.endswith(".weight"))
    path = tmp_path / "timm" / "model.safetensors"
    state = load_file(path)
    del state[name]
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="newly initialised"):
        load_for_training(ModelRecipe(checkpoint=folder), ["a", "b", "c"], "squash")


@needs_timm
@every_kind
def test_depths_go_from_the_patches_through_the_blocks_to_the_head(kind, tmp_path):
    pretrained = trained(kind, tmp_path)
    model, found = pretrained.model, blocks(pretrained.model)
    assert len(found) == MODELS[kind][2]
    groups = layer_groups(model, pretrained.head)
    assert set(groups.values()) == set(range(len(found) + 2))
    for number, (name, _) in enumerate(found, start=1):
        assert {groups[p] for p in groups if p.startswith(f"{name}.")} == {number}
    assert {groups[name] for name in pretrained.head} == {len(found) + 1}
    choose_trainable(model, "head", pretrained.head)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(pretrained.head)


@needs_timm
@pytest.mark.parametrize("kind", ["vit", "offsets"])
def test_layers_and_their_rates_are_those_of_timm_but_for_the_last_norm(kind, tmp_path):
    from timm.optim import param_groups_layer_decay

    pretrained = trained(kind, tmp_path)
    model = pretrained.model
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    theirs, ours = (
        {name_of[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
        for groups in (
            param_groups_layer_decay(model.timm_model, layer_decay=0.5),
            parameter_groups(model, OptimRecipe(layer_decay=0.5), pretrained.head),
        )
    )
    # timm counts a ViT's last norm with the last block; BEiT's own code, and vitft, count it with the head.
    norm = {"timm_model.norm.weight": 1.0, "timm_model.norm.bias": 1.0} if kind == "vit" else {}
    assert ours == theirs | norm


@needs_timm
@pytest.mark.parametrize("kind", ["vit", "windows"])
def test_its_attention_is_trained_or_adapted(kind, tmp_path):
    pretrained = trained(kind, tmp_path)
    adapter = Adapter(pretrained.model, ModelRecipe(train="lora", lora_rank=2), seed=0)
    assert len(adapter.layers) == MODELS[kind][2] and all(name.endswith(".attn.qkv") for name in adapter.layers)
    images = images_of(pretrained.image_size)
    with torch.no_grad():
        for name in (name for name, _ in pretrained.model.named_parameters() if "lora_" in name):
            pretrained.model.get_parameter(name).add_(torch.randn(pretrained.model.get_parameter(name).shape))
        changed = pretrained.model.eval()(images).logits
        torch.testing.assert_close(adapter.merged(pretrained.model)(images).logits, changed, rtol=0, atol=1e-5)
    fresh = trained(kind, tmp_path / "fresh")
    choose_trainable(fresh.model, "attention", fresh.head)
    names = {name for name, p in fresh.model.named_parameters() if p.requires_grad} - set(fresh.head)
    assert names == {name for name, _ in fresh.model.named_parameters() if ".attn." in name}


@needs_timm
@every_kind
def test_the_head_on_its_features_gives_the_logits(kind, tmp_path):
    pretrained = trained(kind, tmp_path)
    model = pretrained.model.eval()
    for name in pretrained.head:
        torch.nn.init.normal_(model.get_parameter(name))
    if kind == "two tokens":
        with pytest.raises(ModelError, match=r"its head is 2 modules \(timm_model.head, timm_model.head_dist\)"):
            head_input(model, pretrained.head, pretrained.image_size)
        return
    read = head_input(model, pretrained.head, pretrained.image_size)
    images = images_of(pretrained.image_size)
    with torch.no_grad():
        expected, logits = model(images).logits, HeadAlone(model, read.module)(features_of(model, read.module, images))
    torch.testing.assert_close(logits.logits, expected, rtol=0, atol=1e-5)


@needs_timm
@every_kind
def test_drop_path_is_ours(kind, tmp_path):
    """With the last block's branches dropped for every sample, it passes on what it was given."""
    pretrained = trained(kind, tmp_path, drop_path_rate=0.2)
    assert any("not the checkpoint's drop_path_rate of 0.2" in note for note in pretrained.notes)
    model = pretrained.model
    if kind == "resnet":
        with pytest.raises(ModelError, match="not supported for the family"):
            check_drop_path(model)
        return
    DropPath(model, 0.9999, seed=0).sample_indices = torch.arange(2)
    seen = {}
    blocks(model)[-1][1].register_forward_hook(lambda _, given, got: seen.update(given=given[0], got=got))
    with torch.no_grad():
        model.train()(images_of(pretrained.image_size))
    assert torch.allclose(seen["got"], seen["given"], atol=1e-5)


@needs_timm
def test_blocks_that_forget_their_activations_learn_the_same(tmp_path):
    gradients = []
    for forget in (False, True):
        pretrained = trained("vit", tmp_path)
        drop_path = DropPath(pretrained.model, 0.5, seed=0)
        drop_path.sample_indices = torch.arange(4)
        with torch.no_grad():
            pretrained.model.timm_model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
        if forget:
            checkpoint_activations(pretrained.model)
        pretrained.model.train()(images_of((32, 32), 4)).logits.square().sum().backward()
        gradients.append(pretrained.model.timm_model.pos_embed.grad)
    assert torch.allclose(*gradients, atol=1e-6) and gradients[0].any()


# --- files -------------------------------------------------------------------------------------------------


def as_timm_saves(folder, **described):
    """Make a folder what timm's own tools write: no model_type, no classes, names without the wrapper's."""
    values = json.loads((folder / "config.json").read_text())
    kept = {key: values[key] for key in ("architecture", "num_classes", "model_args")}
    kept["model_args"] |= {"num_classes": 5, "in_chans": 3}
    (folder / "config.json").write_text(json.dumps({**kept, "pretrained_cfg": {"num_classes": 5, **described}}))
    state = {
        name.removeprefix("timm_model."): tensor for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


@needs_timm
def test_a_file_of_timm_itself_is_read_and_resized(tmp_path):
    model, folder = checkpoint("vit", tmp_path)
    as_timm_saves(tmp_path / "timm", input_size=[3, 32, 32], mean=[0.4] * 3, std=[0.2] * 3, crop_pct=0.8)
    assert torch.equal(
        load_for_training(ModelRecipe(checkpoint=folder), ["a"], "squash").model.timm_model.pos_embed,
        model.timm_model.pos_embed,
    )
    tasks.resize(folder, tmp_path / "out", image_size=(64, 64))
    assert (
        load_file(tmp_path / "out" / "model.safetensors").keys()
        == load_file(tmp_path / "timm" / "model.safetensors").keys()
    )
    processor = AutoImageProcessor.from_pretrained(tmp_path / "out")
    assert (list(processor.image_mean), list(processor.image_std)) == ([0.4] * 3, [0.2] * 3)
    assert dict(processor.size) == {"shortest_edge": 80}
    assert np.asarray(processor(zoo.photo(90, 50))["pixel_values"][0]).shape == (3, 64, 64)
    assert logits_of(plain(tmp_path / "out"), (64, 64)).shape == (2, 5)


@needs_timm
def test_an_encoder_without_a_head_is_trained_and_resized(tmp_path):
    _, folder = checkpoint("registers", tmp_path)
    as_timm_saves(tmp_path / "timm", input_size=[3, 32, 32])
    config = tmp_path / "timm" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_classes": 0}))
    path = tmp_path / "timm" / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if not k.startswith("head")}, path, metadata={"format": "pt"})
    tasks.resize(folder, tmp_path / "out", image_size=(48, 48))
    pretrained = load_for_training(ModelRecipe(checkpoint=str(tmp_path / "out")), ["a", "b"], "squash")
    assert pretrained.image_size == (48, 48) and logits_of(pretrained.model, (48, 48)).shape == (2, 2)
    with pytest.raises(ModelError, match="fine-tune it first"):
        load_finished(tmp_path / "timm", "mine")


@needs_timm
@pytest.mark.parametrize(
    "described",
    [
        {"crop_pct": 0.8, "interpolation": "bicubic", "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4]},
        {"crop_pct": 1.0, "interpolation": "bilinear"},
        {"crop_pct": 1.0, "crop_mode": "squash"},
        {"crop_pct": 0.8, "crop_mode": "squash", "interpolation": "lanczos"},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(90, 140), (140, 90), (20, 24)])
def test_the_processor_does_what_timm_s_transforms_do(described, shape, tmp_path):
    from timm.data import create_transform, resolve_data_config
    from transformers.utils.import_utils import is_torchvision_greater_or_equal

    checkpoint("vit", tmp_path)
    described = {"input_size": [3, 32, 32], **described}
    as_timm_saves(tmp_path / "timm", **described)
    processor = open_checkpoint(tmp_path / "timm", "mine").processor
    expected = create_transform(**resolve_data_config(pretrained_cfg=described), is_training=False)(zoo.photo(*shape))
    ours = torch.as_tensor(np.asarray(processor(zoo.photo(*shape))["pixel_values"][0]))
    std = torch.tensor(described.get("std", [0.229, 0.224, 0.225]))[:, None, None]
    levels = (ours - expected).abs() * std * 255  # of 255: another library resizes the image
    # transformers cannot use Lanczos's filter with torchvision below 0.27, and takes the bicubic one instead.
    is_bicubic = described.get("interpolation") == "lanczos" and not is_torchvision_greater_or_equal("0.27")
    assert levels.max() <= (2.01 if is_bicubic else 1.01)


@needs_timm
def test_a_crop_that_no_processor_can_make_is_said(tmp_path):
    checkpoint("vit", tmp_path, img_size=[32, 48])
    as_timm_saves(tmp_path / "timm", input_size=[3, 32, 48], crop_pct=0.9)
    opened = open_checkpoint(tmp_path / "timm", "mine")
    assert opened.image_size == (32, 48)
    assert any("squashed to 32x48" in note for note in opened.notes)
    assert ImageProcess(opened.processor, (32, 48))(zoo.photo(50, 50)).shape == (3, 32, 48)


# --- the commands ------------------------------------------------------------------------------------------


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        cli.main([str(each) for each in arguments])
    assert ended.value.code == 0


@needs_timm
@pytest.mark.parametrize("kind", ["vit", "resnet"])
def test_fine_tuning_evaluation_and_prediction(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    _, folder = checkpoint(kind, tmp_path)
    run("finetune", "--dataset", "builtin:digits", "--model", folder, "--image-size", "64", "--epochs", "1",
        "--batch-size", "32", "--max-train-samples", "96", "--output-dir", tmp_path, "--name", "digits",
        "--device", "cpu", "--set", "data.workers=0")  # fmt: skip
    done = tmp_path / "digits"
    results = json.loads((done / "results.json").read_text())
    assert results["test"]["count"] == 360
    assert image_size_of(
        plain(done / "model").config, made_size(AutoImageProcessor.from_pretrained(done / "model"))
    ) == (64, 64)
    capsys.readouterr()
    run("evaluate", done, "--dataset", "builtin:digits", "--device", "cpu", "--format", "json")
    again = json.loads(capsys.readouterr().out)
    assert results["test"]["top1"] == pytest.approx(again["scores"]["top1"] if "scores" in again else again["top1"])
    zoo.photo(70, 90).save(tmp_path / "photo.png")
    run("predict", done, tmp_path / "photo.png", "--device", "cpu", "--format", "jsonl", "--image-size", "96")
    (line,) = capsys.readouterr().out.splitlines()
    tasks.resize(done, tmp_path / "larger", image_size=(96, 96))
    theirs = pipeline("image-classification", model=str(tmp_path / "larger"), device="cpu", top_k=1)
    assert json.loads(line)["predictions"][0]["score"] == pytest.approx(
        theirs(str(tmp_path / "photo.png"))[0]["score"], abs=2e-3
    )


# --- what is refused ---------------------------------------------------------------------------------------


def refusal(folder, out, **target):
    with pytest.raises(ModelError) as error:
        tasks.resize(folder, out, **target)
    assert not out.exists()
    return str(error.value)


@needs_timm
def test_what_cannot_be_done_is_said(tmp_path):
    _, folder = checkpoint("vit", tmp_path)
    out = tmp_path / "out"
    assert "40 and 48" in refusal(folder, out, image_size=(44, 44))
    assert "the nearest is 8" in refusal(folder, out, image_size=(5, 5))
    assert "--patch-size 8" in refusal(folder, out, patch_size=12)
    assert "already has this size" in refusal(folder, out, image_size=(32, 32))
    assert "no table of windows" in refusal(folder, out, image_size=(48, 48), window_size=7)
    config = tmp_path / "timm" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"architecture": "vit_of_next_year"}))
    assert "Unknown model" in refusal(folder, out, image_size=(48, 48))
    config.write_text(json.dumps(values | {"architecture": "hf-hub:someone/else"}))
    assert "sends timm elsewhere: hf-hub:" in refusal(folder, out, image_size=(48, 48))
    config.write_text(json.dumps(values | {"model_args": {**TOKENS, "checkpoint_path": "/other.bin"}}))
    assert "sends timm elsewhere: checkpoint_path" in refusal(folder, out, image_size=(48, 48))
    config.write_text(json.dumps(values | {"model_args": {**TOKENS, "img_size": 40}}))
    assert "nothing was resized" in refusal(folder, out, image_size=(48, 48))


@needs_timm
@pytest.mark.parametrize(
    ("architecture", "arguments", "said"),
    [
        ("cait_xxs24_224", {**TOKENS, "depth": 2}, "timm cannot set another size"),
        (
            "hiera_tiny_224",
            {"img_size": [64, 64], "embed_dim": 8, "stages": [1, 1, 1, 1]},
            "timm cannot set another size",
        ),
        ("vit_relpos_small_patch16_224", TOKENS, "rel_coords_log depends on the image size"),
    ],
)
def test_an_architecture_without_a_known_way_keeps_its_size(architecture, arguments, said, tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS, "other", (architecture, arguments, 0, 0, False))
    _, folder = checkpoint("other", tmp_path)
    message = refusal(folder, tmp_path / "out", image_size=(96, 96))
    assert said in message and architecture in message
    assert logits_of(load_finished(tmp_path / "timm", "mine").model, image_size_of(plain(folder).config)).shape == (
        2,
        5,
    )


@needs_timm
def test_windows_that_would_shrink_are_refused(tmp_path):
    _, folder = checkpoint("windows", tmp_path)
    message = refusal(folder, tmp_path / "out", image_size=(16, 16))
    assert "relative_position_bias_table" in message and "16x16 does not suit" in message


def test_without_timm_it_is_said_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "timm_wrapper", "architecture": "resnet18"}))
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"pip install 'vitft\[timm\]'") as error:
        open_checkpoint(tmp_path, "mine")
    assert "cannot be imported" in str(error.value)


def test_a_torchvision_that_does_not_fit_torch_is_named(tmp_path, monkeypatch):
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )  # as a torchvision for another torch fails
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {}}))
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="torchvision that fits torch") as error:
        open_checkpoint(tmp_path, "mine")
    assert "torchvision::nms" in str(error.value) and "vitft[timm]" in str(error.value)

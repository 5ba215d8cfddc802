"""Every family that vitft names: from a tiny random checkpoint to a folder that plain transformers runs."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from model import zoo
from transformers import AutoModelForImageClassification, pipeline

from vitft import tasks
from vitft.architectures import families
from vitft.architectures.blocks import blocks, layer_groups
from vitft.errors import ModelError
from vitft.model.drop_path import DropPath
from vitft.model.load import load_for_training
from vitft.model.trainable import freeze_unused
from vitft.recipe.keys import ModelRecipe

CLASSES = ["ant", "bee", "cat"]


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    """A checkpoint of the family, loaded for training, with a head that says something."""
    family = request.param
    folder = zoo.save(zoo.classifier(zoo.config(family)), tmp_path_factory.mktemp(family) / "checkpoint", family)
    pretrained = load_for_training(ModelRecipe(checkpoint=folder), CLASSES, "squash")
    model, size = pretrained.model, pretrained.image_size
    torch.manual_seed(0)
    images = torch.randn(3, 3, *size)
    assert model.eval()(images).logits.tolist() == [[0.0] * 3] * 3, "a zeroed head says nothing"
    with torch.no_grad():
        for name in pretrained.head:
            model.get_parameter(name).normal_()
        spread = model(images).logits.std()
        for name in pretrained.head:
            model.get_parameter(name).div_(spread)
    return SimpleNamespace(family=family, pretrained=pretrained, model=model, images=images)


every_family = pytest.mark.parametrize("made", zoo.CONFIGS, indirect=True)


def test_the_zoo_holds_every_family_of_the_table():
    assert set(zoo.CONFIGS) == set(families.FAMILIES)


@every_family
def test_blocks_are_found_from_input_to_output(made):
    found = blocks(made.model)
    assert len(found) == zoo.CONFIGS[made.family][2]
    entered = []
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for name, block in found:
            hooks.enter_context(removable(block.register_forward_pre_hook(lambda *_, n=name: entered.append(n))))
        made.model(made.images)
    assert entered == [name for name, _ in found]


@every_family
def test_a_block_depends_on_no_parameter_of_greater_depth(made):
    model, found = made.model, blocks(made.model)
    groups = layer_groups(model, made.pretrained.head)
    assert set(groups) == {name for name, _ in model.named_parameters()}
    assert set(groups.values()) == set(range(len(found) + 2))
    for number, (name, _) in enumerate(found, start=1):
        inside = {groups[p] for p in groups if p.startswith(f"{name}.")}
        assert inside == {number}, name
    before = outputs(model, found, made.images)
    for number in (0, len(found) // 2, len(found)):
        state = {name: p.detach().clone() for name, p in model.named_parameters()}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if groups[name] > number:
                    parameter.add_(1.0)
        after = outputs(model, found, made.images)
        model.load_state_dict(state, strict=False)
        assert all(torch.equal(a, b) for a, b in zip(before[:number], after[:number], strict=True))
        assert not torch.equal(before[-1], after[-1]), "something must have changed at the end"


@every_family
def test_exactly_the_parameters_that_no_image_reaches_are_frozen(made):
    model = made.model
    unused = freeze_unused(model, made.pretrained.image_size)
    with torch.no_grad():
        before = model.eval()(made.images).logits
        for name in unused:
            model.get_parameter(name).add_(1.0)
        assert torch.equal(model(made.images).logits, before)
    model.train()(made.images).logits.square().sum().backward()
    learning = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad(set_to_none=True)
    model.eval()
    assert all(grad is not None for grad in learning.values())
    expected = {"dinov2": "mask_token", "dinov2_with_registers": "mask_token", "clip": "post_layernorm",
                "metaclip_2": "post_layernorm", "siglip": "head."}.get(made.family)  # fmt: skip
    assert bool(unused) == bool(expected)
    assert all(expected in name for name in unused)


@every_family
def test_what_is_saved_runs_in_plain_transformers(made, tmp_path, monkeypatch):
    made.pretrained.save(tmp_path / "model")
    plain, info = AutoModelForImageClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert plain.config.id2label == dict(enumerate(CLASSES))
    with torch.no_grad():
        assert torch.allclose(plain(made.images).logits, made.model.eval()(made.images).logits, atol=1e-5)

    paths = [tmp_path / "wide.png", tmp_path / "tall.png"]
    zoo.photo(50, 90, seed=1).save(paths[0])
    zoo.photo(100, 70, seed=2).save(paths[1])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    ours = tasks.predict(tmp_path / "model", paths, device="cpu", precision="fp32")
    theirs = pipeline("image-classification", model=plain, image_processor=str(tmp_path / "model"), device="cpu")(
        [str(path) for path in paths]
    )
    for mine, other in zip(ours, theirs, strict=True):
        expected = {each["label"]: each["score"] for each in other}
        assert {each["label"]: each["score"] for each in mine["predictions"]} == pytest.approx(expected, abs=2e-3)


@every_family
def test_sizes_are_free_exactly_where_no_tensor_depends_on_them(made):
    config = made.model.config
    vision = getattr(config, "vision_config", config)
    free = families.FAMILIES[made.family].any_size
    shapes = {name: tensor.shape for name, tensor in made.model.state_dict().items()}
    if hasattr(vision, "image_size"):
        other = zoo.config(made.family, num_labels=3)
        vision = getattr(other, "vision_config", other)
        size = vision.image_size
        vision.image_size = 2 * size if isinstance(size, int) else [2 * side for side in size[:2]]
        grown = {name: tensor.shape for name, tensor in zoo.classifier(other).state_dict().items()}
        if free or made.family not in ("swin", "swinv2", "donut-swin"):  # windows may cap the tables' size
            assert (grown == shapes) == free
    if free:
        with torch.no_grad():
            assert made.model(torch.randn(1, 3, 96, 96)).logits.shape == (1, 3)


@every_family
def test_drop_path_leaves_out_a_whole_block(made):
    """With the last block's branches dropped for every sample, it passes on what it was given."""
    has_none = {
        "resnet",
        "regnet",
        "mobilevit",
        "mobilevitv2",
        "mobilenet_v1",
        "mobilenet_v2",
        "efficientnet",
        "textnet",
    }
    if made.family in has_none:
        with pytest.raises(ModelError, match="not supported for the family"):
            DropPath(made.model, 0.5, seed=0)
        return
    model = zoo.classifier(made.model.config)
    drop_path = DropPath(model, 0.9999, seed=0)
    drop_path.sample_indices = torch.arange(3)
    _, last = blocks(model)[-1]
    seen = {}
    last.register_forward_hook(lambda _, given, got: seen.update(given=given[0], got=got))
    with torch.no_grad():
        model.train()(made.images)
    got = seen["got"][0] if isinstance(seen["got"], tuple) else seen["got"]
    assert torch.allclose(got, seen["given"], atol=1e-6)


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip", "swin", "beit"])
def test_a_family_without_an_entry_is_read_by_rule(family, monkeypatch):
    model = zoo.classifier(zoo.config(family))
    known = [name for name, _ in blocks(model)]
    monkeypatch.setattr(families, "FAMILIES", {})
    assert [name for name, _ in blocks(model)] == known


def outputs(model, blocks, images):
    """The output of each block and the logits."""
    made = []
    with contextlib.ExitStack() as hooks, torch.no_grad():
        for _, block in blocks:
            hook = block.register_forward_hook(
                lambda _, given, got: made.append(got[0] if isinstance(got, tuple) else got)
            )
            hooks.enter_context(removable(hook))
        logits = model(images).logits
    return [each.clone() for each in made] + [logits]


@contextlib.contextmanager
def removable(handle):
    yield
    handle.remove()

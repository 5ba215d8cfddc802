"""A model at several sizes: another size computes what a checkpoint of that size would, and teaches one table."""

import pytest
import torch
from model import zoo
from resolution.checkpoints import SQUARE, WITH_TABLES, checkpoint

from vitft.architectures.blocks import checkpoint_activations
from vitft.architectures.families import FAMILIES
from vitft.errors import ModelError
from vitft.model.drop_path import DropPath
from vitft.model.load import load_finished
from vitft.resolution.multisize import MultiSize
from vitft.resolution.retarget import Target, check_runs

FAMILIES_WITH_SIZES = sorted(WITH_TABLES | {"swin", "swinv2", "donut-swin", "convnext", "segformer"})


def other_size(family):
    """A size that is not the tiny model's own; hiera and PVT know no smaller one than that."""
    side = (SQUARE | {"convnext": 96, "segformer": 96}).get(family, 16)
    return side, side


def images_of(size, count=4):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def made(family, tmp_path):
    _, folder = checkpoint(family, tmp_path)
    finished = load_finished(tmp_path / family, "mine")
    return folder, finished.model.train(), finished.retargeting.new


@pytest.mark.parametrize("family", FAMILIES_WITH_SIZES)
def test_another_size_computes_what_a_checkpoint_of_that_size_does(family, tmp_path):
    _, model, own = made(family, tmp_path)
    size = other_size(family)
    several = MultiSize(model, own, [size, own], "bicubic")
    expected = load_finished(tmp_path / family, "mine", Target(size)).model
    images = images_of(size)
    torch.manual_seed(1)
    logits = several(images).logits
    torch.manual_seed(1)
    assert torch.allclose(logits, expected.train()(images).logits, atol=1e-5)
    assert several.model is model
    assert [name for name, _ in several.named_parameters()] == [f"model.{name}" for name, _ in model.named_parameters()]
    assert several.state_dict().keys() == {f"model.{name}" for name in model.state_dict()}


@pytest.mark.parametrize("family", sorted(WITH_TABLES))
def test_the_gradient_of_another_size_reaches_the_one_table(family, tmp_path):
    """As much as the table resampled by hand would get: a finite difference along a random direction."""
    _, model, own = made(family, tmp_path)
    size = other_size(family)
    model.train(family == "levit")  # which keeps its biases from call to call unless it trains
    several = MultiSize(model.double(), own, [size], "bicubic")
    images = images_of(size, 2).double()
    several(images).logits.square().sum().backward()
    parameters = {name: p for name, p in model.named_parameters() if p.grad is not None}
    named = [name for name in parameters if _is_table(family, name, model, own)]
    assert any(parameters[name].grad.abs().sum() > 0 for name in named)
    assert all(parameters[name].grad.shape == parameters[name].shape for name in named)
    name = named[0]
    direction = torch.randn(parameters[name].shape, generator=torch.Generator().manual_seed(2)).double()
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            parameters[name].add_(direction, alpha=step)
            values.append(float(several(images).logits.square().sum()))
            parameters[name].sub_(direction, alpha=step)
    slope = float((parameters[name].grad * direction).sum())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=2e-2)


def _is_table(family, name, model, size):
    config = getattr(model.config, "vision_config", model.config)
    return any(table.grid_of(name, config, size) for table in FAMILIES[family].tables)


@pytest.mark.parametrize("family", ["vit", "beit", "swin", "levit"])
def test_drop_path_and_its_draws_hold_at_every_size(family, tmp_path):
    _, model, own = made(family, tmp_path)
    drop_path = DropPath(model, 0.9, seed=0)
    size = other_size(family)
    several = MultiSize(model, own, [size], "bicubic")
    images = images_of(size)
    whole = several(images).logits
    drop_path.sample_indices = torch.tensor([3, 1, 4, 15])
    dropped = several(images).logits
    assert not torch.allclose(dropped, whole)
    assert torch.allclose(several(images).logits, dropped, atol=1e-6), "a function of the positions alone"
    drop_path.sample_indices = torch.tensor([9, 2, 6, 5])
    assert not torch.allclose(several(images).logits, dropped)


@pytest.mark.parametrize(("family", "which"), [("vit", "half"), ("beit", "blocks"), ("swin", "blocks")])
def test_gradient_checkpointing_changes_no_gradient_at_any_size(family, which, tmp_path):
    gradients = []
    for way in ("off", which):
        _, model, own = made(family, tmp_path / way)
        checkpoint_activations(model, way)
        several = MultiSize(model, own, [other_size(family)], "bicubic")
        recomputing = {sum(getattr(each, "gradient_checkpointing", False) for each in twin.modules())
                       for twin in (model, several._twins[other_size(family)].network)}  # fmt: skip
        assert len(recomputing) == 1
        several(images_of(other_size(family))).logits.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-5), name


def test_running_statistics_are_one(tmp_path):
    _, model, own = made("levit", tmp_path)
    several = MultiSize(model, own, [(96, 96)], "bicubic")
    before = {name: b.clone() for name, b in model.named_buffers() if "running" in name}
    several(images_of((96, 96)))
    assert all(not torch.equal(model.get_buffer(name), b) for name, b in before.items())


def test_evaluation_mode_reaches_every_size(tmp_path):
    _, model, own = made("levit", tmp_path)
    several = MultiSize(model, own, [(96, 96)], "bicubic").eval()
    before = {name: b.clone() for name, b in model.named_buffers()}
    with torch.no_grad():
        several(images_of((96, 96)))
    assert all(torch.equal(model.get_buffer(name), b) for name, b in before.items())


def test_a_size_that_a_family_cannot_have_is_refused(tmp_path):
    _, model, own = made("vit", tmp_path)
    with pytest.raises(ModelError, match="20x20 is not divisible by 8"):
        MultiSize(model, own, [(20, 20)], "bicubic")
    _, model, own = made("swin", tmp_path)
    with pytest.raises(ModelError, match="does not suit this swin model"):
        check_runs(MultiSize(model, own, [(8, 8)], "bicubic"), (8, 8), model.config)
    assert model.training
    _, model, own = made("clip", tmp_path)
    with pytest.raises(ModelError, match="one number"):
        MultiSize(model, own, [(16, 24)], "bicubic")


def test_the_zoo_has_what_is_tested():
    assert set(FAMILIES_WITH_SIZES) <= set(zoo.CONFIGS)

"""Drop path: each sample's own mask, whatever its batch, and the mean that stays."""

import pytest
import torch
import torch.nn.functional as F
from zoo import images_for, model_of

from vitft.architectures.blocks import blocks
from vitft.model.drop_path import DropPath


def test_rates_grow_linearly_from_none_and_scaling_keeps_the_mean():
    model = model_of("dinov2").train()
    drop_path = DropPath(model, 0.5, seed=1)
    drop_path.sample_indices = torch.arange(20_000)
    for depth, (_, block) in enumerate(blocks(model)):
        rate = 0.25 * depth
        kept = block.drop_path(torch.ones(20_000, 1, 2))
        assert torch.equal(kept[:, 0, 0], kept[:, 0, 1]), "a branch is dropped as a whole"
        assert kept.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)] if rate else [1.0])
        assert float((kept[:, 0, 0] == 0).float().mean()) == pytest.approx(rate, abs=0.015)  # 4 standard errors


def test_the_branches_and_the_blocks_draw_apart():
    model = model_of("dinov2").train()
    drop_path = DropPath(model, 0.5, seed=1)
    drop_path.sample_indices = torch.arange(4000)
    modules = [block for _, block in blocks(model)]
    first, second = (modules[2].drop_path(torch.ones(4000, 1))[:, 0] > 0 for _ in range(2))
    other = modules[1].drop_path(torch.ones(4000, 1))[:, 0] > 0
    assert float((first == second).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float((first == other).float().mean()) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    "family", ["vit", "deit", "clip", "siglip", "dinov2", "beit", "swin", "swinv2", "convnext", "hiera", "pvt"]
)
def test_a_sample_has_the_same_mask_in_any_batch_and_none_in_evaluation(family):
    model = model_of(family).train()
    images, positions = images_for(model)
    drop_path = DropPath(model, 0.6, seed=3)

    def logits(images, positions):
        drop_path.sample_indices = positions
        return model(images).logits

    with torch.no_grad():
        whole = logits(images, positions)
        parts = [logits(images[part], positions[part]) for part in (slice(0, 1), slice(1, 6))]
        elsewhere, through = logits(images, positions + 1), logits(images, None)
        model.eval()
        evaluated = logits(images, positions)
    assert torch.allclose(torch.cat(parts), whole, atol=1e-5)
    assert not torch.allclose(elsewhere, whole, atol=1e-4)
    assert not torch.allclose(through, whole, atol=1e-4)
    assert torch.allclose(evaluated, through, atol=1e-6)


@pytest.mark.parametrize("family", ["vit", "beit", "swin"])
def test_the_state_dict_is_as_before(family):
    model = model_of(family)
    before = list(model.state_dict())
    DropPath(model, 0.5, seed=0)
    assert list(model.state_dict()) == before


def test_the_seed_matters():
    logits = []
    for seed in (1, 2, 1):
        model = model_of().train()
        images, positions = images_for(model)
        drop_path = DropPath(model, 0.6, seed)
        drop_path.sample_indices = positions
        logits.append(model(images).logits)
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[0], logits[1])


def test_dropping_is_the_residual_stream_without_the_branch():
    """With both branches of the last block dropped for one sample, its stream passes the block untouched."""
    model = model_of().train()
    images, _ = images_for(model)
    drop_path = DropPath(model, 0.5, seed=1)
    drop_path.sample_indices = torch.arange(6)
    streams = {}
    model.vit.layers[2].register_forward_hook(lambda _, given, got: streams.update(before=given[0], after=got))
    model(images)
    untouched = [torch.equal(a, b) for a, b in zip(streams["before"], streams["after"], strict=True)]
    assert 0 < sum(untouched) < 6
    assert F.mse_loss(streams["before"], streams["after"]) > 0

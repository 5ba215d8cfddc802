"""Moved images against torch's own padding, and what of a split's predictions stays."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from model import zoo
from transformers import ViTImageProcessorPil

from vitft.data.batches import StagedBatch
from vitft.errors import UsageError
from vitft.scoring.evaluation import evaluate_split
from vitft.scoring.shifts import check_shift, shifted

PIXELS = torch.randint(0, 256, (5, 3, 6, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_moved_images_repeat_their_border(pixels):
    padded = F.pad(PIXELS.float(), [pixels] * 4, mode="replicate").to(torch.uint8)
    expected = [
        padded[:, :, pixels + down : pixels + down + 6, pixels + right : pixels + right + 8]
        for down, right in ((-pixels, 0), (pixels, 0), (0, -pixels), (0, pixels))
    ]
    moved = list(shifted(PIXELS, pixels))
    assert all(torch.equal(one, other) for one, other in zip(moved, expected, strict=True))
    assert torch.equal(moved[0][:, :, pixels:], PIXELS[:, :, :-pixels]), "the first has moved down"


def test_by_nothing_nothing_moves():
    assert all(torch.equal(moved, PIXELS) for moved in shifted(PIXELS, 0))


class Halves(torch.nn.Module):
    """Says which half of an image is brighter; without an eye for places, that the second is."""

    def __init__(self, sees_places: bool) -> None:
        super().__init__()
        self.sees_places = sees_places
        self.config = SimpleNamespace(model_type="halves", num_labels=2, id2label=None)

    def forward(self, pixel_values):
        halves = pixel_values.mean((1, 2)).unflatten(-1, (2, 3)).sum(-1)
        return SimpleNamespace(logits=halves if self.sees_places else halves.sort(-1).values)


def scored(model, ends, shift):
    """Images of six columns, of which one is bright: the second to the fifth."""
    images = torch.zeros(4, 3, 6, 6, dtype=torch.uint8)
    images[torch.arange(4), :, :, torch.arange(1, 5)] = 200
    batches = []
    for start, end in zip((0, *ends[:-1]), ends, strict=True):
        sides = torch.full((end - start,), 6)
        labels = torch.zeros(end - start, dtype=torch.int64)
        batches.append(StagedBatch(images[start:end], sides, sides, labels, torch.arange(start, end)))
    classifier = zoo.loaded(model, ViTImageProcessorPil(), (6, 6))
    return evaluate_split(classifier, batches, Accelerator(cpu=True), shift=shift)


@pytest.mark.parametrize("ends", [(4,), (1, 4), (3, 4)])
def test_consistency_is_the_part_of_predictions_that_stay(ends):
    assert scored(Halves(False), ends, 1).shift_consistency == 1
    # Up and down none of 8 changes; left and right 2 of 8, where the bright column crosses the middle.
    assert scored(Halves(True), ends, 1).shift_consistency == 14 / 16


def test_without_a_shift_nothing_is_said_of_it():
    assert scored(Halves(True), (4,), 0).shift_consistency is None


@pytest.mark.parametrize("pixels", [-1, 6, 8])
def test_a_shift_that_leaves_nothing_is_refused(pixels):
    check_shift(5, (6, 8))
    with pytest.raises(UsageError, match=f"images of 6x8 cannot be shifted by {pixels} pixels"):
        check_shift(pixels, (6, 8))

"""How many images fit at once, found on a device that has room for so many and no more."""

import itertools

import pytest
import torch
import zoo
from accelerate import Accelerator

from vitft.architectures.blocks import blocks
from vitft.errors import TrainError
from vitft.recipe.recipe import Recipe
from vitft.resolution.multisize import MultiSize
from vitft.train import memory
from vitft.train.memory import even, find_micro_batch, until_it_fits


@pytest.fixture(autouse=True)
def cleared(monkeypatch):
    """Remember when the device was cleared, and go without: collecting this process's garbage takes a while."""
    calls = []
    monkeypatch.setattr(memory, "clear_device_cache", lambda garbage_collection: calls.append(garbage_collection))
    return calls


def work(room, error="CUDA out of memory. Tried to allocate 2.00 GiB"):
    """Work that fits with up to ``room`` images, and the sizes that were tried."""
    tried = []

    def attempt(size):
        tried.append(size)
        if size > room:
            raise RuntimeError(error)
        return f"done with {size}"

    return attempt, tried


@pytest.mark.parametrize(("number", "expected"), [(9, 8), (8, 8), (3, 2), (2, 2), (1, 2), (0, 2)])
def test_pairs_of_images_stay_together(number, expected):
    assert even(number) == expected


@pytest.mark.parametrize(
    ("size", "room", "expected"),
    [(64, 64, [64]), (64, 63, [64, 32]), (64, 3, [64, 32, 16, 8, 4, 2]), (22, 6, [22, 10, 4]), (6, 2, [6, 2])],
)
def test_the_number_is_halved_to_even_ones_until_it_fits(size, room, expected, cleared):
    attempt, tried = work(room)
    told = []
    assert until_it_fits(attempt, size, lambda *sizes: told.append(sizes)) == f"done with {expected[-1]}"
    assert tried == expected
    assert told == list(itertools.pairwise(expected))  # what did not fit, what is tried next
    assert cleared == [True] * len(told)


def test_when_not_even_two_fit_the_error_is_the_last_one():
    attempt, tried = work(room=0)
    with pytest.raises(RuntimeError, match="out of memory"):
        until_it_fits(attempt, 8, lambda *_: None)
    assert tried == [8, 4, 2]


def test_an_error_that_is_not_about_memory_is_passed_on_at_once():
    attempt, tried = work(room=2, error="shape mismatch")
    with pytest.raises(RuntimeError, match="shape mismatch"):
        until_it_fits(attempt, 8, lambda *_: pytest.fail("it was taken for one"))
    assert tried == [8]


def test_torch_s_own_error_counts_too():
    def attempt(size):
        if size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return size

    assert until_it_fits(attempt, 4, lambda *_: None) == 2


# --- before training ---------------------------------------------------------------------------------------


@pytest.fixture
def classifier():
    return zoo.loaded(zoo.model_of("vit"), None, (32, 32))


@pytest.fixture
def forward(monkeypatch):
    """Let forward passes of more images than ``room`` run out of memory; remember the shapes of all."""
    original, shapes = MultiSize.forward, []

    def limited(self, images):
        shapes.append(tuple(images.shape))
        if len(images) > forward.room:
            raise RuntimeError("CUDA out of memory.")
        return original(self, images)

    forward = limited
    forward.room, forward.shapes = 5, shapes
    monkeypatch.setattr(MultiSize, "forward", limited)
    return forward


def found(classifier, most, image_size=(32, 32), **changes):
    return find_micro_batch(Recipe.load(None, changes), classifier, Accelerator(cpu=True), most, image_size)


def test_a_micro_batch_is_found_by_trial_at_the_size_that_was_asked_for(classifier, forward):
    assert found(classifier, 16, (48, 48)) == 4
    assert forward.shapes == [(size, 3, 48, 48) for size in (16, 8, 4)]


def test_the_trial_leaves_no_gradient_and_no_other_weight(classifier, forward):
    before = {name: tensor.clone() for name, tensor in classifier.model.state_dict().items()}
    assert found(classifier, 4) == 4
    assert all(parameter.grad is None for parameter in classifier.model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.model.state_dict().items())


def test_a_micro_batch_counts_what_the_optimizer_will_want_later(classifier, forward, monkeypatch):
    """Only the weights' four copies do not fit: that is out of memory as well."""
    empty, asked = torch.empty, []

    def no_room(*size, **options):
        if size == (4 * sum(parameter.numel() for parameter in classifier.model.parameters()),):
            asked.append(size)
            if len(asked) == 1:
                raise RuntimeError("CUDA out of memory.")
        return empty(*size, **options)

    monkeypatch.setattr(memory.torch, "empty", no_room)
    assert found(classifier, 4) == 2
    assert len(asked) == 2


def test_not_even_two_images_is_an_error_with_a_way_out(classifier, forward):
    forward.room = 1
    with pytest.raises(TrainError, match="not even 2 images fit on cpu") as error:
        found(classifier, 8)
    assert "train.gradient_checkpointing=blocks" in error.value.hint


def test_with_gradient_checkpointing_the_trial_has_it_too(classifier, forward):
    assert found(classifier, 4, **{"train.gradient_checkpointing": True}) == 4
    assert all(block.gradient_checkpointing for _, block in blocks(classifier.model))

"""A step when the device gives out: memory that runs out, gradients that overflow. The device's part is faked."""

from itertools import chain

import pytest
import tiny
import torch

from vitft import finetune
from vitft.errors import TrainError
from vitft.train import setup, step

SHORT = {"train__duration": "6 steps", "train__batch_size": 16, "train__checkpoint_every": "6 steps"}


def losses(run):
    return [(line["loss"], line["grad_norm"]) for line in tiny.events(run, "step")]


def weights(run):
    return {name: tensor for name, tensor in tiny.tensors(run).items() if name.startswith("model/")}


def test_when_memory_runs_out_the_step_is_taken_again_with_the_same_samples(home, monkeypatch):
    """The model computes some micro-batches of a step before memory runs out: none of that may count."""
    whole, seen = step._loss, []

    def short_of_memory(training, number, batch):
        seen.append((number, batch.sample_indices.tolist()))
        if number >= 2 and len(batch) > 4 and len([n for n, _ in seen if n == number]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        return whole(training, number, batch)

    monkeypatch.setattr(step, "_loss", short_of_memory)
    run = finetune(tiny.recipe(home, run__name="halved", train__micro_batch_size=8, **SHORT)).run_dir
    taken = {number: [indices for n, indices in seen if n == number] for number in (1, 2, 3)}
    assert [len(part) for part in taken[1]] == [8, 8]
    assert [len(part) for part in taken[2]] == [8, 8, 4, 4, 4, 4]  # twice, the second time in smaller parts
    assert [*chain(*taken[2][:2])] == [*chain(*taken[2][2:])] == [*range(32, 48)]
    assert [len(part) for part in taken[3]] == [4, 4, 4, 4]
    notes = [line["text"] for line in tiny.events(run, "note")]
    assert "out of memory with 8 images at once; now 4, with the same steps" in notes
    monkeypatch.undo()

    # Steps 0 and 1 in parts of 8, the others in parts of 4, as if it had been known before.
    def known(training, number, parts):
        cut = [part for batch in parts for part in (batch.split(4) if number >= 2 else [batch])]
        return whole_step(training, number, cut)

    whole_step = step._accumulate
    monkeypatch.setattr(step, "_accumulate", known)
    expected = finetune(tiny.recipe(home, run__name="known", train__micro_batch_size=8, **SHORT)).run_dir
    assert losses(run) == losses(expected)
    assert all(torch.equal(tensor, weights(expected)[name]) for name, tensor in weights(run).items())


def overflow(monkeypatch, happens):
    """Let the optimizer skip an update when ``happens(attempt)``, as accelerate's does if fp16 gradients overflow."""
    attempts = []
    build = setup.build

    def built(run, prepared, **more):
        training = build(run, prepared, **more)
        kind = type(training.optimizer)
        take = training.optimizer.step

        class Scaled(kind):
            @property
            def step_was_skipped(self):
                return happens(len(attempts))

            def step(self, *_):
                attempts.append(training.state.step)
                if not happens(len(attempts)):
                    take()

        training.optimizer.__class__ = Scaled
        return training

    monkeypatch.setattr(setup, "build", built)
    return attempts


def test_after_an_overflow_the_same_step_is_taken_again(home, monkeypatch):
    expected = finetune(tiny.recipe(home, run__name="no-overflow", **SHORT)).run_dir
    attempts = overflow(monkeypatch, lambda attempt: attempt in (1, 2, 5))
    run = finetune(tiny.recipe(home, run__name="overflow", **SHORT)).run_dir
    assert attempts == [0, 0, 0, 1, 2, 2, 3, 4, 5]
    assert losses(run) == losses(expected)
    assert all(torch.equal(tensor, weights(expected)[name]) for name, tensor in weights(run).items())


def test_a_scale_that_never_fits_ends_the_run(home, monkeypatch):
    attempts = overflow(monkeypatch, lambda attempt: True)
    with pytest.raises(TrainError, match="became inf at step 1; there is no checkpoint yet") as failed:
        finetune(tiny.recipe(home, run__name="never", **SHORT))
    assert len(attempts) == 30
    assert "--precision fp32" in failed.value.hint

"""What only a GPU does. Runs unchanged where there is one; elsewhere the logic is tested with fakes (test_step.py)."""

import pytest
import tiny
import torch

from vitft import finetune
from vitft.processes import launch
from vitft.train import step

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]
ON_GPU = {"train__device": "cuda", "train__deterministic": True}


def train(home, name, **changes):
    return finetune(tiny.recipe(home, run__name=name, **ON_GPU, **changes)).run_dir


def losses(run):
    return [line["loss"] for line in tiny.events(run, "step")]


def test_two_runs_are_the_same_bit_for_bit(home):
    tiny.assert_same_run(train(home, "gpu-one"), train(home, "gpu-two"))


def test_a_resumed_run_is_the_same_bit_for_bit(home):
    whole, take = train(home, "gpu-whole"), step.take_step

    def lost(training, number, batches):
        if number == 8:
            raise RuntimeError("the machine is gone")
        return take(training, number, batches)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="the machine is gone"):
        patch.setattr("vitft.train.fit.take_step", lost)
        train(home, "gpu-stopped")
    tiny.assert_same_run(finetune(resume=home / "runs" / "gpu-stopped").run_dir, whole)


def test_the_gpu_agrees_with_the_cpu(home):
    cpu = finetune(tiny.recipe(home, run__name="on-cpu")).run_dir
    assert losses(train(home, "gpu-fp32", train__precision="fp32")) == pytest.approx(losses(cpu), rel=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_alike(home, precision):
    cpu = finetune(tiny.recipe(home, run__name=f"cpu-{precision}")).run_dir
    assert losses(train(home, f"gpu-{precision}", train__precision=precision)) == pytest.approx(losses(cpu), rel=0.05)


def test_fp16_survives_an_overflow(home, monkeypatch):
    """The first loss scale, 2^16, is made to overflow: the step is taken again with a lower one."""
    scales = []
    whole = step._loss

    def large(training, number, batch):
        scales.append(training.accelerator.scaler.get_scale())
        loss = whole(training, number, batch)
        return loss * 1e5 if number == 0 and scales[-1] > 2**13 else loss

    monkeypatch.setattr(step, "_loss", large)
    run = train(home, "gpu-overflow", train__precision="fp16", train__duration="3 steps")
    assert scales[0] == 2**16 and min(scales) <= 2**13
    assert len(losses(run)) == 3


def test_images_that_stay_on_the_gpu_give_the_same_bits(home, monkeypatch):
    kept = train(home, "gpu-kept")
    assert "on device" in (kept / "plan.json").read_text()
    monkeypatch.setattr("vitft.train.plan.bytes_on_device", lambda *_: 0)
    tiny.assert_same_run(train(home, "gpu-copied"), kept)


def test_a_micro_batch_is_found_by_trial(home):
    run = train(home, "gpu-auto", train__micro_batch_size="auto", train__duration="2 steps")
    assert len(losses(run)) == 2


def test_when_memory_runs_out_the_same_samples_are_taken_in_smaller_parts(home):
    """A real allocator raises: only so much of the GPU may be used that the whole batch does not fit."""
    expected = train(home, "gpu-room", train__batch_size=16, train__micro_batch_size=4, train__duration="3 steps")
    whole = step._loss

    def hungry(training, number, batch):
        if len(batch) > 4:
            torch.empty(2**50, dtype=torch.uint8, device="cuda")
        return whole(training, number, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "_loss", hungry)
        run = train(home, "gpu-full", train__batch_size=16, train__micro_batch_size=16, train__duration="3 steps")
    assert losses(run) == losses(expected)
    assert any("out of memory with 16 images" in line["text"] for line in tiny.events(run, "note"))


def test_copies_start_from_pinned_memory(home, monkeypatch):
    seen = []
    whole = step.StagedBatch.to

    def watched(self, device):
        seen.append(self.images.is_pinned())
        return whole(self, device)

    monkeypatch.setattr(step.StagedBatch, "to", watched)
    train(home, "gpu-pinned", train__duration="2 steps", train__evaluate_every="2 steps")
    assert seen and all(seen)


def test_no_step_waits_for_the_gpu(home, monkeypatch):
    """Torch itself raises when the host waits inside a step."""
    whole = step.take_step

    def strict(*arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return whole(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr("vitft.train.fit.take_step", strict)
    run = train(home, "gpu-async", train__precision="bf16", train__duration="6 steps")
    assert len(losses(run)) == 6


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_two_gpus_take_the_steps_of_one(home):
    one = train(home, "gpu-single")
    settings = tiny.recipe(home, run__name="gpu-pair", train__device="auto")
    path = home / "pair.yaml"
    path.write_text(settings.dump())
    assert launch.run(launch.choose(2, "auto", []), ["finetune", "--recipe", str(path)]) == 0
    assert losses(home / "runs" / "gpu-pair") == pytest.approx(losses(one), rel=1e-4)

"""Show and log the progress of a training: steps, speed and time left."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from vitft.quantities import duration_text, speed_text
from vitft.recipe.sizes import show_size
from vitft.train.clock import Pause
from vitft.train.late import LateValues
from vitft.train.setup import Training
from vitft.train.step import Taken, non_finite

_LONG = 4 * 3600


class Speed:
    """Images per second at each image size, without pauses and without the first step at a size, which warms up."""

    def __init__(self) -> None:
        self._recent: list[tuple[float, int]] = []
        self._totals: dict[tuple[int, int], tuple[float, int, int]] = {}  # seconds, images, steps
        self._last = 0.0
        self._size: tuple[int, int] | None = None

    def begin(self) -> None:
        """Start the clock, unless it runs since the last step."""
        self._last = self._last or time.perf_counter()

    def end(self, images: int, size: tuple[int, int]) -> float:
        """Count a step; return the current speed, 0 while it is unknown."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        if size != self._size:
            self._size, self._recent = size, []
            return 0.0
        self._recent = [*self._recent[-19:], (seconds, images)]
        before = self._totals.get(size, (0.0, 0, 0))
        self._totals[size] = (before[0] + seconds, before[1] + images, before[2] + 1)
        return sum(n for _, n in self._recent) / sum(s for s, _ in self._recent)

    def forget(self) -> None:
        """Leave out the time since the last step, which an evaluation or a checkpoint took."""
        self._last = 0.0

    @property
    def average(self) -> float:
        """Images per second over all timed steps."""
        seconds = sum(total for total, _, _ in self._totals.values())
        return sum(images for _, images, _ in self._totals.values()) / seconds if seconds else 0.0

    def by_size(self) -> dict[str, dict[str, float]]:
        """Return images and steps per second at each size."""
        return {
            show_size(size): {
                "images_per_second": round(images / seconds, 2), "steps_per_second": round(steps / seconds, 4)
            }
            for size, (seconds, images, steps) in self._totals.items()
        }  # fmt: skip


class _Step(NamedTuple):
    """What the host knows of a step when it was taken."""

    step: int
    lr: float
    speed: float
    seconds: dict[str, float]


class Progress:
    """Shows, logs and tracks the steps of a training, and keeps its clock."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._first_step = training.state.step
        self._started = time.monotonic() - training.state.elapsed_seconds
        self.speed = Speed()
        self._late: LateValues[_Step] = LateValues(training.accelerator.device)
        training.run.status.start("training", training.plan.total_steps, training.state.step)

    def begin(self, step: int) -> None:
        """Start a step's clock, and announce a new image size."""
        self.speed.begin()
        plan = self._training.plan
        if len(plan.phases) == 1 or plan.phase_at(step).first_step != step:
            return
        so_far = ", ".join(f"{s} {v['steps_per_second']:.2f} steps/s" for s, v in self.speed.by_size().items())
        size = show_size(plan.phase_at(step).image_size)
        self._training.run.say(f"  step {step}: now at {size}" + (f" ({so_far})" if so_far else ""))

    def end(self, step: int, taken: Taken, lr: float) -> None:
        """Log and show a step that was taken, or on a GPU the one of a few steps before."""
        training, size = self._training, self._training.plan.phase_at(step).image_size
        speed = self.speed.end(training.batches.slices.step_size(step), size)
        seconds = training.clock.end_step()
        with training.clock.part("logging"):
            self._late.put(_Step(step, lr, speed, seconds), torch.stack((taken.loss, taken.grad_norm)))
            self._catch_up()

    @contextmanager
    def pause(self, what: Pause) -> Iterator[None]:
        """Catch up with the steps that were taken, and leave this block out of the speed."""
        self._catch_up(every=True)
        with self._training.clock.pause(what):
            yield
        self.speed.forget()

    def _catch_up(self, *, every: bool = False) -> None:
        """Log and show the steps whose numbers are there, or every step.

        Raises:
            TrainError: if a number is not finite.
        """
        for step, (loss, grad_norm) in self._late.take(every=every):
            for number in (loss, grad_norm):
                if not math.isfinite(number):
                    raise non_finite(self._training, step.step, number)
            self._log(step, loss, grad_norm)

    def _log(self, step: _Step, loss: float, grad_norm: float) -> None:
        training = self._training
        seen = {"loss": loss, "grad_norm": grad_norm, "lr": step.lr}
        training.run.log(
            "step",
            step=step.step + 1,
            **seen,
            images_per_second=round(step.speed, 1),
            image_size=list(training.plan.phase_at(step.step).image_size),
            seconds={part: round(seconds, 5) for part, seconds in step.seconds.items()},
        )
        training.track(seen, step.step + 1)
        if step.speed:
            best = training.state.best
            detail = f"loss {loss:.3f}" + (f"  best top-1 {100 * best.top1:.1f}%" if best else "")
            self._show(step.step + 1, detail, step.speed)

    def elapsed(self) -> float:
        """Return the training time of all sessions so far, in seconds."""
        return time.monotonic() - self._started

    def stop(self) -> None:
        """Catch up with every step, and remove the bar."""
        self._catch_up(every=True)
        self._training.run.status.stop()

    def _show(self, step: int, detail: str, images_per_second: float) -> None:
        """Show a step and, after the first few of a session, how long the run will take."""
        run, plan = self._training.run, self._training.plan
        left = plan.work(step) / (images_per_second * plan.phase_at(step - 1).gflop)
        if step - self._first_step == min(5, plan.total_steps - 1):
            run.say(f"  {speed_text(images_per_second)} images/s: {duration_text(left)} to go on this machine")
            if left > _LONG and plan.device == "cpu":
                run.say(
                    "  that is long; a GPU, --train head, fewer --epochs or a smaller checkpoint would be faster, such "
                    "as --model facebook/deit-tiny-patch16-224 (7.5 GFLOP per training image; "
                    f"this one needs {3 * plan.gflop:.1f})"
                )
        detail = f"{detail}  {speed_text(images_per_second)} images/s  {duration_text(left)} left"
        run.status.update(step, plan.total_steps, detail)

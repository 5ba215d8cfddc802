"""What is said of a run while it trains: its steps, its speed, the time that is left."""

from __future__ import annotations

import time

from vitft.quantities import duration_text, speed_text
from vitft.recipe.sizes import show_size
from vitft.train.setup import Training

_LONG = 4 * 3600


class Speed:
    """Images per second, for each image size; first steps at a size, which warm up, and pauses do not count."""

    def __init__(self) -> None:
        self._recent: list[tuple[float, int]] = []
        self._totals: dict[tuple[int, int], tuple[float, int, int]] = {}  # seconds, images, steps
        self._last = 0.0
        self._size: tuple[int, int] | None = None

    def begin(self) -> None:
        """Start the clock, unless the last step's end has."""
        self._last = self._last or time.perf_counter()

    def end(self, images: int, size: tuple[int, int]) -> float:
        """Count a step; return the present speed, 0 while it is not known."""
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
        """Do not count what happened since the last step: an evaluation, a checkpoint."""
        self._last = 0.0

    @property
    def average(self) -> float:
        """Images per second over all steps that were timed."""
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


class Progress:
    """What is shown, logged and tracked of a training's steps, and the clock that it runs by."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self._first_step = training.state.step
        self._started = time.monotonic() - training.state.elapsed_seconds
        self.speed = Speed()
        training.run.status.start("training", training.plan.total_steps, training.state.step)

    def begin(self, step: int) -> None:
        """Start the clock of a step, and say if it is the first at another image size."""
        self.speed.begin()
        plan = self._training.plan
        if len(plan.phases) == 1 or plan.phase_at(step).first_step != step:
            return
        so_far = ", ".join(f"{s} {v['steps_per_second']:.2f} steps/s" for s, v in self.speed.by_size().items())
        size = show_size(plan.phase_at(step).image_size)
        self._training.run.say(f"  step {step}: now at {size}" + (f" ({so_far})" if so_far else ""))

    def end(self, step: int, *, loss: float, grad_norm: float, lr: float) -> None:
        """Log and show a step that is done."""
        training, size = self._training, self._training.plan.phase_at(step).image_size
        speed = self.speed.end(training.batches.slices.step_size(step), size)
        seen = {"loss": loss, "grad_norm": grad_norm, "lr": lr}
        training.run.log("step", step=step + 1, **seen, images_per_second=round(speed, 1), image_size=list(size))
        training.track(seen)
        if speed:
            self._show(step + 1, f"loss {loss:.3f}", speed)

    def pause(self) -> None:
        """Do not count what happened since the last step: an evaluation, a checkpoint."""
        self.speed.forget()

    def elapsed(self) -> float:
        """Return the seconds of all sessions so far."""
        return time.monotonic() - self._started

    def stop(self) -> None:
        """Take the bar away."""
        self._training.run.status.stop()

    def _show(self, step: int, detail: str, images_per_second: float) -> None:
        """Show a step and, once a few of this session are timed, how long the run will take."""
        run, plan = self._training.run, self._training.plan
        left = plan.work(step) / (images_per_second * plan.phase_at(step - 1).gflop)
        if step - self._first_step == min(5, plan.total_steps - 1):
            run.say(f"  {speed_text(images_per_second)} images/s: {duration_text(left)} to go on this machine")
            if left > _LONG and plan.device == "cpu":
                run.say(
                    "  that is long: a GPU, --train head, fewer --epochs or a smaller checkpoint would take less, such "
                    "as --model facebook/deit-tiny-patch16-224 (7.5 GFLOP per training image; "
                    f"this one takes {3 * plan.gflop:.1f})"
                )
        detail = f"{detail}  {speed_text(images_per_second)} images/s  {duration_text(left)} left"
        run.status.update(step, plan.total_steps, detail)

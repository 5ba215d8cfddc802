"""What is said of a run's speed while it trains."""

from __future__ import annotations

import time

from vitft.run import Run, duration_text
from vitft.train.plan import Plan

_LONG = 4 * 3600


class Speed:
    """Images per second over the last steps, without the first, which warms up, and without pauses."""

    def __init__(self) -> None:
        self._recent: list[tuple[float, int]] = []
        self._total_seconds, self._total_images = 0.0, 0
        self._last = 0.0
        self._is_warm = False

    def begin(self) -> None:
        """Start the clock, unless the last step's end has."""
        self._last = self._last or time.perf_counter()

    def end(self, images: int) -> float:
        """Count a step; return the present speed, 0 while it is not known."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        if not self._is_warm:
            self._is_warm = True
            return 0.0
        self._recent = [*self._recent[-19:], (seconds, images)]
        self._total_seconds, self._total_images = self._total_seconds + seconds, self._total_images + images
        return sum(n for _, n in self._recent) / sum(s for s, _ in self._recent)

    def forget(self) -> None:
        """Do not count what happened since the last step: an evaluation, a checkpoint."""
        self._last = 0.0

    @property
    def average(self) -> float:
        """Images per second over all steps that were timed."""
        return self._total_images / self._total_seconds if self._total_seconds else 0.0


def show_progress(
    run: Run, plan: Plan, step: int, timed: int, *, loss: float, lr: float, images_per_second: float
) -> None:
    """Show step, loss, speed and, once ``timed`` steps of this session are done, how long the run will take."""
    if not images_per_second:
        return
    left = max(0.0, (plan.total_samples - step * plan.batch_size) / images_per_second)
    if timed == min(5, plan.total_steps - 1):
        run.say(f"  {images_per_second:.1f} images/s: {duration_text(left)} to go on this machine")
        if left > _LONG and plan.device == "cpu":
            run.say(
                "  that is long: a GPU, --train head, fewer --epochs or a smaller checkpoint would take less, such as "
                "--model facebook/deit-tiny-patch16-224 (7.5 GFLOP per training image; "
                f"this one takes {3 * plan.gflop:.1f})"
            )
    detail = f"loss {loss:.3f}  lr {lr:.2e}  {images_per_second:.0f} images/s  {duration_text(left)} left"
    run.status.update(step, plan.total_steps, detail)

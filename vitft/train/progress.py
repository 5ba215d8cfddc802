"""What is said of a run's speed while it trains."""

from __future__ import annotations

import time

from vitft.run import Run, duration_text
from vitft.sizes import show_size
from vitft.train.plan import Plan

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


def announce_phase(run: Run, plan: Plan, step: int, speed: Speed) -> None:
    """Say that a step is the first at another image size, and how fast the sizes so far were."""
    if len(plan.phases) == 1 or plan.phase_at(step).first_step != step:
        return
    so_far = ", ".join(f"{s} {v['steps_per_second']:.2f} steps/s" for s, v in speed.by_size().items())
    run.say(f"  step {step}: now at {show_size(plan.phase_at(step).image_size)}" + (f" ({so_far})" if so_far else ""))


def show_progress(
    run: Run, plan: Plan, step: int, timed: int, *, loss: float, lr: float, images_per_second: float
) -> None:
    """Show step, loss, speed and, once ``timed`` steps of this session are done, how long the run will take."""
    if not images_per_second:
        return
    left = plan.work(step) / (images_per_second * plan.phase_at(step - 1).gflop)
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

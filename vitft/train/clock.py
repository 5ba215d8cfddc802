"""Where the time of a training goes, part by part, and what limits it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

import torch

Item = TypeVar("Item")
Part = Literal["data", "copy", "views", "forward", "backward", "optimizer", "averaging", "logging"]
"""The parts of a step; ``data`` is the time spent waiting for the next images, ``logging`` that of the step before."""
Pause = Literal["validation", "checkpoints"]
"""What happens between steps."""

_SUBJECTS: dict[str, tuple[Part | Pause, ...]] = {
    "the model": ("forward", "backward"), "waiting for images": ("data", "copy"), "views": ("views",),
    "optimizer": ("optimizer", "averaging"), "validation": ("validation",), "checkpoints": ("checkpoints",),
    "logging": ("logging",),
}  # fmt: skip
"""What the summary calls the parts."""


@dataclass(frozen=True)
class TimeSpent:
    """The seconds of a training by part, without its first step, which warms up.

    Attributes:
        seconds: by part.
        device: ``cpu``, ``cuda``, ...
        workers: processes that read images.
        is_exact: whether each part of a step was waited for; else a device's own work counts for whatever waits for it.
    """

    seconds: Mapping[str, float]
    device: str
    workers: int
    is_exact: bool

    def shares(self) -> dict[str, float]:
        """Return the share of each subject, the largest first."""
        total = sum(self.seconds.values()) or 1.0
        found = {name: sum(self.seconds.get(part, 0.0) for part in parts) / total for name, parts in _SUBJECTS.items()}
        return dict(sorted(found.items(), key=lambda each: -each[1]))

    def __str__(self) -> str:
        """Say in a sentence what limits the training, and what to change."""
        shares = self.shares()
        if not self.is_exact:
            limit = self._advice("waiting for images") if shares["waiting for images"] > 0.1 else ""
            return (
                f"time: {shares['waiting for images']:.0%} waiting for images{limit and f': {limit}'}; "
                "--profile measures the rest"
            )
        first = next(iter(shares))
        told = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.005)
        return f"time: {told}; {self._advice(first)}"

    def table(self) -> str:
        """Return the seconds and the share of each part."""
        total = sum(self.seconds.values()) or 1.0
        names = [*get_args(Part), *get_args(Pause)]
        rows = [(name, self.seconds.get(name, 0.0)) for name in names]
        return "\n".join(
            [f"{'part':12}  {'seconds':>9}  share", *(f"{name:12}  {s:9.2f}  {s / total:5.1%}" for name, s in rows)]
        )

    def _advice(self, subject: str) -> str:
        more = self.workers + 2
        return {
            "the model": "a GPU, --train head or a smaller --image-size would make it faster"
            if self.device == "cpu"
            else "--precision bf16, a smaller --image-size or a smaller model would make it faster",
            "waiting for images": f"more processes that read images (--set data.workers={more}) would make it faster",
            "views": "fewer augmentations would make it faster",
            "optimizer": "a larger --batch-size would make it faster",
            "validation": "scoring less often (--set train.evaluate_every='2 epochs') would make it faster",
            "checkpoints": "fewer checkpoints (--set train.checkpoint_every='2 epochs') would make it faster",
            "logging": "fewer trackers would make it faster",
        }[subject]


@dataclass
class Clock:
    """Measures the parts of each step.

    On an accelerator, whose work runs behind the host, a part takes as long as launching it, and the first part that
    waits takes the blame; ``exact`` waits for the device after each part, which is slower.

    Attributes:
        device: where the training runs.
        exact: wait for the device after each part.
        workers: processes that read images, for the advice.
    """

    device: torch.device
    exact: bool = False
    workers: int = 0
    _step: dict[str, float] = field(default_factory=dict)
    _total: dict[str, float] = field(default_factory=dict)
    _first: dict[str, float] | None = None

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Count the time of this block for a part of the step."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            if self.exact and self.device.type != "cpu":
                torch.accelerator.synchronize()
            self._step[name] = self._step.get(name, 0.0) + time.perf_counter() - begun

    @contextmanager
    def pause(self, name: Pause) -> Iterator[None]:
        """Count the time of this block, which is not part of a step."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._total[name] = self._total.get(name, 0.0) + time.perf_counter() - begun

    def waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, and count the time that each takes to come."""
        iterator, end = iter(items), object()
        while True:
            with self.part("data"):
                item = next(iterator, end)
            if item is end:
                return
            yield item  # type: ignore[misc]  # not the end

    def end_step(self) -> dict[str, float]:
        """Return the seconds of each part of a step that ended."""
        step, self._step = self._step, {}
        if self._first is None:
            self._first = step
        else:
            for name, seconds in step.items():
                self._total[name] = self._total.get(name, 0.0) + seconds
        return step

    def spent(self) -> TimeSpent:
        """Return the seconds of all steps so far; of a single step, its own."""
        has_steps = any(name in self._total for name in get_args(Part))
        seconds = self._total if has_steps else {**(self._first or {}), **self._total}
        return TimeSpent(dict(seconds), self.device.type, self.workers, self.exact or self.device.type == "cpu")

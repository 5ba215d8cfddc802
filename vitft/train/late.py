"""Read numbers that a device computes a few steps later, so that no step waits for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import torch
from torch import Tensor

About = TypeVar("About")
_LAG = 2  # steps that the host may run ahead of a GPU


class LateValues(Generic[About]):
    """Numbers of the last steps, in order.

    From a GPU they are copied behind its work and read ``lag`` steps later, when the copy has long been there; of any
    other device they are read at once.

    Args:
        device: where the numbers are computed.
        lag: steps to wait; by default 2 on a GPU, else 0.
    """

    def __init__(self, device: torch.device, lag: int | None = None) -> None:
        self._is_gpu = device.type == "cuda"
        self._lag = lag if lag is not None else _LAG * self._is_gpu
        self._waiting: deque[tuple[About, Tensor, torch.cuda.Event | None]] = deque()

    def put(self, about: About, numbers: Tensor) -> None:
        """Add the numbers of a step, shape (n,), and what they are about."""
        if not self._is_gpu:
            self._waiting.append((about, numbers, None))
            return
        copy, done = numbers.to("cpu", non_blocking=True), torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
        self._waiting.append((about, copy, done))

    def take(self, *, every: bool = False) -> Iterator[tuple[About, list[float]]]:
        """Yield and remove the numbers of the steps that are old enough, or of every step."""
        while len(self._waiting) > (0 if every else self._lag):
            about, numbers, done = self._waiting.popleft()
            if done is not None:
                done.synchronize()
            yield about, numbers.tolist()

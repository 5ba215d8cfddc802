"""How much memory a run needed at most, and what share of all that is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

import psutil

from vitft.machine import all_memory
from vitft.quantities import size_text

if TYPE_CHECKING:
    import torch


class PeakMemory(NamedTuple):
    """The most memory that this process has used.

    Attributes:
        num_bytes: on a GPU what tensors took up, else what the process had in memory.
        all_bytes: of the GPU, or of this machine or container.
        place: which of them.
    """

    num_bytes: int
    all_bytes: int
    place: str

    @property
    def share(self) -> float:
        """The fraction of all memory."""
        return self.num_bytes / self.all_bytes

    def __str__(self) -> str:
        used, all_of_it = size_text(self.num_bytes), size_text(self.all_bytes)
        return f"memory: at most {used} in this process, {self.share:.0%} of {self.place}'s {all_of_it}"


def begin_to_measure(device: torch.device) -> None:
    """Forget what former runs of this process needed on a GPU."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> PeakMemory:
    """Return the peak so far: of a GPU since :func:`begin_to_measure`, else of the whole life of this process."""
    import torch

    if device.type == "cuda":
        all_bytes = torch.cuda.get_device_properties(device).total_memory
        return PeakMemory(int(torch.cuda.max_memory_allocated(device)), int(all_bytes), "the GPU")
    return PeakMemory(_resident_bytes(), *all_memory())


def _resident_bytes() -> int:
    try:
        import resource
    except ImportError:  # Windows keeps the count itself
        return int(psutil.Process().memory_info()._asdict()["peak_wset"])
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit

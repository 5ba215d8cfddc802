"""Keep checkpoints apart in time where writing one takes longer than what it saves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vitft.processes.turns import on_main_process

if TYPE_CHECKING:
    from accelerate import Accelerator


class Pace:
    """The time since the last checkpoint, or since the start, on the main process's clock.

    When a checkpoint is written changes nothing that is computed, so a resumed run still ends with the same bits.
    """

    def __init__(self, least_seconds: float, accelerator: Accelerator) -> None:
        self._least, self._accelerator = least_seconds, accelerator
        self.start()

    def start(self) -> None:
        """Count from now."""
        self._begun = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint; every process must call this, and all get the same answer."""
        if not self._least:
            return True
        return on_main_process(lambda: time.monotonic() - self._begun >= self._least, self._accelerator)

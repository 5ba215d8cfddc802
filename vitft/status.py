"""Print lines and progress on the terminal during a run."""

from __future__ import annotations

import sys
import time
from typing import Any

from vitft.outside import shown


class Status:
    """Notes and progress on stderr: a bar on a terminal, an occasional line elsewhere."""

    LINE_SECONDS = 15.0

    def __init__(self, *, enabled: bool) -> None:
        self.enabled = enabled
        self._bar: Any = None
        self._task: Any = None
        self._last_line = 0.0

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if not self.enabled:
            return
        text = shown(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Start a progress bar of ``total`` steps, of which ``done`` are done."""
        if not self.enabled:
            return
        self.stop()
        self._last_line = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            # Fits 80 columns. The time left is our own estimate, which allows for changing image sizes.
            columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("{task.fields[detail]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(title, total=total, completed=done, detail="")

    def update(self, done: int, total: int, detail: str) -> None:
        """Show that ``done`` of ``total`` steps are done."""
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=done, detail=detail)
        elif time.monotonic() - self._last_line > self.LINE_SECONDS:
            self._last_line = time.monotonic()
            self.say(f"  {done}/{total} {detail}")

    def stop(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

"""Record the quickstart as a picture: docs/images/quickstart.svg.

    python docs/tools/terminal_picture.py

Runs `vitft finetune --recipe quickstart` in a temporary folder and draws what it prints (2.5 minutes on 2 CPU cores).
Progress lines and the scores of all epochs but the last two are left out, as the line of dots says.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "quickstart.svg"
COMMAND = ["finetune", "--recipe", "quickstart"]
WIDTH = 108
SHOWN_EPOCHS = 2

_PROGRESS = re.compile(r"\s+\d+/\d+ loss ")
_EPOCH = re.compile(r"\s+step +\d+")


def record() -> list[str]:
    """Run the command and return the lines that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "vitft", *COMMAND]
        done = subprocess.run(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=True
        )
    return done.stdout.splitlines()


def condense(lines: list[str]) -> list[str]:
    """Leave out progress and the scores of all but the last epochs."""
    lines = [line for line in lines if not _PROGRESS.match(line)]
    epochs = [number for number, line in enumerate(lines) if _EPOCH.match(line)]
    first, *others = epochs[:-SHOWN_EPOCHS] or [None]
    return ["  ..." if number == first else line for number, line in enumerate(lines) if number not in others]


def draw(lines: list[str], path: Path) -> None:
    """Write lines as a picture of a terminal, which loads nothing from the network."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    console.print(Text(f"$ vitft {' '.join(COMMAND)}", style="bold"))
    for line in lines:
        console.print(Text(line))
    picture = console.export_svg(title="vitft", unique_id="vitft")
    picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)
    path.write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    draw(condense(record()), PICTURE)
    print(PICTURE.relative_to(ROOT))

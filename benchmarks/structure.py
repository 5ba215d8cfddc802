"""Count what makes code hard to change, in one tree or in several beside each other.

    python benchmarks/structure.py [FOLDER ...]

Lines are those of files; a duplicate is a run of six lines or more (without blank lines, comments and imports) that
stands in two places; a function's length is from its ``def`` to its last line.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from pathlib import Path

LONGEST_FUNCTION, LONGEST_FILE, SHORTEST_DUPLICATE = 70, 400, 6


def count(folder: Path) -> dict[str, int]:
    """Return the figures of a tree of Python files."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
    functions = [
        (node.end_lineno or 0) - node.lineno + 1
        for text in texts.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lines = [len(text.splitlines()) for text in texts.values()]
    return {
        "files": len(texts),
        "lines": sum(lines),
        "Any": sum(len(re.findall(r"\bAny\b", text)) for text in texts.values()),
        f"functions over {LONGEST_FUNCTION} lines": sum(length > LONGEST_FUNCTION for length in functions),
        f"files over {LONGEST_FILE} lines": sum(length > LONGEST_FILE for length in lines),
        f"duplicates of {SHORTEST_DUPLICATE} lines": _num_duplicates(texts),
    }


def _num_duplicates(texts: dict[Path, str]) -> int:
    """Count runs of lines that stand in two places; a run counts once, however long it is."""
    places: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    for number, text in enumerate(texts.values()):
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith(("#", "import ", "from "))]
        for start in range(len(lines) - SHORTEST_DUPLICATE + 1):
            run = tuple(lines[start : start + SHORTEST_DUPLICATE])
            if sum(len(line) > 3 for line in run) >= SHORTEST_DUPLICATE - 1:  # not only brackets
                places.setdefault(run, []).append((number, start))
    pairs = {(one, other) for found in places.values() for one, other in itertools.pairwise(found)}
    # A longer run begins where the lines before it are not a pair as well.
    return sum(((a, i - 1), (b, j - 1)) not in pairs for (a, i), (b, j) in pairs)


def main() -> None:
    """Print the figures of each tree in a column."""
    folders = [Path(each) for each in sys.argv[1:]] or [Path(__file__).resolve().parent.parent / "vitft"]
    figures = [count(folder) for folder in folders]
    for name in figures[0]:
        print(f"{name:<28}", *(f"{each[name]:>8,}" for each in figures))


if __name__ == "__main__":
    main()

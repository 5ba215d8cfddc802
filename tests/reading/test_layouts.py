"""Datasets as people publish them are read as they were meant, or refused with the way out.

``VITFT_UPDATE=1 pytest tests/reading/test_layouts.py`` writes the table of docs/data-layouts.md anew.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layouts import LAYOUTS, Layout, Reads, Refuses

from vitft.errors import DataError
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data-layouts.md"
TABLE = re.compile(r"(?<=<!-- layouts -->\n).*?(?=<!-- /layouts -->)", re.DOTALL)
ROLES = ("train", "validation", "test")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_a_layout_is_read_as_it_was_meant_or_refused(layout: Layout, tmp_path: Path) -> None:
    path = layout.build(tmp_path / "root")
    if isinstance(layout.expected, Reads):
        _agrees(_open(path, layout.settings), layout.expected)
        return
    with pytest.raises(DataError) as caught:
        source = _open(path, layout.settings)
        pytest.fail(f"read: {_counts(source)}, notes: {source.notes}")
    message = str(caught.value)
    assert caught.value.exit_code == 1
    missing = [word for word in layout.expected.words if not re.search(word, message)]
    assert not missing, f"{missing} not in: {message}"
    assert not [word for word in layout.expected.never if re.search(word, message)], message
    for way, expected in layout.expected.ways:
        unnamed = [key for key in way if not re.search(rf"{key}\b", message.replace("bad-images", "bad_images"))]
        assert not unnamed, f"the message does not name {unnamed}: {message}"
        _agrees(_open(path, layout.settings | way), expected, way)


def _open(path: Path, settings: Mapping[str, object]) -> Any:
    more: dict[str, Any] = dict(settings)
    path = path / more.pop("dataset", "")
    return open_source(DataRecipe(dataset=str(path), **more), seed=0)


def _agrees(source: Any, expected: Reads, way: object = None) -> None:
    found = _counts(source)
    wanted = {role: {name: count for name, count in each.items() if count} for role, each in expected.splits.items()}
    assert found == wanted, f"way: {way}; notes: {source.notes}"
    assert list(source.classes) == list(expected.splits["train"])
    for note in expected.notes:
        assert any(re.search(note, line) for line in source.notes), f"{note} in no note: {source.notes}"


def _counts(source: Any) -> dict[str, dict[str, int]]:
    """Return role -> class -> number of images; a validation carved from training counts as training."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for role in ROLES:
        split = getattr(source, role)
        if split is not None:
            is_carved = role == "validation" and split.source_name == source.train.source_name
            labels, numbers = np.unique(split.labels, return_counts=True)
            for label, number in zip(labels.tolist(), numbers.tolist(), strict=True):
                counts["train" if is_carved else role][source.classes[label]] += number
    return {role: dict(each) for role, each in counts.items()}


# --- the page ----------------------------------------------------------------------------------------------


def test_the_table_of_the_page_is_the_one_of_the_layouts(tmp_path: Path) -> None:
    rows = ["| layout | published by | what vitft makes of it | way out |", "|---|---|---|---|"]
    for number, layout in enumerate(LAYOUTS):
        root = tmp_path / str(number) / "d"
        path = layout.build(root)
        cells = (
            f"**{layout.name.partition(': ')[2]}**<br>{_tree(path)}",
            layout.origin,
            _made_of_it(layout),
            _ways(layout),
        )
        rows.append("| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |")
    generated = "\n".join(rows) + "\n"
    text = PAGE.read_text(encoding="utf-8")
    if os.environ.get("VITFT_UPDATE"):
        text = TABLE.sub(lambda _: generated, text)
        PAGE.write_text(text, encoding="utf-8")
    [written] = TABLE.findall(text)
    assert written == generated, "VITFT_UPDATE=1 pytest tests/reading/test_layouts.py"


def _tree(path: Path) -> str:
    """Return a folder in a few lines: ``train/cat/*.jpg (4)``; files that are no images by their names."""
    lines: list[str] = []
    for folder, files in _walk(path, ""):
        groups: dict[str, list[str]] = defaultdict(list)
        for name in files:
            suffix = Path(name).suffix
            is_alone = not re.fullmatch(r"(?i)\.(jpe?g|png|tiff?|ppm|heic|xml|bmp|webp)", suffix)
            groups[name if is_alone else "*" + suffix].append(name)
        for group, members in sorted(groups.items()):
            lines.append(folder + (members[0] if len(members) == 1 else f"{group} ({len(members)})"))
    shown = lines if len(lines) <= 8 else [*lines[:7], f"and {len(lines) - 7} more"]
    return "<br>".join(f"`{_printable(line)}`" if not line.startswith("and ") else line for line in shown)


def _walk(path: Path, prefix: str) -> Iterator[tuple[str, list[str]]]:
    entries = sorted(os.scandir(path), key=lambda entry: os.fsencode(entry.name))
    links = [f"{entry.name} -> {_target(path, entry.path)}" for entry in entries if entry.is_symlink()]
    plain = [entry.name for entry in entries if not entry.is_symlink() and entry.is_file()]
    inside = [entry for entry in entries if not entry.is_symlink() and entry.is_dir()]
    if not entries:
        links = ["(empty)"]
    if plain or links:
        yield prefix, [*plain, *links[:2], *(["..."] if len(links) > 2 else [])]
    for entry in inside:
        yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")


def _target(folder: Path, link: str) -> str:
    target = str(Path(link).readlink())
    return os.path.relpath(target, folder) if os.path.isabs(target) else target  # noqa: PTH117


def _made_of_it(layout: Layout) -> str:
    settings = "".join(f"with `{_setting(each)}`: " for each in layout.settings.items())
    if isinstance(layout.expected, Refuses):
        return f"{settings}refused: {layout.expected.why}"
    return settings + _reading(layout.expected)


def _ways(layout: Layout) -> str:
    if isinstance(layout.expected, Reads):
        return ""
    return "<br>".join(
        ", ".join(f"`{_setting(each)}`" for each in way.items()) + f": {_reading(expected)}"
        for way, expected in layout.expected.ways
    )


def _setting(each: tuple[str, object]) -> str:
    key, value = each
    if key == "dataset":
        return f"--dataset d/{value}"
    value = ",".join(value) if isinstance(value, tuple) else str(value).lower() if value is True else value
    word = f"data.{key}={value}"
    return f"--set '{word}'" if re.search(r"\s", word) else f"--set {word}"


def _reading(expected: Reads) -> str:
    splits = []
    for role, counts in expected.splits.items():
        shown = [f"{_printable(name)} ({count})" for name, count in list(counts.items())[:4]]
        more = [f"{len(counts) - 4:,} more"] if len(counts) > 4 else []
        splits.append(f"{role}: {', '.join([*shown, *more])}")
    return "; ".join(splits)


def _printable(text: str) -> str:
    """Return text that a cell can show: control characters and bytes that are no UTF-8 as escapes."""
    escaped = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    return escaped.replace("`", "'").replace("<", "&lt;")

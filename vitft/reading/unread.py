"""Report the files of a folder that are not read, so that no class vanishes silently."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitft.errors import DataError, shorten
from vitft.reading.formats import FORMATS
from vitft.reading.listing import IMAGE_SUFFIXES, Listing, count, describe_left_out
from vitft.reading.rows import FilesReading
from vitft.reading.words import role_of
from vitft.recipe.keys import DataRecipe

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_NO_IMAGES = (
    ".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".md", ".rst", ".html", ".pdf", ".py", ".sh", ".ipynb", ".yaml",
    ".yml", ".toml", ".ini", ".cfg", ".log", ".db", ".lnk", ".pth", ".pt", ".safetensors", ".zip", ".gz",
)  # fmt: skip


def what_else(listing: Listing) -> str:
    """Describe the contents of a folder without images, for an error."""
    reasons = list(describe_left_out(listing.left_out))
    suffixes = _suffixes(listing.others)
    if suffixes:
        reasons.append(f"files of other kinds: {suffixes}")
    return f" ({'; '.join(reasons)})" if reasons else ""


def archives(names: Sequence[str]) -> list[str]:
    """Return the files that must be unpacked before they can be read."""
    return [name for name in names if Path(name).suffix.lower() in ARCHIVES]


def _suffixes(names: Sequence[str]) -> str:
    counts: dict[str, int] = {}
    for name in names:
        suffix = Path(name).suffix or "no suffix"
        counts[suffix] = counts.get(suffix, 0) + 1
    return ", ".join(
        f"{suffix} ({number:,})" for suffix, number in sorted(counts.items(), key=lambda item: -item[1])[:6]
    )


def note_unread(listing: Listing, reading: FilesReading, data: DataRecipe) -> None:
    """Note files that are not named like images; raise if a class folder has no others."""
    told = " ".join(reading.notes)
    beside = {path.rpartition("/")[0].rpartition("/")[0] for rows in reading.splits.values() for path in rows.paths}
    empty = [folder for folder in listing.empty if folder.rpartition("/")[0] in beside]
    if empty and reading.label_column == "class_folder":
        reading.notes.append(f"empty folders: {shorten(empty)}")
    strange = [
        name for name in listing.others
        if name not in reading.tables and name not in told and Path(name).suffix.lower() not in (*FORMATS, ".md")
    ]  # fmt: skip
    if strange:
        reading.notes.append(f"{count(len(strange), 'file')} without an image suffix left out: {_suffixes(strange)}")
    if reading.label_column != "class_folder":
        return
    dead = [link for link in listing.dead if link.rpartition("/")[0] in beside]
    if dead and not data.accept_classes:
        raise DataError(
            f"{dead[0]} is a broken link beside the class folders, so a class may be missing",
            allowed="links that lead to folders",
            hint="fix or remove the link, or continue without it: --set data.accept_classes=true",
        )
    levels = {path.count("/") for rows in reading.splits.values() for path in rows.paths[:50]}
    parents = {path.rpartition("/")[0].rpartition("/")[0] for rows in reading.splits.values() for path in rows.paths}
    grand = {parent.rpartition("/")[0] for parent in parents if parent}
    with_images = {parent for folder in listing.images for parent in _ancestors(folder)}
    lost: dict[str, list[str]] = {}
    images = [name for name in strange if Path(name).suffix.lower() not in _NO_IMAGES]
    for name in [*images, *(path for paths in listing.left_out.values() for path in paths)]:
        folder = name.rpartition("/")[0]
        is_hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
        parent = folder.rpartition("/")[0]
        is_split = parent.rpartition("/")[0] in grand and role_of(parent.rpartition("/")[2]) is not None
        is_beside = (parent in parents or is_split) and name.count("/") in levels
        if folder and is_beside and not is_hidden and folder not in with_images:
            lost.setdefault(folder, []).append(name)
    if lost and not data.accept_classes:
        folder, names = next(iter(lost.items()))
        said = folder.encode("utf-8", "backslashreplace").decode()
        raise DataError(
            f"the class folder {said} holds {count(len(names), 'file')} ({_suffixes(names)}), but none can be read, so "
            "a class would be missing" + (f" (the same for {len(lost) - 1} more)" if len(lost) > 1 else ""),
            allowed=f"images with UTF-8 names ending in {', '.join(sorted(IMAGE_SUFFIXES))}",
            hint="convert or rename them, or continue without them: --set data.accept_classes=true",
        )


def _ancestors(folder: str) -> list[str]:
    parts = folder.split("/")
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]

"""Find the level of folders that names the classes, or the levels that might."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vitft.errors import DataError, shorten
from vitft.reading.places import MASKS, Folder, Places
from vitft.reading.words import alike, are_parts, in_order, is_fold, is_images, is_masks, is_size


def class_depth(root: str, folders: list[Folder], places: Places, *, accept_classes: bool) -> int | None:
    """Return the index of the class in the rest of each path; None if the paths name no classes.

    Masks are left out on the way. If two levels could be the classes, ``places.problem`` becomes the error.
    """
    depth = 0
    while True:
        deep = [folder for folder in folders if len(folder.rest) > depth]
        names = {folder.rest[depth] for folder in deep}
        direct = {folder.rest[depth] for folder in deep if len(folder.rest) == depth + 1}
        if not names:
            return None
        if not accept_classes and (are_parts(names) or all(is_images(name) or is_masks(name) for name in names)):
            _leave_masks(deep, depth, places)
            folders[:] = [folder for folder in folders if folder.path not in places.left_out]
            if are_parts(names) or any(is_images(name) for name in names):
                depth += 1  # folders that archives were split into, not classes
                continue
        is_wrapper = len(names) == 1 and not direct and len(deep) == len(folders)
        if not is_wrapper:
            break
        places.notes.append(f"classes are read below {'/'.join(deep[0].rest[: depth + 1])}, which only wraps them")
        depth += 1
    below = {folder.rest[depth + 1] for folder in deep if len(folder.rest) > depth + 1}
    is_deeper = any(len(folder.rest) > depth + 2 for folder in deep)
    are_kinds = are_parts(below) or all(is_images(name) or is_masks(name) for name in below)
    if below and not is_deeper and not accept_classes and are_kinds:
        _leave_masks([folder for folder in deep if len(folder.rest) > depth + 1], depth + 1, places)
        return depth
    if not direct and len(names) > 1 and not _just_wrap(deep, depth, names):
        places.problem = places.problem or _two_levels(root, deep, depth)
    if direct and (nested := _nested(deep, depth, direct)):
        places.problem = places.problem or _twice(root, nested, names - {nested})
    return depth


def _leave_masks(folders: Sequence[Folder], depth: int, places: Places) -> None:
    if any(is_images(folder.rest[depth]) for folder in folders):
        for folder in folders:
            if is_masks(folder.rest[depth]) and not is_images(folder.rest[depth]):
                places.left_out[folder.path] = MASKS


def _nested(folders: Sequence[Folder], depth: int, direct: set[str]) -> str | None:
    """Return the folder beside the classes that holds the same class folders, as if unpacked twice."""
    inner: dict[str, set[str]] = {}
    for folder in folders:
        if folder.rest[depth] not in direct and len(folder.rest) > depth + 1:
            inner.setdefault(folder.rest[depth], set()).update(map(alike, folder.rest[depth + 1 :]))
    known = set(map(alike, direct))
    return next((name for name, names in inner.items() if len(names & known) * 2 > len(known)), None)


def _twice(root: str, nested: str, others: set[str]) -> DataError:
    return DataError(
        f"the folders of {root} can be read in two ways: {shorten(in_order(others), 4)} and {nested} are classes; "
        f"or {nested} is the dataset itself, because it holds folders with the same names",
        allowed="one set of class folders",
        hint=f"--dataset {root}/{nested}, or move {nested}/ away",
    )


def _just_wrap(folders: Sequence[Folder], depth: int, names: set[str]) -> bool:
    """Return whether each class folder holds just one folder, so that both levels group the images alike."""
    if any(is_fold(name) or is_size(name) for name in names):
        return False
    if any(folder.levels[depth + 1] > folder.levels[depth] + 1 for folder in folders):
        return False  # there is a level of splits between them
    if any(len(folder.rest) > depth + 2 for folder in folders):
        return False
    below: dict[str, set[tuple[str, ...]]] = {}
    for folder in folders:
        below.setdefault(folder.rest[depth], set()).add(folder.rest[depth + 1 : depth + 2])
    alone = {next(iter(subs)) for subs in below.values() if len(subs) == 1}
    return all(len(subs) == 1 for subs in below.values()) and (len(alone) == len(below) or len(alone) == 1)


def _two_levels(root: str, folders: Sequence[Folder], depth: int) -> DataError:
    """Return the error that lists each level of folders that could be the classes."""
    split_parents = sorted({
        "/".join(folder.parts[: level - 1]) for folder in folders
        for level in set(range(1, len(folder.parts) + 1)) - set(folder.levels) if level > 1
    })  # fmt: skip
    everything = folders
    lines: list[str] = []
    levels: list[int] = []
    why = ""
    if all(is_fold(folder.rest[depth]) for folder in folders):
        why = " (these are folds; to validate on one: --set data.validation_split=FOLD)"
    while folders and len(lines) < 4:
        if all(is_images(folder.rest[depth]) for folder in folders):
            depth += 1
            folders = [folder for folder in folders if len(folder.rest) > depth]
            continue
        counts: dict[str, int] = {}
        for folder in folders:
            counts[folder.rest[depth]] = counts.get(folder.rest[depth], 0) + folder.num_images
        levels.append(folders[0].levels[depth])
        some = shorten([f"{name} ({number:,})" for name, number in sorted(counts.items())], 6)
        lines.append(f"  level {levels[-1]}: {len(counts):,} classes: {some}")
        depth += 1
        folders = [folder for folder in folders if len(folder.rest) > depth]
    sizes: dict[str, int] = {}
    for folder in everything:
        if len(folder.parts) >= levels[0]:
            name = folder.parts[levels[0] - 1]
            sizes[name] = sizes.get(name, 0) + folder.num_images
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    if 1 < len(names) <= 4 and not why:
        why = f"; if {shorten(names)} are splits: --set data.train_split={names[0]} --set data.test_split={names[-1]}"
    return DataError(
        f"the folders of {root} can be read in {len(lines)} ways, because the classes may be at several levels:\n"
        + "\n".join(lines),
        allowed="one level of folders that names the classes" + why,
        hint=" or ".join(
            [
                *(f"--set data.class_level={level}" for level in levels),
                *(f"--dataset {root}/{parent}" for parent in split_parents[:3] if len(split_parents) > 1),
            ]
        ),
    )


_MASKED = re.compile(
    r"[\s_.\-]+(?:mask|masks|seg|segmentation|gt|groundtruth|annotation|superpixels|label)[\s_.\-]*\d*$|^masks?[\s_.\-]+",
    re.IGNORECASE,
)


def mask_files(names: Sequence[str]) -> Iterator[str]:
    """Yield the names of a folder's images that are masks of other images: ``1_mask.png`` beside ``1.png``."""
    marked = [name for name in names if _MASKED.search(name[: name.rfind(".")])]
    if not marked:
        return
    stems = {name[: name.rfind(".")] for name in names}
    for name in marked:
        stem = name[: name.rfind(".")]
        before = _MASKED.sub("", stem)
        if before and before != stem and before in stems:
            yield name

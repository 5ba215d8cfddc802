"""Read splits and classes from folder names, or find that they can be read in two ways.

    photos/daisy/1.jpg             one split
    photos/train/daisy/1.jpg       splits above classes, under any usual name: seg_train, Training Set, train2017
    photos/daisy/train/1.jpg       splits below classes
    photos/flowers/daisy/1.jpg     folders that only wrap others, as in many archives, are passed through

Only names and counts are used, so the cost depends on the number of folders, not files.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vitft.errors import DataError, shorten
from vitft.reading.class_level import class_depth
from vitft.reading.listing import Listing, count
from vitft.reading.places import MASKS, OUTSIDE, SHALLOW, STRAY, Folder, Places
from vitft.reading.words import Role, alike, is_images, is_masks, role_of, roles_of


@dataclass
class _Node:
    """A folder and everything below it."""

    parts: tuple[str, ...] = ()
    own: int = 0
    total: int = 0
    children: dict[str, _Node] = field(default_factory=dict)

    @property
    def is_flat(self) -> bool:
        return not self.children


def read_places(
    listing: Listing, *, wanted: Sequence[str] = (), class_level: int | None = None, accept_classes: bool = False
) -> Places:
    """Read splits and classes from where the images of a folder are.

    Args:
        listing: the contents of the folder.
        wanted: split names that the user asked for; a folder with such a name is a split, not a class.
        class_level: the level of folders that names the class, 1 for the folders directly in the dataset.
        accept_classes: whether to accept any folder names as classes.
    """
    places = Places()
    folders = [
        Folder(path, tuple(path.split("/")) if path else (), len(names)) for path, names in listing.images.items()
    ]
    folders = _place_in_splits(folders, frozenset(wanted), places)
    if class_level is not None:
        _take_level(folders, class_level, places)
        return places
    folders = _without_inner_wrapper(folders)
    # A folder beside the splits that is not one of them (extra/) does not show where the classes are.
    telling = [folder for folder in folders if not places.has_splits or places.roles[folder.split] or wanted]
    depth = class_depth(listing.root, telling, places, accept_classes=accept_classes)
    _take_depth(folders, depth, places)
    return places


# --- splits ------------------------------------------------------------------------------------------------


def _place_in_splits(folders: list[Folder], wanted: frozenset[str], places: Places) -> list[Folder]:
    """Find the level of the splits; return the folders inside splits, with the rest of their paths."""
    root = _tree(folders)
    parents = _split_parents(root, wanted)
    if not parents:
        for folder in folders:
            folder.rest, folder.levels = folder.parts, tuple(range(1, len(folder.parts) + 1))
        return folders
    places.has_splits = True
    is_below_classes = len(parents) > 1
    by_parts = {parent.parts: parent for parent in parents}
    inside, outside = [], []
    for folder in folders:
        depth = next((d for d in range(len(folder.parts)) if folder.parts[:d] in by_parts), None)
        if depth is None:
            outside.append(folder)
            continue
        name = folder.parts[depth]
        role = _roles(by_parts[folder.parts[:depth]].children, wanted)[name]
        if role is None and name not in wanted and is_masks(name):
            places.left_out[folder.path] = MASKS
            continue
        folder.split = role if role and is_below_classes else name
        places.roles.setdefault(folder.split, role)
        start = 0 if is_below_classes else depth + 1
        kept = [place for place in range(start, len(folder.parts)) if place != depth]
        folder.rest = tuple(folder.parts[place] for place in kept)
        folder.levels = tuple(place + 1 for place in kept)
        inside.append(folder)
    _leave_outside(outside, parents, inside, places)
    _check_siblings(inside, places, wanted)
    if not is_below_classes and parents[0].parts:
        places.notes.append(f"splits are read below {'/'.join(parents[0].parts)}/")
    return inside


def _leave_outside(outside: list[Folder], parents: Sequence[_Node], inside: Sequence[Folder], places: Places) -> None:
    """Leave out images outside the splits; if they outnumber those inside, that is a second possible reading."""
    num_outside, num_inside = (sum(each.num_images for each in group) for group in (outside, inside))
    for folder in outside:
        places.left_out[folder.path] = OUTSIDE if folder.parts else STRAY
    if (len(parents) > 1 and outside) or num_outside > num_inside:
        some = shorten(sorted({"/".join(parent.parts) or "." for parent in parents}), 4)
        places.problem = DataError(
            f"the folders can be read in two ways: with splits, because there are split folders below {some} "
            f"({count(num_inside, 'image')}); or without, because {count(num_outside, 'image')} are outside them, "
            f"such as those in {outside[0].path or 'the folder itself'}/",
            allowed="every image below a split folder, or no split folders",
            hint=f"use one of the folders (--dataset .../{some.split(',')[0]}), "
            "or say which level names the classes: --set data.class_level=1",
        )


def _check_siblings(inside: Sequence[Folder], places: Places, wanted: frozenset[str]) -> None:
    """Refuse to read a few folders as splits if most of the folders beside them are not: {train, plane, car}."""
    unknown = [each for each in inside if places.roles[each.split] is None and each.split not in wanted]
    known = [each for each in inside if each not in unknown]
    inner = {folder.rest[:1] for folder in known}
    strange = [each for each in unknown if each.rest and each.rest[:1] not in inner]
    if sum(each.num_images for each in strange) > sum(each.num_images for each in known):
        splits, others = (sorted({each.split for each in group}) for group in (known, strange))
        places.problem = DataError(
            f"the folders can be read in two ways: {shorten(splits)} as splits, and {shorten(others)} left unused; "
            "or all of them as classes",
            allowed="split folders that hold the same class folders, or class folders",
            hint=f"--set data.class_level={strange[0].levels[0] - 1} for classes, or move {others[0]}/ away",
        )


def _tree(folders: Sequence[Folder]) -> _Node:
    root = _Node()
    for folder in folders:
        node = root
        node.total += folder.num_images
        for depth, name in enumerate(folder.parts):
            node = node.children.setdefault(name, _Node(folder.parts[: depth + 1]))
            node.total += folder.num_images
        node.own = folder.num_images
    return root


def _roles(names: Mapping[str, object], wanted: frozenset[str]) -> dict[str, Role | None]:
    """Return the roles of folders side by side; a name that the user asked for is always a split."""
    return roles_of(names) | {name: role_of(name) for name in names if name in wanted}


def _split_parents(root: _Node, wanted: frozenset[str]) -> list[_Node]:
    """Return the topmost folders whose subfolders are splits."""
    strong, weak, waiting = [], [], [root]
    while waiting:
        node = waiting.pop()
        roles = _roles(node.children, wanted)
        kids = [node.children[name] for name, role in roles.items() if role or name in wanted]
        is_whole = bool(kids) and all(roles[name] or name in wanted or is_masks(name) for name in node.children)
        num_roles = len({role for role in roles.values() if role})
        trains = [
            node.children[name] for name, role in roles.items() if role == "train" or (name in wanted and role is None)
        ]
        # A class folder may be called "test", or "train" among other vehicles. Beside folders that are not splits,
        # only a training folder that holds folders itself makes a level of splits.
        if is_whole and (num_roles > 1 or any(not kid.is_flat for kid in kids) or any(map(wanted.__contains__, roles))):
            strong.append(node)
        elif is_whole:
            weak.append(node)
        elif any(not kid.is_flat for kid in trains) or any(name in wanted for name in node.children):
            strong.append(node)
        else:
            waiting += node.children.values()
    if strong and all(kid.is_flat for node in strong for kid in node.children.values()):
        strong += weak  # some classes have images in only one split
    if not strong and len(weak) == 1 and weak[0].total - weak[0].own == root.total:
        return weak
    return sorted(strong, key=lambda node: node.parts)


def _without_inner_wrapper(folders: list[Folder]) -> list[Folder]:
    """Pass through a folder inside a split that repeats its name or is just called ``images``: val/images/1.jpg."""
    by_split: dict[str, list[Folder]] = {}
    for folder in folders:
        by_split.setdefault(folder.split, []).append(folder)
    if len(by_split) < 2:
        return folders
    for split, members in by_split.items():
        first = {folder.rest[:1] for folder in members}
        name = next(iter(first))
        if len(first) == 1 and name and (is_images(name[0]) or alike(name[0]) == alike(split)):
            for folder in members:
                folder.rest, folder.levels = folder.rest[1:], folder.levels[1:]
    return folders


# --- classes ---------------------------------------------------------------------------------------------


def _take_depth(folders: Sequence[Folder], depth: int | None, places: Places) -> None:
    """Give each folder the class at ``depth``; leave out images above it unless their whole split is unlabelled."""
    labelled = {folder.split for folder in folders if depth is not None and len(folder.rest) > depth}
    num_deep = 0
    for folder in folders:
        if folder.path in places.left_out:
            continue
        places.split_of[folder.path] = folder.split
        if depth is None or len(folder.rest) <= depth:
            places.class_of[folder.path] = None
            if folder.split in labelled:
                places.left_out[folder.path] = STRAY
            continue
        places.class_of[folder.path] = unicodedata.normalize("NFC", folder.rest[depth])
        num_deep += folder.num_images * (len(folder.rest) > depth + 1)
    _forget_left_out(places)
    if num_deep:
        places.notes.append(f"{count(num_deep, 'image')} in deeper folders take the class of the folder above them")
    if depth is not None:
        places.labels_from = "the names of the folders"


def _take_level(folders: Sequence[Folder], level: int, places: Places) -> None:
    """Give each folder the class at the level that the user asked for."""
    for folder in folders:
        if len(folder.parts) < level:
            places.left_out[folder.path] = SHALLOW
            continue
        if places.has_splits and level not in folder.levels:
            places.problem = DataError(
                f"level {level} of the folders names the splits ({folder.parts[level - 1]}), not the classes",
                allowed=f"another level: {', '.join(map(str, folder.levels))}",
                hint=f"--set data.class_level={next(iter(folder.levels), level + 1)}",
            )
            return
        places.split_of[folder.path] = folder.split
        places.class_of[folder.path] = unicodedata.normalize("NFC", folder.parts[level - 1])
    places.problem = None
    places.labels_from = f"the names of the folders at level {level}"
    if not places.class_of:
        places.problem = DataError(
            f"no image is in a folder at level {level}", allowed="an existing level", hint="leave out data.class_level"
        )


def _forget_left_out(places: Places) -> None:
    for path in places.left_out:
        places.split_of.pop(path, None)
        places.class_of.pop(path, None)

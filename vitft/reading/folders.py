"""What folders say of the images in them: which split, which class; or which readings contradict each other.

    photos/daisy/1.jpg             one split
    photos/train/daisy/1.jpg       splits above classes, by any of their words: seg_train, Training Set, train2017
    photos/daisy/train/1.jpg       splits below classes
    photos/flowers/daisy/1.jpg     folders that only wrap others, as archives leave them, are passed through

Only names and counts decide, so a folder of a million files costs what its folders cost.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vitft.errors import DataError, shorten
from vitft.reading.listing import Listing, count
from vitft.reading.words import (
    Role,
    alike,
    are_parts,
    in_order,
    is_fold,
    is_images,
    is_masks,
    is_size,
    role_of,
    roles_of,
)

UNSPLIT = "train"
"""Name of the split of a source that names none."""
MASKS = "masks and annotations, not images"
OUTSIDE = "outside of the split folders"
STRAY = "outside of the class folders"
SHALLOW = "no folder at the level of the classes"


@dataclass
class Places:
    """What the folders of a listing say of their images.

    Attributes:
        split_of: the split of each folder with images, by its own name.
        class_of: the class of each such folder; None where its images lie in no class folder.
        left_out: folders whose images are not read, with the reason.
        roles: what each split serves for, where its name says so.
        has_splits: whether the folders name splits.
        labels_from: where classes are read, in words.
        notes: what a person should know about the reading.
        problem: why the folders alone give no classes.
    """

    split_of: dict[str, str] = field(default_factory=dict)
    class_of: dict[str, str | None] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    roles: dict[str, Role | None] = field(default_factory=dict)
    has_splits: bool = False
    labels_from: str = ""
    notes: list[str] = field(default_factory=list)
    problem: DataError | None = None

    def without_classes(self) -> Places:
        """Return the same splits without classes, for tables that give them."""
        folders = [*self.class_of, *(path for path, reason in self.left_out.items() if reason in (STRAY, SHALLOW))]
        left_out = {path: reason for path, reason in self.left_out.items() if reason not in (STRAY, SHALLOW)}
        return replace(self, class_of=dict.fromkeys(folders), left_out=left_out, problem=None)

    @property
    def classes(self) -> list[str]:
        """The classes, in their order."""
        return in_order({name for name in self.class_of.values() if name is not None})


@dataclass
class _Folder:
    """A folder with images: where it lies, and what stands below its split.

    ``rest`` are the names that may be classes, ``levels`` the place of each in the path, 1 for the first.
    """

    path: str
    parts: tuple[str, ...]
    num_images: int
    split: str = UNSPLIT
    rest: tuple[str, ...] = ()
    levels: tuple[int, ...] = ()


@dataclass
class _Node:
    """A folder and what is below it."""

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
    """Read splits and classes from where the images of a folder lie.

    Args:
        listing: of the folder.
        wanted: split names that the user asks for; a folder so named is a split, not a class.
        class_level: the level of folders that names the class, 1 for those in the dataset's folder.
        accept_classes: take folders for classes whatever they are called.
    """
    places = Places()
    folders = [
        _Folder(path, tuple(path.split("/")) if path else (), len(names)) for path, names in listing.images.items()
    ]
    folders = _place_in_splits(folders, frozenset(wanted), places)
    if class_level is not None:
        _take_level(folders, class_level, places)
        return places
    folders = _without_inner_wrapper(folders)
    # A folder beside the splits that is none of them (extra/) does not say where classes are.
    telling = [folder for folder in folders if not places.has_splits or places.roles[folder.split] or wanted]
    depth = _class_depth(listing.root, telling, places, accept_classes=accept_classes)
    _take_depth(folders, depth, places)
    return places


# --- splits ------------------------------------------------------------------------------------------------


def _place_in_splits(folders: list[_Folder], wanted: frozenset[str], places: Places) -> list[_Folder]:
    """Find the level of splits; return the folders that are in one, with what remains of their paths."""
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


def _leave_outside(outside: list[_Folder], parents: Sequence[_Node], inside: Sequence[_Folder], places: Places) -> None:
    """Leave out what is in no split; more than what is in one is no stray, but another reading."""
    num_outside, num_inside = (sum(each.num_images for each in group) for group in (outside, inside))
    for folder in outside:
        places.left_out[folder.path] = OUTSIDE if folder.parts else STRAY
    if (len(parents) > 1 and outside) or num_outside > num_inside:
        some = shorten(sorted({"/".join(parent.parts) or "." for parent in parents}), 4)
        places.problem = DataError(
            f"the folders can be read in two ways: with splits, as there are split folders below {some} "
            f"({count(num_inside, 'image')}); or without, as {count(num_outside, 'image')} lie outside of them, "
            f"such as in {outside[0].path or 'the folder itself'}/",
            allowed="every image below a split folder, or no split folders",
            hint=f"give one of the folders (--dataset .../{some.split(',')[0]}), "
            "or say which level names the classes: --set data.class_level=1",
        )


def _check_siblings(inside: Sequence[_Folder], places: Places, wanted: frozenset[str]) -> None:
    """Refuse to take a few folders for splits where most of their neighbours are none: {train, plane, car}."""
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


def _tree(folders: Sequence[_Folder]) -> _Node:
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
    """Return the roles of folders side by side; a name that the user asks for is a split whatever it says."""
    return roles_of(names) | {name: role_of(name) for name in names if name in wanted}


def _split_parents(root: _Node, wanted: frozenset[str]) -> list[_Node]:
    """Return the topmost folders whose subfolders are splits."""
    strong, weak, waiting = [], [], [root]
    while waiting:
        node = waiting.pop()
        roles = _roles(node.children, wanted)
        kids = [node.children[name] for name, role in roles.items() if role or name in wanted]
        is_whole = bool(kids) and len(kids) == len(node.children)
        num_roles = len({role for role in roles.values() if role})
        trains = [
            node.children[name] for name, role in roles.items() if role == "train" or (name in wanted and role is None)
        ]
        # One class folder may be called "test", or "train" among other vehicles: beside folders that are no splits,
        # only one that trains and holds folders itself makes a level of splits.
        if is_whole and (num_roles > 1 or any(not kid.is_flat for kid in kids) or any(map(wanted.__contains__, roles))):
            strong.append(node)
        elif is_whole:
            weak.append(node)
        elif any(not kid.is_flat for kid in trains) or any(name in wanted for name in node.children):
            strong.append(node)
        else:
            waiting += node.children.values()
    if strong and all(kid.is_flat for node in strong for kid in node.children.values()):
        strong += weak  # classes of which some have images in one split only
    if not strong and len(weak) == 1 and weak[0].total - weak[0].own == root.total:
        return weak
    return sorted(strong, key=lambda node: node.parts)


def _without_inner_wrapper(folders: list[_Folder]) -> list[_Folder]:
    """Pass through the folder inside a split that repeats its name or just says ``images``: val/images/1.jpg."""
    by_split: dict[str, list[_Folder]] = {}
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


# --- classes -----------------------------------------------------------------------------------------------


def _class_depth(root: str, folders: list[_Folder], places: Places, *, accept_classes: bool) -> int | None:
    """Return the place of the class in what remains of the paths, None where they name no classes.

    Masks are left out on the way; where two levels could be the classes, ``places.problem`` says so.
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
                depth += 1  # folders of images as archives are cut into, not classes
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


def _leave_masks(folders: Sequence[_Folder], depth: int, places: Places) -> None:
    if any(is_images(folder.rest[depth]) for folder in folders):
        for folder in folders:
            if is_masks(folder.rest[depth]) and not is_images(folder.rest[depth]):
                places.left_out[folder.path] = MASKS


def _nested(folders: Sequence[_Folder], depth: int, direct: set[str]) -> str | None:
    """Return the folder beside the classes that holds folders of the same names, as an archive unpacked twice does."""
    inner: dict[str, set[str]] = {}
    for folder in folders:
        if folder.rest[depth] not in direct and len(folder.rest) > depth + 1:
            inner.setdefault(folder.rest[depth], set()).update(map(alike, folder.rest[depth + 1 :]))
    known = set(map(alike, direct))
    return next((name for name, names in inner.items() if len(names & known) * 2 > len(known)), None)


def _twice(root: str, nested: str, others: set[str]) -> DataError:
    return DataError(
        f"the folders of {root} can be read in two ways: {shorten(in_order(others), 4)} as the classes, and {nested} "
        f"as another; or {nested} as the dataset itself, as it holds folders of the same names",
        allowed="one set of class folders",
        hint=f"--dataset {root}/{nested}, or move {nested}/ away",
    )


def _just_wrap(folders: Sequence[_Folder], depth: int, names: set[str]) -> bool:
    """Whether each class folder holds one folder only, so that both levels part the images alike."""
    if any(is_fold(name) or is_size(name) for name in names):
        return False
    if any(folder.levels[depth + 1] > folder.levels[depth] + 1 for folder in folders):
        return False  # a level of splits lies between them
    if any(len(folder.rest) > depth + 2 for folder in folders):
        return False
    below: dict[str, set[tuple[str, ...]]] = {}
    for folder in folders:
        below.setdefault(folder.rest[depth], set()).add(folder.rest[depth + 1 : depth + 2])
    alone = {next(iter(subs)) for subs in below.values() if len(subs) == 1}
    return all(len(subs) == 1 for subs in below.values()) and (len(alone) == len(below) or len(alone) == 1)


def _two_levels(root: str, folders: Sequence[_Folder], depth: int) -> DataError:
    """Return the error that shows each level of folders that could be the classes."""
    split_parents = sorted({
        "/".join(folder.parts[: level - 1]) for folder in folders
        for level in set(range(1, len(folder.parts) + 1)) - set(folder.levels) if level > 1
    })  # fmt: skip
    lines: list[str] = []
    levels: list[int] = []
    why = ""
    if all(is_fold(folder.rest[depth]) for folder in folders):
        why = " (these are folds; one to validate on: --set data.validation_split=FOLD)"
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
    return DataError(
        f"the folders of {root} can be read in {len(lines)} ways, as the classes may be at several levels:\n"
        + "\n".join(lines),
        allowed="one level of folders that are the classes" + why,
        hint=" or ".join(
            [
                *(f"--set data.class_level={level}" for level in levels),
                *(f"--dataset {root}/{parent}" for parent in split_parents[:3] if len(split_parents) > 1),
            ]
        ),
    )


def _take_depth(folders: Sequence[_Folder], depth: int | None, places: Places) -> None:
    """Give each folder the class at ``depth``; images above it are strays, unless a whole split is unlabelled."""
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
        places.notes.append(f"{count(num_deep, 'image')} in deeper folders belong to the class folder above them")
    if depth is not None:
        places.labels_from = "the names of the folders"


def _take_level(folders: Sequence[_Folder], level: int, places: Places) -> None:
    """Give each folder the class that the user's level of folders names."""
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
            f"no image lies in a folder at level {level}", allowed="a level that there is", hint="leave class_level out"
        )


def _forget_left_out(places: Places) -> None:
    for path in places.left_out:
        places.split_of.pop(path, None)
        places.class_of.pop(path, None)


def mask_files(names: Sequence[str]) -> Iterator[str]:
    """Yield the names of a folder's images that are masks of others: ``1_mask.png`` beside ``1.png``."""
    marked = [name for name in names if "mask" in name.lower()]
    if not marked:
        return
    stems = {name[: name.rfind(".")] for name in names}
    for name in marked:
        stem = name[: name.rfind(".")]
        place = stem.lower().rfind("mask")
        before = stem[:place].rstrip("_- .")
        if before and before in stems:
            yield name

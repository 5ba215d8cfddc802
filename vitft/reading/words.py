"""Interpret the names of folders, files, columns and splits: a split, images, masks, a fold, a measure.

This file only looks at words. What a name means also depends on the names beside it (``train`` is a vehicle, too);
that is decided where names are read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

Role = Literal["train", "validation", "test"]

SPLIT_WORDS: dict[Role, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing", "eval", "evaluation", "holdout", "heldout"),
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ROLE_OF: dict[str, Role] = {word: role for role, words in SPLIT_WORDS.items() for word in words}
_IMAGE_WORDS = _words(
    "image images img imgs jpg jpgs jpeg jpegs jpegimages png pngs photo photos pic pics picture pictures rgb "
    "raw original originals orig"
)
_MASK_WORDS = _words(
    "mask masks label labels annotation annotations annot annots gt groundtruth segmentation segmentations "
    "segs bbox bboxes boxes xml xmls json jsons trimap trimaps depth outline outlines"
)
_MASK_KINDS = _words("ground truth class classes object objects map maps pixel semantic instance level color colour")
_FILLER = _IMAGE_WORDS | _words(
    "set sets data dataset datasets split splits folder dir files file features feature the all list lists"
)
_FOLD_WORDS = _words("fold folds cv kfold split partition")
_PART_WORDS = _words("part parts batch batches chunk chunks shard shards archive zip volume vol download")
_UNLABELLED = _words("unlabeled unlabelled unannotated untagged unsorted")
_SIZE_WORDS = _words("full thumb thumbs thumbnail thumbnails small medium large resized lowres hires")
_JOINED = re.compile(
    rf"(?P<split>{'|'.join(sorted(_ROLE_OF, key=len, reverse=True))})"
    r"(?:sets?|data|images?|imgs?|photos|pics|split|list)"
)
_DATE = re.compile(r"(?:19|20)\d\d(?P<between>[-_. ]?)(?:0[1-9]|1[0-2])(?P=between)(?:0[1-9]|[12]\d|3[01])")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+")

_MEASURES = _words(
    "width height w h size bytes filesize area aspect depth channels x y min max xmin xmax ymin ymax x1 x2 y1 y2 left "
    "top right bottom bbox box id ids index idx row number no uuid hash md5 sha1 sha256 timestamp time date "
    "datetime year month day lat latitude lon lng longitude score confidence url link source license licence "
    "author user username annotator lead comment comments note notes description caption captions text title "
    "filename filepath path file name unnamed created updated modified mode dpi age"
)
_DIMENSIONS = _words("width height w h size bytes filesize area aspect depth channels x y image img px ratio")
LABEL_WORDS = (
    "label", "labels", "class", "cls", "category", "target", "class_name", "label_name", "class_id", "fine_label",
    "choice",
)  # fmt: skip
_LABEL_PARTS = _words(
    "label labels class classes cls category categories target targets tags choice choices species breed"
)
_SPLIT_COLUMNS = _words(
    "split splits set subset partition fold folds kfold dataset datasplit datasetsplit splitname splitset "
    "splittype usage phase stage traintest trainortest traintestsplit traintestval trainvaltest purpose"
)
_FLAG = re.compile(
    r"(?:is|in|for|use)?(?:a)?(?P<split>training|train|validation|valid|val|dev|testing|test|eval|holdout)"
    r"(?:ing)?(?:image|img|set|sample|row|flag|item|file)?"
)


def words_of(name: str) -> list[str]:
    """Return the words of a name in lower case, numbers separately: ``TrainImages_2017`` -> train, images, 2017."""
    return [word.lower() for word in _WORD.findall(name)]


def role_of(name: str) -> Role | None:
    """Return the split that a name is a word for, without other words: ``train``, ``Val``."""
    return _ROLE_OF.get(name.strip().lower())


def split_and_rest(name: str) -> tuple[Role | None, tuple[str, ...]]:
    """Return the split that a name means, and its words that are neither for a split nor filler.

    ``training_set`` -> train, (); ``seg_test`` -> test, (seg,); ``train_val_images`` -> train, (), because it
    holds everything but test; ``train_test_split`` -> None, because it means both.
    """
    roles: set[Role] = set()
    rest: list[str] = []
    for word in words_of(name):
        joined = _JOINED.fullmatch(word)
        role = _ROLE_OF.get(joined["split"] if joined else word)
        if word in ("trainval", "trainvalid"):
            roles |= {"train"}
        elif role is not None:
            roles.add(role)
        elif word not in _FILLER and not word.isdigit():
            rest.append(word)
    if len(roles) == 1:
        return next(iter(roles)), tuple(rest)
    return ("train" if roles == {"train", "validation"} else None), tuple(rest)


def roles_of(names: Iterable[str]) -> dict[str, Role | None]:
    """Return the split that each of several names side by side means, None if it is not a split.

    A name with other words counts only beside another split with the same ones: ``seg_train`` beside
    ``seg_test``, ``train_mini`` beside ``val``, but not ``bullet_train`` beside ``test_tube``.
    """
    parts = {name: split_and_rest(name) for name in names}
    found: dict[str, Role | None] = {}
    plain = {role for role, rest in parts.values() if role and not rest}
    for name, (role, rest) in parts.items():
        has_partner = any(other and other != role and same == rest for other, same in parts.values())
        is_only = bool(plain - {role}) and role not in plain  # train_mini beside val, and no train
        found[name] = role if role and (not rest or has_partner or is_only) else None
    return found


def is_masks(name: str) -> bool:
    """Return whether a folder with this name holds annotations of images, not images: masks, labels, boxes."""
    words = set(words_of(name))
    if {"ground", "truth"} <= words:
        words = words - {"ground", "truth"} | {"groundtruth"}
    return bool(words & _MASK_WORDS) and words <= _MASK_WORDS | _MASK_KINDS | _FILLER | _split_words()


def is_images(name: str) -> bool:
    """Return whether a folder's name just means that it holds images."""
    words = set(words_of(name)) - _split_words()
    return bool(words) and all(word in _FILLER or word.isdigit() for word in words) and bool(words & _IMAGE_WORDS)


def is_fold(name: str) -> bool:
    """Return whether a name is one of a numbered series of folds or splits: ``fold3``, ``split_0``."""
    words = words_of(name)
    return len(words) == 2 and words[0] in _FOLD_WORDS and words[1].isdigit()


def are_parts(names: Collection[str]) -> bool:
    """Return whether the names are parts of one set: images_001, images_002; part1, part2."""
    words = {tuple(word for word in words_of(name) if not word.isdigit()) for name in names}
    return len(names) > 1 and len(words) == 1 and bool(set(*words) & (_PART_WORDS | _IMAGE_WORDS))


def is_unlabelled(name: str) -> bool:
    """Return whether a folder's name means that its images have no labels."""
    words = set(words_of(name)) - _FILLER
    return bool(words) and words <= _UNLABELLED


def is_date(name: str) -> bool:
    """Return whether a name is a date, as cameras and phones name folders: ``2024-05-31``, ``20240531``."""
    return _DATE.fullmatch(name.strip()) is not None


def is_size(name: str) -> bool:
    """Return whether a name says how large images are: ``thumbs``, ``224x224``, ``40X``."""
    words = words_of(name)
    return bool(words) and all(word in _SIZE_WORDS | {"x", "px"} or word.isdigit() for word in words)


def is_label_name(column: str) -> bool:
    """Return whether a column is named like a label."""
    leaf = column.rsplit(".", 1)[-1]
    if set(words_of(leaf)) & {"predicted", "prediction", "pred"}:
        return False
    return leaf.strip().lower() in LABEL_WORDS or bool(set(words_of(leaf)) & _LABEL_PARTS)


def is_measure(column: str) -> bool:
    """Return whether a column is named like a measure, an id or a comment, which is never a label."""
    words = words_of(column.rsplit(".", 1)[-1])
    return not words or all(word in _MEASURES or word.isdigit() for word in words) or words[-1] in ("id", "ids")


def is_dimension(column: str) -> bool:
    """Return whether a column is named like the width, height or size of an image, which is never a label."""
    return set(words_of(column)) <= _DIMENSIONS


def is_split_name(column: str) -> bool:
    """Return whether a column is named like a split column."""
    return squeezed(column) in _SPLIT_COLUMNS or flag_role(column) is not None


def flag_role(column: str) -> Role | None:
    """Return the split that a true/false column marks, from its name: ``is_training_image`` -> train."""
    found = _FLAG.fullmatch(squeezed(column))
    return _ROLE_OF[found["split"]] if found else None


def squeezed(name: str) -> str:
    """Return the last part of a dotted name in lower case, with nothing between its words."""
    return re.sub(r"[\W_]+", "", name.rsplit(".", 1)[-1].lower())


def alike(name: str) -> str:
    """Return a key that is equal for names that differ only in case, spaces and separators; -1 is not 1."""
    name = unicodedata.normalize("NFC", name).strip()
    if re.fullmatch(r"[+-]?[\d.]+", name):
        return name
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def in_order(names: Iterable[str]) -> list[str]:
    """Return class names in sorted order, by value if all are whole numbers."""
    names = list(names)
    if names and all(re.fullmatch(r"[+-]?[0-9]{1,18}", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def rank(name: str, words: Sequence[str]) -> int:
    """Return a name's rank among preferred ones, or the last rank if it is not one of them."""
    return words.index(name.lower()) if name.lower() in words else len(words)


def _split_words() -> set[str]:
    return set(_ROLE_OF)

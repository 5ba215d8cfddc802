"""Open a dataset as an ImageSource: choose columns, classes and splits, and note the reason of each choice.

Everything is decided from names, types and labels. Then the images are checked: none may be in two splits, and a
sample is decoded. The same data give the same source in every process, on any machine and with any cache folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vitft.data.class_counts import class_counts, in_chunks
from vitft.data.images import ImageSource, ImageSplit
from vitft.data.row_numbers import RowNumbers
from vitft.data.staging import WHITE_LEVEL
from vitft.errors import DataError, shorten
from vitft.reading.checks import check_images, refuse_bad, refuse_lost, white_level
from vitft.reading.chosen import Columns, find_columns, image_split, join_splits, read_split, telling
from vitft.reading.copies import Side, find_copies, part_splits
from vitft.reading.encoded import EncodedImages
from vitft.reading.fingerprint import fingerprint
from vitft.reading.guard import guard_classes
from vitft.reading.labels import (
    Labels,
    join_similar,
    onto_classes,
    require_classes,
)
from vitft.reading.listing import count
from vitft.reading.opened import OpenedSource
from vitft.reading.opening import open_splits
from vitft.reading.splits import MAX_CARVED, Roles, assign_roles, carve, limit, named_split
from vitft.reading.streams import stream_source
from vitft.recipe.keys import DataRecipe

__all__ = ["open_for_evaluation", "open_source", "open_validation"]


def open_source(data: DataRecipe, *, seed: int) -> ImageSource:
    """Open a dataset for training: find columns and classes, assign splits, and carve out validation if needed.

    Args:
        data: the recipe's `data` section.
        seed: the run's seed; it decides which rows are carved out and which ``max_train_samples`` keeps.

    Raises:
        DataError: if the dataset cannot be opened or trained on; the message includes the notes so far.
    """
    notes: list[str] = []
    with telling(notes):
        opened = open_splits(data)
        notes += opened.notes
        wanted = {"train": data.train_split, "validation": data.validation_split, "test": data.test_split}
        roles = assign_roles(list(opened.splits), wanted, known=opened.roles)
        assert roles.train is not None, roles
        notes += roles.notes
        opened = join_splits(opened, roles)
        columns = find_columns(opened, roles.train, data, notes)
        if data.streaming:
            return stream_source(opened, roles, columns.images, columns.label, data, seed, notes)
        return _Training(opened, roles, columns, data, seed, notes).source()


def open_for_evaluation(data: DataRecipe, classes: Sequence[str], *, split: str | None) -> ImageSplit:
    """Open one split of a dataset to evaluate a model on, and match its labels to the model's classes by name.

    Args:
        data: the recipe's `data` section.
        classes: the model's class names, by id.
        split: the split to open; if None: test, else validation, else everything if the source names no splits.

    Returns:
        The split, with notes on what was chosen and why.

    Raises:
        DataError: if the split is missing, has no labels, or has labels that the model does not know.
    """
    if data.streaming:
        raise DataError("a model cannot be evaluated on a stream, only on a whole split", hint="leave out --streaming")
    notes: list[str] = []
    with telling(notes):
        opened = open_splits(data)
        notes += opened.notes
        names = list(opened.splits)
        for name in _to_judge_by(opened, data, split):
            columns = find_columns(opened, name, data, notes, may_lack_label=split is None)
            labels = read_split(opened, name, columns.label) if columns.label else None
            if labels is not None:
                if not opened.has_splits:
                    notes.append(f"{opened.id} names no splits: evaluating on all {len(labels.ids):,} images")
                elif split is None and name not in ("test",):
                    notes.append(f"evaluating on the split {name}")
                return _judged(opened, name, columns, labels, classes, data, notes)
        if split is not None:
            raise DataError(
                f"the split {split!r} has no labels, so a model cannot be evaluated on it",
                allowed=f"a labelled split among {', '.join(names)}",
                hint="--split NAME",
            )
        raise DataError(
            "the dataset has no labelled test or validation split",
            allowed=f"one of its splits: {', '.join(names)}",
            hint=f"--split {names[0]}" if names else None,
        )


def open_validation(data: DataRecipe, classes: Sequence[str]) -> ImageSplit:
    """Open the validation split of a dataset to calibrate a model on, its labels matched as for evaluation.

    Raises:
        DataError: if there is none, or it has no labels, or labels that the model does not know.
    """
    notes: list[str] = []
    with telling(notes):
        opened = open_splits(data)
        name = _roles_to_judge_by(opened, data).validation
        if name is None:
            raise DataError(
                f"{opened.id} has no validation split to fit a temperature on",
                allowed=f"one of its splits: {', '.join(opened.splits)}",
                hint="--set data.validation_split=NAME, or calibrate the run instead, which has a split of its own",
            )
        columns = find_columns(opened, name, data, notes, may_lack_label=False)
        labels = read_split(opened, name, columns.label)
        if labels is None:
            raise DataError(
                f"the split {name!r} has no labels, so no temperature can be fitted on it",
                hint="--set data.validation_split=NAME",
            )
        return _judged(opened, name, columns, labels, classes, data, notes)


def _to_judge_by(opened: OpenedSource, data: DataRecipe, split: str | None) -> list[str]:
    names = list(opened.splits)
    if split:
        return [named_split(names, split, "--split NAME")]
    roles = _roles_to_judge_by(opened, data)
    found = [name for name in (roles.test, roles.validation) if name is not None]
    return found or (names if not opened.has_splits and len(names) == 1 else [])


def _roles_to_judge_by(opened: OpenedSource, data: DataRecipe) -> Roles:
    wanted = {"train": None, "validation": data.validation_split, "test": data.test_split}
    return assign_roles(list(opened.splits), wanted, known=opened.roles, need_train=False)


def _judged(
    opened: OpenedSource, name: str, columns: Columns, labels: Labels, classes: Sequence[str], data: DataRecipe,
    notes: list[str],
) -> ImageSplit:  # fmt: skip
    ids, unknown, said = onto_classes(labels, classes, exactly=data.similar_names == "keep")
    notes += said
    if unknown:
        raise DataError(
            f"the model does not know {len(unknown)} of the classes in {name}: {shorten(unknown)}",
            allowed=f"the model's {len(classes)} classes: {shorten(list(classes))}",
            hint="rename the classes, or choose another column: --set data.label_column=NAME",
        )
    if data.max_train_samples is not None:
        notes.append(f"data.max_train_samples is for training: all {len(ids):,} images of {name} are used")
    shown_as = name if opened.has_splits else "all"
    judged = image_split(opened, shown_as, name, columns.images, ids)
    level = data.white_level if isinstance(data.white_level, int) else judged.white_level
    return replace(judged, notes=tuple(notes), white_level=level, labels_from=columns.labels_from)


# --- training ----------------------------------------------------------------------------------------------


@dataclass
class _Training:
    """The state of preparing an opened source for training."""

    opened: OpenedSource
    roles: Roles
    columns: Columns
    data: DataRecipe
    seed: int
    notes: list[str]
    _encoded: dict[str, EncodedImages] = field(default_factory=dict)
    _scored: list[str] = field(default_factory=list)

    def source(self) -> ImageSource:
        """Read labels, split the rows and check the images."""
        train, others = self._labels()
        classes = train.names
        parts = {role: (name, self._onto(role, name, labels, train)) for role, (name, labels) in others.items()}
        if not self.data.accept_classes:
            are_folders = self.columns.labels_from.startswith("the names of the folders")
            known = [] if self.opened.doubts else [labels for _, labels in others.values()]
            guard_classes(train, self.columns.labels_from, others=known, are_folders=are_folders)
        whole = self._split("train", self._train_name, train.ids)
        given = {role: self._split(role, name, ids) for role, (name, ids) in parts.items()}
        self._part_from(whole, list(given.values()))
        splits = {**given, "train": whole}
        if "validation" not in splits:
            splits["train"], splits["validation"] = self._carved(whole, len(classes))
        self._note_classes(whole, splits["validation"], classes)
        splits["train"] = self._limited(whole, splits["train"], classes)
        level = self._looked_at(splits, classes)
        splits = {role: replace(split, white_level=level) for role, split in splits.items()}
        return ImageSource(
            id=self.opened.id,
            revision=self.opened.revision,
            fingerprint=self._fingerprint(splits, classes),
            classes=classes,
            train=splits["train"],
            validation=splits["validation"],
            test=splits.get("test"),
            left_out=self._left_out(),
            notes=tuple(self.notes),
            labels_from=self.columns.labels_from,
            label_column=None if self.opened.columns else self.columns.label,
        )

    @property
    def _train_name(self) -> str:
        assert self.roles.train is not None
        return self.roles.train

    def _split(self, role: str, name: str, ids: np.ndarray) -> ImageSplit:
        return image_split(self.opened, role, name, self.columns.images, ids)

    def _labels(self) -> tuple[Labels, dict[str, tuple[str, Labels]]]:
        """Return the training labels, whose names are the classes, and those of the other labelled splits."""
        train = read_split(self.opened, self._train_name, self.columns.label)
        if train is None:
            raise DataError(
                f"no row of {self._train_name} has a label in {self.columns.label!r}",
                hint="--set data.label_column=NAME or --set data.train_split=NAME",
            )
        train = join_similar(train, self.data.similar_names, self.notes)
        require_classes(train, self._train_name)
        others: dict[str, tuple[str, Labels]] = {}
        for role, name in (("validation", self.roles.validation), ("test", self.roles.test)):
            has_signs = train.names == ("-1", "1")
            labels = None if name is None else read_split(self.opened, name, self.columns.label, has_signs=has_signs)
            if name is not None and labels is None:
                number = len(self.opened.splits[name])
                self.notes.append(f"{role}: {name} was left out, because none of its {number:,} rows has a label")
            elif name is not None and labels is not None:
                others[role] = name, labels
                self._scored.append(name)
        return train, others

    def _onto(self, role: str, name: str, labels: Labels, train: Labels) -> np.ndarray:
        """Return the labels of another split as ids of the training classes."""
        ids, unknown, said = onto_classes(labels, train.names, exactly=self.data.similar_names == "keep")
        self.notes += [f"{name}: {note}" for note in said]
        in_train = train.counts > 0
        used = class_counts(in_chunks(ids), len(train.names)) > 0
        unknown += [train.names[index] for index in np.flatnonzero(used & ~in_train).tolist()]
        if unknown:
            raise DataError(
                f"{name} has classes without an image in {self._train_name}: {shorten(unknown)}",
                allowed=f"the classes of {self._train_name}: {shorten(np.array(train.names)[in_train].tolist())}",
                hint="correct the labels, move some of these images into training, or name other splits: "
                f"--set data.{role}_split=NAME",
            )
        return ids

    def _part_from(self, train: ImageSplit, others: Sequence[ImageSplit]) -> None:
        """Refuse images that are in two splits; only note them in a Hub dataset, whose splits others use too."""
        sides = [Side(split, self._images(split.source_name)) for split in (train, *others)]
        self.notes += part_splits(sides, are_accepted=self.opened.kind == "hub" or self.data.allow_overlap)

    def _images(self, name: str, rows: np.ndarray | None = None) -> EncodedImages:
        """Return the images of a source's split, or of some of its rows."""
        if name not in self._encoded:
            dataset = self.opened.splits[name]
            column = dataset.data.column(self.columns.images[0])
            indices = None if dataset._indices is None else dataset._indices.column(0).to_numpy()
            self._encoded[name] = EncodedImages(column, self.opened.folders.get(name, ()), indices)
        return self._encoded[name] if rows is None else self._encoded[name].take(rows)

    def _carved(self, whole: ImageSplit, num_classes: int) -> tuple[ImageSplit, ImageSplit]:
        """Carve validation out of training, and note images that have a copy in the other part."""
        held_out = carve(whole.ids, self.data.validation_fraction, seed=self.seed)
        if len(held_out) == 0:
            raise DataError(
                f"{self._train_name} has no class with two images, so no validation images can be carved out of it",
                hint="add images, or give a validation split: --set data.validation_split=NAME",
            )
        train = whole.part("train", RowNumbers.all_but(len(whole), held_out))
        validation = whole.part("validation", RowNumbers.only(held_out))
        name, share = self._train_name, len(held_out) / len(whole)
        copies = find_copies(
            Side(whole, self._images(name)), Side(validation, self._images(name, held_out)), apart_from=held_out
        )
        if copies.pairs:
            self.notes.append(
                f"{len(copies.pairs):,} of the {len(held_out):,} images carved out for validation have a copy in "
                f"{name}, such as {validation.where(copies.pairs[0][1])} and {whole.where(copies.pairs[0][0])}"
            )
        why = "" if abs(share - self.data.validation_fraction) < 0.01 else " so that every class has one if possible,"
        if len(held_out) == MAX_CARVED:
            number = int((whole.class_counts(num_classes) > 0).sum())
            why = " the maximum" + (f", for {number:,} classes," if number > MAX_CARVED else ",")
        note = (
            f"validation: {len(held_out):,} of the {len(whole):,} rows of {name} ({share:.1%},{why} "
            f"stratified, seed {self.seed}), because the dataset has no validation split"
        )
        self.notes.append(note)
        return replace(train, notes=(note,)), replace(validation, notes=(note,))

    def _limited(self, whole: ImageSplit, train: ImageSplit, classes: Sequence[str]) -> ImageSplit:
        """Keep only ``max_train_samples`` training images."""
        most = self.data.max_train_samples
        if most is None or most >= len(train):
            return train
        kept = limit(train.labels, most, seed=self.seed)
        note = (
            f"train: {len(kept):,} of {len(train):,} rows, an equal number of each class if possible "
            f"(data.max_train_samples, seed {self.seed})"
        )
        self.notes.append(note)
        limited = whole.part("train", RowNumbers.only(train.row_numbers.at(kept)))
        limited = replace(limited, notes=(*train.notes, note))
        has_images = limited.class_counts(len(classes)) > 0
        lost = np.flatnonzero((train.class_counts(len(classes)) > 0) & ~has_images).tolist()
        if lost:
            self.notes.append(
                f"classes without a training image, because data.max_train_samples={most} is too small for all: "
                f"{shorten([classes[k] for k in lost])}"
            )
        return limited

    def _note_classes(self, train: ImageSplit, validation: ImageSplit, classes: Sequence[str]) -> None:
        counts = train.class_counts(len(classes))
        seen = validation.class_counts(len(classes)) > 0
        for numbers, words in (
            (np.flatnonzero(counts == 0), f"classes without any image in {self._train_name}"),
            (np.flatnonzero(counts == 1), f"classes with one image in {self._train_name}, which stays in training"),
            (np.flatnonzero((counts > 0) & ~seen), "training classes without a validation image"),
        ):
            if len(numbers):
                self.notes.append(f"{words}: {shorten([classes[k] for k in numbers.tolist()])}")

    def _looked_at(self, splits: Mapping[str, ImageSplit], classes: Sequence[str]) -> int:
        """Decode a sample of the images, or all, and return the white level of 16-bit images."""
        if self.data.check_images == "off":
            return WHITE_LEVEL if self.data.white_level in ("auto", None) else int(self.data.white_level)
        found = check_images(
            [splits[role] for role in sorted(splits)],
            classes,
            self.data.check_images,
            every_class=self.data.bad_images == "skip",
        )
        if self.data.bad_images == "stop":
            refuse_bad(found)
        refuse_lost(found)
        if found.bad:
            self.notes.append(
                f"{len(found.bad):,} of {found.num_checked:,} checked images cannot be decoded and will be skipped, "
                f"such as {found.bad[0][0]}: {found.bad[0][1]}"
            )
        return white_level(found, self.data.white_level or WHITE_LEVEL, self.notes)

    def _left_out(self) -> dict[str, int]:
        """Return the number of image files that are in no split in use, by reason."""
        left_out = dict(self.opened.left_out)
        if self.opened.columns is None:
            return left_out
        used = {part for name in (self.roles.train, *self._scored) if name for part in name.split("+")}
        for name, rows in self.opened.splits.items():
            if "+" not in name and name not in used:
                left_out[f"in {name}, which is not used"] = len(rows)
                self.notes.append(f"{count(len(rows), 'image')} of {name} not used")
        return left_out

    def _fingerprint(self, splits: Mapping[str, ImageSplit], classes: Sequence[str]) -> str:
        images = {split.source_name: self._images(split.source_name) for split in splits.values()}
        return fingerprint(images, splits, classes)

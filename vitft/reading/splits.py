"""Assign splits to roles and choose their rows: pure functions of names, labels and the seed.

They use only integer arithmetic and vitft's own permutation, so every process, machine and library version takes the
same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vitft.data.class_counts import class_counts, in_chunks
from vitft.data.order import place_of, sample_at
from vitft.data.row_numbers import CHUNK
from vitft.errors import DataError, did_you_mean
from vitft.reading.words import SPLIT_WORDS, Role, role_of, roles_of

MAX_CARVED = 10_000
_FEW = 2**20  # rows whose places in a permutation are looked up one by one
_ROLES: tuple[Role, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Roles:
    """The source's own name of the split in each role, and notes on the choices."""

    train: str | None
    validation: str | None
    test: str | None
    notes: tuple[str, ...]


def assign_roles(
    names: Sequence[str],
    wanted: Mapping[str, str | None],
    *,
    known: Mapping[str, Role | None] | None = None,
    need_train: bool = True,
) -> Roles:
    """Decide which split trains, validates and tests.

    Args:
        names: the splits that the source has.
        wanted: the name that the recipe asks for in each role ("train", "validation", "test"), or None.
        known: the role of each split, if the source says so; otherwise its name decides.
        need_train: whether to raise if there is no training split.

    Raises:
        DataError: if a requested split is missing or requested in two roles, or if there is no training split.
    """
    notes: list[str] = []
    chosen = _as_asked(names, wanted)
    taken = [part for name in chosen.values() if name for part in _members(names, name)]
    meant = roles_of(names) | {name: role for name, role in (known or {}).items() if role and name in names}
    for role in _ROLES:
        if role in chosen:
            continue
        exact = [name for word in SPLIT_WORDS[role] for name in names if name.lower() == word]
        free = [name for name in exact or [name for name in names if meant.get(name) == role] if name not in taken]
        chosen[role] = free[0] if free else None
        if len(free) > 1 and not exact:
            raise _several(role, free)
        if len(free) > 1:
            notes.append(
                f"{role} split: {free[0]}; not used: {', '.join(free[1:])}; "
                f"to switch: --set data.{role}_split={free[1]}"
            )
        elif free and free[0] != role:
            notes.append(f"{role} split: the source's {free[0]!r}")
        taken += free[:1]
    if chosen["train"] is None and len(names) == 1 and not taken:
        chosen["train"] = names[0]
        notes.append(f"train split: {names[0]!r}, the only one")
        taken.append(names[0])
    others = [name for name in names if name not in taken]
    if chosen["train"] is None and any(wanted.values()) and others and not any(meant.get(name) for name in others):
        chosen["train"] = "+".join(others)
        notes.append(f"train split: {' + '.join(others)}: all splits without another role")
        taken += others
    if chosen["train"] is None and need_train:
        raise DataError(
            "the dataset has no training split",
            allowed=f"one of its splits: {', '.join(names)}, or several joined with +",
            hint=f"--set data.train_split={names[0]}" if names else None,
        )
    left = [name for name in names if name not in taken]
    if left and need_train:
        notes.append(f"splits not used: {', '.join(left)}")
    return Roles(chosen["train"], chosen["validation"], chosen["test"], tuple(notes))


def _as_asked(names: Sequence[str], wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return the splits that the user asked for, by role; raise if one was asked for twice."""
    chosen: dict[str, str | None] = {}
    for role, name in wanted.items():
        if name is not None:
            parts = [named_split(names, each, f"--set data.{role}_split=NAME") for each in _members(names, name)]
            chosen[role] = "+".join(parts)
    taken = [(role, part) for role, name in chosen.items() if name for part in _members(names, name)]
    for role, name in taken:
        twice = [other for other, part in taken if part == name]
        if len(twice) > 1:
            raise DataError(
                f"the split {name!r} is asked for as both {' and '.join(twice)}, but an image must not be in both",
                allowed=f"different splits among {', '.join(names)}",
                hint="leave out data.validation_split to carve validation out of train",
            )
        assert role in _ROLES, role
    return chosen


def _members(names: Sequence[str], name: str) -> list[str]:
    """Return the splits that a name joins with ``+``; a split's own name may contain one."""
    return [name] if name in names else [part.strip() for part in name.split("+")]


def _several(role: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"several splits may be the {role} split: {', '.join(names)}",
        allowed="one of them, or several joined with +",
        hint=f"--set data.{role}_split={'+'.join(names)}, or --set data.{role}_split={names[0]}",
    )


def named_split(names: Iterable[str], name: str, flag: str) -> str:
    """Return the source's name of the split that a user asked for, possibly by a synonym such as ``val``.

    Raises:
        DataError: listing the existing splits.
    """
    names = list(names)
    if name in names:
        return name
    role = role_of(name)
    same = [other for other, meant in roles_of(names).items() if role and meant == role]
    if len(same) == 1:
        return same[0]
    guess = did_you_mean(name, names)
    raise DataError(
        f"the dataset has no split {name!r}" + (f"; did you mean {guess!r}?" if guess else ""),
        allowed=", ".join(names) or "it has no splits at all",
        hint=flag.replace("NAME", guess or (names[0] if names else "NAME")),
    )


def carve(labels: np.ndarray, fraction: float, *, seed: int) -> np.ndarray:
    """Choose the rows of a training split that become validation; the others stay in training.

    It gets ``fraction`` of the rows, but at most 10,000, with each class in proportion (largest remainders).
    From a class of two rows or more it takes at least one and never all; a class of one row stays in training. If there
    are more than 10,000 classes, only the largest have a validation row.

    Args:
        labels: int64 class ids, shape (n,).
        fraction: the fraction of rows that becomes validation.
        seed: the run's seed.

    Returns:
        Row numbers, ascending.
    """
    total = min(max(round(len(labels) * fraction), 1), MAX_CARVED)
    counts = _counts(labels)
    return first_of_each_class(labels, counts, _proportional(counts, total), seed=seed, stream="carve")


def limit(labels: np.ndarray, num_samples: int, *, seed: int) -> np.ndarray:
    """Choose at most ``num_samples`` rows, an equal number of each class if possible.

    If a class has fewer rows than its share, all are taken, and the other classes share the rest.

    Returns:
        Row numbers, ascending.
    """
    counts = _counts(labels)
    quota = np.zeros_like(counts)
    left = min(num_samples, len(labels))
    while left:
        open_classes = np.flatnonzero(quota < counts)[:left]  # fewer rows left than classes: the first get one
        gain = np.minimum(left // len(open_classes), counts[open_classes] - quota[open_classes])
        quota[open_classes] += gain
        left -= int(gain.sum())
    return first_of_each_class(labels, counts, quota, seed=seed, stream="limit")


def first_of_each_class(
    labels: np.ndarray, counts: np.ndarray, quota: np.ndarray, *, seed: int, stream: str
) -> np.ndarray:
    """Return the first ``quota[k]`` rows of every class k in a keyed permutation of all rows, ascending.

    The permutation is followed until few rows are left of the classes that still need some; those are looked up.
    """
    n = len(labels)
    needed = quota.astype(np.int64)
    taken = [np.zeros(0, dtype=np.int64)]
    start = 0
    while start < n and int(counts[needed > 0].sum()) > _FEW:
        stop = min(start + CHUNK, n)
        shuffled = sample_at(seed, torch.arange(start, stop), n, stream=stream).numpy()
        taken.append(_first_of_each(labels, shuffled, needed))
        needed -= np.bincount(labels[taken[-1]], minlength=len(needed))
        start = stop
    if needed.any():
        is_open = needed > 0
        rows = np.concatenate([place + np.flatnonzero(is_open[chunk]) for place, chunk in _placed(labels)])
        places = place_of(seed, torch.from_numpy(rows), n, stream=stream).numpy()
        rows = rows[np.argsort(places)]
        taken.append(_first_of_each(labels, rows[np.sort(places) >= start], needed))
    return np.sort(np.concatenate(taken))


def _first_of_each(labels: np.ndarray, rows: np.ndarray, quota: np.ndarray) -> np.ndarray:
    """Return the first ``quota[k]`` of ``rows`` of every class k; all if there are fewer."""
    rows = rows[quota[labels[rows]] > 0]
    ids = labels[rows]
    by_class = np.argsort(ids, kind="stable")
    counts = np.bincount(ids, minlength=len(quota))
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    first: np.ndarray = rows[by_class[rank < np.repeat(quota, counts)]]
    return first


def _counts(labels: np.ndarray) -> np.ndarray:
    return class_counts(in_chunks(labels), int(labels.max()) + 1)


def _placed(labels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    return ((start, labels[start : start + CHUNK]) for start in range(0, len(labels), CHUNK))


def _proportional(counts: np.ndarray, total: int) -> np.ndarray:
    """Divide ``total`` among the classes by size: from 1 to count - 1 if a class has two or more, otherwise 0."""
    n = int(counts.sum())
    lowest, highest = np.minimum(np.maximum(counts - 1, 0), 1), np.maximum(counts - 1, 0)
    if int(lowest.sum()) > MAX_CARVED:  # one of each class would exceed the cap
        chosen = np.zeros_like(counts)
        chosen[np.argsort(-counts, kind="stable")[:MAX_CARVED]] = 1
        one_each: np.ndarray = chosen * lowest
        return one_each
    quota: np.ndarray = np.clip(counts * total // n, lowest, highest)
    # Adjust the classes furthest below (or above) their exact shares by one each; shares are counted in n-ths.
    while (short := total - int(quota.sum())) != 0:
        movable = np.flatnonzero(quota < highest if short > 0 else quota > lowest)
        if len(movable) == 0:
            break
        missing = (counts * total - quota * n)[movable] * np.sign(short)
        step = movable[np.argsort(-missing, kind="stable")[: abs(short)]]
        quota[step] += np.sign(short)
    return quota

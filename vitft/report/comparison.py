"""Several runs beside each other: what differs in their recipes and scores, and whether a difference is real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from vitft.outside import printable
from vitft.recipe.describe import in_line
from vitft.report.charts import learning_curves
from vitft.report.page import render
from vitft.report.record import Record
from vitft.report.words import SCORES, headline_text, interval_text, score_text
from vitft.scoring.evidence import mcnemar
from vitft.svg import SERIES, series_colour

_NO_DIFFERENCE = ("run.name", "run.output_dir")  # every run has its own
_LEVEL = 0.05
_SHOWN = ("top1", "macro_f1", "nll", "ece")  # in a terminal


@dataclass(frozen=True)
class PairedTest:
    """Whether two runs differ on the same images.

    Attributes:
        one, other: names of the runs.
        count: images that both were scored on; 0 if there is no test.
        only_one, only_other: images that one of the two alone had right.
        p: two-sided, of McNemar's exact test; None if there is no test.
        reason: why there is none.
    """

    one: str
    other: str
    count: int = 0
    only_one: int = 0
    only_other: int = 0
    p: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Comparison:
    """Several runs beside each other.

    Attributes:
        names: of the runs, each another.
        records: what they wrote down.
        differences: recipe keys with other values in some run, and the value in each as YAML.
        tests: one for each pair.
    """

    names: list[str]
    records: list[Record]
    differences: list[tuple[str, list[str]]] = field(default_factory=list)
    tests: list[PairedTest] = field(default_factory=list)

    @property
    def level(self) -> float:
        """The p below which a difference counts as real: 5 %, shared by all tests (Bonferroni)."""
        return _LEVEL / max(1, sum(test.p is not None for test in self.tests))

    def sentence(self, test: PairedTest) -> str:
        """Say what came out of a test."""
        if test.p is None:
            return f"no paired test of {test.one} and {test.other}: {test.reason}"
        verdict = "more than chance explains" if test.p < self.level else "not more than chance explains"
        return (
            f"of {test.count:,} images, {test.only_one:,} were right in {test.one} alone and {test.only_other:,} in "
            f"{test.other} alone: {verdict} (p = {test.p:.2g})"
        )

    def __str__(self) -> str:
        rows = [["run", "split", *(SCORES[key][0] for key in _SHOWN), "images"]]
        for name, record in zip(self.names, self.records, strict=True):
            cells = [_with_interval(key, record.scores) for key in _SHOWN]
            count = record.scores.get("count")
            rows.append([name, record.split or "not scored", *cells, f"{count:,}" if isinstance(count, int) else "–"])
        lines = _aligned(rows)
        if self.differences:
            lines += ["", "recipes:", *_aligned([["", *self.names], *([key, *each] for key, each in self.differences)])]
        lines += ["", *(self.sentence(test) for test in self.tests)]
        lines += [
            f"{name}: {gap}" for name, record in zip(self.names, self.records, strict=True) for gap in record.gaps
        ]
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {
            "runs": [
                {"run": name, "folder": str(each.folder), "split": each.split, "scores": _numbers(each.scores)}
                for name, each in zip(self.names, self.records, strict=True)
            ],
            "differences": {key: dict(zip(self.names, each, strict=True)) for key, each in self.differences},
            "tests": [vars(test) for test in self.tests],
        }


def compare(records: Sequence[Record]) -> Comparison:
    """Compare runs as far as they allow it."""
    names = _names(records)
    pairs = combinations(zip(names, records, strict=True), 2)
    tests = [_test(one, other, first, second) for (one, first), (other, second) in pairs]
    return Comparison(names, list(records), _differences(records), tests)


def comparison_page(found: Comparison) -> str:
    """Return the page of a comparison."""
    runs = list(zip(found.names, found.records, strict=True))
    keys = [key for key in SCORES if any(key in record.scores for record in found.records)]
    return render(
        "comparison.html.j2",
        {
            "names": found.names,
            "colours": [series_colour(number) for number in range(len(runs))],
            "has_few_colours": len(runs) > len(SERIES),
            "headlines": [
                headline_text(record.split, record.scores) if record.scores else "not scored yet" for _, record in runs
            ],
            "subjects": [f"{record.model} on {record.dataset}" for _, record in runs],
            "differences": found.differences,
            "scores": [
                {
                    "name": SCORES[key][0],
                    "meaning": SCORES[key][1],
                    "cells": [(score_text(key, each.scores.get(key)), _interval(key, each.scores)) for _, each in runs],
                }
                for key in keys
            ],
            "splits": [record.split or "–" for _, record in runs],
            "counts": [record.scores.get("count") for _, record in runs],
            "curves": learning_curves([(each.steps, each.validations) for _, each in runs]),
            "tests": [(test, found.sentence(test)) for test in found.tests],
            "level": found.level,
            "gaps": [(name, gap) for name, record in runs for gap in record.gaps],
        },
    )


# --- what differs ------------------------------------------------------------------------------------------


def _names(records: Sequence[Record]) -> list[str]:
    """Return the name of each run; where two have the same, with the folder that it lies in."""
    short = [record.name for record in records]
    return [
        printable(name if short.count(name) == 1 else str(record.folder))
        for name, record in zip(short, records, strict=True)
    ]


def _differences(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    flats = [record.recipe.flat() if record.recipe else None for record in records]
    known = [flat for flat in flats if flat is not None]
    rows = []
    for key in known[0] if known else ():
        if key not in _NO_DIFFERENCE and any(flat[key] != known[0][key] for flat in known):
            rows.append((key, [printable(in_line(flat[key])) if flat is not None else "?" for flat in flats]))
    return rows


def _test(one: str, other: str, first: Record, second: Record) -> PairedTest:
    """Test two runs on the images that both were scored on."""
    reason = _reason_against(one, other, first, second)
    if reason:
        return PairedTest(one, other, reason=reason)
    is_same_data = bool(first.fingerprint) and first.fingerprint == second.fingerprint
    mine, theirs = _right_by_image(first, is_same_data), _right_by_image(second, is_same_data)
    common = [image for image in mine if image in theirs]
    if len(common) < max(len(mine), len(theirs)) / 2:
        reason = f"they share {len(common):,} of {max(len(mine), len(theirs)):,} images"
        return PairedTest(one, other, reason=reason)
    found = mcnemar(np.array([mine[each] for each in common]), np.array([theirs[each] for each in common]))
    return PairedTest(one, other, len(common), int(found["only_one"]), int(found["only_other"]), float(found["p"]))


def _reason_against(one: str, other: str, first: Record, second: Record) -> str:
    """Return why two runs cannot be tested on the same images; empty if they can."""
    for name, record in ((one, first), (other, second)):
        if record.predictions is None:
            return f"{name} has no predictions"
    if first.split != second.split:
        return f"{one} was scored on {first.split}, {other} on {second.split}"
    if first.classes != second.classes:
        return "they have other classes"
    is_same_data = bool(first.fingerprint) and first.fingerprint == second.fingerprint
    if not is_same_data and first.dataset != second.dataset:
        return f"they were scored on other datasets, {first.dataset} and {second.dataset}"
    return ""


def _right_by_image(record: Record, is_same_data: bool) -> dict[tuple[Any, ...], bool]:
    """Return by image whether it was recognised.

    Of the same dataset (by its fingerprint) a row says which image it is; else row, source and label together: the
    training split alone may differ.
    """
    predictions = record.predictions
    assert predictions is not None
    correct = predictions.is_correct.tolist()
    rows, labels = predictions.row.tolist(), predictions.label.tolist()
    sources: Sequence[str] = [""] * len(rows) if is_same_data else record.sources
    return dict(zip(zip(rows, sources, labels, strict=True), correct, strict=True))


# --- words -------------------------------------------------------------------------------------------------


def _interval(key: str, scores: dict[str, Any]) -> str:
    return interval_text(key, (scores.get("intervals") or {}).get(key))


def _with_interval(key: str, scores: dict[str, Any]) -> str:
    interval = _interval(key, scores)
    return score_text(key, scores.get(key)) + (f" ({interval})" if interval else "")


def _numbers(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the scores that are one number, and their intervals."""
    return {key: value for key, value in scores.items() if isinstance(value, int | float) or key == "intervals"}


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]

"""The parts of a run's page: each is made of what the run wrote down, and left out with a word where that is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vitft.errors import one_line
from vitft.recipe.describe import in_line
from vitft.recipe.recipe import Recipe
from vitft.report.charts import draw_coverage, draw_reliability, learning_curves
from vitft.report.confusion import draw_confusion
from vitft.report.gallery import choose
from vitft.report.record import Record
from vitft.report.words import PRECISION, SCORES, coverage_text, headline_text, interval_text, score_text
from vitft.scoring.per_class import class_scores, worst_first
from vitft.svg import address

_FIGURE_KINDS = {".png": "image/png", ".svg": "image/svg+xml"}
_MOST_FIGURE_BYTES = 3_000_000  # of all pictures together: a page is to stay small


def sections_of(record: Record) -> dict[str, Any]:
    """Return what stands in each part of a page; a part that fails is left out, and named."""
    gaps = [*record.gaps, *(_sentence(note) for note in record.thumbnails.notes if record.results)]
    found = {name: _made(name, make, record, gaps) for name, make in _PARTS.items()}
    return found | {"title": title_of(record), "headline": _headline(record), "gaps": gaps}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def title_of(record: Record) -> str:
    """Return the heading of a run: the model on the dataset."""
    named = " on ".join(part for part in (record.model, record.dataset) if part)
    return named or record.name


def _made(name: str, make: Callable[[Record], Any], record: Record, gaps: list[str]) -> Any:
    try:
        return make(record)
    except Exception as error:  # files of another version, or broken ones, may hold anything
        gaps.append(
            f"The part “{name.replace('_', ' ')}” could not be made: {type(error).__name__}: {one_line(error)}."
        )
        return None


def _headline(record: Record) -> str:
    return headline_text(record.split, record.scores) if record.scores else "not scored yet"


# --- scores ------------------------------------------------------------------------------------------------


def _scores(record: Record) -> dict[str, Any] | None:
    if not record.splits:
        return None
    rows = []
    for key, (name, meaning) in SCORES.items():
        if not any(key in record.scores_of(split) for split in record.splits):
            continue
        cells = []
        for split in record.splits:
            scores = record.scores_of(split)
            interval = (scores.get("intervals") or {}).get(key)
            cells.append({"value": score_text(key, scores.get(key)), "interval": interval_text(key, interval)})
        rows.append({"name": name, "meaning": meaning, "cells": cells})
    counts = [record.scores_of(split).get("count", 0) for split in record.splits]
    return {"splits": record.splits, "rows": rows, "counts": counts}


def _curves(record: Record) -> list[str]:
    return learning_curves([(record.steps, record.validations)])


def _trust(record: Record) -> dict[str, Any] | None:
    """Return the reliability diagram and the coverage curve."""
    bins = (record.scores.get("reliability") or {}).get("equal_width")
    curve = record.scores.get("coverage")
    if not bins and not curve:
        return None
    calibrated = _calibrated_bins(record)
    return {
        "reliability": draw_reliability(bins, calibrated) if bins else "",
        "has_calibrated": bool(calibrated),
        "coverage": draw_coverage(curve, PRECISION) if curve else "",
        "sentence": coverage_text(curve) if curve else "",
        "ece": score_text("ece", record.scores.get("ece")),
        "calibration": _calibration(record),
    }


def _calibrated_bins(record: Record) -> list[dict[str, float]]:
    """Return the bins with the temperature, if it was judged on the images of the page."""
    found = record.calibration
    on = found.get("scored_on") or {}
    here = (Path(record.dataset).name, record.split, record.scores.get("count"))
    if (Path(str(on.get("dataset"))).name, on.get("split"), on.get("count")) != here:
        return []
    return list(((found.get("after") or {}).get("reliability") or {}).get("equal_width") or [])


_CALIBRATED_ON = (("fitted", "fitted_on"), ("scored", "scored_on"))


def _images_of(facts: dict[str, Any]) -> str:
    """Say which images a temperature was fitted or scored on."""
    count = f" ({facts['count']:,} images)" if isinstance(facts.get("count"), int) else ""
    return f"{facts.get('split', 'a split')}{count}"


def _calibration(record: Record) -> dict[str, Any] | None:
    """Return the temperature that was fitted, and the scores before and after it."""
    found = record.calibration
    if not isinstance(found.get("temperature"), int | float):
        return None
    before, after = found.get("before") or {}, found.get("after") or {}
    rows = [
        {"name": name, "before": score_text(key, before[key]), "after": score_text(key, after.get(key))}
        for key, (name, _) in SCORES.items()
        if key in before
    ]
    where = [f"{what} on {_images_of(found[key])}" for what, key in _CALIBRATED_ON if isinstance(found.get(key), dict)]
    return {"temperature": f"{found['temperature']:.3f}", "where": ", ".join(where), "rows": rows}


# --- classes and mistakes ----------------------------------------------------------------------------------


def _confusion(record: Record) -> dict[str, Any] | None:
    counts = record.scores.get("confusion")
    if counts is None:
        return None
    svg, caption = draw_confusion(np.asarray(counts), record.classes)
    return {"svg": svg, "caption": caption, "is_wide": len(record.classes) > 15}


def _classes(record: Record) -> list[dict[str, Any]] | None:
    """Return a row for each class with images, the worst first."""
    per_class = record.scores.get("per_class") or {}
    if not per_class.get("class"):
        return None
    taken_for = _taken_for(record)
    return [
        {
            "name": each.name, "support": each.support, "recall": each.recall, "precision": each.precision,
            "f1": each.f1, "taken_for": taken_for.get(each.name),
        }
        for each in worst_first(class_scores(per_class))
    ]  # fmt: skip


def _taken_for(record: Record) -> dict[str, tuple[str, float]]:
    """Return by class name the other class that its images are most often taken for, and their share."""
    if record.scores.get("confusion") is None:
        return {}
    counts = np.asarray(record.scores["confusion"])
    support = np.maximum(counts.sum(axis=1), 1)
    wrong = counts - np.diag(np.diag(counts))
    most = wrong.argmax(axis=1)
    return {
        name: (record.classes[most[number]], float(wrong[number, most[number]] / support[number]))
        for number, name in enumerate(record.classes)
        if wrong[number, most[number]]
    }


def _mistakes(record: Record) -> dict[str, Any] | None:
    """Return the surest mistakes, and examples of the most confused pairs."""
    predictions = record.predictions
    if predictions is None:
        return None
    classes = record.classes
    has_images = record.thumbnails.split == record.split

    def shown(place: int) -> dict[str, Any]:
        row = int(predictions.row[place])
        return {
            "source": record.sources[place],
            "file": Path(record.sources[place]).name,
            "true": classes[predictions.label[place]],
            "predicted": classes[predictions.predicted[place]],
            "p_predicted": float(predictions.p_predicted[place]),
            "p_true": float(predictions.p_label[place]),
            "image": record.thumbnails.of_row.get(row) if has_images else None,
        }

    chosen = choose(predictions)
    support = np.bincount(predictions.label, minlength=len(classes))
    return {
        "count": int((~predictions.is_correct).sum()),
        "surest": [shown(place) for place in chosen.mistakes],
        "pairs": [
            {
                "true": classes[pair.label], "predicted": classes[pair.predicted], "count": pair.count,
                "share": pair.count / support[pair.label], "examples": [shown(place) for place in pair.examples],
            }
            for pair in chosen.pairs
        ],
    }  # fmt: skip


# --- what it was made of -----------------------------------------------------------------------------------


def _views(record: Record) -> list[dict[str, Any]]:
    return [{"image": picture, "labels": labels} for picture, labels in record.thumbnails.views]


def _figures(record: Record) -> list[dict[str, str]]:
    """Return the pictures of the run as addresses; one that would make the page too large is only named."""
    found, left = [], _MOST_FIGURE_BYTES
    for path in sorted((record.folder / "figures").glob("*")):
        if path.suffix in _FIGURE_KINDS:
            size = path.stat().st_size
            fits, left = size <= left, left - size * (size <= left)
            picture = address(path.read_bytes(), _FIGURE_KINDS[path.suffix]) if fits else ""
            found.append({"name": path.stem.replace("-", " "), "file": path.name, "image": picture})
    return found


def _recipe(record: Record) -> list[tuple[str, str, str]] | None:
    """Return the keys in which the recipe differs from the defaults: key, value, default."""
    if record.recipe is None:
        return None
    defaults = Recipe().flat()
    return [
        (key, in_line(value), in_line(defaults[key]))
        for key, value in record.recipe.flat().items()
        if value != defaults[key]
    ]


def _environment(record: Record) -> list[tuple[str, str]]:
    """Return names and values of ``environment.json``, nested ones joined; its notes stand with the others."""
    rows: list[tuple[str, str]] = []
    for key, value in record.environment.items():
        if isinstance(value, dict):
            inner = {name: each for name, each in value.items() if name != "notes" and each not in (None, {}, [])}
            rows += [(f"{key}: {name}", _plain(each)) for name, each in inner.items()]
        elif value not in (None, []):
            rows.append((key, _plain(value)))
    training = record.results.get("train")
    for name, value in (training if isinstance(training, dict) else {}).items():
        if value not in (None, {}):
            rows.append((f"training: {name}", _plain(value)))
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _notes(record: Record) -> list[str]:
    """Return every note, also those that only the plan or ``environment.json`` has."""
    notes = list(record.notes)
    for part in (record.environment.get("dataset"), record.environment.get("model"), record.plan):
        notes += [str(note) for note in (part.get("notes") or [] if isinstance(part, dict) else [])]
    return list(dict.fromkeys(notes))


_PARTS: dict[str, Callable[[Record], Any]] = {
    "scores": _scores, "curves": _curves, "confusion": _confusion, "classes": _classes, "mistakes": _mistakes,
    "trust": _trust, "views": _views, "figures": _figures, "plan": lambda record: record.plan.get("rows"),
    "recipe": _recipe, "environment": _environment, "notes": _notes,
}  # fmt: skip
"""The parts of a page, and what makes each."""

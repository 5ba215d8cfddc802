"""Everything that a run or an evaluation wrote down, read for a page; an unfinished run, or an older one, has less."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vitft.errors import UsageError, one_line
from vitft.files import is_file
from vitft.recipe.recipe import Recipe
from vitft.report.gallery import Thumbnails, read_thumbnails
from vitft.run import Run
from vitft.scoring.predictions import Predictions, file_name, read_predictions

T = TypeVar("T")
_SPLITS = ("test", "validation")
EVALUATION, SCORES = "evaluation.json", "scores.json"
"""What ``vitft evaluate`` writes: what was scored on what, and the scores."""


@dataclass(frozen=True)
class Record:
    """What the folder of a run or of an evaluation says.

    Attributes:
        folder: where it is.
        kind: ``run`` or ``evaluation``.
        recipe: None of an evaluation, and if this version cannot read it.
        results, environment, plan, calibration: contents of its JSON files; empty where there are none.
        steps, validations: events of the training, in their order.
        notes: what was said along the way, each once.
        split: the one that was scored last; empty without scores.
        predictions: of that split.
        sources: where the images of the predictions are from.
        thumbnails: the images that it keeps.
        gaps: what is not there, and why, in sentences.
    """

    folder: Path
    kind: str
    recipe: Recipe | None
    results: dict[str, Any]
    environment: dict[str, Any]
    plan: dict[str, Any]
    calibration: dict[str, Any]
    steps: list[dict[str, Any]]
    validations: list[dict[str, Any]]
    notes: list[str]
    split: str
    predictions: Predictions | None
    sources: list[str]
    thumbnails: Thumbnails
    gaps: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def scores(self) -> dict[str, Any]:
        """The scores of the split that was scored last."""
        return self.scores_of(self.split)

    def scores_of(self, split: str) -> dict[str, Any]:
        """Return the scores of a split; empty if there are none."""
        found = self.results.get(split)
        return found if isinstance(found, dict) else {}

    @property
    def splits(self) -> list[str]:
        """The splits that have scores, the one that was scored last first."""
        return [split for split in dict.fromkeys([self.split, *_SPLITS]) if self.scores_of(split)]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, by id."""
        return [str(name) for name in self.results.get("classes", [])]

    @property
    def model(self) -> str:
        """The checkpoint that it was trained from; of a path the last part."""
        named = _name_of(self.environment.get("model"))
        return _last_part(named or (self.recipe.model.checkpoint if self.recipe else ""))

    @property
    def dataset(self) -> str:
        """The dataset that it was trained on; of a path the last part."""
        named = _name_of(self.environment.get("dataset"))
        return _last_part(named or (str(self.recipe.data.dataset or "") if self.recipe else ""))

    @property
    def fingerprint(self) -> str:
        """What tells its dataset from others; empty if it is not known."""
        dataset = self.environment.get("dataset")
        return str(dataset.get("fingerprint") or "") if isinstance(dataset, dict) else ""


class _Predicted(NamedTuple):
    predictions: Predictions | None
    sources: list[str]


def read_record(run: Run) -> Record:
    """Read a run directory as far as it came."""
    gaps: list[str] = []
    results = run.results() or {}
    events = run.events()
    split = next((name for name in _SPLITS if isinstance(results.get(name), dict)), "")
    record = Record(
        run.folder,
        "run",
        _tried(lambda: Recipe.load(run.folder / "recipe.yaml"), None, "recipe.yaml cannot be read", gaps),
        results,
        run.read_json("environment.json") or {},
        run.read_json("plan.json") or {},
        run.read_json("model/calibration.json") or {},
        [event for event in events if event["event"] == "step"],
        [event for event in events if event["event"] == "validation"],
        list(dict.fromkeys(str(event.get("text")) for event in events if event["event"] == "note")),
        split,
        *_predictions(run.folder, split, results, gaps),
        _thumbnails(run.folder, gaps),
    )
    if not record.results:
        step = record.steps[-1]["step"] if record.steps and "step" in record.steps[-1] else 0
        where = f"it has taken {step:,} steps" if step else "it has taken no step yet"
        why = f" It failed: {run.failure()}." if run.failure() else ""
        record.gaps.append(
            f"This run is not finished: {where}, and it has no scores.{why} To resume it: {run.resume_command}"
        )
    return _with_gaps(record, gaps)


def is_evaluation(folder: Path) -> bool:
    """Whether ``vitft evaluate`` wrote this folder."""
    return is_file(folder / EVALUATION)


def read_evaluation(folder: Path) -> Record:
    """Read the folder of an evaluation.

    Raises:
        UsageError: if its scores cannot be read.
    """
    gaps: list[str] = []
    try:
        facts = dict(json.loads((folder / EVALUATION).read_text("utf-8")))
        scores = dict(json.loads((folder / SCORES).read_text("utf-8")))
        split, classes = str(facts["split"]), [str(name) for name in facts["classes"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(
            f"the evaluation {folder} cannot be read: {one_line(error)}", hint="vitft evaluate MODEL DATASET -o ANOTHER"
        ) from error
    results = {split: scores, "classes": classes}
    environment = {key: value for key, value in facts.items() if key not in ("split", "classes")}
    calibration = scores.get("calibration")
    record = Record(
        folder,
        "evaluation",
        None,
        results,
        environment,
        {},
        _as_stored(calibration, facts, scores) if isinstance(calibration, dict) else {},
        [],
        [],
        [],
        split,
        *_predictions(folder, split, results, gaps),
        _thumbnails(folder, gaps),
    )
    return _with_gaps(record, gaps)


def _as_stored(calibration: dict[str, Any], facts: dict[str, Any], scores: dict[str, Any]) -> dict[str, Any]:
    """Return the calibration of an evaluation in the form of ``calibration.json``."""
    on = {"dataset": _name_of(facts.get("dataset")), "split": facts["split"], "count": scores.get("count")}
    before = {key: scores[key] for key in scores if key in calibration}
    return calibration | {"scored_on": on, "before": before, "after": calibration}


def _predictions(folder: Path, split: str, results: dict[str, Any], gaps: list[str]) -> _Predicted:
    """Read the predictions of a split, if it was scored."""
    path, nothing = folder / file_name(split), _Predicted(None, [])
    if not split:
        return nothing
    classes = [str(name) for name in results.get("classes", [])]
    return _tried(
        lambda: _Predicted(*read_predictions(path, classes)), nothing, f"{path.name} cannot be read", gaps, path
    )


def _thumbnails(folder: Path, gaps: list[str]) -> Thumbnails:
    return _tried(lambda: read_thumbnails(folder), Thumbnails(), "the thumbnails cannot be read", gaps)


def _with_gaps(record: Record, gaps: list[str]) -> Record:
    """Say what is not there."""
    for split, reason in dict(record.results.get("unscored") or {}).items():
        record.gaps.append(f"{split} has no score: {reason}")
    record.gaps.extend(f"{gap[:1].upper()}{gap[1:]}." for gap in gaps)
    if record.results and not record.split:
        record.gaps.append("No split was scored.")
    if record.split and "intervals" not in record.scores:
        record.gaps.append("The scores have no intervals: the run was made by an older version of vitft.")
    if record.split and record.scores.get("confusion") is None:
        record.gaps.append("There is no confusion matrix of this many classes; the most confused pairs stand below.")
    return record


def _tried(read: Callable[[], T], otherwise: T, gap: str, gaps: list[str], path: Path | None = None) -> T:
    """Read a part of a run; note what cannot be read, and go on without it."""
    if path is not None and not path.is_file():
        gaps.append(f"{path.name} is not there: the run was made by an older version of vitft, or it was removed")
        return otherwise
    try:
        return read()
    except Exception as error:  # what another version or program wrote may be anything
        gaps.append(f"{gap}: {one_line(error)}")
        return otherwise


def _name_of(thing: Any) -> str:
    return str(thing.get("id") or "") if isinstance(thing, dict) else ""


def _last_part(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name

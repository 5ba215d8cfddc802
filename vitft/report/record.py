"""Everything that a run wrote down, read for a page: a run that is not finished, or older, has less of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vitft.errors import one_line
from vitft.recipe.recipe import Recipe
from vitft.report.gallery import Thumbnails, read_thumbnails
from vitft.run import Run
from vitft.scoring.predictions import Predictions, file_name, read_predictions

T = TypeVar("T")
_SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Record:
    """What a run directory says.

    Attributes:
        run: the directory.
        recipe: None if this version cannot read it.
        results, environment, plan, calibration: contents of its JSON files; empty where there are none.
        steps, validations: events of the training, in their order.
        notes: what was said along the way, each once.
        split: the one that was scored last; empty without scores.
        predictions: of that split.
        sources: where the images of the predictions are from.
        thumbnails: the images that it keeps.
        gaps: what is not there, and why, in sentences.
    """

    run: Run
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
        """The name of the run."""
        return self.run.folder.resolve().name

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
        return [split for split in _SPLITS if self.scores_of(split)]

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
    classes = [str(name) for name in results.get("classes", [])]
    path = run.folder / file_name(split)
    found = nothing = _Predicted(None, [])
    if split:
        found = _tried(
            lambda: _Predicted(*read_predictions(path, classes)), nothing, f"{path.name} cannot be read", gaps, path
        )
    thumbnails = _tried(lambda: read_thumbnails(run), Thumbnails(), "the thumbnails cannot be read", gaps)
    record = Record(
        run,
        _tried(lambda: Recipe.load(run.folder / "recipe.yaml"), None, "recipe.yaml cannot be read", gaps),
        results,
        run.read_json("environment.json") or {},
        run.read_json("plan.json") or {},
        run.read_json("model/calibration.json") or {},
        [event for event in events if event["event"] == "step"],
        [event for event in events if event["event"] == "validation"],
        list(dict.fromkeys(str(event.get("text")) for event in events if event["event"] == "note")),
        split,
        *found,
        thumbnails,
    )
    return _with_gaps(record, gaps)


def _with_gaps(record: Record, gaps: list[str]) -> Record:
    """Say what is not there."""
    run = record.run
    if not record.results:
        step = record.steps[-1]["step"] if record.steps and "step" in record.steps[-1] else 0
        where = f"it has taken {step:,} steps" if step else "it has taken no step yet"
        record.gaps.append(
            f"This run is not finished: {where}, and it has no scores. To resume it: {run.resume_command}"
        )
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

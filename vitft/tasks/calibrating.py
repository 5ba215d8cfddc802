"""Fit a temperature for a finished model, report what it does, store it beside the model, and fold it into a copy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.errors import DataError, ModelError, UsageError, one_line
from vitft.files import at_home, is_file, is_folder
from vitft.outside import shown
from vitft.processes.turns import on_main_process
from vitft.recipe.sizes import show_size
from vitft.run import Run
from vitft.scoring.table import score_table
from vitft.tasks.ending import Session
from vitft.tasks.judging import Judged

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitft.model.classifier import Classifier
    from vitft.scoring.calibration import Temperature
    from vitft.scoring.predictions import Predictions

_COMPARED = ("nll", "brier", "ece", "ece_equal_count")


@dataclass(frozen=True)
class Fitted:
    """A temperature and the images that it was fitted on.

    Attributes:
        temperature: the fit.
        on: dataset, split and number of these images.
    """

    temperature: Temperature
    on: Mapping[str, object]


def check_calibration(classifier: Classifier, fold_into: Path | None) -> None:
    """Check before scoring that a model can be calibrated and its temperature folded.

    Raises:
        UsageError: if the model was loaded at another size than its own.
        ModelError: if no temperature can be folded into it.
    """
    from vitft.model.fold import check_fold

    if classifier.retargeting:
        old, new = (show_size(size) for size in (classifier.retargeting.old, classifier.retargeting.new))
        raise UsageError(
            f"a temperature is valid for one image size, and the model's own is {old}, not {new}",
            hint=f"vitft resize {classifier.name} OUT --image-size {new}, then: vitft evaluate OUT DATASET --calibrate",
        )
    if fold_into is not None:
        check_fold(classifier, fold_into)


def run_of(classifier: Classifier) -> Run | None:
    """Return the run that a model belongs to, whether the run was named or the folder of its model."""
    folder = None if classifier.folder is None else classifier.folder.resolve()
    if folder is None or folder.name != "model" or not is_file(folder.parent / "recipe.yaml"):
        return None
    return Run(folder.parent)


@contextmanager
def run_in_use(classifier: Classifier, accelerator: Accelerator) -> Iterator[None]:
    """Lock the run that a model belongs to, if it does, while a temperature is fitted for it and stored.

    Raises:
        TrainError: if another process uses the run.
    """
    run, lock = run_of(classifier), Session()
    if run is not None and os.access(run.folder, os.W_OK):  # where nothing can be written, nothing is stored
        on_main_process(lambda: lock.own(run), accelerator)
    try:
        yield
    finally:
        lock.forget()


def fit_temperature(
    classifier: Classifier,
    accelerator: Accelerator,
    judged: Judged,
    batch_size: int | None,
    bad_images: str | None,
    *,
    must_fold: bool,
) -> Fitted:
    """Fit the temperature of a model on images, with all processes.

    Raises:
        DataError: if the temperature is a bound and is to be folded.
    """
    from vitft.scoring.calibration import TemperatureFit
    from vitft.scoring.evaluation import evaluate_split

    fit = TemperatureFit(accelerator.device)
    batches = judged.batches(classifier, accelerator, batch_size, bad_images)
    evaluate_split(classifier, batches, accelerator, watch=lambda logits, labels, _: fit.add(logits, labels))
    found = fit.reduce(accelerator).solve()
    if must_fold and found.at_bound:
        raise DataError(
            f"there is no temperature to fold into the model: {_why_bound(found.at_bound, judged.facts())}",
            hint="use more validation images",
        )
    return Fitted(found, judged.facts() | {"count": found.count})


def report(fitted: Fitted, after: Predictions) -> dict[str, Any]:
    """Return the ``calibration`` of a result.

    Args:
        fitted: the temperature.
        after: the predictions of the scored images with it.
    """
    from vitft.scoring.calibration import BOUNDS
    from vitft.scoring.evidence import of_probabilities

    found = fitted.temperature
    return {
        "temperature": found.value,
        "bounds": list(BOUNDS),
        "at_bound": found.at_bound,
        "fitted_on": dict(fitted.on),
        **of_probabilities(after),
    }


def keep(classifier: Classifier, scores: Mapping[str, Any], scored_on: Mapping[str, object]) -> str | None:
    """Store a calibration beside its model if possible, and print where, or why not.

    Args:
        classifier: the model.
        scores: of the scored split, with its ``calibration``.
        scored_on: dataset, split and number of images.

    Returns:
        The path of ``calibration.json``; None if it was not stored.
    """
    from vitft.scoring.calibration_file import record, write_calibration

    found, named, folder = scores["calibration"], classifier.name, classifier.folder
    bound, path, why, earlier = found["at_bound"], None, None, ""
    if bound:
        why = _why_bound(bound, found["fitted_on"])
    elif folder is None or not is_folder(at_home(named)):
        why = f"{named} is not a local folder (download it and calibrate the copy)"
    else:
        try:
            content = record(found["temperature"], found["fitted_on"], scored_on, scores, found)
            earlier = _earlier(folder)
            path = write_calibration(folder, content)
        except OSError as error:
            why = f"{folder} cannot be written: {one_line(error)}"
    if path is None:
        _say(f"the temperature was not stored: {why}")
        return None
    if earlier:
        _say(f"the temperature {found['temperature']:.4g} replaces {earlier}")
    _say(f"temperature: {path}; apply it with: vitft predict {named} IMAGES --calibrated")
    if (run := run_of(classifier)) is not None:
        _renew_card(run)
    return str(path)


def _earlier(folder: Path) -> str:
    """Describe the calibration that a model has already; empty if it has none."""
    from vitft.scoring.calibration_file import NAME, read_calibration

    try:
        found = read_calibration(folder)
    except ModelError:
        return f"a {NAME} that cannot be read"
    if found is None:
        return ""
    on = found.get("fitted_on") or {}
    return f"{found['temperature']:.4g}, which was fitted on {on.get('split')} of {on.get('dataset')}"


def fold(classifier: Classifier, scores: Mapping[str, Any], scored_on: Mapping[str, object], out: Path) -> str:
    """Write a copy of the model whose last layer is divided by the temperature, and return its path.

    The copy's ``calibration.json`` has the temperature 1 and a note.

    Raises:
        ModelError: if it cannot be folded or written.
    """
    from vitft.model.fold import fold_temperature
    from vitft.scoring.calibration_file import record, write_calibration

    found = scores["calibration"]
    assert classifier.folder is not None
    fold_temperature(classifier.folder, classifier.name, found["temperature"], out)
    content = record(1.0, found["fitted_on"], scored_on, scores, found)
    note = "the last linear layer is already divided by the temperature `folded`"
    write_calibration(out, content | {"folded": found["temperature"], "note": note})
    _say(f"calibrated model: {out}, whose last linear layer is divided by {found['temperature']:.4g}")
    return str(out)


def in_words(scores: Mapping[str, Any]) -> str:
    """Return the scores before and after, and a sentence about the temperature; an unused one has only that."""
    found = scores["calibration"]
    on = found["fitted_on"]
    fitted = f"fitted on {on['count']:,} images ({on['split']} of {on['dataset']})"
    if found["at_bound"]:
        lowest, highest = found["bounds"]
        said = f"temperature {found['temperature']:g}, a bound ({lowest:g} to {highest:g}), {fitted}: "
        return f"{said}{_why_bound(found['at_bound'], on)}"
    value = found["temperature"]
    rows = [(when, {name: each[name] for name in _COMPARED}) for when, each in (("before", scores), ("after", found))]
    was = "too sure" if value > 1.05 else "not sure enough" if value < 0.95 else "about as sure as it should be"
    return f"{score_table(rows)}\ntemperature {value:.4g}, {fitted}: the model was {was}; no prediction changes"


def _why_bound(bound: str, on: Mapping[str, object]) -> str:
    """Return why the NLL on the images has no minimum."""
    images = f"the {on['count']:,} {on['split']} images"
    if bound == "lower":
        return f"{images} are classified so well that a lower temperature always scores better on them"
    return f"{images} are classified no better than by chance, so a higher temperature always scores better on them"


def _renew_card(run: Run) -> None:
    """Rewrite the model card of a run, which now describes the calibration; an error is only printed."""
    from vitft.hub.card import write_card
    from vitft.recipe.recipe import Recipe

    repo = (run.read_json("published.json") or {}).get("repo")
    try:
        license = Recipe.load(run.folder / "recipe.yaml").hub.license
        run.write_text("model/README.md", write_card(run.folder, run.model_folder, repo, license).text)
    except Exception as error:  # whatever it is: the calibration is stored
        _say(f"the model card could not be rewritten with the calibration: {type(error).__name__}: {one_line(error)}")


def _say(text: str) -> None:
    print(shown(text), file=sys.stderr, flush=True)

"""A temperature for a finished model: fitted on validation, reported, stored beside the model, folded into a copy."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.errors import DataError, UsageError, one_line
from vitft.files import at_home, is_folder
from vitft.outside import shown
from vitft.recipe.sizes import show_size
from vitft.run import Run
from vitft.scoring.table import score_table
from vitft.tasks.judging import Judged, is_run

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
    """Refuse what cannot be calibrated or folded before anything is scored.

    Raises:
        UsageError: if the model is to run at another size than its own.
        ModelError: if no temperature can be folded into it.
    """
    from vitft.model.fold import check_fold

    if classifier.retargeting:
        old, new = (show_size(size) for size in (classifier.retargeting.old, classifier.retargeting.new))
        raise UsageError(
            f"a temperature is for one size, and the model is {old}, not {new}",
            hint=f"vitft resize {classifier.name} OUT --image-size {new}, then: vitft evaluate OUT DATASET --calibrate",
        )
    if fold_into is not None:
        check_fold(classifier, fold_into)


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
        DataError: if no temperature fits and it is to be folded into a model.
    """
    from vitft.scoring.calibration import TemperatureFit
    from vitft.scoring.evaluation import evaluate_split

    fit = TemperatureFit(accelerator.device)
    batches = judged.batches(classifier, accelerator, batch_size, bad_images)
    evaluate_split(classifier, batches, accelerator, watch=lambda logits, labels, _: fit.add(logits, labels))
    found = fit.reduce(accelerator).solve()
    if must_fold and found.at_bound:
        raise DataError(
            f"no temperature is folded into the model, as none fits: {_why_bound(found.at_bound, judged.facts())}",
            hint="calibrate it on more validation images",
        )
    return Fitted(found, judged.facts() | {"count": found.count})


def report(fitted: Fitted, after: Predictions) -> dict[str, Any]:
    """Return what a result says of a calibration.

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
    """Store a calibration beside its model, if that can be, and say where or why not.

    Args:
        classifier: the model.
        scores: of the scored split, with its ``calibration``.
        scored_on: dataset, split and number of images.

    Returns:
        The path of ``calibration.json``; None if it was not stored.
    """
    from vitft.scoring.calibration_file import record, write_calibration

    found, named, folder = scores["calibration"], classifier.name, classifier.folder
    bound, path, why = found["at_bound"], None, None
    if bound:
        why = f"it is a bound: {_why_bound(bound, found['fitted_on'])}"
    elif folder is None or not is_folder(at_home(named)):
        why = f"{named} is not a folder: download it, then calibrate that"
    else:
        try:
            content = record(found["temperature"], found["fitted_on"], scored_on, scores, found)
            path = write_calibration(folder, content)
        except OSError as error:
            why = f"{folder} cannot be written: {one_line(error)}"
    if path is None:
        _say(f"the temperature is not stored, as {why}")
        return None
    _say(f"temperature: {path}; apply it with: vitft predict {named} IMAGES --calibrated")
    if is_run(named):
        _renew_card(Run(Path(named)))
    return str(path)


def fold(classifier: Classifier, scores: Mapping[str, Any], scored_on: Mapping[str, object], out: Path) -> str:
    """Write a copy of the model with the temperature in its last layer, and return its path.

    Its own ``calibration.json`` has the temperature 1, and says why.

    Raises:
        ModelError: if it cannot be folded or written.
    """
    from vitft.model.fold import fold_temperature
    from vitft.scoring.calibration_file import record, write_calibration

    found = scores["calibration"]
    assert classifier.folder is not None
    fold_temperature(classifier.folder, classifier.name, found["temperature"], out)
    content = record(1.0, found["fitted_on"], scored_on, scores, found)
    note = "the temperature `folded` is in the last linear layer already, so none is left to apply"
    write_calibration(out, content | {"folded": found["temperature"], "note": note})
    _say(f"calibrated model: {out}, whose last linear layer is divided by {found['temperature']:.4g}")
    return str(out)


def in_words(scores: Mapping[str, Any]) -> str:
    """Return the scores before and after as a table, and a sentence about the temperature."""
    found = scores["calibration"]
    rows = [(when, {name: each[name] for name in _COMPARED}) for when, each in (("before", scores), ("after", found))]
    on = found["fitted_on"]
    fitted = f"fitted on {on['count']:,} images ({on['split']} of {on['dataset']})"
    if found["at_bound"]:
        lowest, highest = found["bounds"]
        said = f"temperature {found['temperature']:g}, a bound ({lowest:g} to {highest:g}), {fitted}: "
        return f"{score_table(rows)}\n{said}{_why_bound(found['at_bound'], on)}"
    value = found["temperature"]
    was = "too sure" if value > 1 else "not sure enough" if value < 1 else "as sure as it should be"
    return f"{score_table(rows)}\ntemperature {value:.4g}, {fitted}: the model was {was}; no prediction changes"


def _why_bound(bound: str, on: Mapping[str, object]) -> str:
    """Return why the NLL on some images has no minimum."""
    which = f"of the {on['count']:,} {on['split']} images"
    if bound == "lower":
        return f"so few {which} are misclassified that no temperature is too low; more of them would settle it"
    return f"so many {which} are misclassified that no temperature is too high"


def _renew_card(run: Run) -> None:
    """Write the card of a run anew, which then speaks of the calibration; a failure costs only the card."""
    from vitft.hub.card import write_card
    from vitft.recipe.recipe import Recipe

    repo = (run.read_json("published.json") or {}).get("repo")
    try:
        license = Recipe.load(run.folder / "recipe.yaml").hub.license
        run.write_text("model/README.md", write_card(run.folder, run.model_folder, repo, license).text)
    except Exception as error:  # whatever it is: the calibration is stored
        _say(f"the model card does not speak of the calibration: {type(error).__name__}: {one_line(error)}")


def _say(text: str) -> None:
    print(shown(text), file=sys.stderr, flush=True)

"""Write what a command found into a new folder; nothing that exists is overwritten."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.disk import whole_folder
from vitft.environment import environment
from vitft.errors import TrainError, UsageError, one_line
from vitft.files import at_home, exists
from vitft.outside import shown
from vitft.processes import signals
from vitft.recipe.sizes import show_size

if TYPE_CHECKING:
    from vitft.model.classifier import Classifier
    from vitft.scoring.predictions import Predictions
    from vitft.tasks.judging import Judged


def new_folder(path: str | Path) -> Path:
    """Return a folder that is to be made; raise a UsageError if something is there already."""
    folder = at_home(path)
    if exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already exists and will not be overwritten", hint=f"-o {folder}-2")
    return folder


def keep_evaluation(
    folder: Path,
    scores: Mapping[str, Any],
    predictions: Predictions,
    judged: Judged,
    classifier: Classifier,
    device: str,
) -> None:
    """Write what an evaluation found: scores and predictions, all or nothing, then thumbnails and page.

    Args:
        folder: to be made.
        scores, predictions: of the images.
        judged: the images.
        classifier: the model that was scored.
        device: where it was scored.

    Raises:
        TrainError: if scores or predictions cannot be written.
    """
    from vitft.report.record import EVALUATION, SCORES
    from vitft.scoring.predictions import file_name, write_predictions

    try:
        with whole_folder(folder) as partial:
            write_predictions(
                partial / file_name(judged.rows.name), predictions, classifier.classes, judged.rows.source
            )
            _write_json(partial / SCORES, scores)
            _write_json(partial / EVALUATION, _facts(judged, classifier, device))
    except OSError as error:
        raise TrainError(f"cannot write the scores to {folder}: {error}", hint="-o ANOTHER") from error
    _show(folder, predictions, judged)


def _facts(judged: Judged, classifier: Classifier, device: str) -> dict[str, object]:
    """Return what was scored on what, in the form of a run's ``environment.json``."""
    return {
        "split": judged.rows.name,
        "classes": classifier.classes,
        **environment(
            dataset={"id": judged.facts()["dataset"]},
            model={"id": classifier.name, "image_size": show_size(classifier.image_size)},
            device=device,
            command=[*map(shown, sys.argv)],
        ),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _show(folder: Path, predictions: Predictions, judged: Judged) -> None:
    """Write thumbnails and page; whatever fails costs these alone."""
    from vitft.tasks.reporting import write_report
    from vitft.tasks.thumbnails import keep_mistakes

    try:
        keep_mistakes(folder, judged.rows, predictions, judged.data.max_pixels)
        write_report(folder)
    except Exception as error:  # whatever it is: scores and predictions are written
        again = f"to make it: vitft report {shlex.quote(str(folder))}"
        print(shown(f"no page was written: {type(error).__name__}: {one_line(error)}; {again}"), file=sys.stderr)
    signals.check()

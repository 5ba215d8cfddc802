"""Write what a command found into a new folder; nothing that exists is overwritten."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.disk import whole_folder, write_whole
from vitft.environment import environment
from vitft.errors import ModelError, TrainError, UsageError, one_line
from vitft.files import at_home, exists
from vitft.hub.prose import as_text
from vitft.names import last_part, looks_like_path
from vitft.outside import shown
from vitft.processes import signals
from vitft.recipe.sizes import show_size
from vitft.recipe.yaml12 import write_yaml

if TYPE_CHECKING:
    from vitft.model.classifier import Classifier
    from vitft.probes.outcome import Probed
    from vitft.scoring.predictions import Predictions
    from vitft.tasks.judging import Judged


def new_folder(path: str | Path, flag: str = "-o") -> Path:
    """Return a folder that is to be made; raise a UsageError, with the flag, if something is there already."""
    folder = at_home(path)
    if exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already exists and will not be overwritten", hint=f"{flag} {folder}-2")
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


def keep_probe(folder: Path, classifier: Classifier, probed: Probed, found: Mapping[str, Any]) -> None:
    """Write a probed checkpoint with its fitted head as a transformers folder, with its card and the scores.

    Args:
        folder: to be made.
        classifier: the checkpoint, with a new head.
        probed: what was found out about it.
        found: the whole ranking, as plain values.

    Raises:
        ModelError: if its head is more than a linear layer, or the folder cannot be written.
    """
    from vitft.probes.head import put_head

    put_head(classifier, probed.head_module, probed.scores.head)
    classifier.save(folder)
    dataset = last_part(str(found["dataset"]))
    models = [{**each, "model": _without_path(each["model"])} for each in found["models"] if "error" not in each]
    kept = {key: value for key, value in found.items() if key not in ("saved", "next")}
    try:
        write_whole(folder / "README.md", _card(classifier, probed, dataset).encode())
        content = json.dumps(kept | {"dataset": dataset, "models": models}, indent=2, ensure_ascii=False)
        write_whole(folder / "probe.json", f"{content}\n".encode())
    except OSError as error:
        raise ModelError(f"cannot write to {folder}: {error}", hint="make room, then the same command again") from error


def _without_path(model: str) -> str:
    """Return a Hub id as it is, and of a path the last part."""
    return last_part(model) if looks_like_path(model) or exists(at_home(model)) else model


def _card(classifier: Classifier, probed: Probed, dataset: str) -> str:
    """Return a model card that keeps base model and licence."""
    origin, scores = classifier.origin, probed.scores
    tags = ["vision", "image-classification", "vitft"]
    metadata: dict[str, object] = {"library_name": "transformers", "pipeline_tag": "image-classification", "tags": tags}
    if origin.base is not None:
        metadata |= {"base_model": origin.base, "base_model_relation": "finetune"}
    judged = {"validation": scores.validation} | ({"test": scores.test} if scores.test is not None else {})
    told = [
        f"- {split}: {100 * each.top1:.2f} % of {len(each.is_right):,} images right" for split, each in judged.items()
    ]
    text = (
        f"An image classifier for {len(classifier.classes)} classes: {as_text(_without_path(classifier.name))} as it "
        f"was, with a linear head fitted on its features of {as_text(dataset)} by logistic regression (`vitft probe`). "
        "The validation images chose its regularisation."
    )
    front = write_yaml(metadata | origin.license, sort_keys=False)
    return "\n".join(["---", front + "---", "", f"# {as_text(dataset)}", "", text, "", *told, ""])


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

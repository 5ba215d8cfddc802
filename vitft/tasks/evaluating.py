"""Score a model on a dataset, at one image size or several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from vitft.errors import UsageError
from vitft.files import at_home
from vitft.notebook import ShownAsText
from vitft.outside import shown
from vitft.processes.turns import on_main_process
from vitft.recipe.choices import ResizeMethod
from vitft.recipe.keys import DataRecipe
from vitft.recipe.sizes import show_size
from vitft.scoring.per_class import class_scores
from vitft.scoring.table import headline, score_table
from vitft.scoring.told import evidence_lines
from vitft.tasks import calibrating
from vitft.tasks.ending import explained
from vitft.tasks.judging import Judged, open_judged, open_to_calibrate, require_dataset
from vitft.tasks.keeping import keep_evaluation, new_folder
from vitft.tasks.models import load_model
from vitft.tasks.reporting import report_run

if TYPE_CHECKING:
    from accelerate import Accelerator
    from pandas import DataFrame
    from torch import Tensor

    from vitft.model.classifier import Classifier
    from vitft.scoring.evaluation import Evaluation
    from vitft.scoring.predictions import Predictions


@dataclass
class EvaluationResult(ShownAsText):
    """The scores of a model on a split.

    Attributes:
        scores: by name; ``count`` is the exact number of images.
        split: the split that was scored.
        image_size: (height, width) of the model's input.
        images_per_second: speed of the forward passes of all processes together.
    """

    scores: dict[str, Any]
    split: str
    image_size: tuple[int, int]
    images_per_second: float

    def __str__(self) -> str:
        return self.told()

    def told(self, *, with_all_classes: bool = False) -> str:
        """Return the scores as a table, how sure they are, the worst classes (or all) and the most confused pairs."""
        evidence = evidence_lines(self.split, self.scores, with_all_classes=with_all_classes)
        parts = [score_table([(self.split, self.scores)]), "\n".join(evidence)]
        if "calibration" in self.scores:
            parts.append(calibrating.in_words(self.scores))
        return "\n\n".join(filter(None, parts))

    def to_pandas(self) -> DataFrame:
        """Return one row per class with images: ``class``, ``images``, ``recall``, ``precision``, ``f1``."""
        import pandas as pd

        rows = [
            (each.name, each.support, each.recall, each.precision, each.f1)
            for each in class_scores(self.scores["per_class"])
        ]
        return pd.DataFrame(rows, columns=["class", "images", "recall", "precision", "f1"])


@dataclass
class SizeSweep(ShownAsText):
    """The scores of a model at several image sizes.

    Attributes:
        rows: one result per size, in the requested order.
        own_size: the checkpoint's own size, at which it was trained.
    """

    rows: list[EvaluationResult]
    own_size: tuple[int, int]

    @property
    def best(self) -> EvaluationResult:
        """The result with the highest top-1; of equal ones, the fastest."""
        return max(self.rows, key=lambda row: (row.scores["top1"], row.images_per_second))

    def __str__(self) -> str:
        table = score_table(
            [
                (show_size(row.image_size), row.scores | {"images/s": round(row.images_per_second, 1)})
                for row in self.rows
            ]
        )
        return f"{table}\n{self.conclusion()}"

    def conclusion(self) -> str:
        """Say whether the training size is the best to test at (FixRes, arXiv:1906.06423)."""
        best = self.best
        own = next((row for row in self.rows if row.image_size == self.own_size), None)
        if own is None:
            return (
                f"best at {show_size(best.image_size)}; the checkpoint's own {show_size(self.own_size)} was not tried"
            )
        if best.scores["top1"] == own.scores["top1"]:
            return f"no size has a higher top-1 than the checkpoint's own {show_size(self.own_size)}"
        gain, count = best.scores["top1"] - own.scores["top1"], own.scores["count"]
        # Both sizes see the same images and share errors, so this standard error is an upper bound. The best of
        # several sizes was picked, so each comparison gets its share of the 5 % (Bonferroni).
        error = (sum(row.scores["top1"] * (1 - row.scores["top1"]) for row in (best, own)) / max(count, 1)) ** 0.5
        limit = NormalDist().inv_cdf(1 - 0.05 / 2 / (len(self.rows) - 1))
        sure = "more" if gain > limit * error else "not more"
        return (
            f"best at {show_size(best.image_size)}: {100 * gain:+.2f} points over the checkpoint's own "
            f"{show_size(self.own_size)}, {sure} than chance explains ({count:,} images)"
        )

    def to_pandas(self) -> DataFrame:
        """Return one row per size, with its scores."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"height": row.image_size[0], "width": row.image_size[1], **headline(row.scores)}
                | {"images_per_second": row.images_per_second}
                for row in self.rows
            ]
        )

    def plain(self) -> list[dict[str, Any]]:
        """Return the rows as plain values."""
        return [
            {"image_size": list(row.image_size), "images_per_second": round(row.images_per_second, 2), **row.scores}
            for row in self.rows
        ]


@explained()
def evaluate(
    model: str | Path,
    dataset: str | DataRecipe | None = None,
    *,
    split: str | None = None,
    metrics: Sequence[str] = (),
    batch_size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    bad_images: str | None = None,
    image_size: tuple[int, int] | None = None,
    method: ResizeMethod = "bicubic",
    revision: str | None = None,
    shift: int = 0,
    calibrate: bool = False,
    fold_temperature: str | Path | None = None,
    out: str | Path | None = None,
) -> EvaluationResult:
    """Score a fine-tuned model on a split, with every image exactly once.

    Args:
        model: folder, run directory or Hub id.
        dataset: a value of ``--dataset``, or a recipe's data section; by default the run's own dataset.
        split: by default ``test``, or validation if there is no test split.
        metrics: names or folders of further `evaluate` metrics.
        batch_size: images per forward pass.
        precision, device: as in the recipe.
        bad_images: ``stop`` or ``skip``.
        image_size: (height, width) of the model's input; by default the model's own.
        method: how position tables are resampled to that size.
        revision: branch, tag or commit of a Hub model.
        shift: also move each image by this many pixels, and count predictions that stay (``shift_consistency``).
        calibrate: also fit a temperature, on the run's own validation split or else the dataset's, report what it does
            (``calibration``), and store it in the model's folder for ``predict(..., calibrated=True)``.
        fold_temperature: new folder for a copy of the model with the temperature in its last layer.
        out: new folder for ``scores.json``, ``predictions-SPLIT.parquet``, ``thumbnails/`` and ``report.html``.
    """
    from vitft.architectures.config import require_one_label
    from vitft.scoring.collecting import Collector
    from vitft.scoring.metrics import check_metrics, try_metrics

    require_dataset(model, dataset)
    check_metrics(metrics)
    folder = None if out is None else new_folder(out)
    fold_into = None if fold_temperature is None else at_home(fold_temperature)
    if fold_into is not None and not calibrate:
        raise UsageError("there is no temperature to fold without a calibration", hint="add --calibrate")
    classifier, accelerator = load_model(model, precision, device, image_size, method, revision)
    require_one_label(classifier.config, str(model))

    if not calibrate:
        judged = open_judged(classifier, accelerator, dataset, split)
        on_main_process(lambda: try_metrics(metrics, len(classifier.classes)), accelerator)
        result, said = _score(classifier, accelerator, judged, metrics, batch_size, bad_images, shift)
        _keep(folder, result, said, judged, classifier, accelerator)
        return result
    calibrating.check_calibration(classifier, fold_into)
    must_fold = fold_into is not None
    with calibrating.run_in_use(classifier, accelerator):
        judged, validation = open_to_calibrate(classifier, accelerator, dataset, split)
        on_main_process(lambda: try_metrics(metrics, len(classifier.classes)), accelerator)
        fitted = calibrating.fit_temperature(
            classifier, accelerator, validation, batch_size, bad_images, must_fold=must_fold
        )
        after = Collector(len(classifier.classes), fitted.temperature.value)
        result, said = _score(classifier, accelerator, judged, metrics, batch_size, bad_images, shift, watch=after.add)
        then = after.gathered(accelerator)
        on_main_process(lambda: _add_calibration(result, classifier, judged, fitted, then, fold_into), accelerator)
    _keep(folder, result, said, judged, classifier, accelerator)
    return result


def _keep(
    folder: Path | None, result: EvaluationResult, said: Predictions, judged: Judged, classifier: Classifier,
    accelerator: Accelerator,
) -> None:  # fmt: skip
    if folder is not None:
        device = str(accelerator.device)
        on_main_process(lambda: keep_evaluation(folder, result.scores, said, judged, classifier, device), accelerator)


@explained()
def evaluate_sizes(
    model: str | Path,
    dataset: str | DataRecipe | None,
    sizes: Sequence[tuple[int, int]],
    *,
    split: str | None = None,
    batch_size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    bad_images: str | None = None,
    method: ResizeMethod = "bicubic",
    revision: str | None = None,
    shift: int = 0,
) -> SizeSweep:
    """Score a model on a split at several image sizes, each resampled from the model's own.

    Args:
        sizes: a (height, width) each.
        model, dataset, split, batch_size, precision, device, bad_images, method, revision, shift: as for
            :func:`evaluate`.
    """
    from vitft.architectures.config import require_one_label

    require_dataset(model, dataset)
    if not sizes:
        raise UsageError("no image size was given", hint="evaluate_sizes(model, dataset, [(192, 192), (224, 224)])")
    _check_sizes(str(model), sizes, method, revision)
    opened, results = None, []
    for size in dict.fromkeys(sizes):
        classifier, accelerator = load_model(model, precision, device, size, method, revision)
        require_one_label(classifier.config, str(model))
        opened = opened or open_judged(classifier, accelerator, dataset, split)
        results.append(_score(classifier, accelerator, opened, (), batch_size, bad_images, shift)[0])
    return SizeSweep(results, classifier.retargeting.old)


def _add_calibration(
    result: EvaluationResult,
    classifier: Classifier,
    judged: Judged,
    fitted: calibrating.Fitted,
    after: Predictions,
    fold_into: Path | None,
) -> None:
    """Add what a temperature does to a result, store it beside the model, and fold it into a copy."""
    found = result.scores["calibration"] = calibrating.report(fitted, after)
    scored_on = judged.facts() | {"count": result.scores["count"]}
    found["stored"] = calibrating.keep(classifier, result.scores, scored_on)
    if found["stored"] and (run := calibrating.run_of(classifier)) is not None:
        report_run(run)  # which shows the calibration
    if fold_into is not None:
        found["folded"] = calibrating.fold(classifier, result.scores, scored_on, fold_into)


def _check_sizes(model: str, sizes: Sequence[tuple[int, int]], method: ResizeMethod, revision: str | None) -> None:
    """Reject sizes that the model cannot have, before the first one is scored."""
    from vitft.model.locate import locate
    from vitft.model.opening import open_checkpoint
    from vitft.resolution.retarget import Target, retarget_config

    opened = open_checkpoint(locate(model, revision)[0], model)
    for size in sizes:
        retarget_config(opened.config, opened.image_size, Target(size, method=method), model)


def _score(
    classifier: Classifier,
    accelerator: Accelerator,
    judged: Judged,
    metrics: Sequence[str],
    batch_size: int | None,
    bad_images: str | None,
    shift: int,
    watch: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> tuple[EvaluationResult, Predictions]:
    from vitft.scoring.evaluation import evaluate_split
    from vitft.scoring.shifts import check_shift

    check_shift(shift, classifier.image_size)
    batches = judged.batches(classifier, accelerator, batch_size, bad_images)
    found = evaluate_split(classifier, batches, accelerator, collect=True, shift=shift, watch=watch)
    scores = _scores(found, classifier.classes, metrics) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    assert found.predictions is not None
    result = EvaluationResult(scores, judged.rows.name, classifier.image_size, found.images_per_second)
    return result, found.predictions


def _scores(found: Evaluation, classes: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """Return the scores by name, and print the notes."""
    from vitft.scoring.metrics import final_scores, further_scores

    said = found.predictions
    assert said is not None
    scores = final_scores(found.tally, classes, said)
    further = further_scores(metrics, said.predicted.tolist(), said.label.tolist(), len(classes))
    for reason in further.refused.values():
        print(reason, file=sys.stderr)
    scores |= further.values
    for note in [*found.notes[:5], *([f"and {len(found.notes) - 5:,} more notes"] if found.notes[5:] else [])]:
        print(shown(note), file=sys.stderr)
    if found.shift_consistency is not None:
        scores["shift_consistency"] = found.shift_consistency
    scores["bad_images"] = {row.where: row.text for row in found.bad_rows}
    return scores

"""Score a model on a dataset, at one image size or several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from vitft.errors import UsageError, shorten
from vitft.files import exists, is_file
from vitft.notebook import ShownAsText
from vitft.outside import shown
from vitft.processes.turns import main_process_first, on_main_process
from vitft.recipe.choices import ResizeMethod
from vitft.recipe.keys import DataRecipe
from vitft.recipe.recipe import Recipe
from vitft.recipe.sizes import show_size
from vitft.run import runs_like
from vitft.scoring.per_class import class_scores
from vitft.scoring.table import headline, score_table
from vitft.tasks.ending import explained
from vitft.tasks.models import load_model

if TYPE_CHECKING:
    from accelerate import Accelerator
    from pandas import DataFrame

    from vitft.data.images import ImageSplit, StreamSplit
    from vitft.model.classifier import Classifier
    from vitft.scoring.evaluation import Evaluation


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
        return score_table([(self.split, self.scores)])

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
        if best.image_size == own.image_size:
            return f"best at the checkpoint's own {show_size(self.own_size)}"
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
    """
    from vitft.architectures.config import require_one_label
    from vitft.scoring.metrics import check_metrics, try_metrics

    _require_dataset(model, dataset)
    check_metrics(metrics)
    classifier, accelerator = load_model(model, precision, device, image_size, method, revision)
    require_one_label(classifier.config, str(model))
    rows, data = _opened(classifier, accelerator, dataset, split)
    on_main_process(lambda: try_metrics(metrics, len(classifier.classes)), accelerator)
    return _score(classifier, accelerator, rows, data, metrics, batch_size, bad_images, shift)


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

    _require_dataset(model, dataset)
    if not sizes:
        raise UsageError("no image size was given", hint="evaluate_sizes(model, dataset, [(192, 192), (224, 224)])")
    _check_sizes(str(model), sizes, method, revision)
    opened, results = None, []
    for size in dict.fromkeys(sizes):
        classifier, accelerator = load_model(model, precision, device, size, method, revision)
        require_one_label(classifier.config, str(model))
        rows, data = opened = opened or _opened(classifier, accelerator, dataset, split)
        results.append(_score(classifier, accelerator, rows, data, (), batch_size, bad_images, shift))
    return SizeSweep(results, classifier.retargeting.old)


def _opened(
    classifier: Classifier, accelerator: Accelerator, dataset: str | DataRecipe | None, split: str | None
) -> tuple[ImageSplit, DataRecipe]:
    """Open the split to score and print what was read; also return its data section."""
    from vitft.reading.overview import overview_of_split
    from vitft.reading.source import open_for_evaluation

    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    with main_process_first(accelerator):
        if data is None:
            rows, data = _of_its_run(classifier, split)
        else:
            rows = open_for_evaluation(data, classifier.classes, split=split)
    if accelerator.is_main_process:
        overview = overview_of_split(rows, classifier.classes, str(data.dataset))
        print(shown(overview), file=sys.stderr, flush=True)
    if not isinstance(data.white_level, int):
        rows = replace(rows, white_level=classifier.process.white_level)
    return rows, data


def _require_dataset(model: str | Path, dataset: str | DataRecipe | None) -> None:
    """Raise a UsageError if no dataset was given and the model is not a run, which has its own."""
    if dataset is not None or is_file(Path(model) / "recipe.yaml"):
        return
    runs, guess = runs_like(model)
    if runs and (guess or "/" in str(model)) and not exists(model):
        raise UsageError(f"there is no run {model}", allowed=shorten(runs), hint=f"vitft evaluate {guess or runs[0]}")
    raise UsageError(
        f"no dataset was given, and {model} is not a run with a dataset of its own",
        hint=f"vitft evaluate {model} DATASET",
    )


def _of_its_run(classifier: Classifier, split: str | None) -> tuple[ImageSplit, DataRecipe]:
    """Return a split of a run's own dataset, with the same images that the run scored."""
    from vitft.reading.source import open_source

    recipe = Recipe.load(Path(classifier.name) / "recipe.yaml")
    data = recipe.data.model_copy(update={"streaming": False})  # every image of the split exactly once
    source = open_source(data, seed=recipe.train.seed)
    if list(source.classes) != classifier.classes:
        raise UsageError(
            f"the classes of the dataset {recipe.data.dataset} have changed since {classifier.name} was trained",
            hint=f"vitft evaluate {classifier.name} DATASET, which matches classes by name",
        )
    return source.split_to_judge_by(split), data


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
    rows: ImageSplit | StreamSplit,
    data: DataRecipe,
    metrics: Sequence[str],
    batch_size: int | None,
    bad_images: str | None,
    shift: int,
) -> EvaluationResult:
    from vitft.data.images import StreamSplit
    from vitft.scoring.evaluation import batches_of, evaluate_split
    from vitft.scoring.shifts import check_shift

    check_shift(shift, classifier.image_size)
    is_large = isinstance(rows, StreamSplit) or len(rows) > 2000
    batches = batches_of(
        rows,
        classifier,
        accelerator,
        batch_size=batch_size or 32,
        skip_bad=(bad_images or data.bad_images) == "skip",
        workers=data.workers if isinstance(data.workers, int) else int(is_large),
        max_pixels=data.max_pixels,
    )
    found = evaluate_split(classifier, batches, accelerator, collect=True, shift=shift)
    scores = _scores(found, classifier.classes, metrics) if accelerator.is_main_process else {}
    accelerator.wait_for_everyone()
    return EvaluationResult(scores, rows.name, classifier.image_size, found.images_per_second)


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

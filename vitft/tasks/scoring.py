"""Scores of a model on a dataset, at one size or several."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from vitft.errors import UsageError
from vitft.outside import shown
from vitft.recipe import DataRecipe
from vitft.sizes import show_size
from vitft.tasks.ending import explained
from vitft.tasks.shared import Ready, main_process_first, on_main_process, ready, score_table

if TYPE_CHECKING:
    from vitft.data.images import ImageSplit


@dataclass
class EvaluationResult:
    """The scores of a model on a split.

    Attributes:
        scores: by name; ``count`` is the exact number of images.
        split: the split that was scored.
        image_size: (height, width) that the model ran at.
        images_per_second: of the forward passes, over all processes.
    """

    scores: dict[str, Any]
    split: str
    image_size: tuple[int, int]
    images_per_second: float

    def __str__(self) -> str:
        return score_table([(self.split, self.scores)])


@dataclass
class SizeSweep:
    """The scores of a model at several image sizes.

    Attributes:
        rows: one result for each size, in the order in which they were asked for.
        own_size: the size that the checkpoint has, at which it was trained.
    """

    rows: list[EvaluationResult]
    own_size: tuple[int, int]

    @property
    def best(self) -> EvaluationResult:
        """The size with the highest top-1, of equal ones the fastest."""
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
        # Two proportions on the same images; their common errors make this an upper bound. The best of several was
        # picked, so each comparison gets its part of the 5 % (Bonferroni).
        error = (sum(row.scores["top1"] * (1 - row.scores["top1"]) for row in (best, own)) / max(count, 1)) ** 0.5
        limit = NormalDist().inv_cdf(1 - 0.05 / 2 / (len(self.rows) - 1))
        sure = "more" if gain > limit * error else "not more"
        return (
            f"best at {show_size(best.image_size)}: {100 * gain:+.2f} points over the checkpoint's own "
            f"{show_size(self.own_size)}, {sure} than chance explains ({count:,} images)"
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
    dataset: str | DataRecipe,
    *,
    split: str | None = None,
    metrics: Sequence[str] = (),
    batch_size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    bad_images: str | None = None,
    image_size: tuple[int, int] | None = None,
    method: str = "bicubic",
    revision: str | None = None,
    shift: int = 0,
) -> EvaluationResult:
    """Score a fine-tuned model on a split, every image exactly once.

    Args:
        model: folder, run directory or Hub id.
        dataset: what ``--dataset`` takes, or a recipe's data section.
        split: ``test`` if not given, else validation.
        metrics: further `evaluate` metrics by name or folder.
        batch_size: images per forward pass.
        precision, device: as in the recipe.
        bad_images: ``stop`` or ``skip``.
        image_size: (height, width) to run at; the model's own when not given.
        method: how position tables are resampled to it.
        revision: branch, tag or commit of a Hub model.
        shift: also count how many predictions stay when an image moves by so many pixels (``shift_consistency``).
    """
    from vitft.model.config import require_one_label
    from vitft.scoring.metrics import check_metrics, try_metrics

    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    check_metrics(metrics)
    loaded = ready(model, precision, device, image_size, method, revision)
    require_one_label(loaded.model.config, str(model))
    rows = _opened(loaded, data, split)
    on_main_process(lambda: try_metrics(metrics, len(_classes(loaded))), loaded.accelerator)
    return _score(loaded, rows, data, metrics, batch_size, bad_images, shift)


@explained()
def evaluate_sizes(
    model: str | Path,
    dataset: str | DataRecipe,
    sizes: Sequence[tuple[int, int]],
    *,
    split: str | None = None,
    batch_size: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    bad_images: str | None = None,
    method: str = "bicubic",
    revision: str | None = None,
    shift: int = 0,
) -> SizeSweep:
    """Score a model on a split at several image sizes, resampled from its own each time.

    Args:
        sizes: (height, width) each.
        model, dataset, split, batch_size, precision, device, bad_images, method, revision, shift: as for
            :func:`evaluate`.
    """
    from vitft.model.config import require_one_label

    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    if not sizes:
        raise UsageError("no image size was given", hint="evaluate_sizes(model, dataset, [(192, 192), (224, 224)])")
    _check_sizes(str(model), sizes, method, revision)
    rows, results = None, []
    for size in dict.fromkeys(sizes):
        loaded = ready(model, precision, device, size, method, revision)
        require_one_label(loaded.model.config, str(model))
        rows = rows or _opened(loaded, data, split)
        results.append(_score(loaded, rows, data, (), batch_size, bad_images, shift))
    return SizeSweep(results, loaded.retargeting.old)


def _opened(loaded: Ready, data: DataRecipe, split: str | None) -> ImageSplit:
    """Open the split to be scored, and say what was read."""
    from vitft.reading.overview import overview_of_split
    from vitft.reading.source import open_for_evaluation

    classes = _classes(loaded)
    with main_process_first(loaded.accelerator):
        rows = open_for_evaluation(data, classes, split=split)
    if loaded.accelerator.is_main_process:
        print(shown(overview_of_split(rows, classes, str(data.dataset))), file=sys.stderr, flush=True)
    return rows if isinstance(data.white_level, int) else replace(rows, white_level=loaded.process.white_level)


def _check_sizes(model: str, sizes: Sequence[tuple[int, int]], method: Any, revision: str | None) -> None:
    """Refuse a size that the family cannot have before the first is scored."""
    from vitft.model.load import open_checkpoint
    from vitft.model.locate import locate
    from vitft.model.retarget import Target, retarget_config

    opened = open_checkpoint(locate(model, revision)[0], model)
    for size in sizes:
        retarget_config(opened.config, opened.image_size, Target(size, method=method), model)


def _classes(loaded: Ready) -> list[str]:
    config = loaded.model.config
    names = config.id2label or {}  # PVT's configuration may have none
    return [names.get(number, f"LABEL_{number}") for number in range(config.num_labels)]


def _score(
    loaded: Ready,
    rows: Any,
    data: DataRecipe,
    metrics: Sequence[str],
    batch_size: int | None,
    bad_images: str | None,
    shift: int,
) -> EvaluationResult:
    from vitft.model.processor import normalisation
    from vitft.scoring.metrics import final_scores, further_scores
    from vitft.scoring.predict import evaluation_batches, score_split
    from vitft.scoring.shifts import check_shift

    check_shift(shift, loaded.retargeting.new)
    batches = evaluation_batches(
        rows,
        loaded.process,
        batch_size=batch_size or 32,
        skip_bad=(bad_images or data.bad_images) == "skip",
        workers=data.workers if isinstance(data.workers, int) else (1 if len(rows) > 2000 else 0),
        accelerator=loaded.accelerator,
        max_pixels=data.max_pixels,
    )
    scored = score_split(
        loaded.model,
        batches,
        num_classes=len(_classes(loaded)),
        normalisation=normalisation(loaded.processor),
        accelerator=loaded.accelerator,
        collect=bool(metrics),
        shift=shift,
    )
    scores: dict[str, Any] = {}
    if loaded.accelerator.is_main_process:
        scores = final_scores(scored.tally)
        further = further_scores(metrics, scored.predictions, scored.labels, scored.tally.num_classes)
        for reason in further.refused.values():
            print(reason, file=sys.stderr)
        scores |= further.values
        for note in [*scored.notes[:5], *([f"and {len(scored.notes) - 5:,} more notes"] if scored.notes[5:] else [])]:
            print(shown(note), file=sys.stderr)
        if scored.shift_consistency is not None:
            scores["shift_consistency"] = scored.shift_consistency
        scores["bad_images"] = {row.where: row.reason for row in scored.bad_rows}
    loaded.accelerator.wait_for_everyone()
    return EvaluationResult(scores, rows.name, loaded.retargeting.new, scored.images_per_second)

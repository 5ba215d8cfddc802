"""The images that a model is scored on, and those that its temperature is fitted on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vitft.errors import UsageError, shorten
from vitft.files import at_home, exists, is_file
from vitft.outside import shown
from vitft.processes.turns import main_process_first
from vitft.recipe.keys import DataRecipe
from vitft.recipe.recipe import Recipe
from vitft.run import runs_like

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitft.data.batches import StagedBatch
    from vitft.data.images import ImageSource, ImageSplit
    from vitft.model.classifier import Classifier


@dataclass(frozen=True)
class Judged:
    """Labelled images for a model.

    Attributes:
        rows: the images.
        data: the recipe's section that describes them.
    """

    rows: ImageSplit
    data: DataRecipe

    def batches(
        self, classifier: Classifier, accelerator: Accelerator, batch_size: int | None, bad_images: str | None
    ) -> Iterator[StagedBatch]:
        """Yield this process's part, preprocessed for the classifier."""
        from vitft.scoring.evaluation import batches_of

        workers = self.data.workers
        return batches_of(
            self.rows,
            classifier,
            accelerator,
            batch_size=batch_size or 32,
            skip_bad=(bad_images or self.data.bad_images) == "skip",
            workers=workers if isinstance(workers, int) else int(len(self.rows) > 2000),
            max_pixels=self.data.max_pixels,
        )

    def facts(self) -> dict[str, object]:
        """Return dataset, split and number of images, without the path to the dataset."""
        named = str(self.data.dataset)
        is_local = not named.startswith("builtin:") and exists(at_home(named))
        return {
            "dataset": at_home(named).resolve().name if is_local else named,
            "split": self.rows.name,
            "count": len(self.rows),
        }


def is_run(model: str | Path) -> bool:
    """Whether a model is named by its run, which knows a dataset of its own."""
    return is_file(Path(model) / "recipe.yaml")


def require_dataset(model: str | Path, dataset: str | DataRecipe | None) -> None:
    """Refuse to score a model on nothing; only a run knows a dataset of its own."""
    if dataset is not None or is_run(model):
        return
    runs, guess = runs_like(model)
    if runs and (guess or "/" in str(model)) and not exists(model):
        raise UsageError(f"there is no run {model}", allowed=shorten(runs), hint=f"vitft evaluate {guess or runs[0]}")
    raise UsageError(
        f"no dataset was given, and {model} is not a run, which would know its own",
        hint=f"vitft evaluate {model} DATASET",
    )


def open_judged(
    classifier: Classifier, accelerator: Accelerator, dataset: str | DataRecipe | None, split: str | None
) -> Judged:
    """Open the split to be scored, and say what was read."""
    scored, _ = _opened(classifier, accelerator, dataset, split, calibrate=False)
    return scored


def open_to_calibrate(
    classifier: Classifier, accelerator: Accelerator, dataset: str | DataRecipe | None, split: str | None
) -> tuple[Judged, Judged]:
    """Open the split to be scored and the one to fit a temperature on: a run's own validation, else the dataset's.

    Raises:
        UsageError: if they have images in common.
        DataError: if there is no validation split.
    """
    scored, fitted = _opened(classifier, accelerator, dataset, split, calibrate=True)
    assert fitted is not None
    return scored, fitted


def _opened(
    classifier: Classifier,
    accelerator: Accelerator,
    dataset: str | DataRecipe | None,
    split: str | None,
    *,
    calibrate: bool,
) -> tuple[Judged, Judged | None]:
    """Return the split to be scored and, with ``calibrate``, the one to fit a temperature on."""
    from vitft.reading.source import open_for_evaluation, open_validation

    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    fitted = None
    with main_process_first(accelerator):
        if data is None or (calibrate and is_run(classifier.name)):
            source, own = _own_source(classifier)
            fitted = Judged(source.split_to_judge_by("validation"), own) if calibrate else None
        if data is None:
            scored = Judged(source.split_to_judge_by(split), own)
        else:
            scored = Judged(open_for_evaluation(data, classifier.classes, split=split), data)
        if calibrate and fitted is None:
            fitted = Judged(open_validation(scored.data, classifier.classes), scored.data)
        if fitted is not None:
            _require_apart(scored, fitted, classifier.name)
    scored = _said(scored, classifier, accelerator)
    if fitted is None:
        return scored, None
    if accelerator.is_main_process:
        print("the temperature is fitted on other images:", file=sys.stderr)
    return scored, _said(fitted, classifier, accelerator)


def _said(judged: Judged, classifier: Classifier, accelerator: Accelerator) -> Judged:
    """Say what was read; 16-bit images are taken as the model was trained, unless the recipe's section says how."""
    from vitft.reading.overview import overview_of_split

    if accelerator.is_main_process:
        overview = overview_of_split(judged.rows, classifier.classes, str(judged.data.dataset))
        print(shown(overview), file=sys.stderr, flush=True)
    if isinstance(judged.data.white_level, int):
        return judged
    return replace(judged, rows=replace(judged.rows, white_level=classifier.process.white_level))


def _own_source(classifier: Classifier) -> tuple[ImageSource, DataRecipe]:
    """Return the dataset that a run trained on: the same images in the same splits."""
    from vitft.reading.source import open_source

    recipe = Recipe.load(Path(classifier.name) / "recipe.yaml")
    data = recipe.data.model_copy(update={"streaming": False})  # every image of a split exactly once
    source = open_source(data, seed=recipe.train.seed)
    if list(source.classes) != classifier.classes:
        raise UsageError(
            f"the dataset {recipe.data.dataset} has other classes now than the model of {classifier.name}",
            hint=f"vitft evaluate {classifier.name}/model DATASET, which matches them by name",
        )
    return source, data


def _require_apart(scored: Judged, fitted: Judged, model: str) -> None:
    """Refuse to score a temperature on images that it is fitted on."""
    if _place(scored) != _place(fitted):
        return
    common = np.intersect1d(scored.rows.source_rows, fitted.rows.source_rows)
    if len(common):
        raise UsageError(
            f"the temperature is fitted on the {fitted.rows.name} images, and {len(common):,} of them would be scored "
            "too, which shows nothing",
            allowed="a test split, or a dataset of other images",
            hint=f"vitft evaluate {model} DATASET --split test --calibrate",
        )


def _place(judged: Judged) -> tuple[str, str | None, str]:
    """Return where images come from: dataset, configuration and split."""
    named = str(judged.data.dataset)
    path = at_home(named)
    return str(path.resolve()) if exists(path) else named, judged.data.config, judged.rows.source_name

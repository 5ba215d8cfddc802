"""Open the images to score a model on, and those to fit its temperature on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitft.errors import UsageError, VitftError
from vitft.files import at_home, exists, is_file
from vitft.outside import shown
from vitft.processes.turns import main_process_first
from vitft.recipe.keys import DataRecipe
from vitft.recipe.recipe import Recipe
from vitft.run import Run, runs_like, suitable_runs

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
    """Whether this is a run directory, which has a dataset of its own."""
    return is_file(Path(model) / "recipe.yaml")


def require_dataset(model: str | Path, dataset: str | DataRecipe | None) -> None:
    """Raise a UsageError if no dataset was given and the model is not a run, which has its own."""
    if dataset is not None or is_run(model):
        return
    runs, guess = runs_like(model)
    if runs and (guess or "/" in str(model)) and not exists(model):
        allowed, guess = suitable_runs(model, lambda run: run.is_scored)
        raise UsageError(f"there is no run {model}", allowed=allowed, hint=f"vitft evaluate {guess or 'runs/NAME'}")
    raise UsageError(
        f"no dataset was given, and {model} is not a run with a dataset of its own",
        hint=f"vitft evaluate {model} DATASET",
    )


def open_judged(
    classifier: Classifier, accelerator: Accelerator, dataset: str | DataRecipe | None, split: str | None
) -> Judged:
    """Open the split to score, and print what was read."""
    scored, _ = _opened(classifier, accelerator, dataset, split, calibrate=False)
    return scored


def open_to_calibrate(
    classifier: Classifier, accelerator: Accelerator, dataset: str | DataRecipe | None, split: str | None
) -> tuple[Judged, Judged]:
    """Open the split to score and the one to fit a temperature on: a run's own validation split, else the dataset's.

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
    """Return the split to score and, with ``calibrate``, the one to fit a temperature on."""
    from vitft.reading.source import open_for_evaluation, open_validation

    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    fitted = None
    with main_process_first(accelerator):
        if data is None or (calibrate and is_run(classifier.name)):
            source, own = _own_source(classifier)
            fitted = _own_split(source, own, "validation", classifier.name) if calibrate else None
        if data is None:
            scored = _own_split(source, own, split, classifier.name)
        else:
            scored = Judged(open_for_evaluation(data, classifier.classes, split=split), data)
            scored = _compared_with_the_run(scored, classifier.name)
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
    """Print what was read, and take the white level of 16-bit images from the model unless the data section sets it."""
    from vitft.reading.overview import overview_of_split

    if accelerator.is_main_process:
        overview = overview_of_split(judged.rows, classifier.classes, str(judged.data.dataset))
        print(shown(overview), file=sys.stderr, flush=True)
    if isinstance(judged.data.white_level, int):
        return judged
    return replace(judged, rows=replace(judged.rows, white_level=classifier.process.white_level))


def _own_source(classifier: Classifier) -> tuple[ImageSource, DataRecipe]:
    """Return a run's own dataset, with the same images in the same splits."""
    from vitft.reading.source import open_source

    recipe = _recipe_of(classifier.name)
    whole = recipe.data.model_copy(update={"streaming": False})  # every image of a split exactly once
    source = open_source(whole, seed=recipe.train.seed)
    if list(source.classes) != classifier.classes:
        raise UsageError(
            f"the classes of the dataset {recipe.data.dataset} have changed since {classifier.name} was trained",
            hint=f"vitft evaluate {classifier.name}/model DATASET, which matches classes by name",
        )
    return source, recipe.data


def _own_split(source: ImageSource, data: DataRecipe, wanted: str | None, model: str) -> Judged:
    """Return a split of a run as the run had it, with a note if its dataset has changed since.

    Raises:
        UsageError: if the run read a stream, which parts and limits its images in another way.
    """
    rows = source.split_to_judge_by(wanted)
    if data.streaming and rows.numbers is not None:
        raise UsageError(
            f"{model} read its dataset as a stream, so its {rows.name} images are not known: a part of "
            f"{rows.source_name} that is found only while streaming",
            allowed="a split that the dataset has itself, or another dataset",
            hint=f"vitft evaluate {model} DATASET --split NAME",
        )
    known = _dataset_of(model).get("fingerprint")
    if not data.streaming and known and known != source.fingerprint:
        note = f"the dataset has changed since {model} was trained: it may have been trained on some of these images"
        rows = replace(rows, notes=(*rows.notes, note))
    return Judged(rows, data)


def _compared_with_the_run(scored: Judged, model: str) -> Judged:
    """Return images of a given dataset with a note if the model's run used only some of them, or parted them in two."""
    try:
        own = _recipe_of(model).data if is_run(model) else None
    except VitftError:  # a recipe that cannot be read is not needed either
        return scored
    if own is None or own.streaming or _place(scored) != _place(replace(scored, data=own)):
        return scored
    known = _dataset_of(model)
    counts, names = known.get("rows") or {}, known.get("splits") or {}
    used = {role: counts.get(role) for role, name in names.items() if name == scored.rows.source_name}
    told = [f"{count:,} for {role}" for role, count in used.items() if isinstance(count, int)]
    if not told or set(used.values()) == {len(scored.rows)}:
        return scored
    note = f"of these images {model} used {' and '.join(told)}; to score those: vitft evaluate {model} --split "
    note += " or ".join(used)
    return replace(scored, rows=replace(scored.rows, notes=(*scored.rows.notes, note)))


def _recipe_of(model: str) -> Recipe:
    return Recipe.load(Path(model) / "recipe.yaml")


def _dataset_of(model: str) -> dict[str, Any]:
    """Return what a run wrote down about its dataset; empty if it is lost."""
    return dict((Run(Path(model)).read_json("environment.json") or {}).get("dataset") or {})


def _require_apart(scored: Judged, fitted: Judged, model: str) -> None:
    """Raise a UsageError if images would be both fitted on and scored."""
    if _place(scored) != _place(fitted):
        return
    common = np.intersect1d(scored.rows.source_rows, fitted.rows.source_rows)
    if len(common):
        raise UsageError(
            f"the temperature is fitted on the {fitted.rows.name} images, so it cannot be judged on the same images: "
            f"{len(common):,} of them would be scored too",
            allowed="a test split, or a dataset of other images",
            hint=f"vitft evaluate {model} DATASET --split test --calibrate",
        )


def _place(judged: Judged) -> tuple[str, str | None, str]:
    """Return the dataset, configuration and split that images come from."""
    named = str(judged.data.dataset)
    path = at_home(named)
    return str(path.resolve()) if exists(path) else named, judged.data.config, judged.rows.source_name

"""Predict the labels of image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.errors import ModelError, UsageError
from vitft.notebook import html_table
from vitft.recipe.choices import ResizeMethod
from vitft.recipe.keys import DataRecipe
from vitft.recipe.sizes import show_size
from vitft.tasks.ending import explained
from vitft.tasks.models import load_model

if TYPE_CHECKING:
    from pandas import DataFrame

    from vitft.model.classifier import Classifier


class Predictions(list[dict[str, Any]]):
    """What :func:`predict` returns: a list, which notebooks show as a table."""

    def to_pandas(self) -> DataFrame:
        """Return one row per label of each image: ``image``, ``rank``, ``label``, ``score``, ``error``."""
        import pandas as pd

        rows: list[tuple[Any, ...]] = []
        for each in self:
            for rank, found in enumerate(each.get("predictions", ()), start=1):
                rows.append((each["image"], rank, found["label"], found["score"], None))
            if "error" in each:
                rows.append((each["image"], None, None, None, each["error"]))
        return pd.DataFrame(rows, columns=["image", "rank", "label", "score", "error"])

    def _repr_html_(self) -> str:
        return html_table(self.to_pandas())


def predict(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    top_k: int = 5,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    image_size: tuple[int, int] | None = None,
    method: ResizeMethod = "bicubic",
    revision: str | None = None,
    max_pixels: int | None = None,
    calibrated: bool = False,
) -> Predictions:
    """Return the most probable labels of each image file, or the error for an image that cannot be read.

    Args:
        model: folder, run directory or Hub id.
        images: paths of image files.
        top_k: labels per image.
        batch_size: images per forward pass.
        device, precision: as in the recipe.
        image_size: (height, width) of the model's input; by default the model's own.
        method: how position tables are resampled to that size.
        revision: branch, tag or commit of a Hub model.
        max_pixels: as the recipe's ``data.max_pixels``.
        calibrated: divide the logits by the temperature that ``evaluate(..., calibrate=True)`` stored beside the model.

    Returns:
        ``{"image": path, "predictions": [{"label": ..., "score": ...}, ...]}``, with ``"notes"`` if an image had to be
        converted, or ``{"image": path, "error": ...}``. Scores are those of transformers' pipeline: probabilities of
        the classes, independent probabilities if there are several labels or one logit, values for regression.
    """
    return Predictions(
        predict_each(
            model,
            images,
            top_k=top_k,
            batch_size=batch_size,
            device=device,
            precision=precision,
            image_size=image_size,
            method=method,
            revision=revision,
            max_pixels=max_pixels,
            calibrated=calibrated,
        )
    )


def predict_each(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    top_k: int = 5,
    batch_size: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    image_size: tuple[int, int] | None = None,
    method: ResizeMethod = "bicubic",
    revision: str | None = None,
    max_pixels: int | None = None,
    calibrated: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the results of :func:`predict` image by image, as soon as they are computed."""
    from vitft.scoring.prediction import predict_files

    with explained():
        classifier, accelerator = load_model(model, precision, device, image_size, method, revision)
        yield from predict_files(
            classifier,
            [Path(image) for image in images],
            accelerator,
            batch_size=batch_size or 32,
            top_k=top_k,
            max_pixels=max_pixels or DataRecipe().max_pixels,
            temperature=_temperature(classifier) if calibrated else 1.0,
        )


def _temperature(classifier: Classifier) -> float:
    """Return what the logits of a calibrated model are divided by.

    Raises:
        ModelError: if it has no temperature, or does not choose one class per image.
        UsageError: if it runs at another size than the one that it was calibrated at.
    """
    from vitft.scoring.calibration_file import temperature_of

    config, named = classifier.config, classifier.name
    if config.num_labels == 1 or config.problem_type in ("regression", "multi_label_classification"):
        raise ModelError(
            f"{named} does not choose one class per image, so no temperature applies to it",
            allowed="a model with at least two classes, exactly one per image",
            hint=f"vitft predict {named} IMAGES",
        )
    assert classifier.folder is not None
    temperature = temperature_of(classifier.folder, named)
    if classifier.retargeting:
        size = show_size(classifier.retargeting.old)
        raise UsageError(f"{named} is calibrated at {size} only", hint="leave out --image-size or --calibrated")
    return temperature

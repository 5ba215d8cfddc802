"""Labels of image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitft.recipe.choices import ResizeMethod
from vitft.recipe.keys import DataRecipe
from vitft.tasks.ending import explained
from vitft.tasks.models import load_model


@explained()
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
) -> list[dict[str, Any]]:
    """Return for each image file its most probable labels, or the reason why it has none.

    Args:
        model: folder, run directory or Hub id.
        images: paths of image files.
        top_k: labels per image.
        batch_size: images per forward pass.
        device, precision: as in the recipe.
        image_size: (height, width) to run at; the model's own when not given.
        method: how position tables are resampled to it.
        revision: branch, tag or commit of a Hub model.
        max_pixels: as the recipe's ``data.max_pixels``.

    Returns:
        ``{"image": path, "predictions": [{"label": ..., "score": ...}, ...]}``, with ``"notes"`` where an image was
        not read as it is, or ``{"image": path, "error": ...}``. Scores are those of transformers' pipeline:
        probabilities of the classes, of each label for several labels or one logit, values for regression.
    """
    from vitft.scoring.prediction import predict_files

    classifier, accelerator = load_model(model, precision, device, image_size, method, revision)
    return list(
        predict_files(
            classifier,
            [Path(image) for image in images],
            accelerator,
            batch_size=batch_size or 32,
            top_k=top_k,
            max_pixels=max_pixels or DataRecipe().max_pixels,
        )
    )

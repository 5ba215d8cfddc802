"""Predict the most probable labels of image files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vitft.architectures.last_block import short_last_block
from vitft.data.batches import Decoder, StagedBatch
from vitft.data.images import file_row
from vitft.data.staging import MAX_PIXELS
from vitft.errors import ModelError
from vitft.model.classifier import Classifier

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedConfig


@torch.no_grad()
def predict_files(
    classifier: Classifier,
    paths: Sequence[Path],
    accelerator: Accelerator,
    *,
    batch_size: int,
    top_k: int,
    max_pixels: int = MAX_PIXELS,
    temperature: float = 1.0,
) -> Iterator[dict[str, object]]:
    """Yield the most probable labels of each file, in order, or an error.

    Args:
        classifier: on the accelerator's device; its model is put into evaluation mode.
        paths: image files.
        accelerator: gives the device and the precision.
        batch_size: images per forward pass.
        top_k: labels per image, at most the number of classes.
        max_pixels: largest allowed width times height of an image.
        temperature: what the logits are divided by, for a model that chooses one class per image.

    Yields:
        ``{"image": path, "predictions": [{"label": ..., "score": ...}, ...]}``, with ``"notes"`` if the image was
        converted, or ``{"image": path, "error": ...}``. Scores match those of transformers' pipeline, unless there is
        a temperature.

    Raises:
        ModelError: if the model's output is not finite.
    """
    classifier.model.eval()
    decoder = Decoder(classifier.process, skip_bad=True, max_pixels=max_pixels)
    for start in range(0, len(paths), batch_size):
        part = [file_row(i, path, classifier.process.white_level) for i, path in enumerate(paths[start:][:batch_size])]
        batch = decoder.batch((row.index, (row,)) for row in part)
        scores = dict(
            zip(batch.sample_indices.tolist(), _scores_of(classifier, batch, accelerator, temperature), strict=True)
        )
        errors = {bad.index: bad.text for bad in batch.skipped}
        for row in part:
            said: dict[str, object] = {"image": row.where()}
            if row.index in errors:
                yield said | {"error": errors[row.index]}
                continue
            ranked, classes = scores[row.index].sort(descending=True, stable=True)
            best = list(zip(ranked.tolist(), classes.tolist(), strict=True))[:top_k]
            said["predictions"] = [{"label": classifier.classes[k], "score": score} for score, k in best]
            notes = [note.text for note in batch.notes if note.index == row.index]
            yield said | ({"notes": notes} if notes else {})


def _scores_of(
    classifier: Classifier, batch: StagedBatch, accelerator: Accelerator, temperature: float
) -> Sequence[Tensor]:
    """Return the scores (K,) of each image in a batch."""
    if not len(batch):
        return []
    with accelerator.autocast(), short_last_block(classifier.model):
        logits = classifier.model(classifier.pixel_values(batch.to(accelerator.device).images)).logits
    # In float64, in which different float32 logits stay different: a temperature changes no prediction.
    return list(_scores(logits.float().cpu().double() / temperature, classifier.config))


def _scores(logits: Tensor, config: PreTrainedConfig) -> Tensor:
    """Turn logits (B, K) into scores for the model's kind of problem, as transformers' pipeline does.

    Raises:
        ModelError: if the logits are not finite.
    """
    if not torch.isfinite(logits).all():
        raise ModelError(
            "the model's output is not finite (NaN or infinity), so nothing can be predicted",
            hint="an undamaged checkpoint, or --precision fp32 if the checkpoint is fine",
        )
    kind = config.problem_type
    if kind == "regression":
        return logits
    if kind == "multi_label_classification" or config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(-1)

"""Running a model over images: a split with labels, or files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from vitft.data.batches import BadRow, EvaluationBatches, StagedBatch, collate
from vitft.data.images import ImageSplit, StreamSplit
from vitft.data.staging import MAX_PIXELS, BadImage, StagedImage, decode
from vitft.data.stream_batches import StreamEvaluationBatches
from vitft.errors import ModelError
from vitft.model.processor import ImageProcess
from vitft.scoring.scores import Tally
from vitft.scoring.shifts import shifted
from vitft.views.color import normalize


@dataclass
class Scored:
    """What one pass over a split gave, over all processes.

    Attributes:
        tally: counts and sums.
        predictions, labels: class ids by row, for metrics that want them; empty unless collected.
        bad_rows: images that were passed over.
        notes: what was noticed about images that were used.
        images_per_second: of the forward passes, after the first, over all processes.
        shift_consistency: part of the predictions that stayed when the image was shifted; None if none was.
    """

    tally: Tally
    predictions: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    images_per_second: float = 0.0
    shift_consistency: float | None = None


def evaluation_batches(
    split: ImageSplit | StreamSplit,
    process: ImageProcess,
    *,
    batch_size: int,
    skip_bad: bool,
    workers: int,
    accelerator: Any,
    max_pixels: int = MAX_PIXELS,
) -> Iterable[StagedBatch]:
    """Return this process's part of a split; all parts together hold every row once."""
    rank, world_size = accelerator.process_index, accelerator.num_processes
    if isinstance(split, StreamSplit):
        return StreamEvaluationBatches(
            split,
            process,
            batch_size=batch_size,
            skip_bad=skip_bad,
            rank=rank,
            world_size=world_size,
            max_pixels=max_pixels,
        )
    pin = accelerator.device.type == "cuda"
    return EvaluationBatches(
        split,
        process,
        batch_size=batch_size,
        skip_bad=skip_bad,
        workers=workers,
        pin=pin,
        rank=rank,
        world_size=world_size,
        max_pixels=max_pixels,
    )


def until_failure(batches: Iterable[StagedBatch], on_failure: Callable[[Exception], None]) -> Iterator[StagedBatch]:
    """Yield batches until reading the next one fails, which is given to ``on_failure``.

    So every process reaches the reduction that follows, also if it alone met what cannot be read.
    """
    try:
        yield from batches
    except Exception as error:  # of a dataset, which may raise anything: on_failure decides
        on_failure(error)


@torch.no_grad()
def score_split(
    model: Any,
    batches: Iterable[StagedBatch],
    *,
    num_classes: int,
    normalisation: tuple[Sequence[float], Sequence[float]],
    accelerator: Any,
    collect: bool = False,
    shift: int = 0,
) -> Scored:
    """Run ``model`` over a split and reduce counts and sums over the processes.

    Args:
        model: the bare model: no collective runs inside, so the processes' parts may differ in length.
        batches: this process's part, staged by the model's own image processor.
        num_classes: K.
        normalisation: mean and standard deviation per channel, in units of [0, 1].
        accelerator: says device, precision and processes.
        collect: keep every prediction too.
        shift: also move every image by so many pixels in four directions, and count how many predictions stay.
    """
    was_training = model.training
    model.eval()

    def logits_of(images: Tensor) -> Tensor:
        with accelerator.autocast():
            return model(normalize(images, *normalisation)).logits.float()  # type: ignore[no-any-return]

    stayed = torch.zeros(2, dtype=torch.int64, device=accelerator.device)  # of how many
    scored = Scored(Tally(num_classes, device=accelerator.device))
    passes: list[tuple[int, float]] = []
    for batch in batches:
        scored.bad_rows += batch.skipped
        scored.notes += batch.notes
        if len(batch):
            on_device = batch.to(accelerator.device)
            begun = time.perf_counter()
            logits = logits_of(on_device.images)
            scored.tally.add(logits, on_device.labels)
            if accelerator.device.type != "cpu":
                torch.accelerator.synchronize()
            passes.append((len(batch), time.perf_counter() - begun))
            for moved in shifted(on_device.images, shift) if shift else ():
                stayed[0] += (logits_of(moved).argmax(-1) == logits.argmax(-1)).sum()
                stayed[1] += len(batch)
            if collect:
                scored.predictions += logits.argmax(-1).tolist()
                scored.labels += batch.labels.tolist()
    model.train(was_training)
    scored.tally = scored.tally.reduce(accelerator)
    scored.images_per_second = _speed(passes, accelerator)
    if shift:
        kept, total = accelerator.reduce(stayed, "sum").tolist()
        scored.shift_consistency = kept / max(total, 1)
    if accelerator.num_processes > 1:
        scored.bad_rows = gather_object(scored.bad_rows)
        scored.predictions, scored.labels = gather_object(scored.predictions), gather_object(scored.labels)
    return scored


def _speed(passes: list[tuple[int, float]], accelerator: Any) -> float:
    """Return the images per second of all processes; the first pass, which warms up, does not count if others do."""
    timed = passes[1:] or passes
    own = sum(count for count, _ in timed) / max(sum(seconds for _, seconds in timed), 1e-9)
    return float(accelerator.reduce(torch.tensor(own, device=accelerator.device), "sum"))


@torch.no_grad()
def predict_files(
    model: Any,
    process: ImageProcess,
    paths: Sequence[Path],
    *,
    normalisation: tuple[Sequence[float], Sequence[float]],
    accelerator: Any,
    batch_size: int,
    top_k: int,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[dict[str, object]]:
    """Yield for each file, in order, its most probable labels or the reason why it has none.

    Args:
        model: on the accelerator's device; it is put into evaluation mode.
        process: the model's own image processor.
        paths: of image files.
        normalisation: mean and standard deviation per channel, in units of [0, 1].
        accelerator: says device and precision.
        batch_size: images per forward pass.
        top_k: labels per image, at most as many as there are classes.
        max_pixels: width times height that an image may have.

    Yields:
        ``{"image": path, "predictions": [{"label": ..., "score": ...}, ...]}``, with ``"notes"`` where an image was
        not read as it is, or ``{"image": path, "error": ...}``. Scores are those of transformers' pipeline.

    Raises:
        ModelError: if the model gives no finite numbers.
    """
    model.eval()
    given = model.config.id2label or {}  # PVT's configuration may have none
    names = {number: given.get(number, f"LABEL_{number}") for number in range(model.config.num_labels)}
    for start in range(0, len(paths), batch_size):
        part = paths[start : start + batch_size]
        staged = {path: _stage(path, process, max_pixels) for path in part}
        good = {path: made for path, made in staged.items() if not isinstance(made, str)}
        scores: dict[Path, Tensor] = {}
        if good:
            images = [StagedImage(pixels, 0, 0) for pixels, _ in good.values()]
            batch = collate(images, [0] * len(good), range(len(good)))
            with accelerator.autocast():
                logits = model(normalize(batch.to(accelerator.device).images, *normalisation)).logits
            scores = dict(zip(good, _scores(logits.float().cpu(), model.config), strict=True))
        for path in part:
            if path not in good:
                yield {"image": str(path), "error": staged[path]}
                continue
            ranked, classes = scores[path].sort(descending=True, stable=True)
            best = list(zip(ranked.tolist(), classes.tolist(), strict=True))[:top_k]
            row: dict[str, object] = {"image": str(path)}
            row["predictions"] = [{"label": names[k], "score": score} for score, k in best]
            yield row | ({"notes": list(good[path][1])} if good[path][1] else {})


def _scores(logits: Tensor, config: Any) -> Tensor:
    """Return what logits (B, K) say by the kind of problem that a model was trained for, as transformers' pipeline.

    Raises:
        ModelError: if they are not finite.
    """
    if not torch.isfinite(logits).all():
        raise ModelError(
            "the model gives values that are not finite (NaN or infinity), of which nothing can be predicted",
            hint="use an undamaged checkpoint; if it is sound, --precision fp32",
        )
    kind = config.problem_type
    if kind == "regression":
        return logits
    if kind == "multi_label_classification" or config.num_labels == 1:
        return logits.sigmoid()
    return logits.softmax(-1)


def _stage(path: Path, process: ImageProcess, max_pixels: int) -> tuple[Tensor, tuple[str, ...]] | str:
    """Return an image as the model gets it, and notes, or why it cannot be used."""
    try:
        image, notes = decode(str(path), max_pixels, process.white_level)
        return process(image), notes
    except BadImage as error:
        return error.wrong

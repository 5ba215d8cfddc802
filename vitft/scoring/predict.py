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
from vitft.data.source import ImageSplit, StreamSplit
from vitft.data.staging import BadImage, StagedImage, decode
from vitft.data.stream_batches import StreamEvaluationBatches
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
) -> Iterable[StagedBatch]:
    """Return this process's part of a split; all parts together hold every row once."""
    rank, world_size = accelerator.process_index, accelerator.num_processes
    if isinstance(split, StreamSplit):
        return StreamEvaluationBatches(
            split, process, batch_size=batch_size, skip_bad=skip_bad, rank=rank, world_size=world_size
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

    Yields:
        ``{"image": path, "predictions": [{"label": ..., "score": ...}, ...]}`` or ``{"image": path, "error": ...}``.
    """
    model.eval()
    given = model.config.id2label or {}  # PVT's configuration may have none
    names = {number: given.get(number, f"LABEL_{number}") for number in range(model.config.num_labels)}
    for start in range(0, len(paths), batch_size):
        part = paths[start : start + batch_size]
        staged = {path: _stage(path, process) for path in part}
        good = {path: pixels for path, pixels in staged.items() if isinstance(pixels, Tensor)}
        probs: dict[Path, Tensor] = {}
        if good:
            images = [StagedImage(pixels, 0, 0) for pixels in good.values()]
            batch = collate(images, [0] * len(good), range(len(good)))
            with accelerator.autocast():
                logits = model(normalize(batch.to(accelerator.device).images, *normalisation)).logits
            probs = dict(zip(good, logits.float().softmax(-1).cpu(), strict=True))
        for path in part:
            if path not in probs:
                yield {"image": str(path), "error": staged[path]}
                continue
            scores, classes = probs[path].topk(min(top_k, len(names)))
            ranked = zip(scores.tolist(), classes.tolist(), strict=True)
            yield {
                "image": str(path),
                "predictions": [{"label": names[k], "score": score} for score, k in ranked],
            }


def _stage(path: Path, process: ImageProcess) -> Tensor | str:
    try:
        return process(decode(str(path))[0])
    except BadImage as error:
        return error.wrong

"""Small copies of the images that a page shows: mistakes, and what the network saw while it trained."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.disk import whole_folder
from vitft.errors import one_line
from vitft.outside import shown
from vitft.processes import signals
from vitft.report.gallery import FOLDER, INDEX, choose
from vitft.run import Run
from vitft.scoring.predictions import Predictions, file_name, read_predictions
from vitft.tasks.photos import decoded
from vitft.tasks.training_views import TrainingViews, as_image, main_labels

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from vitft.data.images import ImageSplit
    from vitft.train.setup import Setup

SIDE = 112  # pixels of the longer side
NUM_VIEWS = 16
_QUALITY = 80


def keep_thumbnails(run: Run, setup: Setup) -> None:
    """Write ``thumbnails/``, once predictions and results are safely written; what is there stays.

    The main process does it alone. A failure is a note: everything else is saved already. A request to stop and a full
    disk are none: the resumed run makes them.
    """
    if not setup.accelerator.is_main_process:
        return
    try:
        if not (run.folder / FOLDER / INDEX).is_file():
            _write(run, setup)
    except Exception as error:  # whatever it is: the run is complete without them
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        run.note(f"no thumbnails, and nothing else is lost: {type(error).__name__}: {one_line(error)}")
    signals.check()
    note_thumbnails(run)


def note_thumbnails(run: Run) -> None:
    """Note which thumbnails a run does not have, and why."""
    for note in (run.read_json(f"{FOLDER}/{INDEX}") or {}).get("notes", []):
        run.note(str(note))


def _write(run: Run, setup: Setup) -> None:
    notes: list[str] = []
    with whole_folder(run.folder / FOLDER) as folder:
        split, images = _write_mistakes(run, setup, folder, notes)
        views = _write_views(setup, folder, notes)
        _write_index(folder, split, images, views, notes)


def _write_index(
    folder: Path, split: str, images: list[dict[str, Any]], views: list[dict[str, Any]], notes: list[str]
) -> None:
    index = {"split": split, "images": images, "views": views, "notes": notes}
    (folder / INDEX).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


# --- mistakes ----------------------------------------------------------------------------------------------


def _write_mistakes(run: Run, setup: Setup, folder: Path, notes: list[str]) -> tuple[str, list[dict[str, Any]]]:
    """Write the images that a page shows of the split that was scored last; return its name and their index."""
    from vitft.data.images import ImageSplit

    name = next((name for name in ("test", "validation") if (run.folder / file_name(name)).is_file()), "")
    split = getattr(setup.source, name) if name else None
    if split is None:
        return name, []
    if not isinstance(split, ImageSplit):
        notes.append(f"no thumbnails of mistakes: {name} is a stream, which cannot be read from the middle")
        return name, []
    predictions, _ = read_predictions(run.folder / file_name(name), setup.source.classes)
    return name, _write_chosen(folder, split, predictions, setup.recipe.data.max_pixels)


def keep_mistakes(kept_in: Path, split: ImageSplit, predictions: Predictions, max_pixels: int) -> None:
    """Write ``thumbnails/`` of an evaluation.

    Args:
        kept_in: folder of the evaluation.
        split, predictions: the images that were scored, and what was said of them.
        max_pixels: the largest image to decode.
    """
    with whole_folder(kept_in / FOLDER) as folder:
        images = _write_chosen(folder, split, predictions, max_pixels)
        _write_index(folder, split.name, images, [], [])


def _write_chosen(folder: Path, split: ImageSplit, predictions: Predictions, max_pixels: int) -> list[dict[str, Any]]:
    """Write the images that a page shows; return their index."""
    found = []
    for place in choose(predictions).places:
        row = int(predictions.row[place])
        image = decoded(split, row, max_pixels)
        if image is None:  # it could be read when it was scored
            continue
        file = f"{split.name}-{row:08d}.jpg"
        _save(image, folder / file)
        found.append({"row": row, "file": file, "source": shown(split.source(row))})
    return found


def _save(image: Image, path: Path) -> None:
    from PIL import Image

    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    image.save(path, quality=_QUALITY)


# --- training views ----------------------------------------------------------------------------------------


def _write_views(setup: Setup, folder: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Write the first views of the training as the network saw them, after mixing; return their index."""
    from vitft.data.images import ImageSplit

    if not isinstance(setup.source.train, ImageSplit):
        notes.append("no training views: a stream is read only once")
        return []
    features = setup.plan.features
    if features is not None and features.num_views == 0:
        notes.append("no training views: the head learnt from features of the plain images")
        return []
    found: list[dict[str, Any]] = []
    for levels, target in _views(setup, setup.source.train):
        file = f"view-{len(found):02d}.jpg"
        _save(as_image(levels), folder / file)
        labels = [[name, round(share, 4)] for name, share in main_labels(target, setup.source.classes)]
        found.append({"file": file, "labels": labels})
        if len(found) == NUM_VIEWS:
            break
    return found


def _views(setup: Setup, train: ImageSplit) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield levels (3, H, W) and targets (K,) from the first step on.

    The batches are smaller than those of the training; an image's partner in mixing is the same in any.
    """
    from vitft.data.train_batches import StepSlices
    from vitft.train.imbalance import sampling_of

    plan = setup.plan
    size = min(plan.batch_size, NUM_VIEWS)
    slices = StepSlices(len(train), size, size + size % 2, plan.total_samples)
    training = TrainingViews(setup, train, slices, sampling_of(setup.recipe, setup.source))
    for step, parts in enumerate(training.batches.steps(0, min(plan.total_steps, NUM_VIEWS))):
        for part in parts:
            yield from zip(*training.of(part, step), strict=True)

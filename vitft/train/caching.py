"""Where staged images are kept, so that they are decoded once: in memory, on the disk, or nowhere."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from types import TracebackType
from typing import Any, NamedTuple

import PIL
import torch
from PIL import features

from vitft.data.cache import Cache, NoCache, disk_folder, memory_folder, used_bytes
from vitft.data.device_store import device_bytes
from vitft.data.images import ImageSource, ImageSplit, StreamSplit
from vitft.data.staged_store import StagedStore
from vitft.data.staging import STAGING_VERSION
from vitft.data.store import IS_SUPPORTED, expected_bytes
from vitft.data.train_batches import StagingCost
from vitft.machine import free_memory
from vitft.model.classifier import Classifier
from vitft.outside import printable
from vitft.quantities import size_text
from vitft.recipe.recipe import Recipe
from vitft.recipe.sizes import show_size

_SMALL = 0.25  # of the free memory
_HALF = 0.5  # of the free space on a disk or in /dev/shm, which others need too
_LITTLE = 0.1  # of the free memory of a GPU
_NOT_WORTH_IT = 1.0  # seconds of staging that a cache saves


class CachePlan(NamedTuple):
    """Where staged images are kept.

    Attributes:
        place: ``memory``, ``disk`` or ``off``.
        reason: why, with the size.
        mean_bytes: of a staged training image.
    """

    place: str
    reason: str = ""
    mean_bytes: float = 0.0


@dataclass
class Caches:
    """The stores of the splits that are read more than once; None if one is not kept."""

    train: StagedStore | None = None
    validation: StagedStore | None = None

    def __enter__(self) -> Caches:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the stores; those in memory are removed by their last user."""
        for kept in (self.train, self.validation):
            if kept is not None:
                kept.store.close()


def plan_cache(
    recipe: Recipe,
    source: ImageSource,
    classifier: Classifier,
    stage_size: int,
    num_passes: float,
    cost: Callable[[], StagingCost],
) -> CachePlan:
    """Decide where staged images are kept; writes nothing.

    Args:
        recipe, source, classifier: what the run is made of.
        stage_size: of training images, in pixels.
        num_passes: how often the training reads each image.
        cost: measures what staging one takes.
    """
    wish, train = recipe.data.cache, source.train
    if wish == "off":
        return CachePlan("off")
    if not isinstance(train, ImageSplit):
        return CachePlan("off", "the rows of a stream cannot be found again")
    if not IS_SUPPORTED:
        return CachePlan("off", "not on this operating system")
    if wish == "auto" and num_passes <= 1:
        return CachePlan("off", "auto: the training reads each image only once")
    each = cost()
    if wish == "auto" and each.seconds * len(train) * (num_passes - 1) < _NOT_WORTH_IT:
        return CachePlan("off", f"auto: staging takes {1e3 * each.seconds:.1f} ms per image here, not worth a cache")
    wanted = _wanted(recipe, source, classifier, stage_size, each.num_bytes)
    refusals = []
    for place in ("memory", "disk") if wish == "auto" else (wish,):
        said, refusal = (_in_memory if place == "memory" else _on_disk)(recipe, wanted)
        if not refusal:
            return CachePlan(place, f"{'auto: ' if wish == 'auto' else ''}{said}", each.num_bytes)
        refusals.append(refusal)
    return CachePlan("off", "; ".join(refusals))


def open_caches(
    plan: CachePlan,
    recipe: Recipe,
    source: ImageSource,
    classifier: Classifier,
    stage_size: int,
    note: Callable[[str], None],
) -> Caches:
    """Open the planned stores; what cannot be opened is noted, and the images are then decoded in every epoch."""
    caches, cache = Caches(), _cache(recipe, plan.place)
    if cache is None:
        return caches
    for role, (split, key, slot_bytes, num_bytes) in _wanted(
        recipe, source, classifier, stage_size, plan.mean_bytes
    ).items():
        try:
            store = cache.open(key, slot_bytes, num_bytes)
        except NoCache as error:
            note(f"the staged {role} images are not kept: {printable(error)}")
        else:
            setattr(caches, role, StagedStore(store, split.row_numbers, f"the cache of staged {role} images"))
    return caches


def bytes_on_device(
    recipe: Recipe, train: ImageSplit | StreamSplit, device: torch.device, stage_size: int, num_passes: float
) -> int:
    """Return the bytes of staged training images that will stay on the device; 0 if they will not.

    They do on a GPU if they are read more than once and take up little of it.
    """
    if device.type != "cuda" or recipe.data.cache == "off" or num_passes <= 1 or not isinstance(train, ImageSplit):
        return 0
    needed = device_bytes(len(train), stage_size)
    return needed if needed <= _LITTLE * torch.cuda.mem_get_info(device)[0] else 0


class _Wanted(NamedTuple):
    """A store to open."""

    split: ImageSplit
    key: dict[str, Any]
    slot_bytes: int
    num_bytes: int


def _wanted(
    recipe: Recipe, source: ImageSource, classifier: Classifier, stage_size: int, mean_bytes: float
) -> dict[str, _Wanted]:
    """Return the stores by role.

    A slot is a row of the source's own split, so that runs share a store whatever part of the split they train on.
    That a row is still the same image is not part of the key: each slot has its own stamp.
    """
    size, process = classifier.image_size, classifier.process
    found = {}
    for role, split, slot_bytes, settings in (
        ("train", source.train, 3 * stage_size**2, {"stage_size": stage_size}),
        ("validation", source.validation, 3 * size[0] * size[1], process.settings()),
    ):
        if not isinstance(split, ImageSplit) or not len(split):
            continue
        what = f"staged at {stage_size}" if role == "train" else f"as the model sees it at {show_size(size)}"
        key = {
            "dataset": source.id,
            "revision": source.revision,
            "config": recipe.data.config,
            "split": split.source_name,
            "columns": split.image_columns,
            "what": f"{split.source_name} {what}",
            "max_pixels": recipe.data.max_pixels,
            "white_level": split.white_level,
            "settings": settings,
            "versions": _versions(),
        }
        content = mean_bytes if role == "train" else slot_bytes
        plain = json.loads(json.dumps(key, default=str, sort_keys=True))
        found[role] = _Wanted(split, plain, slot_bytes, expected_bytes(content, slot_bytes, len(split)))
    return found


def _versions() -> dict[str, str | int | None]:
    """Return what decides how the same bytes become pixels."""
    return {
        "staging": STAGING_VERSION,
        "pillow": PIL.__version__,
        "libjpeg": features.version("jpg"),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
        "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def _cache(recipe: Recipe, place: str) -> Cache | None:
    if place == "disk":
        return Cache(disk_folder(), recipe.data.cache_limit.num_bytes)
    folder = memory_folder() if place == "memory" else None
    return Cache(folder, is_temporary=True) if folder else None


def _in_memory(recipe: Recipe, wanted: dict[str, _Wanted]) -> tuple[str, str]:
    """Return what is to be said of a cache in memory, and why there cannot be one."""
    folder, needed = memory_folder(), sum(each.num_bytes for each in wanted.values())
    if folder is None:
        return "", "there is no /dev/shm here"
    free, room = free_memory(), int(_HALF * shutil.disk_usage(folder.parent).free)
    if needed > min((_SMALL if recipe.data.cache == "auto" else _HALF) * free, room):
        return "", f"{size_text(needed)} is too much for memory ({size_text(free)} free, {size_text(room)} in /dev/shm)"
    return f"at most {size_text(needed)} in {folder}, removed at the end; {size_text(free)} of memory is free", ""


def _on_disk(recipe: Recipe, wanted: dict[str, _Wanted]) -> tuple[str, str]:
    """Return what is to be said of a cache on the disk, and why there cannot be one."""
    folder, needed = disk_folder(), sum(each.num_bytes for each in wanted.values())
    cache, limit = Cache(folder), recipe.data.cache_limit
    try:
        own = [cache.folder_of(each.key, each.slot_bytes) for each in wanted.values()]
        there, others = sum(map(used_bytes, own)), cache.held_bytes(own)
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        room = int(_HALF * shutil.disk_usage(existing).free)
    except OSError as error:
        return "", f"{printable(folder)}: {error.strerror or type(error).__name__}"
    if needed + others > limit.num_bytes:
        used = f", of which {size_text(others)} are in use" if others else ""
        return "", f"{size_text(needed)} is too much for data.cache_limit ({limit}{used})"
    if needed - there > room:
        return "", f"{size_text(needed)} is too much for the disk of {printable(folder)} ({size_text(2 * room)} free)"
    state = f", {size_text(there)} already there" if there else ""
    return f"at most {size_text(needed)} in {printable(folder)}{state}", ""

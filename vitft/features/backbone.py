"""Compute what a head or a block reads of every image, once, with the frozen part of the model.

Legend: V views, N rows of a split, B batch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from accelerate.utils import gather_object
from torch import Tensor

from vitft.architectures.last_block import short_last_block
from vitft.data.batches import RowNote, StagedBatch
from vitft.data.images import ImageSplit
from vitft.errors import TrainError, VitftError, one_line
from vitft.features.features import Features
from vitft.model.block_input import BlockInput
from vitft.model.classifier import Classifier
from vitft.model.head_input import HeadInput, features_of
from vitft.processes.signals import StopRequest
from vitft.quantities import speed_text
from vitft.recipe.keys import DataRecipe
from vitft.status import Status

if TYPE_CHECKING:
    from accelerate import Accelerator

_CHUNK = 2**24  # values that processes exchange at once


Seen = tuple[StagedBatch, Tensor, Tensor, Tensor]
"""A batch, the view (B,) and row (B,) of each image, and their pixel values (B, 3, H, W) on the device."""


class Views(Protocol):
    """What a backbone sees of each image, from :mod:`vitft.features.views`."""

    @property
    def num_views(self) -> int:
        """Views of each image, V."""

    def facts(self) -> dict[str, Any]:
        """Return what features depend on."""

    def seen(self, backbone: Backbone, split: ImageSplit) -> Iterator[Seen]:
        """Yield this process's part of all views of a split."""


class Stop(Protocol):
    """Requests to stop that wait until they are asked for."""

    def request(self) -> str:
        """Return why this process should stop; empty to continue."""

    def agreed(self) -> str:
        """Return why all processes stop, empty to continue; every process must call this."""


def batch_size_for(micro_batch_size: int) -> int:
    """Return the images per forward pass, an even number, for what a training takes at once."""
    return min(64, max(8, micro_batch_size)) // 2 * 2


@dataclass(frozen=True)
class Backbone:
    """A frozen model, and how its features are computed.

    Attributes:
        classifier: the model, on the accelerator's device.
        read: what its head, or the first block that is trained, reads.
        data: how images are read.
        batch_size: images per forward pass; even.
        workers: processes that read images.
        accelerator: where, in what precision, in how many processes.
        status: shows the progress.
        note: prints a line and records it.
    """

    classifier: Classifier
    read: HeadInput | BlockInput
    data: DataRecipe
    batch_size: int
    workers: int
    accelerator: Accelerator
    status: Status
    note: Callable[[str], None]

    def shape(self, split: ImageSplit, views: Views) -> tuple[int, ...]:
        """Return the shape of the features of a split, (V, N, ...)."""
        return (views.num_views, len(split), *self.read.shape)

    def compute(self, split: ImageSplit, views: Views, stop: Stop | None = None) -> Features:
        """Compute the features of a split; each process does its part, and all get everything.

        Args:
            split: its images.
            views: what the backbone sees of each.
            stop: requests to stop, if they wait until they are asked for.

        Raises:
            DataError: for an image that cannot be used, unless such images are skipped.
            StopRequest: if the processes were asked to stop.
        """
        values = torch.zeros(self.shape(split, views))
        skipped: list[RowNote] = []
        notes: list[RowNote] = []
        model, was_training = self.classifier.model, self.classifier.model.training
        model.eval()
        with short_last_block(model), self._all_or_none():
            for batch, view, rows, pixel_values in self._shown(split, views, stop):
                skipped += batch.skipped
                notes += batch.notes
                if len(batch):
                    with self.accelerator.autocast():
                        values[view, rows] = features_of(model, self.read.module, pixel_values).cpu()
        model.train(was_training)
        if stop is not None and (reason := stop.agreed()):
            self.status.say("  stopped before all features were computed; a resumed run computes them again")
            raise StopRequest(reason)
        bad = {note.index: note for each in gather_object([skipped]) for note in each}
        values[:, sorted(bad)] = 0  # in random views, the next image stood in for it
        self._exchange(values)
        return Features.of(values, bad.values(), [note for each in gather_object([notes]) for note in each])

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """Let all processes fail if one does; otherwise they would wait for its part."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # of any kind: the others wait for this process
            failure = error
        known = failure if failure is None or isinstance(failure, VitftError) else TrainError(one_line(failure))
        told = gather_object([known])
        if failure is not None:
            raise failure
        if said := next(filter(None, told), None):
            raise said

    def _shown(self, split: ImageSplit, views: Views, stop: Stop | None) -> Iterator[Seen]:
        """Pass batches on until a request to stop, and show the progress."""
        total, done, begun = views.num_views * len(split), 0, time.perf_counter()
        self.status.start("features", total)
        go_on = (lambda _: not stop.request()) if stop is not None else lambda _: True
        try:
            for seen in itertools.takewhile(go_on, views.seen(self, split)):
                yield seen
                done = min(total, done + len(seen[0]) * self.accelerator.num_processes)
                speed = done / (time.perf_counter() - begun)
                self.status.update(done, total, f"features of {split.name}  {speed_text(speed)} images/s")
        finally:
            self.status.stop()
        seconds = time.perf_counter() - begun
        self.status.say(f"  features of {split.name}: {done:,} images in {seconds:.1f} s")

    def _exchange(self, values: Tensor) -> None:
        """Bring the parts of all processes together: each has 0 in the rows of the others."""
        if self.accelerator.num_processes > 1:
            for part in torch.split(values.view(-1), _CHUNK):
                part.copy_(self.accelerator.reduce(part.to(self.accelerator.device), "sum"))

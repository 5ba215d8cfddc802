"""Compute what a head reads of every image, once, with the frozen backbone.

Legend: V views, N rows of a split, B batch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object
from torch import Tensor

from vitft.data import order
from vitft.data.batches import RowNote, StagedBatch
from vitft.data.images import ImageSplit
from vitft.data.train_batches import StepSlices, TrainBatches
from vitft.model.classifier import Classifier
from vitft.model.head_input import features_of
from vitft.processes.signals import StopRequest
from vitft.quantities import speed_text
from vitft.recipe.recipe import Recipe
from vitft.run import Run
from vitft.scoring.evaluation import batches_of
from vitft.train.feature_plan import FeaturePlan, unmixed
from vitft.train.plan import Plan
from vitft.train.stopping import StopRequests
from vitft.views.policy import policy

if TYPE_CHECKING:
    from accelerate import Accelerator

_CHUNK = 2**24  # values that processes exchange at once


@dataclass(frozen=True)
class Features:
    """What a head reads of every image of a split.

    Attributes:
        values: float32 (V, N, ...) on the CPU; 0 where there is no image.
        skipped: images that could not be decoded, by row.
        notes: oddities of the others, by row.
    """

    values: Tensor
    skipped: Mapping[int, RowNote]
    notes: Mapping[int, tuple[RowNote, ...]]

    @classmethod
    def of(cls, values: Tensor, skipped: Iterable[RowNote], notes: Iterable[RowNote]) -> Features:
        """Sort notes by row; each is kept once."""
        by_row: dict[int, tuple[RowNote, ...]] = {}
        for note in dict.fromkeys(notes):
            by_row[note.index] = (*by_row.get(note.index, ()), note)
        return cls(values, {note.index: note for note in skipped}, by_row)


@dataclass(frozen=True)
class Backbone:
    """A frozen model, and how its features are computed.

    Attributes:
        recipe, classifier, plan, accelerator, run: as in :class:`vitft.train.setup.Training`.
        planned: what is to be computed.
    """

    recipe: Recipe
    classifier: Classifier
    plan: Plan
    planned: FeaturePlan
    accelerator: Accelerator
    run: Run

    @property
    def batch_size(self) -> int:
        """Images per forward pass; even."""
        return min(64, max(8, self.plan.micro_batch_size)) // 2 * 2

    def shape(self, split: ImageSplit, num_views: int) -> tuple[int, ...]:
        """Return the shape of the features of a split; 0 views are one plain view."""
        return (max(1, num_views), len(split), *self.planned.read.shape)

    def compute(self, split: ImageSplit, num_views: int, stop: StopRequests) -> Features:
        """Compute the features of a split; each process does its part, and all get everything.

        Args:
            split: its images.
            num_views: random views of each image; 0: the plain image.
            stop: requests to stop.

        Raises:
            DataError: for an image that cannot be used, unless the recipe skips such images.
            StopRequest: if the processes were asked to stop; a resumed run starts anew.
        """
        values = torch.zeros(self.shape(split, num_views))
        skipped: list[RowNote] = []
        notes: list[RowNote] = []
        model, was_training = self.classifier.model, self.classifier.model.training
        model.eval()
        batches = self._random_views(split, num_views) if num_views else self._plain(split)
        for batch, views, rows, pixel_values in self._shown(split, batches, values.shape[0] * len(split), stop):
            skipped += batch.skipped
            notes += batch.notes
            if len(batch):
                with self.accelerator.autocast():
                    values[views, rows] = features_of(model, self.planned.read.module, pixel_values).cpu()
        model.train(was_training)
        if reason := stop.agreed():
            self.run.say("  stopped before all features were computed; a resumed run computes them again")
            raise StopRequest(reason)
        bad = {note.index: note for each in gather_object([skipped]) for note in each}
        values[:, sorted(bad)] = 0  # in random views, the next image stood in for it
        self._exchange(values)
        return Features.of(values, bad.values(), [note for each in gather_object([notes]) for note in each])

    def _plain(self, split: ImageSplit) -> Iterator[_Shown]:
        """Yield the images as they are scored."""
        batches = batches_of(
            split,
            self.classifier,
            self.accelerator,
            batch_size=self.batch_size,
            skip_bad=self.recipe.data.bad_images == "skip",
            workers=self.plan.workers,
            max_pixels=self.recipe.data.max_pixels,
        )
        for batch in batches:
            pixel_values = self.classifier.pixel_values(batch.to(self.accelerator.device).images)
            yield batch, torch.zeros(len(batch), dtype=torch.int64), batch.sample_indices, pixel_values

    def _random_views(self, split: ImageSplit, num_views: int) -> Iterator[_Shown]:
        """Yield the images as the first epochs of the run see them, without mixing."""
        recipe, plan, accelerator = self.recipe, self.plan, self.accelerator
        total, step_size = num_views * len(split), self.batch_size * plan.world_size
        slices = StepSlices(len(split), step_size, self.batch_size, total, accelerator.process_index, plan.world_size)
        batches = TrainBatches(
            split,
            slices,
            seed=recipe.train.seed,
            stage_size=plan.stage_size,
            skip_bad=recipe.data.bad_images == "skip",
            workers=plan.workers,
            pin=accelerator.device.type == "cuda",
            max_pixels=recipe.data.max_pixels,
        )
        view = policy(
            unmixed(recipe.augment),
            resize_mode=recipe.data.fit,
            image_size=plan.phases[0].image_size,
            normalise=self.classifier.pixel_values,
            num_classes=len(self.classifier.classes),
            seed=recipe.train.seed,
        )
        for batch in itertools.chain.from_iterable(batches.steps(0, -(-total // step_size))):
            indices = batch.sample_indices
            rows = order.sample_at(recipe.train.seed, indices, len(split))
            yield batch, indices // len(split), rows, view(batch.to(accelerator.device))[0]

    def _shown(self, split: ImageSplit, batches: Iterator[_Shown], total: int, stop: StopRequests) -> Iterator[_Shown]:
        """Pass batches on until a request to stop, and show the progress."""
        status, done, begun = self.run.status, 0, time.perf_counter()
        status.start("features", total)
        try:
            for shown in itertools.takewhile(lambda _: not stop.request(), batches):
                yield shown
                done = min(total, done + len(shown[0]) * self.plan.world_size)
                speed = done / (time.perf_counter() - begun)
                status.update(done, total, f"features of {split.name}  {speed_text(speed)} images/s")
        finally:
            status.stop()
        seconds = time.perf_counter() - begun
        self.run.say(f"  features of {split.name}: {done:,} images in {seconds:.1f} s")

    def _exchange(self, values: Tensor) -> None:
        """Bring the parts of all processes together: each has 0 in the rows of the others."""
        if self.plan.world_size > 1:
            for part in torch.split(values.view(-1), _CHUNK):
                part.copy_(self.accelerator.reduce(part.to(self.accelerator.device), "sum"))


_Shown = tuple[StagedBatch, Tensor, Tensor, Tensor]
"""A batch, the view (B,) and row (B,) of each image, and their pixel values (B, 3, H, W) on the device."""

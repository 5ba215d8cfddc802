"""Train a head or the last blocks on features: batches, views, network and validation, without images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitft.data.batches import RowNote, StagedBatch, failed
from vitft.data.images import ImageSource, ImageSplit
from vitft.data.row_order import ClassSampling, RowOrder
from vitft.data.train_batches import StepSlices
from vitft.features.backbone import Backbone, Views
from vitft.features.facts import facts_of
from vitft.features.features import Features
from vitft.features.kept import read_or_compute
from vitft.features.views import PlainView
from vitft.recipe.keys import AugmentRecipe
from vitft.train.stopping import StopRequests
from vitft.views.mixing import soft_targets
from vitft.views.policy import View

if TYPE_CHECKING:
    from accelerate import Accelerator

_SCORED, _SCORED_VALUES = 1024, 2**22  # images and values per batch of validation, at most
_AHEAD = 8192  # samples whose order is looked up at once, which takes about as long as for a single step


@dataclass(frozen=True)
class OnFeatures:
    """The part of a model that is trained, and the features to train and to validate it on.

    Attributes:
        model: from features to an output with logits.
        classes: names of the classes.
        train, train_split: features and labels of the training images.
        validation, validation_split: those of the validation images, if there are any.
    """

    model: nn.Module
    classes: Sequence[str]
    train: Features
    train_split: ImageSplit
    validation: Features | None
    validation_split: ImageSplit | None

    def pixel_values(self, features: Tensor) -> Tensor:
        """Return features as they are: what stands here for a model's input."""
        return features

    def view(self, augment: AugmentRecipe) -> View:
        """Return the function from a batch of features to features and soft targets."""

        def view(batch: StagedBatch) -> tuple[Tensor, Tensor]:
            return batch.images, soft_targets(batch.labels, len(self.classes), augment.label_smoothing)

        return view

    def batches(self, slices: StepSlices, seed: int, sampling: ClassSampling | None = None) -> FeatureBatches:
        """Return the batches of the training."""
        return FeatureBatches(self.train, self.train_split, slices, seed, sampling)

    def validation_batches(self, accelerator: Accelerator) -> Iterator[StagedBatch]:
        """Yield this process's part of the validation split, each row once; skipped images come along as notes."""
        assert self.validation is not None and self.validation_split is not None
        split, rank, world_size = self.validation_split, accelerator.process_index, accelerator.num_processes
        first, last = len(split) * rank // world_size, len(split) * (rank + 1) // world_size
        size = max(1, min(_SCORED, _SCORED_VALUES // math.prod(self.validation.values.shape[2:])))
        for start in range(first, last, size):
            rows = range(start, min(start + size, last))
            skipped = tuple(self.validation.skipped[row] for row in rows if row in self.validation.skipped)
            good = torch.tensor([row for row in rows if row not in self.validation.skipped], dtype=torch.int64)
            yield _batch(self.validation, split, good, good, 0, skipped)


class FeatureBatches:
    """The micro-batches of each step, like those of ``TrainBatches``, with features in place of images.

    A bad image is replaced by the next good one of the epoch, as there.
    """

    def __init__(
        self,
        features: Features,
        split: ImageSplit,
        slices: StepSlices,
        seed: int,
        sampling: ClassSampling | None = None,
    ) -> None:
        self.slices = slices
        self._features, self._split, self._order = features, split, RowOrder(seed, len(split), sampling)

    def steps(self, first: int, last: int) -> Iterator[list[StagedBatch]]:
        """Yield this process's micro-batches for each step in [first, last)."""
        size = self.slices.batch_size
        several = max(1, _AHEAD // size)
        for begin in range(first, last, several):
            end = min(begin + several, last)
            samples = torch.arange(begin * size, min(end * size, self.slices.total_samples))
            rows, times = self._order.at(samples)
            for step in range(begin, end):
                parts = self.slices.micro_batches(step)
                places = [slice(part.start - begin * size, part.stop - begin * size) for part in parts]
                yield [self._batch(samples[place], rows[place].clone(), times[place]) for place in places]

    def state_dict(self) -> dict[str, Any]:
        """Return {}, because the sample index is all the state there is."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing, as there is no state."""

    def _batch(self, sample_indices: Tensor, rows: Tensor, times: Tensor) -> StagedBatch:
        features = self._features
        skipped: list[RowNote] = []
        for slot, row in enumerate(rows.tolist()) if features.skipped else ():
            if row in features.skipped:
                skipped.append(features.skipped[row])
                rows[slot] = self._next_good(int(sample_indices[slot]), skipped)
        views = times % len(features.values)
        return _batch(features, self._split, rows, sample_indices, views, tuple(skipped))

    def _next_good(self, sample_index: int, skipped: list[RowNote]) -> int:
        """Return the row that stands in for the bad one of a sample index, and note all that are skipped for it."""
        for row in self._order.after(sample_index):
            if row not in self._features.skipped:
                return row
            skipped.append(self._features.skipped[row])
        failed(RowNote(-1, "the training split", "none of its images can be decoded")).raise_failure()
        raise AssertionError("unreachable")


def _batch(
    features: Features,
    split: ImageSplit,
    rows: Tensor,
    sample_indices: Tensor,
    views: Tensor | int,
    skipped: tuple[RowNote, ...],
) -> StagedBatch:
    """Return a batch whose images are features."""
    nothing = torch.zeros(len(rows), 2, dtype=torch.int64)
    notes = tuple(note for row in rows.tolist() for note in features.notes.get(row, ())) if features.notes else ()
    labels = torch.from_numpy(split.labels)[rows]
    return StagedBatch(features.values[views, rows], nothing, nothing, labels, sample_indices, skipped, notes)


def read_features(backbone: Backbone, source: ImageSource, views: Views, stop: StopRequests) -> OnFeatures:
    """Read or compute the features of training and validation, and return what is trained with them.

    Args:
        backbone: the frozen model.
        source: the dataset.
        views: what is computed of each training image.
        stop: requests to stop; a resumed run starts anew.

    Raises:
        DataError, StopRequest: as :meth:`vitft.features.backbone.Backbone.compute`.
    """
    train, validation = source.train, source.validation
    assert isinstance(train, ImageSplit) and isinstance(validation, ImageSplit | None)
    facts = facts_of(backbone, source)
    return OnFeatures(
        backbone.read.rest(backbone.classifier.model),
        backbone.classifier.classes,
        read_or_compute(backbone, train, views, facts, stop),
        train,
        read_or_compute(backbone, validation, PlainView(), facts, stop) if validation is not None else None,
        validation,
    )

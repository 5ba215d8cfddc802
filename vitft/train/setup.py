"""Put together what a run needs before its first step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import checkpoint_activations
from vitft.data.images import ImageSource, ImageSplit, StreamSplit
from vitft.data.stream_batches import StreamBatches
from vitft.data.train_batches import TrainBatches
from vitft.errors import one_line
from vitft.model.classifier import Classifier
from vitft.model.drop_path import DropPath
from vitft.model.trainable import freeze_unused
from vitft.recipe.recipe import Recipe
from vitft.resolution.multisize import MultiSize
from vitft.run import Run
from vitft.train.averages import AveragedWeights
from vitft.train.checkpoint import TrainState
from vitft.train.optim import make_optimizer, parameter_groups
from vitft.train.plan import Plan
from vitft.views.policy import View, policy

if TYPE_CHECKING:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from transformers import PreTrainedModel


@dataclass
class Setup:
    """Everything loaded for a run; nothing has been written yet.

    Attributes:
        recipe: what to do.
        source: the dataset.
        classifier: the checkpoint with its new head.
        plan: the numbers derived from all of this.
        accelerator: where, in what precision, in how many processes.
        overview: how the dataset was read, as text.
    """

    recipe: Recipe
    source: ImageSource
    classifier: Classifier
    plan: Plan
    accelerator: Accelerator
    overview: str


@dataclass
class Training(Setup):
    """A setup with its moving parts: ``state``, the weights and the optimizer change, nothing else does.

    Attributes:
        run: its directory.
        network: the classifier's model, wrapped by accelerate; it takes every image size of the plan.
        optimizer: of the trained parameters.
        averaged: averaged weights, if the recipe asks for them.
        drop_path: stochastic depth, if the recipe asks for it.
        batches: micro-batches of each step.
        views: one for each image size.
        class_weights: of the loss, (K,), if the recipe asks for them.
        state: the progress of the training.
        best_weights: those with the best validation score, on the CPU.
        warned_of: notes on images that were already printed.
    """

    run: Run
    network: nn.Module
    optimizer: AcceleratedOptimizer
    averaged: AveragedWeights | None
    drop_path: DropPath | None
    batches: TrainBatches | StreamBatches
    views: dict[tuple[int, int], View]
    class_weights: Tensor | None
    state: TrainState
    best_weights: dict[str, Tensor]
    warned_of: set[str]

    @property
    def model(self) -> PreTrainedModel:
        """The bare model."""
        return self.classifier.model

    def set_sample_indices(self, sample_indices: Tensor | None) -> None:
        """Tell drop path which samples the next forward pass has; None drops nothing."""
        if self.drop_path is not None:
            self.drop_path.sample_indices = sample_indices

    def track(self, values: dict[str, float]) -> None:
        """Send numbers of this step to the recipe's trackers; after an error they get no more, and the run goes on."""
        if not self.accelerator.trackers:
            return
        try:
            self.accelerator.log(values, step=self.state.step)
        except Exception as error:  # third-party code and the network can raise anything
            self.accelerator.trackers = []
            self.run.note(f"nothing more is sent to {', '.join(self.recipe.run.track)}: {one_line(error)}")

    def note_bad(self, bad: dict[str, str]) -> None:
        """Print and record skipped images, by row, with the reason."""
        for where, reason in bad.items():
            if where not in self.state.bad_rows:
                self.state.bad_rows[where] = reason
                self.run.note(f"skipped {where}: {reason}")


def build(run: Run, setup: Setup) -> Training:
    """Build the training; freeze and note the parameters that the model does not use."""
    recipe, plan, source, classifier = setup.recipe, setup.plan, setup.source, setup.classifier
    accelerator = setup.accelerator
    model = classifier.to(accelerator.device).model.train()
    if unused := freeze_unused(model, classifier.image_size):
        run.note(f"frozen, because the model does not use them: {', '.join(unused)}")
    if recipe.train.gradient_checkpointing:
        checkpoint_activations(model)
    drop_path = DropPath(model, recipe.model.drop_path, recipe.train.seed) if recipe.model.drop_path else None
    averaged = AveragedWeights(model, recipe.optim.ema_decay) if recipe.optim.ema_decay else None

    # To skip a step, fp16's scaler must see the gradients itself; fused kernels hide them.
    fused = plan.precision != "fp16" and accelerator.device.type in ("cpu", "cuda")
    groups = parameter_groups(model, recipe.optim, classifier.head)
    sizes = [phase.image_size for phase in plan.phases]
    several = MultiSize(model, classifier.image_size, sizes, recipe.model.resize_method) if len(sizes) > 1 else model
    network, optimizer = accelerator.prepare(several, make_optimizer(groups, recipe.optim, fused=fused))
    view = partial(
        policy,
        recipe.augment,
        resize_mode=recipe.data.fit,
        normalise=classifier.pixel_values,
        num_classes=len(source.classes),
        seed=recipe.train.seed,
    )
    return Training(
        **vars(setup),
        run=run,
        network=network,
        optimizer=optimizer,
        averaged=averaged,
        drop_path=drop_path,
        batches=_batches(setup),
        views={size: view(image_size=size) for size in sizes},
        class_weights=_class_weights(recipe, source, accelerator.device),
        state=TrainState(
            micro_batch_size=plan.micro_batch_size,
            conditions=_conditions(plan),
            fingerprint=source.fingerprint,
            recipe=recipe.model_dump(mode="json"),
        ),
        best_weights={},
        warned_of=set(),
    )


def _batches(setup: Setup) -> TrainBatches | StreamBatches:
    recipe, plan, accelerator, split = setup.recipe, setup.plan, setup.accelerator, setup.source.train
    assert split is not None
    slices = plan.slices(accelerator.process_index)
    common: dict[str, Any] = {
        "seed": recipe.train.seed,
        "stage_size": plan.stage_size,
        "skip_bad": recipe.data.bad_images == "skip",
        "workers": plan.workers,
        "pin": accelerator.device.type == "cuda",
        "max_pixels": recipe.data.max_pixels,
    }
    if isinstance(split, StreamSplit):
        return StreamBatches(split, slices, buffer=recipe.data.shuffle_buffer, **common)
    return TrainBatches(split, slices, **common)


def _class_weights(recipe: Recipe, source: ImageSource, device: torch.device) -> Tensor | None:
    if recipe.train.class_weights == "none":
        return None
    assert isinstance(source.train, ImageSplit)  # make_plan has checked it
    counts = torch.from_numpy(source.train.class_counts(len(source.classes))).double()
    weights = len(source.train) / (len(counts) * counts.clamp(min=1))
    if recipe.train.class_weights == "sqrt":
        weights = weights.sqrt()
    return weights.float().to(device)


def _conditions(plan: Plan) -> dict[str, Any]:
    """Return what bit-for-bit resuming depends on, besides recipe and data."""
    return {
        "processes": plan.world_size,
        "micro_batch_size": plan.micro_batch_size,
        "device": plan.device.split(":")[0],
        "precision": plan.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
    }

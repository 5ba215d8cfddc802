"""Put together what a run needs before its first step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import checkpoint_activations
from vitft.architectures.last_block import shorten_last_block
from vitft.data.device_store import DeviceStore
from vitft.data.images import ImageSource, StreamSplit
from vitft.data.staged_store import StagedStore
from vitft.data.stream_batches import StreamBatches
from vitft.data.train_batches import TrainBatches
from vitft.errors import one_line
from vitft.features.backbone import Backbone, Views, batch_size_for
from vitft.features.views import PlainView, RandomViews
from vitft.model.block_input import BlockInput
from vitft.model.classifier import Classifier
from vitft.model.drop_path import DropPath
from vitft.model.head_input import HeadInput, head_input
from vitft.model.trainable import freeze_unused
from vitft.processes.turns import on_main_process
from vitft.recipe.recipe import Recipe
from vitft.resolution.multisize import MultiSize
from vitft.run import Run
from vitft.train.averages import AveragedWeights
from vitft.train.caching import Caches, open_caches
from vitft.train.checkpoint import TrainState
from vitft.train.clock import Clock
from vitft.train.compiling import compiled_if_faster
from vitft.train.head_first import fit_head_first
from vitft.train.imbalance import ClassBalance, sampling_of
from vitft.train.on_features import FeatureBatches, OnFeatures, read_features
from vitft.train.optim import make_optimizer, parameter_groups
from vitft.train.plan import Plan
from vitft.train.sharding import check_shared, shard, whole_weights
from vitft.train.stopping import now, stop_requests
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
        started: when this session began, on the clock of :mod:`vitft.train.stopping`.
        network: the classifier's model, wrapped by accelerate or divided; it takes every image size of the plan. With
            ``on_features``, the head alone or what begins at a block.
        on_features: what is trained and the features of a frozen backbone; None if the whole model runs on images.
        optimizer: of the trained parameters.
        averaged: averaged weights, if the recipe asks for them.
        drop_path: stochastic depth, if the recipe asks for it.
        batches: micro-batches of each step.
        caches: where staged images are kept; to be closed when the last image has been read.
        views: one for each image size.
        balance: the loss, with what the recipe does about skewed classes.
        state: the progress of the training.
        best_weights: those with the best validation score, on the CPU; this process's part if the model is divided.
        warned_of: notes on images that were already printed.
        clock: where the time goes.
    """

    run: Run
    started: float
    network: nn.Module
    on_features: OnFeatures | None
    optimizer: AcceleratedOptimizer
    averaged: AveragedWeights | None
    drop_path: DropPath | None
    batches: TrainBatches | StreamBatches | FeatureBatches
    caches: Caches
    views: dict[tuple[int, int], View]
    balance: ClassBalance
    state: TrainState
    best_weights: dict[str, Tensor]
    warned_of: set[str]
    clock: Clock

    @property
    def model(self) -> PreTrainedModel:
        """The bare model."""
        return self.classifier.model

    def blank(self, step: int) -> Tensor:
        """Return a blank input of the network, (1, 3, H, W) or (1, ...) features, on the device."""
        features = self.plan.features
        shape = (3, *self.plan.phase_at(step).image_size) if features is None else features.read.shape
        return torch.zeros(1, *shape, device=self.accelerator.device)

    def save_model(self) -> None:
        """Write the model into the run, as it is then scored: with its adapters merged, which may be kept beside it.

        All processes take part, and the main process writes.
        """
        classifier, run = self.classifier, self.run
        if self.recipe.model.adapter:
            on_main_process(lambda: classifier.save_adapter(run.adapter_folder), self.accelerator)
        classifier.merge_adapter()
        weights = whole_weights(self.model, self.accelerator) if self.plan.is_sharded else None
        on_main_process(lambda: classifier.save(run.model_folder, weights), self.accelerator)

    def set_sample_indices(self, sample_indices: Tensor | None) -> None:
        """Tell drop path and adapters which samples the next forward pass has; None drops nothing."""
        for dropping in (self.drop_path, self.classifier.adapter):
            if dropping is not None:
                dropping.sample_indices = sample_indices

    def track(self, values: dict[str, float], step: int | None = None) -> None:
        """Send numbers of a step, by default the last, to the recipe's trackers.

        After an error they get no more, and the run goes on.
        """
        if not self.accelerator.trackers:
            return
        try:
            self.accelerator.log(values, step=self.state.step if step is None else step)
        except Exception as error:  # third-party code and the network can raise anything
            self.accelerator.trackers = []
            self.run.note(f"nothing more is sent to {', '.join(self.recipe.run.track)}: {one_line(error)}")

    def note_bad(self, bad: dict[str, str]) -> None:
        """Print and record skipped images, by row, with the reason."""
        for where, reason in bad.items():
            if where not in self.state.bad_rows:
                self.state.bad_rows[where] = reason
                self.run.note(f"skipped {where}: {reason}")


def build(run: Run, setup: Setup, *, started: float | None = None, features: OnFeatures | None = None) -> Training:
    """Build the training; freeze and note the parameters that the model does not use.

    Args:
        run: its directory.
        setup: what to train.
        started: when the session began, for the time limit; now if not given.
        features: of a training with the same plan, which are then not computed again.

    Raises:
        DataError: for a bad image, if features of all images are computed here.
        StopRequest: if the processes were asked to stop while they are.
    """
    begun = now()
    started = begun if started is None else started
    recipe, plan, source, classifier = setup.recipe, setup.plan, setup.source, setup.classifier
    accelerator = setup.accelerator
    if plan.is_sharded:
        check_shared(run.folder, accelerator)
    else:  # the parts of a model are moved one by one
        classifier.to(accelerator.device)
    model = classifier.model.train()
    if unused := freeze_unused(model, classifier.image_size):
        run.note(f"frozen, because the model does not use them: {', '.join(unused)}")
    checkpoint_activations(model, recipe.train.gradient_checkpointing)
    shorten_last_block(model)
    on_features = _on_features(run, setup, started, features)
    if recipe.train.head_first:
        _fit_head_first(run, setup, started)
    has_drop_path = recipe.model.drop_path > 0 and on_features is None
    drop_path = DropPath(model, recipe.model.drop_path, recipe.train.seed) if has_drop_path else None
    sizes = [phase.image_size for phase in plan.phases]
    learner: nn.Module = model if on_features is None else on_features.model
    if len(sizes) > 1:
        learner = MultiSize(model, classifier.image_size, sizes, recipe.model.resize_method)
    groups = parameter_groups(model, recipe.optim, classifier.head)
    network, optimizer, is_compiled = _prepared(run, setup, learner, groups)
    averaged = AveragedWeights(model, recipe.optim.ema_decay) if recipe.optim.ema_decay else None
    caches = open_caches(plan.cache, recipe, source, classifier, plan.stage_size, run.note)
    return Training(
        **vars(setup),
        run=run,
        started=started,
        network=network,
        on_features=on_features,
        optimizer=optimizer,
        averaged=averaged,
        drop_path=drop_path,
        batches=_batches(setup, on_features, caches.train),
        caches=caches,
        views=_views(setup, on_features),
        balance=ClassBalance.of(recipe, source, accelerator.device),
        state=TrainState(
            micro_batch_size=plan.micro_batch_size,
            conditions=_conditions(plan) | {"compiled": is_compiled},
            fingerprint=source.fingerprint,
            recipe=recipe.model_dump(mode="json"),
            elapsed_seconds=now() - begun if on_features or recipe.train.head_first else 0.0,
        ),
        best_weights={},
        warned_of=set(),
        clock=Clock(accelerator.device, exact=recipe.train.profile, workers=plan.workers),
    )


def _prepared(
    run: Run, setup: Setup, learner: nn.Module, groups: list[dict[str, Any]]
) -> tuple[nn.Module, AcceleratedOptimizer, bool]:
    """Return what learns, wrapped or divided for several processes, the optimizer, and whether it is compiled."""
    recipe, plan, accelerator = setup.recipe, setup.plan, setup.accelerator
    # To skip a step, fp16's scaler must see the gradients itself; fused kernels hide them.
    fused = plan.precision != "fp16" and accelerator.device.type in ("cpu", "cuda")
    if plan.is_sharded:
        shard(setup.classifier.model, groups, accelerator)
        fused &= recipe.optim.name == "adamw"  # torch has no fused SGD for divided parameters
        return learner, accelerator.prepare(make_optimizer(groups, recipe.optim, fused=fused)), False
    compiled = learner
    if plan.features is None:
        compiled = compiled_if_faster(learner, recipe.train.compile, plan, accelerator, run)
    network, optimizer = accelerator.prepare(compiled, make_optimizer(groups, recipe.optim, fused=fused))
    return network, optimizer, compiled is not learner


def _on_features(run: Run, setup: Setup, started: float, known: OnFeatures | None) -> OnFeatures | None:
    """Compute the features of a frozen backbone, if the plan says so and they are not known."""
    recipe, plan, accelerator = setup.recipe, setup.plan, setup.accelerator
    if plan.features is None:
        return None
    if known is not None:
        return replace(known, model=plan.features.read.rest(setup.classifier.model))
    views: Views = PlainView()
    if num_views := plan.features.num_views:
        views = RandomViews(num_views, recipe.augment, plan.phases[0].image_size, plan.stage_size, recipe.train.seed)
    backbone = _backbone(run, setup, plan.features.read)
    with stop_requests(recipe.train.time_limit, accelerator, started) as stop:
        return read_features(backbone, setup.source, views, stop)


def _fit_head_first(run: Run, setup: Setup, started: float) -> None:
    """Fit the head alone, before anything else is trained."""
    recipe, accelerator, source, classifier = setup.recipe, setup.accelerator, setup.source, setup.classifier
    backbone = _backbone(run, setup, head_input(classifier.model, classifier.head, classifier.image_size))
    balance = ClassBalance.of_rows(recipe, source, accelerator.device)
    with stop_requests(recipe.train.time_limit, accelerator, started) as stop:
        fit_head_first(run, backbone, source, recipe.augment.label_smoothing, balance, stop)


def _backbone(run: Run, setup: Setup, read: HeadInput | BlockInput) -> Backbone:
    """Return the model as what computes the features that a head or a block reads."""
    recipe, plan = setup.recipe, setup.plan
    size = batch_size_for(plan.micro_batch_size)
    return Backbone(setup.classifier, read, recipe.data, size, plan.workers, setup.accelerator, run.status, run.note)


def _batches(
    setup: Setup, on_features: OnFeatures | None, kept: StagedStore | None
) -> TrainBatches | StreamBatches | FeatureBatches:
    recipe, plan, accelerator, split = setup.recipe, setup.plan, setup.accelerator, setup.source.train
    assert split is not None
    slices = plan.slices(accelerator.process_index)
    if on_features is not None:
        return on_features.batches(slices, recipe.train.seed, sampling_of(recipe, setup.source))
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
    held = DeviceStore(len(split), plan.stage_size, accelerator.device) if plan.bytes_on_device else None
    sampling = sampling_of(recipe, setup.source)
    return TrainBatches(split, slices, kept=kept, held=held, sampling=sampling, **common)


def _views(setup: Setup, on_features: OnFeatures | None) -> dict[tuple[int, int], View]:
    """Return the view of each image size."""
    recipe, classifier = setup.recipe, setup.classifier
    view = partial(
        policy,
        recipe.augment,
        resize_mode=recipe.data.fit,
        normalise=classifier.pixel_values,
        num_classes=len(setup.source.classes),
        seed=recipe.train.seed,
    )
    sizes = [phase.image_size for phase in setup.plan.phases]
    return {size: on_features.view(recipe.augment) if on_features else view(image_size=size) for size in sizes}


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
        **({"sharding": "fsdp"} if plan.is_sharded else {}),
    }

"""The parts of a run, built once from recipe, plan, data and checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from vitft.data.batches import TrainBatches
from vitft.data.images import ImageSource, ImageSplit, StreamSplit
from vitft.data.stream_batches import StreamBatches
from vitft.errors import one_line
from vitft.model.adapt import DropPath, checkpoint_activations, freeze_unused
from vitft.model.load import Pretrained
from vitft.model.multisize import MultiSize
from vitft.model.processor import ImageProcess, normalisation, takes_bgr
from vitft.recipe import Recipe
from vitft.run import Run
from vitft.train.checkpoint import TrainState
from vitft.train.optim import AveragedWeights, make_optimizer, parameter_groups
from vitft.train.plan import Plan
from vitft.views.policy import policy


@dataclass
class Training:
    """What a training run is made of; ``state``, the weights and the optimizer change, all else stays."""

    run: Run
    recipe: Recipe
    plan: Plan
    source: ImageSource
    accelerator: Any
    model: Any  # the bare model; ``wrapped`` is what accelerate made of it
    wrapped: Any
    optimizer: Any
    averaged: AveragedWeights | None
    drop_path: DropPath | None
    batches: TrainBatches | StreamBatches
    views: dict[tuple[int, int], Any]  # one per image size
    class_weights: Tensor | None
    process: ImageProcess
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    bgr: bool
    state: TrainState
    best_weights: dict[str, Tensor]
    warned_of: set[str]

    def set_positions(self, positions: Tensor | None) -> None:
        """Say which samples the next forward pass is of; None lets every branch through."""
        if self.drop_path is not None:
            self.drop_path.positions = positions

    def track(self, values: dict[str, float]) -> None:
        """Send numbers of this step to the recipe's trackers; one that fails is not asked again, and ends no run."""
        if not self.accelerator.trackers:
            return
        try:
            self.accelerator.log(values, step=self.state.step)
        except Exception as error:  # whatever a stranger's code raises, or the network under it
            self.accelerator.trackers = []
            self.run.note(f"nothing more is sent to {', '.join(self.recipe.run.track)}: {one_line(error)}")

    def note_bad(self, bad: dict[str, str]) -> None:
        """Say and keep which images (by row) were passed over, and why."""
        for where, reason in bad.items():
            if where not in self.state.bad_rows:
                self.state.bad_rows[where] = reason
                self.run.note(f"passed over {where}: {reason}")


def build(
    run: Run, recipe: Recipe, plan: Plan, source: ImageSource, pretrained: Pretrained, accelerator: Any
) -> Training:
    """Put the parts together, and say what learns."""
    model = pretrained.model.to(accelerator.device).train()
    if unused := freeze_unused(model, pretrained.image_size):
        run.note(f"frozen, as no image reaches them: {', '.join(unused)}", about="model")
    if recipe.train.gradient_checkpointing:
        checkpoint_activations(model)
    drop_path = DropPath(model, recipe.model.drop_path, recipe.train.seed) if recipe.model.drop_path else None
    averaged = AveragedWeights(model, recipe.optim.ema_decay) if recipe.optim.ema_decay else None

    # The scaler of fp16 must see each step's gradients itself to skip the step; fused kernels hide it.
    fused = plan.precision != "fp16" and accelerator.device.type in ("cpu", "cuda")
    groups = parameter_groups(model, recipe.optim, pretrained.head)
    sizes = [phase.image_size for phase in plan.phases]
    network = MultiSize(model, pretrained.image_size, sizes, recipe.model.resize_method) if len(sizes) > 1 else model
    wrapped, optimizer = accelerator.prepare(network, make_optimizer(groups, recipe.optim, fused=fused))

    process = ImageProcess(pretrained.processor, pretrained.image_size)
    mean, std = normalisation(pretrained.processor)
    views = {
        size: policy(
            recipe.augment,
            fit=recipe.data.fit,
            image_size=size,
            mean=mean,
            std=std,
            num_classes=len(source.classes),
            seed=recipe.train.seed,
        )
        for size in sizes
    }
    return Training(
        run=run,
        recipe=recipe,
        plan=plan,
        source=source,
        accelerator=accelerator,
        model=model,
        wrapped=wrapped,
        optimizer=optimizer,
        averaged=averaged,
        drop_path=drop_path,
        batches=_train_batches(recipe, plan, source, accelerator),
        views=views,
        class_weights=_class_weights(recipe, source, accelerator.device),
        process=process,
        normalisation=(mean, std),
        bgr=takes_bgr(pretrained.processor),
        state=TrainState(
            micro_batch_size=plan.micro_batch_size,
            layout=_layout(plan),
            fingerprint=source.fingerprint,
            recipe=recipe.model_dump(mode="json"),
        ),
        best_weights={},
        warned_of=set(),
    )


def _train_batches(recipe: Recipe, plan: Plan, source: ImageSource, accelerator: Any) -> TrainBatches | StreamBatches:
    layout, pin = plan.layout(accelerator.process_index), accelerator.device.type == "cuda"
    seed, skip_bad = recipe.train.seed, recipe.data.bad_images == "skip"
    if isinstance(source.train, StreamSplit):
        return StreamBatches(
            source.train,
            layout,
            seed=seed,
            stage_size=plan.stage_size,
            skip_bad=skip_bad,
            buffer=recipe.data.shuffle_buffer,
            workers=plan.workers,
            pin=pin,
            max_pixels=recipe.data.max_pixels,
        )
    assert source.train is not None
    return TrainBatches(
        source.train,
        layout,
        seed=seed,
        stage_size=plan.stage_size,
        skip_bad=skip_bad,
        workers=plan.workers,
        pin=pin,
        max_pixels=recipe.data.max_pixels,
    )


def _class_weights(recipe: Recipe, source: ImageSource, device: torch.device) -> Tensor | None:
    if recipe.train.class_weights == "none":
        return None
    assert isinstance(source.train, ImageSplit)  # or the plan had refused
    counts = torch.bincount(torch.from_numpy(source.train.labels), minlength=len(source.classes)).double()
    weights = len(source.train) / (len(counts) * counts.clamp(min=1))
    if recipe.train.class_weights == "sqrt":
        weights = weights.sqrt()
    return weights.float().to(device)


def _layout(plan: Plan) -> dict[str, Any]:
    """Return what bit-for-bit exactness depends on besides recipe and data."""
    return {
        "processes": plan.world_size,
        "micro_batch_size": plan.micro_batch_size,
        "device": plan.device.split(":")[0],
        "precision": plan.precision,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": metadata.version("transformers"),
    }

"""The plan: every number that a run derives from its recipe, its data and this machine, each with its reason.

Nothing here changes the recipe. The plan is printed before training starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch

from vitft.architectures.blocks import check_activations
from vitft.data.images import ImageSource, StreamSplit
from vitft.data.train_batches import STAGE_MARGIN, StepSlices, staging_cost
from vitft.errors import ModelError
from vitft.model.classifier import Classifier
from vitft.model.drop_path import check_drop_path
from vitft.quantities import count_text, duration_text, size_text
from vitft.recipe.keys import OptimRecipe
from vitft.recipe.lengths import Duration
from vitft.recipe.recipe import Recipe
from vitft.recipe.sizes import show_size
from vitft.resolution.multisize import MultiSize
from vitft.resolution.retarget import check_runs
from vitft.train.batch_plan import choose_batch_size, choose_micro_batch_size, choose_workers
from vitft.train.caching import CachePlan, bytes_on_device, plan_cache
from vitft.train.cost import forward_gflop
from vitft.train.feature_plan import FeaturePlan, cost_rows, plan_features
from vitft.train.imbalance import plan_imbalance
from vitft.train.sharding import check_sharding, choose_sharding
from vitft.views.policy import check_view

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel


TRIAL_SHARE = 10
"""Into how many parts a run is divided, of which the trial of a learning rate is one."""

_LEAST_SECONDS = 30.0  # between checkpoints of a head on features, which are larger than what it learns


@dataclass(frozen=True)
class Phase:
    """A part of the training at one image size.

    Attributes:
        first_step: its first step, counted from 0.
        image_size: (height, width) in pixels.
        gflop: GFLOPs of one image's forward pass (a multiply-add is two operations).
    """

    first_step: int
    image_size: tuple[int, int]
    gflop: float


@dataclass(frozen=True)
class Plan:
    """The numbers of a run.

    Attributes:
        num_samples: training samples per epoch; None for a stream of unknown length.
        total_samples: samples over the whole training.
        batch_size, micro_batch_size: images per step over all processes, and per forward pass of one process.
        lr: peak learning rate, of the last layers; several of which one is still to be chosen.
        total_steps, warmup_steps, evaluate_every, checkpoint_every: in optimizer steps.
        checkpoint_seconds: the least time from one checkpoint to the next, the last one excepted.
        patience: in steps, None to train to the end.
        stage_size: largest side of a staged image, in pixels.
        workers: staging processes per training process.
        cache: where staged images are kept.
        device, precision, world_size: where to compute, in which format, in how many processes.
        num_parameters, num_learning: of the model, and how many of them are trained.
        disk_bytes: the most disk space that the run needs.
        phases: image sizes in order; one unless the recipe has a schedule.
        is_sharded: whether each process holds only a part of the model.
        features: those of a frozen backbone or of frozen blocks, computed once; None if all runs in every epoch.
        imbalance: the recipe's setting for skewed classes.
        bytes_on_device: of staged images that stay on the device; 0 if they are copied to it in every epoch.
        reasons: where a number comes from, if the recipe does not simply give it.
        notes: warnings, printed with the plan.
    """

    num_samples: int | None
    total_samples: int
    batch_size: int
    micro_batch_size: int
    lr: float | tuple[float, ...]
    total_steps: int
    warmup_steps: int
    evaluate_every: int
    checkpoint_every: int
    patience: int | None
    stage_size: int
    workers: int
    cache: CachePlan
    device: str
    precision: str
    world_size: int
    num_parameters: int
    num_learning: int
    disk_bytes: int
    phases: tuple[Phase, ...]
    is_sharded: bool = False
    features: FeaturePlan | None = None
    imbalance: str = "none"
    checkpoint_seconds: float = 0.0
    bytes_on_device: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def slices(self, rank: int, micro_batch_size: int | None = None) -> StepSlices:
        """Return which samples of each step process ``rank`` takes."""
        return StepSlices(
            self.num_samples or self.total_samples,
            self.batch_size,
            micro_batch_size or self.micro_batch_size,
            self.total_samples,
            rank,
            self.world_size,
        )

    def phase_at(self, step: int) -> Phase:
        """Return the phase that a step, counted from 0, belongs to."""
        return next(phase for phase in reversed(self.phases) if phase.first_step <= step)

    def work(self, first_step: int = 0) -> float:
        """Return the GFLOPs of all forward passes from a step to the end."""
        ends = [*(phase.first_step for phase in self.phases[1:]), self.total_steps]
        images = [
            max(0, min(end * self.batch_size, self.total_samples) - max(phase.first_step, first_step) * self.batch_size)
            for phase, end in zip(self.phases, ends, strict=True)
        ]
        return sum(count * phase.gflop for count, phase in zip(images, self.phases, strict=True))

    @property
    def gflop(self) -> float:
        """GFLOPs of one image's forward pass, averaged over the training."""
        return self.work() / self.total_samples

    @property
    def total_gflop(self) -> float:
        """GFLOPs of training and trials, without those of the head on its own; a step costs three forward passes."""
        if self.features is not None:
            trained = 3 * self.features.rest_gflop * self.total_samples * (1 + self.trial_share)
            return self.gflop * self.features.num_images + trained
        return 3 * self.work() * (1 + self.trial_share)

    @property
    def trial_steps(self) -> int:
        """Steps for which each of several learning rates is tried."""
        return -(-self.total_steps // TRIAL_SHARE)

    @property
    def trial_share(self) -> float:
        """Steps of the trials of all learning rates, as a part of the training's."""
        return len(self._rates) * self.trial_steps / self.total_steps if isinstance(self.lr, tuple) else 0.0

    @property
    def _rates(self) -> tuple[float, ...]:
        return self.lr if isinstance(self.lr, tuple) else (self.lr,)

    @property
    def accumulation(self) -> int:
        """Forward passes per step on each process."""
        part = -(-self.batch_size // self.world_size)
        return -(-part // self.micro_batch_size)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return each number as text, with its name and its reason or unit."""
        rows = [
            ("device", self.device, f"{self.world_size} process{'es' if self.world_size > 1 else ''}"),
            ("precision", self.precision, ""),
            *([("sharding", "fsdp" if self.is_sharded else "none", "")] if "sharding" in self.reasons else []),
            ("batch_size", self.batch_size, "images per step over all processes"),
            (
                "micro_batch_size",
                self.micro_batch_size,
                f"x {self.accumulation} accumulated x {self.world_size} processes",
            ),
            ("lr", " or ".join(f"{rate:g}" for rate in self._rates), ""),
            ("total_steps", self.total_steps, f"{self.total_samples:,} images"),
            ("warmup_steps", self.warmup_steps, ""),
            ("evaluate_every", self.evaluate_every, "steps"),
            ("checkpoint_every", self.checkpoint_every, self._checkpoints_in_words()),
            ("stage_size", self.stage_size, "pixels per side at most"),
            ("workers", self.workers, ""),
            ("cache", self.cache.place, self.cache.reason),
            *([] if self.imbalance == "none" else [("imbalance", self.imbalance, "")]),
            *self._on_device(),
            ("parameters", count_text(self.num_parameters), f"{count_text(self.num_learning)} of them are trained"),
            *cost_rows(self.features, self.gflop, self.total_gflop, "features" in self.reasons),
            ("disk", size_text(self.disk_bytes), ""),
        ]
        if len(self.phases) > 1:
            turns = ", ".join(f"{show_size(phase.image_size)} from step {phase.first_step}" for phase in self.phases)
            rows.insert(0, ("image_size", show_size(self.phases[-1].image_size), turns))
        return [(name, str(value), self.reasons.get(name, note)) for name, value, note in rows]

    def _checkpoints_in_words(self) -> str:
        least = f", but at most every {duration_text(self.checkpoint_seconds)}" if self.checkpoint_seconds else ""
        return f"steps{least}"

    def _on_device(self) -> list[tuple[str, str, str]]:
        size = size_text(self.bytes_on_device)
        return [("on device", size, "staged images, copied once")] if self.bytes_on_device else []

    def __str__(self) -> str:
        lines = [f"  {name:<17}{value:>10}  {reason}".rstrip() for name, value, reason in self.rows()]
        return "\n".join(["plan", *lines, *(f"  {note}" for note in self.notes)])


def make_plan(
    recipe: Recipe,
    source: ImageSource,
    classifier: Classifier,
    accelerator: Accelerator,
    reasons: dict[str, str],
    settled_micro_batch: int | None = None,
    settled_sharding: str | None = None,
) -> Plan:
    """Derive the plan.

    Args:
        recipe, source, classifier, accelerator: what the run is made of.
        reasons: for device and precision, from :func:`vitft.processes.device.make_accelerator`.
        settled_micro_batch: the micro-batch size of a resumed run's checkpoint.
        settled_sharding: ``fsdp`` if each process wrote a part of that checkpoint, else ``none``.

    Raises:
        RecipeError: if the batch has fewer than two images per process, a duration cannot be converted to steps, or
            the views cannot be made at a size.
    """
    assert source.train is not None
    _check_possible(recipe, classifier.model)
    reasons = dict(reasons)
    num_samples = source.train.num_rows if isinstance(source.train, StreamSplit) else len(source.train)
    is_sharded = choose_sharding(recipe, accelerator.num_processes, settled_sharding, reasons)
    batch_size = choose_batch_size(recipe, num_samples, accelerator.num_processes, reasons)
    total_samples = _total_samples(recipe.train.duration, num_samples, batch_size)
    total_steps = -(-total_samples // batch_size)
    phases = _phases(recipe, classifier, total_steps)
    stage_size = round(max(max(phase.image_size) for phase in phases) * STAGE_MARGIN)
    largest = max(phases, key=lambda phase: phase.gflop).image_size
    imbalance = plan_imbalance(recipe, source.train, source.classes)
    reasons["imbalance"] = imbalance.reason
    features = plan_features(recipe, source, classifier, total_samples, reasons)
    if is_sharded:
        check_sharding(recipe, classifier.model, accelerator.mixed_precision, on_features=features is not None)
    epochs = total_samples / (num_samples or total_samples)
    num_passes = max(1, features.num_views) if features else epochs * imbalance.most_shown
    on_device = 0 if features else bytes_on_device(recipe, source.train, accelerator.device, stage_size, num_passes)
    micro = settled_micro_batch or choose_micro_batch_size(
        recipe, classifier, accelerator, batch_size, largest, on_device, reasons, is_sharded=is_sharded
    )
    cost = cache(partial(staging_cost, source.train, stage_size, recipe.data.max_pixels))  # only if it is asked for
    reasons["lr"] = _lr_in_words(recipe.optim, -(-total_steps // TRIAL_SHARE))
    learns = features.read.rest(classifier.model) if features else classifier.model
    return Plan(
        num_samples=num_samples,
        total_samples=total_samples,
        batch_size=batch_size,
        micro_batch_size=micro,
        lr=recipe.optim.lr,
        total_steps=total_steps,
        **_in_steps(recipe, batch_size, num_samples, total_steps),
        stage_size=stage_size,
        workers=choose_workers(recipe, source.train, cost, accelerator, reasons),
        cache=plan_cache(recipe, source, classifier, stage_size, num_passes, cost),
        bytes_on_device=on_device,
        device=str(accelerator.device),
        precision={"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision),
        world_size=accelerator.num_processes,
        imbalance=recipe.train.imbalance,
        **_amounts(recipe, classifier.model, reasons),
        phases=phases,
        is_sharded=is_sharded,
        features=features,
        checkpoint_seconds=_LEAST_SECONDS if features and recipe.train.checkpoint_every == "auto" else 0.0,
        reasons=reasons,
        notes=(*imbalance.notes, *_layout_warnings(learns), *_stream_warning(source), *_notes_on(features)),
    )


def _in_steps(recipe: Recipe, batch_size: int, num_samples: int | None, total_steps: int) -> dict[str, Any]:
    """Return the lengths and intervals of a recipe in optimizer steps, by their names in :class:`Plan`."""

    def steps(length: Duration) -> int:
        return max(1, length.in_steps(batch_size=batch_size, num_samples=num_samples, total_steps=total_steps))

    warmup, every, patience = recipe.optim.warmup, recipe.train.checkpoint_every, recipe.train.patience
    return {
        "warmup_steps": min(steps(warmup) if warmup.value else 0, total_steps),
        "evaluate_every": min(steps(recipe.train.evaluate_every), total_steps),
        "checkpoint_every": min(steps(Duration(1, "epochs") if isinstance(every, str) else every), total_steps),
        "patience": steps(patience) if patience else None,
    }


def _amounts(recipe: Recipe, model: PreTrainedModel, reasons: dict[str, str]) -> dict[str, int]:
    """Return parameters and disk space, by their names in :class:`Plan`; checkpoints include one being written."""
    num_parameters = sum(p.numel() for p in model.parameters())
    num_learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    optimizer = {"adamw": 2, "sgd": 1}[recipe.optim.name] * num_learning
    averaged = num_learning if recipe.optim.ema_decay else 0
    best = num_parameters if recipe.train.weights == "best" else 0
    kept = recipe.train.keep_checkpoints
    reasons["disk"] = f"the model and {kept} checkpoint{'s' * (kept > 1)}, plus one being written"
    disk_bytes = 4 * ((kept + 1) * (num_parameters + optimizer + averaged + best) + num_parameters)
    return {"num_parameters": num_parameters, "num_learning": num_learning, "disk_bytes": disk_bytes}


def _lr_in_words(optim: OptimRecipe, trial_steps: int) -> str:
    course = "constant after the warmup" if optim.schedule == "constant" else f"{optim.schedule} to 0"
    layers = "" if optim.layer_decay == 1 else f"; {optim.layer_decay:g} times as much in each lower block"
    trials = f"each tried for {trial_steps:,} steps, then the best; " if isinstance(optim.lr, tuple) else ""
    whose = (
        "of the head" if optim.head_lr_factor == 1 else f"of the last block; the head has {optim.head_lr_factor:g} x"
    )
    return f"{trials}peak, {whose}; {course}{layers}"


def _check_possible(recipe: Recipe, model: PreTrainedModel) -> None:
    """Raise for impossible settings now, before anything is written."""
    if recipe.model.drop_path:
        check_drop_path(model)
    check_activations(model, recipe.train.gradient_checkpointing)


def _phases(recipe: Recipe, classifier: Classifier, total_steps: int) -> tuple[Phase, ...]:
    """Turn the schedule's percentages into first steps; a phase too short for one step is dropped, except the last."""
    own, method = classifier.image_size, recipe.model.resize_method
    schedule = recipe.train.resolution_schedule or ((own, 100.0),)
    try:
        model = MultiSize(classifier.model, own, (size for size, _ in schedule), method)
        for size in {size for size, _ in schedule} - {own}:
            check_runs(model, size, classifier.model.config)
    except ModelError as error:
        hint = "another size in train.resolution_schedule"
        raise ModelError(f"train.resolution_schedule: {error.wrong}", allowed=error.allowed, hint=hint) from error
    phases: dict[int, Phase] = {}
    passed = 0.0
    for size, part in schedule:
        check_view(recipe.augment, size)
        first = min(round(total_steps * passed / 100), total_steps - 1)
        phases[first] = Phase(first, size, forward_gflop(model, (3, *size)))
        passed += part
    return tuple(phases.values())


def _total_samples(duration: Duration, num_samples: int | None, batch_size: int) -> int:
    if duration.unit == "steps":
        return max(1, duration.in_steps(batch_size=batch_size, num_samples=None)) * batch_size
    if num_samples is None:
        return duration.in_steps(batch_size=batch_size, num_samples=None)  # raises, and says what to do
    return max(1, round(duration.value * num_samples))


# --- warnings ----------------------------------------------------------------------------------------------


def _layout_warnings(model: torch.nn.Module) -> list[str]:
    """Return warnings if the model's results depend on the number of processes."""
    warnings = []
    if any("BatchNorm" in type(module).__name__ for module in model.modules()):
        warnings.append(
            "this model has BatchNorm: results differ slightly with the micro-batch size and the number of processes"
        )
    if any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules()):
        warnings.append(
            "this model has its own dropout: resuming is exact, but the number of processes changes results slightly"
        )
    return warnings


def _notes_on(features: FeaturePlan | None) -> tuple[str, ...]:
    return () if features is None else features.notes


def _stream_warning(source: ImageSource) -> list[str]:
    if isinstance(source.train, StreamSplit):
        return ["a stream has no random access, so a resumed run is not bit for bit the same"]
    return []

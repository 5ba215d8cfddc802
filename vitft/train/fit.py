"""The training loop, told in the order in which things happen.

Every random choice is a function of (seed, stream, position), and every process leaves the loop at the same step.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from vitft.data.images import ImageSource, ImageSplit, StreamSplit
from vitft.errors import ModelError, StoppedEarly
from vitft.model.encoding import with_written_positions
from vitft.model.load import Pretrained
from vitft.model.processor import save_model
from vitft.recipe import Recipe
from vitft.run import Run
from vitft.scoring.predict import Scored, evaluation_batches, score_split, until_failure
from vitft.scoring.scores import is_better, scores
from vitft.train.build import Training, build
from vitft.train.checkpoint import Best, TrainState
from vitft.train.optim import lr_at, set_lr
from vitft.train.plan import Plan
from vitft.train.progress import Speed, announce_phase, show_progress
from vitft.train.resume import restore, save
from vitft.train.step import take_step
from vitft.train.stopping import agree, stop_requests


@dataclass
class Fitted:
    """What training leaves: the chosen weights stand in the model, and it can still be scored."""

    state: TrainState
    weights: str
    images_per_second: float
    speeds: dict[str, dict[str, float]]
    score: Callable[..., Scored]


def fit(
    run: Run,
    recipe: Recipe,
    plan: Plan,
    source: ImageSource,
    pretrained: Pretrained,
    accelerator: Any,
    *,
    resume: bool = False,
) -> Fitted:
    """Train ``pretrained.model`` in place.

    Raises:
        StoppedEarly: after SIGTERM, SIGUSR1 or the time limit, with a complete checkpoint.
        TrainError: for a loss that is not finite, a disk that is full, a checkpoint that is damaged.
    """
    training = build(run, recipe, plan, source, pretrained, accelerator)
    state = restore(training) if resume else training.state
    started, first_step = time.monotonic() - state.elapsed_seconds, state.step
    run.status.start("training", plan.total_steps, state.step)
    speed = Speed()

    with stop_requests(recipe.train.time_limit) as request:
        if _evaluation_is_due(training):  # the run was stopped in it, or just before
            _evaluate(training, request)
            if stop := agree(request, accelerator):
                raise _stopped_early(training, stop)
        last_step = state.step if state.is_out_of_patience else plan.total_steps
        for step, batches in enumerate(training.batches.steps(state.step, last_step), start=state.step):
            speed.begin()
            announce_phase(run, plan, step, speed)
            lr = _set_rate(training, step)
            loss, grad_norm = take_step(training, step, batches)
            state.step = step + 1
            if training.averaged is not None:
                training.averaged.update(state.step)
            size = plan.phase_at(step).image_size
            images_per_second = speed.end(training.batches.layout.step_size(step), size)
            seen = {"loss": loss, "grad_norm": grad_norm, "lr": lr}
            run.log(
                "step", step=state.step, **seen, images_per_second=round(images_per_second, 1), image_size=list(size)
            )
            training.track(seen)
            show_progress(
                run, plan, state.step, state.step - first_step, loss=loss, lr=lr, images_per_second=images_per_second
            )

            if _evaluation_is_due(training) and not agree(request, accelerator):
                _evaluate(training, request)
                speed.forget()
            stop = agree(request, accelerator)
            is_last = state.step == plan.total_steps or state.is_out_of_patience
            if state.step % plan.checkpoint_every == 0 or is_last or stop:
                state.elapsed_seconds = time.monotonic() - started
                save(training)
                speed.forget()
            if stop:
                raise _stopped_early(training, stop)
            if is_last:
                break

    if state.step < plan.total_steps:
        run.note(f"stopped at step {state.step}: no better validation score for {recipe.train.patience}")
    run.status.stop()
    state.elapsed_seconds = time.monotonic() - started
    weights = _take_chosen_weights(training)
    return Fitted(state, weights, speed.average, speed.by_size(), partial(score, training))


def _set_rate(training: Training, step: int) -> float:
    """Give the optimizer the learning rate of a step, and return it."""
    optim, plan = training.recipe.optim, training.plan
    lr = lr_at(
        step,
        peak=optim.lr,
        total_steps=plan.total_steps,
        warmup_steps=plan.warmup_steps,
        schedule=optim.schedule,
    )
    set_lr(training.optimizer, lr)
    return lr


def _evaluation_is_due(training: Training) -> bool:
    """Whether the validation split is still to be scored at this step."""
    step, last = training.state.step, training.plan.total_steps
    return training.state.evaluated < step and (step % training.plan.evaluate_every == 0 or step == last)


def _evaluate(training: Training, request: Callable[[], str]) -> None:
    """Score the validation split, keep the weights if they are the best, and notice when patience is out.

    A request to stop cuts it short and nothing is kept of it: the resumed run begins with it.
    """
    validation = training.source.validation
    assert validation is not None
    with training.averaged.in_place() if training.averaged is not None else nullcontext():
        scored = score(training, validation, request)
        if agree(request, training.accelerator):
            return
        now = scores(scored.tally)
        better = is_better(now, training.state.best)
        if better:
            training.state.best = Best(now.top1, now.nll, training.state.step)
            if training.recipe.train.weights == "best":
                training.best_weights = {
                    k: v.detach().to("cpu", copy=True) for k, v in training.model.state_dict().items()
                }
            if training.recipe.hub.push and training.recipe.hub.every == "best":
                _show_best(training)
    training.run.log("validation", step=training.state.step, **now.present())
    training.track({"validation/top1": now.top1, "validation/nll": now.nll})
    taken = min(training.state.step * training.plan.batch_size, training.plan.total_samples)
    epoch = taken / training.plan.num_samples if training.plan.num_samples else 0.0
    training.run.say(
        f"  step {training.state.step}/{training.plan.total_steps}  epoch {epoch:.2f}  "
        f"validation top-1 {now.top1:.4f}  nll {now.nll:.4f}{'  best' if better else ''}"
    )
    assert training.state.best is not None
    patience = training.plan.patience
    training.state.evaluated = training.state.step
    training.state.is_out_of_patience = (
        patience is not None and training.state.step - training.state.best.step >= patience
    )


def _show_best(training: Training) -> None:
    """Write the best model so far as a folder of its own, for whoever publishes it; a full disk ends no training."""
    if training.accelerator.is_main_process:
        try:
            save_model(with_written_positions(training.model), training.process.processor, training.run.best_folder)
        except ModelError as error:
            training.run.note(f"the best model so far was not written: {error.wrong}")


def score(
    training: Training,
    split: ImageSplit | StreamSplit,
    request: Callable[[], str] = lambda: "",
    *,
    collect: bool = False,
    on_failure: Callable[[Exception], None] | None = None,
) -> Scored:
    """Score a split with the weights that stand in the model, exactly once each row over all processes.

    Args:
        training: whose model it is.
        split: to score.
        request: says whether to stop.
        collect: keep every prediction too.
        on_failure: for the end of a run. Images that cannot be read are left out, whatever the recipe says of
            training, and a failure to read on is given to this, which raises it or takes note.
    """
    training.set_positions(None)
    batches = evaluation_batches(
        split,
        training.process,
        batch_size=min(64, max(8, training.state.micro_batch_size)),
        skip_bad=on_failure is not None or training.recipe.data.bad_images == "skip",
        workers=training.plan.workers,
        accelerator=training.accelerator,
        max_pixels=training.recipe.data.max_pixels,
    )
    if on_failure is not None:
        batches = until_failure(batches, on_failure)
    scored = score_split(
        training.model,
        itertools.takewhile(lambda _: not request(), batches),
        num_classes=len(training.source.classes),
        normalisation=training.normalisation,
        accelerator=training.accelerator,
        collect=collect,
    )
    training.note_bad({row.where: row.reason for row in scored.bad_rows})
    return scored


def _take_chosen_weights(training: Training) -> str:
    """Put the weights that become the model into it; return which they are."""
    if training.recipe.train.weights == "best" and training.best_weights:
        training.model.load_state_dict(training.best_weights)
        assert training.state.best is not None
        return f"best (step {training.state.best.step})"
    if training.averaged is not None:
        with torch.no_grad():
            for name, tensor in {
                **dict(training.model.named_parameters()),
                **dict(training.model.named_buffers()),
            }.items():
                if name in training.averaged.tensors:
                    tensor.copy_(training.averaged.tensors[name])
        return "last, averaged"
    return "last"


def _stopped_early(training: Training, reason: str) -> StoppedEarly:
    """Return the outcome of a run that stops at this step, whose checkpoint is written."""
    return StoppedEarly(
        f"stopped at step {training.state.step} of {training.plan.total_steps} ({reason}); the checkpoint is complete",
        hint=training.run.resume_command,
    )

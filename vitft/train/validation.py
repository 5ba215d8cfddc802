"""Score splits during training, and choose the weights that become the model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch

from vitft.data.batches import StagedBatch
from vitft.data.images import ImageSplit, StreamSplit
from vitft.errors import ModelError
from vitft.scoring.evaluation import Evaluation, Scored, batches_of, evaluate_split, until_failure
from vitft.scoring.scores import is_better, scores
from vitft.train.checkpoint import Best
from vitft.train.setup import Training
from vitft.train.sharding import in_step, own_part
from vitft.train.stopping import StopRequests


def validation_is_due(training: Training) -> bool:
    """Whether the validation split must still be scored at this step."""
    step, last = training.state.step, training.plan.total_steps
    return training.state.evaluated < step and (step % training.plan.evaluate_every == 0 or step == last)


def validate(training: Training, stop: StopRequests) -> None:
    """Score the validation split, keep the weights if they are the best, and check the patience.

    A request to stop cuts this short and discards it; the resumed run starts with it again.
    """
    validation, state, plan = training.source.validation, training.state, training.plan
    assert validation is not None
    with training.averaged.in_place() if training.averaged is not None else nullcontext():
        found = _evaluate_for_choice(training, validation, stop.request)
        if stop.agreed():
            return
        now = scores(found.tally)
        if better := is_better(now, state.best):
            state.best = Best(now.top1, now.nll, state.step)
            _keep_best(training)
    training.run.log("validation", step=state.step, **now.present())
    training.track({"validation/top1": now.top1, "validation/nll": now.nll})
    taken = min(state.step * plan.batch_size, plan.total_samples)
    epoch = taken / plan.num_samples if plan.num_samples else 0.0
    training.run.say(
        f"  step {state.step}/{plan.total_steps}  epoch {epoch:.2f}  "
        f"validation top-1 {now.top1:.4f}  nll {now.nll:.4f}{'  best' if better else ''}"
    )
    assert state.best is not None
    state.evaluated = state.step
    state.is_out_of_patience = plan.patience is not None and state.step - state.best.step >= plan.patience


def _keep_best(training: Training) -> None:
    """Keep a copy of the weights, and save a model to push if wanted; a full disk does not end the training."""
    recipe = training.recipe
    if recipe.train.weights == "best":
        weights = training.model.state_dict().items()
        training.best_weights = {name: own_part(tensor).to("cpu", copy=True) for name, tensor in weights}
    if recipe.hub.push and recipe.hub.every == "best" and training.accelerator.is_main_process:
        try:
            training.classifier.save(training.run.best_folder)
        except ModelError as error:
            training.run.note(f"the best model so far was not saved: {error.wrong}")


def evaluate(
    training: Training,
    split: ImageSplit | StreamSplit,
    request: Callable[[], str] = lambda: "",
    *,
    collect: bool = False,
    on_failure: Callable[[Exception], None] | None = None,
) -> Evaluation:
    """Score a split with the model's current weights, each row exactly once over all processes.

    Args:
        training: with the model to score.
        split: the split.
        request: returns why to stop, empty to continue.
        collect: keep every prediction too.
        on_failure: for the end of a run. Unreadable images are then skipped, whatever the recipe says, and if the
            split cannot be read any further this gets the error, to raise or note.
    """
    training.set_sample_indices(None)
    batches = batches_of(
        split,
        training.classifier,
        training.accelerator,
        batch_size=min(64, max(8, training.state.micro_batch_size)),
        skip_bad=on_failure is not None or training.recipe.data.bad_images == "skip",
        workers=training.plan.workers,
        max_pixels=training.recipe.data.max_pixels,
        kept=training.caches.validation if split is training.source.validation else None,
    )
    if on_failure is not None:
        batches = until_failure(batches, on_failure)
    return _evaluate(training, training.classifier, batches, request, collect=collect)


def _evaluate_for_choice(
    training: Training, validation: ImageSplit | StreamSplit, request: Callable[[], str]
) -> Evaluation:
    """Score the validation split with what is trained: the head alone, if it is trained on features."""
    if (head := training.on_features) is None:
        return evaluate(training, validation, request)
    return _evaluate(training, head, head.validation_batches(training.accelerator), request)


def _evaluate(
    training: Training,
    scored: Scored,
    batches: Iterable[StagedBatch],
    request: Callable[[], str],
    *,
    collect: bool = False,
) -> Evaluation:
    batches = itertools.takewhile(lambda _: not request(), batches)
    if training.plan.is_sharded:
        batches = in_step(batches, training.model, training.classifier.image_size, training.accelerator)
    found = evaluate_split(scored, batches, training.accelerator, collect=collect)
    training.note_bad({row.where: row.text for row in found.bad_rows})
    for note in {str(note) for note in found.notes if note.index < 0} - training.warned_of:  # of the cache
        training.warned_of.add(note)
        training.run.note(note)
    return found


@torch.no_grad()
def take_chosen_weights(training: Training) -> str:
    """Load the chosen weights into the model; return which they are."""
    if training.recipe.train.weights == "best" and training.best_weights:
        for name, tensor in training.model.state_dict().items():
            own_part(tensor).copy_(training.best_weights[name])
        assert training.state.best is not None
        return f"best (step {training.state.best.step})"
    if training.averaged is None:
        return "last"
    for name, tensor in itertools.chain(training.model.named_parameters(), training.model.named_buffers()):
        if name in training.averaged.tensors:
            own_part(tensor).copy_(own_part(training.averaged.tensors[name]))
    return "last, averaged"

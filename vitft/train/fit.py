"""The training loop, told in the order in which things happen.

Every random choice is a function of (seed, stream, sample index), and every process leaves the loop at the same step.
"""

from __future__ import annotations

from dataclasses import dataclass

from vitft.errors import StoppedEarly
from vitft.train.clock import TimeSpent
from vitft.train.optim import set_lr
from vitft.train.pace import Pace
from vitft.train.progress import Progress
from vitft.train.resume import restore, save
from vitft.train.setup import Training
from vitft.train.step import take_step
from vitft.train.stopping import stop_requests
from vitft.train.validation import take_chosen_weights, validate, validation_is_due


@dataclass
class Fitted:
    """The result of :func:`fit`; the model then has the chosen weights.

    Attributes:
        weights: which weights those are, such as ``last``.
        images_per_second: over all timed steps.
        speeds: images and steps per second, by image size.
        time: where the time of this session went.
    """

    weights: str
    images_per_second: float
    speeds: dict[str, dict[str, float]]
    time: TimeSpent


def fit(training: Training, *, resume: bool = False) -> Fitted:
    """Train the classifier's model in place.

    Args:
        training: what :func:`vitft.train.setup.build` made.
        resume: continue from the run's newest checkpoint.

    Raises:
        StoppedEarly: after SIGTERM, SIGUSR1 or the time limit, with a complete checkpoint.
        TrainError: for a non-finite loss, a full disk or a damaged checkpoint.
    """
    if resume:
        restore(training)
    state, plan, clock = training.state, training.plan, training.clock
    progress, pace = Progress(training), Pace(plan.checkpoint_seconds, training.accelerator)

    with stop_requests(training.recipe.train.time_limit, training.accelerator, training.started) as stop:
        if validation_is_due(training):  # the run was stopped during validation, or just before
            validate(training, stop)
            if reason := stop.agreed():
                raise _stopped_early(training, reason)
        last_step = state.step if state.is_out_of_patience else plan.total_steps
        batches_of_steps = clock.waiting(training.batches.steps(state.step, last_step))
        for step, batches in enumerate(batches_of_steps, start=state.step):
            progress.begin(step)
            lr = set_lr(training.optimizer, training.recipe.optim, step, plan.total_steps, plan.warmup_steps)
            taken = take_step(training, step, batches)
            state.step = step + 1
            if training.averaged is not None:
                with clock.part("averaging"):
                    training.averaged.update(state.step)
            progress.end(step, taken, lr)

            if validation_is_due(training) and not stop.agreed():
                with progress.pause("validation"):
                    validate(training, stop)
            reason = stop.agreed()
            is_last = state.step == plan.total_steps or state.is_out_of_patience
            if is_last or reason or (state.step % plan.checkpoint_every == 0 and pace.is_due()):
                with progress.pause("checkpoints"):
                    state.elapsed_seconds = progress.elapsed()
                    save(training)
                pace.start()
            if reason:
                raise _stopped_early(training, reason)
            if is_last:
                break

    if state.step < plan.total_steps:
        patience = training.recipe.train.patience
        training.run.note(f"stopped at step {state.step}: no better validation score for {patience}")
    progress.stop()
    state.elapsed_seconds = progress.elapsed()
    weights = take_chosen_weights(training)
    return Fitted(weights, progress.speed.average, progress.speed.by_size(), clock.spent())


def _stopped_early(training: Training, reason: str) -> StoppedEarly:
    """Return the outcome of a run that stops at this step, after its checkpoint was written."""
    return StoppedEarly(
        f"stopped at step {training.state.step} of {training.plan.total_steps} ({reason}); the checkpoint is complete",
        hint=training.run.resume_command,
    )

"""Choose the learning rate among several: each trains a copy of the model for a tenth of the run, validation decides.

Every trial has a folder of its own in the run, with checkpoints, so that it goes on where it was stopped. Its score is
written into ``learning-rates.json`` before the folder is removed; a resumed run repeats no trial, and keeps the choice.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from vitft.disk import remove_whole
from vitft.errors import StoppedEarly, TrainError
from vitft.outside import shown
from vitft.processes.turns import on_main_process
from vitft.recipe.recipe import Recipe
from vitft.run import Run
from vitft.train.fit import fit
from vitft.train.on_features import OnFeatures
from vitft.train.plan import TRIAL_SHARE, Plan
from vitft.train.setup import Setup, build
from vitft.train.step import NonFiniteError

if TYPE_CHECKING:
    from accelerate import Accelerator

FILE = "learning-rates.json"
_FOLDER = "trials"
_PLATEAU = 0.01  # nats: rates this close, with the same top-1, are as good as each other


@dataclass(frozen=True)
class Tried:
    """How a learning rate did.

    Attributes:
        lr: the rate.
        top1, nll: validation scores after the last step of the trial; None if the loss became infinite or NaN.
    """

    lr: float
    top1: float | None = None
    nll: float | None = None

    def __str__(self) -> str:
        if self.top1 is None or self.nll is None:
            return f"{self.lr:g}  diverged"
        return f"{self.lr:g}  validation top-1 {self.top1:.4f}  nll {self.nll:.4f}"


def settle_rate(run: Run, setup: Setup, started: float) -> tuple[Setup, OnFeatures | None]:
    """Return the setup with one learning rate, and the features that the trials computed, if they did.

    Args:
        run: its directory.
        setup: with one rate, or several to try; its model stays as it is.
        started: when this session began, for the time limit.

    Raises:
        StoppedEarly: if the processes were asked to stop; a resumed run goes on with the trials.
        TrainError: if every rate diverged.
    """
    rates = setup.recipe.optim.lr
    if not isinstance(rates, tuple):
        return setup, None
    accelerator = setup.accelerator
    tried: list[Tried] = on_main_process(lambda: _read(run, rates), accelerator)
    features: OnFeatures | None = None
    left = [rate for rate in rates if rate not in {each.lr for each in tried}]
    for rate in left:
        number = rates.index(rate) + 1
        run.say(f"trying the learning rate {rate:g} ({number} of {len(rates)})")
        found, features = _try(run, _at_rate(setup, rate, is_short=True), started, features)
        tried.append(found)
        on_main_process(lambda: _write(run, tried), accelerator)
    chosen = best_of(tried)
    on_main_process(lambda: _write(run, tried, chosen), accelerator)
    _tell(run, tried, chosen)
    return _at_rate(setup, chosen, is_short=False), features


def best_of(tried: Sequence[Tried]) -> float:
    """Return the rate with the highest top-1, then the lowest nll; of those as good as it, the smallest.

    Raises:
        TrainError: if none has a score.
    """
    scored = [(each.top1, each.nll, each.lr) for each in tried if each.top1 is not None and each.nll is not None]
    if not scored:
        lowest = min(each.lr for each in tried)
        raise TrainError(
            f"the loss became infinite or NaN with every learning rate: {', '.join(f'{each.lr:g}' for each in tried)}",
            hint=f"a new run with lower ones (--lr {lowest / 100:g},{lowest / 10:g}), or --precision fp32",
        )
    top1, nll, _ = max(scored, key=lambda each: (each[0], -each[1]))
    return min(lr for its_top1, its_nll, lr in scored if its_top1 == top1 and its_nll <= nll + _PLATEAU)


def _tell(run: Run, tried: Sequence[Tried], chosen: float) -> None:
    """Print how each rate did, and record it in the run, unless a checkpoint says that this was done."""
    rows = sorted(tried, key=lambda each: each.lr)
    edge = {rows[0].lr: "smaller", rows[-1].lr: "larger"}.get(chosen)
    hint = f"; it is at the end of the list, so a {edge} one may be better still" if edge else ""
    text = f"learning rate {chosen:g}, the best in its trial{hint}"
    run.say(f"  {text}")
    for each in rows:
        run.say(f"    {each}{'  <- taken' if each.lr == chosen else ''}")
    if not run.newest_checkpoint():
        run.log("note", text=f"{text}: {'; '.join(map(str, rows))}")


def _at_rate(setup: Setup, rate: float, *, is_short: bool) -> Setup:
    """Return a setup with one rate: the run's own, or that of a trial, with a copy of the model."""
    recipe, plan = _with(setup.recipe, "optim", lr=rate), replace(setup.plan, lr=rate)
    if not is_short:
        return replace(setup, recipe=recipe, plan=plan)
    recipe = _with(_with(recipe, "hub", push=False), "train", weights="last", keep_checkpoints=1)
    model, adapter = copy.deepcopy((setup.classifier.model, setup.classifier.adapter))  # together: one knows the other
    classifier = replace(setup.classifier, model=model, adapter=adapter)
    return replace(setup, recipe=recipe, plan=shortened(plan), classifier=classifier)


def _with(recipe: Recipe, section: str, **values: object) -> Recipe:
    return recipe.model_copy(update={section: getattr(recipe, section).model_copy(update=values)})


def shortened(plan: Plan) -> Plan:
    """Return the plan of a trial: a tenth of the steps, with warmup, schedule and image sizes in proportion."""
    steps = plan.trial_steps
    phases = {phase.first_step * steps // plan.total_steps: phase for phase in plan.phases}
    return replace(
        plan,
        total_steps=steps,
        total_samples=min(steps * plan.batch_size, plan.total_samples),
        warmup_steps=-(-plan.warmup_steps // TRIAL_SHARE),
        evaluate_every=steps,
        checkpoint_every=min(plan.checkpoint_every, steps),
        patience=None,
        phases=tuple(replace(phase, first_step=first) for first, phase in phases.items()),
    )


# --- a trial -----------------------------------------------------------------------------------------------


class _TrialRun(Run):
    """The folder of a trial, inside the run's; its notes are for itself, since the run will make them again."""

    def __init__(self, run: Run, rate: float) -> None:
        super().__init__(run.folder / _FOLDER / f"lr-{rate}", is_main=run.is_main)
        self._of = run

    @property
    def resume_command(self) -> str:
        """The command that resumes the run."""
        return self._of.resume_command

    def note(self, text: str) -> None:
        """Record a choice, without printing it."""
        self.log("note", text=shown(text))


def _try(run: Run, setup: Setup, started: float, features: OnFeatures | None) -> tuple[Tried, OnFeatures | None]:
    """Train a copy of the model with the setup's rate, from where it was stopped; return its scores."""
    rate, accelerator = setup.recipe.optim.rate, setup.accelerator
    trial = _TrialRun(run, rate)
    on_main_process(lambda: trial.folder.mkdir(parents=True, exist_ok=True), accelerator)
    is_begun = on_main_process(lambda: trial.newest_checkpoint() is not None, accelerator)
    with _left_as_it_was(accelerator):
        try:
            training = build(trial, setup, started=started, features=features)
            features = training.on_features
            with training.caches:
                try:
                    fit(training, resume=is_begun)
                finally:
                    trial.status.stop()
        except NonFiniteError:
            return Tried(rate), features
        except StoppedEarly as stop:
            raise StoppedEarly(f"in the trial of the learning rate {rate:g}: {stop.wrong}", hint=stop.hint) from stop
    best = training.state.best
    assert best is not None  # a trial ends with a validation
    return Tried(rate, best.top1, best.nll), features


@contextmanager
def _left_as_it_was(accelerator: Accelerator) -> Iterator[None]:
    """Keep a trial from the trackers; afterwards forget its model and optimizer, and how fp16's scale changed."""
    trackers, accelerator.trackers = accelerator.trackers, []
    scale = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
    try:
        yield
    finally:
        accelerator.trackers = trackers
        accelerator.free_memory()
        if accelerator.scaler is not None and scale:
            accelerator.scaler.load_state_dict(scale)


# --- what is kept of them ----------------------------------------------------------------------------------


def _read(run: Run, rates: Sequence[float]) -> list[Tried]:
    """Return the trials that are done."""
    found = run.read_json(FILE)
    try:
        tried = [Tried(**each) for each in found["tried"]] if found is not None else []
        for each in tried:
            _check(each)
    except (KeyError, TypeError, ValueError):
        tried = []
    if not tried and (run.folder / FILE).exists():
        run.say(f"  {FILE} cannot be read: the learning rates are tried again")
    return [each for each in tried if each.lr in rates]


def _check(tried: Tried) -> None:
    """Raise a TypeError if the values are no numbers."""
    if not isinstance(tried.lr, float) or not all(isinstance(each, float | None) for each in (tried.top1, tried.nll)):
        raise TypeError("a score is no number")


def _write(run: Run, tried: Sequence[Tried], chosen: float | None = None) -> None:
    """Write the scores, then remove what a trial left; with a choice, what all of them left."""
    run.write_json(FILE, {"tried": [asdict(each) for each in tried], "chosen": chosen})
    folder = run.folder / _FOLDER if chosen else _TrialRun(run, tried[-1].lr).folder
    if folder.is_dir():
        remove_whole(folder)

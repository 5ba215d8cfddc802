"""Fine-tune a model: from a recipe to a run directory with the model and its scores."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.errors import PublishError, RecipeError, TrainError, UsageError
from vitft.hub.access import Destination, check_form
from vitft.hub.push import Published
from vitft.libraries import quiet_libraries
from vitft.names import slug
from vitft.notebook import ShownAsText
from vitft.processes import signals, worker
from vitft.processes.turns import on_main_process
from vitft.recipe.recipe import RESUMABLE_CHANGES, Recipe
from vitft.run import Run
from vitft.scoring.table import score_table
from vitft.scoring.told import evidence_lines
from vitft.tasks import finishing
from vitft.tasks.ending import Session, ended_well
from vitft.tasks.finishing import end_training, finish, log_results, score_and_save
from vitft.tasks.loading import load_setup
from vitft.tasks.peak_memory import begin_to_measure
from vitft.tasks.picturing import note_pictures, picture_run
from vitft.tasks.publishing import announce, prepare, publish, pushes_during_training
from vitft.tasks.recording import expected_time, tell, write_environment
from vitft.tasks.reporting import PAGE
from vitft.tasks.thumbnails import keep_thumbnails, note_thumbnails
from vitft.tasks.tracking import check_trackers, start_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitft.train.setup import Setup


@dataclass
class FinetuneResult(ShownAsText):
    """The result of a run.

    Attributes:
        run_dir: the run's folder; None for a dry run.
        results: the content of ``results.json``.
        plan_text: the plan as it was printed.
        published: where the model is on the Hub; None if it was not pushed.
    """

    run_dir: Path | None
    results: dict[str, Any] = field(default_factory=dict)
    plan_text: str = ""
    published: Published | None = None

    def __str__(self) -> str:
        if self.run_dir is None:
            return self.plan_text
        rows = [(name, self.results[name]) for name in ("validation", "test") if name in self.results]
        published = [f"published: {self.published.url}"] if self.published else []
        page = self.run_dir / PAGE
        report = [f"report: {page}"] if page.is_file() else []
        model = f"model: {self.run_dir / 'model'}"
        evidence = [*evidence_lines(*rows[-1]), ""] if rows else []
        return "\n".join([score_table(rows), "", *evidence, model, *report, *published, *self._next()])

    def _next(self) -> list[str]:
        """Return commands to type next, with what each does."""
        run = shlex.quote(str(self.run_dir))
        commands = [
            (f"vitft predict {run} IMAGES", "labels of your images"),
            (f"vitft evaluate {run} DATASET", "scores on other images"),
            (f"vitft report {run}", "its page again, or several runs compared"),
            (f"vitft inspect {run} --dataset DATASET", "pictures of what it has learnt"),
            *([] if self.published else [(f"vitft push {run}", "publish it on the Hub")]),
        ]
        width = max(len(command) for command, _ in commands)
        return ["next:", *(f"  {command:{width}}  {what}" for command, what in commands)]


def finetune(
    recipe: Recipe | None = None,
    *,
    resume: str | Path | None = None,
    changes: Mapping[str, object] | None = None,
    dry_run: bool = False,
    is_timed: bool = False,
    trust_metrics: bool = False,
) -> FinetuneResult:
    """Fine-tune a checkpoint on a dataset, then save and score it.

    Args:
        recipe: everything the run needs; None when resuming.
        resume: run directory to continue. If the run is trained and scored, only what is missing is made.
        changes: new values for the resumed run's recipe, by dotted key; only some keys may change.
        dry_run: return the plan without training or writing anything.
        is_timed: in a dry run, also time a few steps and estimate the training time.
        trust_metrics: run the metrics that a recipe file or a resumed run names; they are code.

    Raises:
        VitftError: if the run fails.
        StoppedEarly: after SIGTERM, SIGUSR1 or the time limit; says how to resume.
    """
    session = Session()
    with ended_well(session):
        _import_libraries()
        run = None
        if resume is not None:
            run, recipe = _resumed(resume, changes or {})
        if recipe is None:
            raise UsageError(
                "neither a recipe nor a run to resume was given", hint="finetune(Recipe.load('quickstart'))"
            )
        if recipe.data.dataset is None:
            raise RecipeError("the recipe names no dataset", hint="--dataset cifar100, or data.dataset in the recipe")
        if run is None:
            Run.require_free(recipe)
        _check_strangers(recipe, trust_metrics=trust_metrics)
        return _finetune(session, run, recipe, dry_run=dry_run, is_timed=is_timed)


def _finetune(session: Session, run: Run | None, recipe: Recipe, *, dry_run: bool, is_timed: bool) -> FinetuneResult:
    from vitft.processes.device import make_accelerator
    from vitft.scoring.metrics import try_metrics

    quiet_libraries()
    accelerator, reasons = make_accelerator(recipe)
    session.num_processes = accelerator.num_processes
    if run is not None and not dry_run:
        run = _take_over(session, run, recipe, accelerator)
        if run.is_scored:
            return _make_what_is_missing(session, recipe, accelerator, reasons)
    destination, hub_notes = _announce(run, recipe, accelerator, dry_run=dry_run)
    setup = load_setup(run, recipe, accelerator, reasons, is_quiet=dry_run)
    is_chosen = setup.recipe is not recipe  # the checkpoint, which the run is named after
    if is_chosen:
        recipe = setup.recipe
        destination, hub_notes = _announce(run, recipe, accelerator, dry_run=dry_run)
    on_main_process(lambda: try_metrics(recipe.run.metrics, len(setup.source.classes)), accelerator)
    signals.check()
    if dry_run:
        time = f"\n  {expected_time(setup)}" if is_timed else ""
        chosen = setup.classifier.notes[:1] if is_chosen else []
        return FinetuneResult(None, plan_text="\n".join([setup.overview, *chosen, f"{setup.plan}{time}"]))

    is_new = run is None
    if run is None:
        run, destination, made = _begin(session, recipe, destination, accelerator)
    else:
        destination, made = on_main_process(lambda: prepare(destination), accelerator)
        start_trackers(run, recipe, accelerator)
    if setup.plan.is_sharded:
        run.num_processes = accelerator.num_processes
        _tell_parent(run)
    tell(run, setup, [*hub_notes, *made])
    with pushes_during_training(run, recipe.hub, destination):
        results = _train_and_score(session, run, setup, resume=not is_new)
        end_training(run, accelerator)
        picture_run(run, setup)
        keep_thumbnails(run, setup)
    finish(run, recipe)
    return _published(run, recipe, destination, FinetuneResult(run.folder, results, str(setup.plan)))


_LIBRARIES = ("torch", "accelerate", "datasets", "transformers", "vitft.train.fit", "vitft.scoring.metrics")


def _import_libraries() -> None:
    """Import torch and the rest while a request to stop waits, because interrupting these imports crashes in C++."""
    with signals.postponed():
        for name in _LIBRARIES:
            import_module(name)
        from transformers import AutoImageProcessor, AutoModelForImageClassification  # noqa: F401 - loaded when named


def _check_strangers(recipe: Recipe, *, trust_metrics: bool) -> None:
    """Reject untrusted metrics and missing packages before anything is loaded."""
    from vitft.model.adapter import require_peft
    from vitft.scoring.metrics import check_metrics

    if recipe.metrics_from and not trust_metrics:
        raise UsageError(
            f"{recipe.metrics_from} names metrics, which are Python code that would run on this machine: "
            f"{', '.join(recipe.run.metrics)}",
            allowed="metrics that a flag names (--metrics NAME), or code that you trust",
            hint="--trust-metrics to run them, or --set run.metrics=[] to leave them out",
        )
    check_metrics(recipe.run.metrics)
    require_peft(recipe.model)
    check_trackers(recipe.run.track)


def _begin(
    session: Session, recipe: Recipe, destination: Destination | None, accelerator: Accelerator
) -> tuple[Run, Destination | None, list[str]]:
    """Make the run directory, a missing repository and the trackers; if one fails, the run is removed again."""
    folder = on_main_process(lambda: Run.create(recipe, _name(recipe)).folder, accelerator)
    run = _run_at(folder, recipe, is_main=accelerator.is_main_process)
    try:
        on_main_process(lambda: session.own(run), accelerator)
        destination, made = on_main_process(lambda: prepare(destination), accelerator)
        start_trackers(run, recipe, accelerator)
    except BaseException:  # also a request to stop, because there is nothing to resume yet
        session.forget()
        run.discard()
        raise
    session.run = run
    _tell_parent(run)
    return run, destination, made


def _train_and_score(session: Session, run: Run, setup: Setup, *, resume: bool) -> dict[str, Any]:
    from vitft.train.fit import fit
    from vitft.train.rate_trials import settle_rate
    from vitft.train.setup import build
    from vitft.train.stopping import now

    begin_to_measure(setup.accelerator.device)
    started = now()
    settled, features = settle_rate(run, setup, started)
    training = build(run, settled, started=started, features=features)
    with training.caches:
        try:
            fitted = fit(training, resume=resume)
        finally:
            run.status.stop()
        session.is_trained = True
        return score_and_save(session, training, fitted)


# --- resuming ----------------------------------------------------------------------------------------------


def _resumed(folder: str | Path, changes: Mapping[str, object]) -> tuple[Run, Recipe]:
    """Open a run to resume; only recipe keys that do not affect the computation may change."""
    folder = Run.open(folder).folder
    recipe = Recipe.load(folder / "recipe.yaml")
    changed = Recipe.load(folder / "recipe.yaml", changes)
    run = _run_at(folder, changed, is_main=worker.is_main())
    if "optim.lr" in changes and isinstance(changed.optim.lr, tuple):
        raise UsageError(
            "a resumed run goes on with the learning rate that it chose, or with its own trials, so there are none "
            "to choose from",
            hint=f"{run.resume_command}, or a new run with these rates",
        )
    if lines := recipe.broken_by(changed):
        raise UsageError(
            f"a resumed run keeps its recipe, but these keys would change: {'; '.join(lines)}",
            allowed=f"changes of {', '.join(sorted(RESUMABLE_CHANGES))}",
            hint=f"{run.resume_command}, or a new run",
        )
    return run, changed


def _run_at(folder: Path, recipe: Recipe, *, is_main: bool) -> Run:
    return Run(folder, is_main=is_main, flags=("--trust-metrics",) if recipe.run.metrics else ())


def _take_over(session: Session, run: Run, recipe: Recipe, accelerator: Accelerator) -> Run:
    """Lock an existing run, report what is broken in it, and remove what a killed process left behind."""
    run = _run_at(run.folder, recipe, is_main=accelerator.is_main_process)

    def take() -> None:
        """Lock, report and tidy; only the main process does."""
        session.own(run)
        if run.has_lost_results():
            raise TrainError(
                f"{run.folder / 'results.json'} cannot be read, and the checkpoints were removed when the run "
                f"finished; the model in {run.model_folder} is complete",
                hint=f"vitft evaluate {shlex.quote(str(run.model_folder))} DATASET scores it again",
            )
        for line in run.broken():
            run.say(f"  {line}: made again")
        if left := run.sweep():
            run.say(f"  removed what a killed process left half written or half removed: {', '.join(left)}")
        before = Recipe.load(run.folder / "recipe.yaml")
        if before.data.bad_images != recipe.data.bad_images:  # the saved recipe must still replay the run
            data = before.data.model_copy(update={"bad_images": recipe.data.bad_images})
            run.write_text("recipe.yaml", before.model_copy(update={"data": data}).dump())

    on_main_process(take, accelerator)
    session.run = run
    _tell_parent(run)
    return run


def _make_what_is_missing(
    session: Session, recipe: Recipe, accelerator: Accelerator, reasons: Mapping[str, str]
) -> FinetuneResult:
    """Complete a run that is trained and scored, without training: pictures, model card and push."""
    run = session.run
    assert run is not None
    session.is_trained = True
    results = run.results()
    assert results is not None
    # The main process decides for all: it may soon make files that the others would then no longer find missing.
    missing = on_main_process(lambda: finishing.missing_parts(run, recipe), accelerator)
    if not missing:
        raise UsageError(
            f"the run {run.folder} is finished: its model, results.json and model card are written",
            hint=f"{_further(run)} (a new run that trains its model further)",
        )
    run.say(f"{run.folder} is trained and scored; making what is missing: {', '.join(missing)}")
    destination, notes = _announce(run, recipe, accelerator, dry_run=False)
    for note in notes:
        run.say(f"  {note}")
    if missing != [finishing.PUBLICATION]:
        if not run.cut_metrics_after("results"):
            log_results(run, results)
        if {finishing.ENVIRONMENT, finishing.PICTURES, finishing.THUMBNAILS} & set(missing):
            setup = load_setup(run, recipe, accelerator, reasons)
            if finishing.ENVIRONMENT in missing:
                write_environment(run, setup)
            picture_run(run, setup)
            keep_thumbnails(run, setup)
        elif accelerator.is_main_process:
            note_pictures(run)
            note_thumbnails(run)
        finish(run, recipe)
    return _published(run, recipe, destination, FinetuneResult(run.folder, results))


def _further(run: Run) -> str:
    return f"vitft finetune --from {shlex.quote(str(run.folder))} --epochs 5"


def _name(recipe: Recipe) -> str:
    """Return the default name of a run."""
    assert recipe.data.dataset is not None
    return f"{slug(recipe.model.checkpoint)}-{slug(recipe.data.dataset)}"


def _announce(
    run: Run | None, recipe: Recipe, accelerator: Accelerator, *, dry_run: bool
) -> tuple[Destination | None, list[str]]:
    """Ask the Hub whether the result may be pushed; all processes get the same answer or error."""
    if not recipe.hub.push:
        return None, []
    name = run.folder.resolve().name if run else Run.free_name(recipe, _name(recipe))
    if dry_run:
        check_form(recipe.hub, name)
        return None, []
    return on_main_process(lambda: announce(recipe.hub, name), accelerator)


def _published(run: Run, recipe: Recipe, destination: Destination | None, result: FinetuneResult) -> FinetuneResult:
    """Push the model if the recipe says so; only the main process does."""
    if not recipe.hub.push or not run.is_main:
        return result
    try:
        result.published = publish(run, recipe.hub, destination)
    except PublishError as error:
        error.result = result
        raise
    return result


def _tell_parent(run: Run) -> None:
    """Tell our launcher about the run, so that it can say how to resume if we are killed."""
    if run.is_main:
        worker.tell(str(run.folder.absolute()), run.resume_command)

"""Finish a run after its last step: save the model, score it, write the model card, remove checkpoints.

The model is saved before scoring, so an unreadable test image costs its row or a split's score, not the training.
``results.json`` comes next, then ``figures/``, ``thumbnails/`` and ``report.html``. The model card comes last and marks
the run as finished. Each is written completely or not at all, and a resumed run makes what is missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vitft.disk import remove_whole, size_of
from vitft.errors import DataError, one_line
from vitft.hub.card import write_card
from vitft.processes import signals
from vitft.processes.turns import on_main_process
from vitft.quantities import size_text
from vitft.recipe.recipe import Recipe
from vitft.report.gallery import FOLDER
from vitft.run import Run, complete_checkpoints
from vitft.scoring.predictions import file_name, write_predictions
from vitft.scoring.table import headline
from vitft.tasks.ending import Session, explain
from vitft.tasks.peak_memory import PeakMemory, peak_memory
from vitft.tasks.reporting import PAGE, draw_confusions, report_run

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitft.data.images import ImageSplit, StreamSplit
    from vitft.scoring.evaluation import Evaluation
    from vitft.train.fit import Fitted
    from vitft.train.setup import Training


def score_and_save(session: Session, training: Training, fitted: Fitted) -> dict[str, Any]:
    """Save the model and its results; return the results, which only the main process has."""
    run, accelerator, source = training.run, training.accelerator, training.source
    peak = peak_memory(accelerator.device)
    training.save_model()
    run.say(f"  {peak}")
    run.say(f"weights: {fitted.weights}; scoring them")
    found = _Found()
    for name, split in (("validation", source.validation), ("test", source.test)):
        if split is not None:
            _score(session, training, name, split, found)
    signals.check()  # an image decoder may have swallowed the request
    retargeting = training.classifier.retargeting
    record = {
        "train": _training_record(training, fitted, peak),
        "classes": list(source.classes),
        "weights": fitted.weights,
        "bad_images": training.state.bad_rows,
        "resize": retargeting.record() if retargeting else None,
    }
    results: dict[str, Any] = {}
    # No process ends before everything is written.
    on_main_process(lambda: _write_results(training, fitted, found, record, results), accelerator)
    return results


def log_results(run: Run, results: dict[str, Any]) -> None:
    """Write the headline of the final scores into ``metrics.jsonl``."""
    run.log("results", **{name: headline(results[name]) for name in ("validation", "test") if name in results})


PICTURES, THUMBNAILS, ENVIRONMENT, PUBLICATION = "pictures", "thumbnails", "environment.json", "the publication"
_CARD, _LOG = "the model card", "metrics.jsonl"


def missing_parts(run: Run, recipe: Recipe) -> list[str]:
    """Return what a trained and scored run still lacks.

    Pictures, thumbnails and page only where the card, which comes after them, does: without them a run is finished.
    """
    has_pictures = recipe.run.pictures == "off" or (run.folder / "figures").is_dir()
    lacks = {
        PICTURES: not run.is_finished and not has_pictures,
        THUMBNAILS: not run.is_finished and not (run.folder / FOLDER).is_dir(),
        PAGE: not run.is_finished and not (run.folder / PAGE).is_file(),
        _CARD: not run.is_finished,
        _LOG: not run.has_whole_log(),
        ENVIRONMENT: run.read_json("environment.json") is None,
        PUBLICATION: recipe.hub.push and run.read_json("published.json") is None,
    }
    return [what for what, is_missing in lacks.items() if is_missing]


def finish(run: Run, recipe: Recipe) -> None:
    """Write the page, remove what only training needed, then write the model card, which marks the run as finished."""
    if not run.is_main:
        return
    report_run(run)
    draw_confusions(run)
    shutil.rmtree(run.best_folder, ignore_errors=True)  # was only needed for pushes during training
    run.sweep()
    _remove_checkpoints(run, recipe.train.keep_after_end)
    signals.check()
    try:
        text = write_card(run.folder, run.model_folder, license=recipe.hub.license).text
    except Exception as error:  # whatever it is, the model is saved
        run.note(f"no model card was written: {type(error).__name__}: {one_line(error)}")
        return
    run.write_text("model/README.md", text)


def _remove_checkpoints(run: Run, num_kept: int) -> None:
    """Remove all but the newest ``num_kept`` checkpoints, because nothing will resume from them."""
    found = complete_checkpoints(run.checkpoints)
    doomed = found[: len(found) - num_kept] if num_kept else found
    if not doomed:
        return
    freed = size_text(sum(size_of(folder) for folder in doomed))
    for folder in doomed:
        remove_whole(folder)
    if not num_kept:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    run.say(f"checkpoints removed because the run is finished: {freed} freed (train.keep_after_end keeps them)")


# --- scores ------------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """For each split its evaluation, or why there is none."""

    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    unscored: dict[str, str] = field(default_factory=dict)


def _score(session: Session, training: Training, name: str, split: ImageSplit | StreamSplit, found: _Found) -> None:
    """Score the readable images of a split; all processes take part and learn of a failure in any."""
    from accelerate.utils import gather_object

    from vitft.train.validation import evaluate

    failures: list[str] = []

    def keep(error: Exception) -> None:
        if explain(error, session) is not None:  # the machine's fault: resuming gives a score
            raise error
        failures.append(one_line(error) or type(error).__name__)

    evaluation = evaluate(training, split, collect=True, on_failure=keep)
    if said := gather_object(failures):
        found.unscored[name] = said[0]
        return
    found.evaluations[name] = evaluation
    if evaluation.bad_rows and training.recipe.data.bad_images == "stop":
        training.run.note(
            f"{name}: its score leaves out unreadable images: {len(evaluation.bad_rows)} (data.bad_images: stop "
            "applies only to training)"
        )


def _write_results(
    training: Training, fitted: Fitted, found: _Found, record: dict[str, Any], results: dict[str, Any]
) -> None:
    """Fill in the results, note what is missing from them, and write ``results.json``."""
    from vitft.train.rate_trials import FILE as RATES

    run = training.run
    for name, evaluation in found.evaluations.items():
        _take_scores(name, evaluation, training.source.classes, results, found.unscored)
    results |= record
    if (rates := run.read_json(RATES)) is not None:
        results["learning_rates"] = rates
    if found.unscored:
        results["unscored"] = found.unscored
    for name, reason in found.unscored.items():
        run.note(f"{name} has no score, but the model is saved: {reason}")
    _add_metrics_of_others(run, training.recipe, found.evaluations, results)
    for name, evaluation in found.evaluations.items():
        split = getattr(training.source, name)
        if evaluation.predictions is not None:
            path = run.folder / file_name(name)
            write_predictions(path, evaluation.predictions, training.source.classes, split.source)
    for size, each in fitted.speeds.items() if len(training.plan.phases) > 1 else ():
        run.say(f"  {size}: {each['images_per_second']:.1f} images/s, {each['steps_per_second']:.2f} steps/s")
    run.say(f"  {fitted.time}")
    if training.recipe.train.profile:
        run.say(fitted.time.table())
    log_results(run, results)
    run.write_json("results.json", results)


def _take_scores(
    name: str, evaluation: Evaluation, classes: Sequence[str], results: dict[str, Any], unscored: dict[str, str]
) -> None:
    from vitft.scoring.metrics import final_scores

    try:
        results[name] = final_scores(evaluation.tally, classes, evaluation.predictions)
    except DataError as error:  # none of its images can be read
        unscored[name] = error.wrong


def _training_record(training: Training, fitted: Fitted, peak: PeakMemory) -> dict[str, Any]:
    plan, state = training.plan, training.state
    return {
        "steps": state.step,
        "samples": min(state.step * plan.batch_size, plan.total_samples),
        "images": plan.num_samples,
        "batch_size": plan.batch_size,
        "seconds": round(state.elapsed_seconds, 3),
        "images_per_second": round(fitted.images_per_second, 2),
        "peak_memory_bytes": peak.num_bytes,
        "peak_memory_share": round(peak.share, 4),
        "speeds": fitted.speeds,
        "seconds_by_part": {part: round(seconds, 3) for part, seconds in fitted.time.seconds.items()},
        **({"features": plan.features.views} if plan.features else {}),
    }


def _add_metrics_of_others(
    run: Run, recipe: Recipe, evaluations: dict[str, Evaluation], results: dict[str, Any]
) -> None:
    """Compute the recipe's further metrics; one that fails is noted and left out."""
    from vitft.scoring.metrics import further_scores

    refused: dict[str, str] = {}
    for name in [name for name in evaluations if name in results and recipe.run.metrics]:
        said = evaluations[name].predictions
        assert said is not None
        further = further_scores(
            recipe.run.metrics, said.predicted.tolist(), said.label.tolist(), len(results["classes"])
        )
        results[name] |= further.values
        refused |= further.refused
    for reason in refused.values():
        run.note(f"{reason}; everything else of the run is complete")
    if refused:
        results["refused_metrics"] = refused
    signals.check()  # third-party code may have swallowed the request


def end_training(run: Run, accelerator: Accelerator) -> None:
    """End the trackers once all processes are here.

    Models wrapped for several processes are freed first: torch may hang if one is freed after its peers have ended.
    """
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    try:
        accelerator.end_training()
    except Exception as error:  # the tracker has its numbers already
        run.note(f"a tracker failed at the end of the run: {one_line(error)}")

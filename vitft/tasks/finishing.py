"""After the last step: model, scores, pictures, card. Each is made whole, and a resumed run makes what is missing.

The model is saved before it is scored, so that an image that cannot be read costs its row, or a split its score, and no
training. ``results.json`` comes next, then ``figures/``, and last of all the model card: with it a run is finished.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from typing import Any

from vitft import signals
from vitft.errors import DataError, one_line
from vitft.hub.card import write_card
from vitft.recipe import Recipe
from vitft.run import Run
from vitft.tasks.ending import Session, explain
from vitft.tasks.shared import headline, on_main_process


def score_and_save(
    session: Session, recipe: Recipe, source: Any, pretrained: Any, plan: Any, fitted: Any, accelerator: Any
) -> dict[str, Any]:
    """Write the model and its results; return them in the main process, which alone has them."""
    run = session.run
    assert run is not None
    peak = _peak_memory(accelerator)
    on_main_process(partial(_save, run, pretrained), accelerator)
    run.say(f"weights: {fitted.weights}; scoring them")
    scored: dict[str, Any] = {}
    unscored: dict[str, str] = {}
    for name, split in (("validation", source.validation), ("test", source.test)):
        if split is not None:
            _score(session, name, split, recipe, fitted, scored, unscored)
    signals.check()  # somebody's decoder may have swallowed the request
    record = {
        "train": _training_record(plan, fitted, peak),
        "classes": list(source.classes),
        "weights": fitted.weights,
        "bad_images": fitted.state.bad_rows,
        "resize": pretrained.retargeting.record() if pretrained.retargeting else None,
    }
    speeds = fitted.speeds if len(plan.phases) > 1 else {}
    results: dict[str, Any] = {}
    # Nobody ends before everything is written.
    on_main_process(lambda: _write_results(run, recipe, results, record, scored, unscored, speeds), accelerator)
    return results


def log_results(run: Run, results: dict[str, Any]) -> None:
    """Write the headline of the final scores into ``metrics.jsonl``."""
    run.log("results", **{name: headline(results[name]) for name in ("validation", "test") if name in results})


def finish(run: Run, license: str | None) -> None:
    """Take away what only the training needed, and write the card, with which the run is finished."""
    if not run.is_main:
        return
    shutil.rmtree(run.best_folder, ignore_errors=True)  # what was pushed from it is the model now, or was not the best
    run.sweep()
    signals.check()
    try:
        text = write_card(run.folder, run.model_folder, license=license).text
    except Exception as error:  # whatever it is: the model is there
        run.note(f"no model card was written: {type(error).__name__}: {one_line(error)}")
        return
    run.write_text("model/README.md", text)


# --- the model, and what it is worth -----------------------------------------------------------------------


def _save(run: Run, pretrained: Any) -> None:
    from vitft.model.encoding import with_written_positions
    from vitft.model.processor import save_model

    save_model(with_written_positions(pretrained.model), pretrained.processor, run.model_folder)


def _score(
    session: Session,
    name: str,
    split: Any,
    recipe: Recipe,
    fitted: Any,
    scored: dict[str, Any],
    unscored: dict[str, str],
) -> None:
    """Score a split with whatever of it can be read; all processes do, and learn the same."""
    from accelerate.utils import gather_object

    failures: list[str] = []

    def keep(error: Exception) -> None:
        if explain(error, session) is not None:  # the machine's fault: the same again gives a score
            raise error
        failures.append(one_line(error) or type(error).__name__)

    found = fitted.score(split, collect=bool(recipe.run.metrics), on_failure=keep)
    if said := gather_object(failures):
        unscored[name] = said[0]
        return
    scored[name] = found
    if found.bad_rows and recipe.data.bad_images == "stop":
        assert session.run is not None
        session.run.note(
            f"{name}: its score leaves out what cannot be read, images: {len(found.bad_rows)} (data.bad_images: stop "
            "holds for training, which is over)"
        )


def _write_results(
    run: Run,
    recipe: Recipe,
    results: dict[str, Any],
    record: dict[str, Any],
    scored: dict[str, Any],
    unscored: dict[str, str],
    speeds: dict[str, dict[str, float]],
) -> None:
    """Fill in the results, say what is not in them, and write them down."""
    for name, each in scored.items():
        _take_scores(name, each, results, unscored)
    results |= record
    if unscored:
        results["unscored"] = unscored
    for name, reason in unscored.items():
        run.note(f"{name} has no score, and the model is saved all the same: {reason}")
    _add_metrics_of_others(run, recipe, scored, results)
    for size, each in speeds.items():
        run.say(f"  {size}: {each['images_per_second']:.1f} images/s, {each['steps_per_second']:.2f} steps/s")
    log_results(run, results)
    run.write_json("results.json", results)


def _take_scores(name: str, scored: Any, results: dict[str, Any], unscored: dict[str, str]) -> None:
    from vitft.scoring.metrics import final_scores

    try:
        results[name] = final_scores(scored.tally)
    except DataError as error:  # not one image of it can be read
        unscored[name] = error.wrong


def _training_record(plan: Any, fitted: Any, peak: int) -> dict[str, Any]:
    return {
        "steps": fitted.state.step,
        "samples": min(fitted.state.step * plan.batch_size, plan.total_samples),
        "images": plan.num_samples,
        "batch_size": plan.batch_size,
        "seconds": round(fitted.state.elapsed_seconds, 3),
        "images_per_second": round(fitted.images_per_second, 2),
        "peak_memory_bytes": peak,
        "speeds": fitted.speeds,
    }


def _add_metrics_of_others(run: Run, recipe: Recipe, scored: dict[str, Any], results: dict[str, Any]) -> None:
    """Compute the recipe's further metrics; one that fails costs itself, and is named."""
    from vitft.scoring.metrics import further_scores

    refused: dict[str, str] = {}
    for name in [name for name in scored if name in results and recipe.run.metrics]:
        each = scored[name]
        further = further_scores(recipe.run.metrics, each.predictions, each.labels, len(results["classes"]))
        results[name] |= further.values
        refused |= further.refused
    for reason in refused.values():
        run.note(f"{reason}; everything else of the run is complete")
    if refused:
        results["refused_metrics"] = refused
    signals.check()  # a stranger's code may have swallowed the request


def end_training(run: Run, accelerator: Any) -> None:
    """Let trackers and processes end together.

    What holds connections between processes must be gone by now: torch may hang where one that wraps a model
    for several processes is freed after its peers have ended.
    """
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    try:
        accelerator.end_training()
    except Exception as error:  # of a tracker, which has had its numbers
        run.note(f"a tracker did not end well: {one_line(error)}")


def reset_peak_memory(accelerator: Any) -> None:
    """Begin to measure the memory of a run."""
    import torch

    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(accelerator.device)


def _peak_memory(accelerator: Any) -> int:
    """Return the most memory that this process had: of the GPU, or resident on the CPU."""
    import torch

    if accelerator.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(accelerator.device))
    try:
        import resource
    except ImportError:  # Windows keeps the count itself
        import psutil

        return int(psutil.Process().memory_info()._asdict()["peak_wset"])
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit

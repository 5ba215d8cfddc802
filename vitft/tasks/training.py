"""Fine-tuning as a whole: from a recipe to a run directory with scores and model."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vitft.errors import PublishError, RecipeError, StoppedEarly, UsageError, VitftError
from vitft.hub.access import check_form
from vitft.hub.push import Published
from vitft.names import slug
from vitft.outside import shown
from vitft.recipe import Recipe
from vitft.run import Run, environment
from vitft.sizes import show_size
from vitft.tasks.picturing import picture_run
from vitft.tasks.publishing import announce, prepare, publish, pushes_during_training, write_local_card
from vitft.tasks.shared import headline, main_process_first, on_main_process, quiet_libraries, score_table


@dataclass
class FinetuneResult:
    """What a run made.

    Attributes:
        run_dir: its folder; None for a dry run.
        results: what stands in ``results.json``.
        plan_text: the plan as it was printed.
        published: where it is on the Hub, if it is.
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
        return "\n".join([score_table(rows), f"model: {self.run_dir / 'model'}", *published])


def finetune(
    recipe: Recipe | None = None,
    *,
    resume: str | Path | None = None,
    changes: Mapping[str, object] | None = None,
    dry_run: bool = False,
) -> FinetuneResult:
    """Fine-tune a checkpoint on a dataset, score it and save it.

    Args:
        recipe: what to do; not given when resuming.
        resume: run directory to go on with.
        changes: values by dotted key, laid over the resumed run's recipe as far as those may change.
        dry_run: derive and return the plan, train nothing and write nothing.

    Raises:
        VitftError: if it cannot be done.
        StoppedEarly: after SIGTERM, SIGUSR1 or the time limit, with a complete checkpoint.
    """
    from vitft.data.source import open_source
    from vitft.model.adapt import choose_trainable
    from vitft.model.load import load_for_training
    from vitft.scoring.scores import check_metrics
    from vitft.train.device import make_accelerator
    from vitft.train.plan import make_plan

    run = None
    if resume is not None:
        run, recipe = _resumed(resume, changes or {})
    if recipe is None:
        raise UsageError("neither a recipe nor a run to resume was given", hint="finetune(Recipe.load('quickstart'))")
    if recipe.data.dataset is None:
        raise RecipeError("the recipe names no dataset", hint="--dataset cifar100, or data.dataset in the recipe")
    check_metrics(recipe.run.metrics)
    quiet_libraries()

    accelerator, reasons = make_accelerator(recipe)
    destination, hub_notes = _announce(run, recipe, accelerator, dry_run=dry_run)
    with main_process_first(accelerator):
        source = open_source(recipe.data, seed=recipe.train.seed)
        wanted = recipe.model.model_copy(update={"image_size": recipe.image_size})
        pretrained = load_for_training(wanted, source.classes, recipe.data.fit, seed=recipe.train.seed)
    pretrained.notes.append(choose_trainable(pretrained.model, recipe.model.train, pretrained.head))
    settled = _settled_micro_batch(run, recipe, accelerator.num_processes)
    plan = make_plan(recipe, source, pretrained, accelerator, reasons, settled)
    if dry_run:
        return FinetuneResult(None, plan_text=str(plan))

    is_new = run is None
    run = _run_of_all_processes(run, recipe, accelerator)
    destination, made = on_main_process(lambda: prepare(destination), accelerator)
    hub_notes += made
    _tell(run, recipe, source, pretrained, plan, hub_notes)
    if recipe.run.track:
        accelerator.project_configuration.set_directories(str(run.folder))
        accelerator.init_trackers(run.folder.name, config={k: str(v) for k, v in recipe.flat().items()})
    with pushes_during_training(run, recipe.hub, destination):
        result = _train_and_score(run, recipe, source, pretrained, plan, accelerator, resume=not is_new)
    if accelerator.is_main_process:
        _publish(run, recipe, destination, result)
    return result


def _train_and_score(
    run: Run, recipe: Recipe, source: Any, pretrained: Any, plan: Any, accelerator: Any, *, resume: bool
) -> FinetuneResult:
    from vitft.train.fit import fit
    from vitft.train.stopping import stop_at_once

    _reset_peak_memory(accelerator)
    try:
        fitted = fit(run, recipe, plan, source, pretrained, accelerator, resume=resume)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(f"go on from the last checkpoint with: vitft finetune --resume {run.folder}")
        raise
    finally:
        run.status.stop()
    with stop_at_once(run):
        results = _score_and_save(run, recipe, source, pretrained, plan, fitted, accelerator)
        picture_run(run, recipe, source, plan, accelerator)
    return FinetuneResult(run.folder, results, str(plan))


def _score_and_save(
    run: Run, recipe: Recipe, source: Any, pretrained: Any, plan: Any, fitted: Any, accelerator: Any
) -> dict[str, Any]:
    from vitft.model.encoding import write_out_positions
    from vitft.model.processor import save_model
    from vitft.scoring.scores import final_scores, further_scores

    peak = _peak_memory(accelerator)
    run.say(f"weights: {fitted.weights}; scoring them")
    scored = {
        name: fitted.score(split, collect=bool(recipe.run.metrics))
        for name, split in (("validation", source.validation), ("test", source.test))
        if split is not None
    }
    results: dict[str, Any] = {}
    failure: list[VitftError] = []
    if accelerator.is_main_process:
        try:
            write_out_positions(pretrained.model)
            save_model(pretrained.model, pretrained.processor, run.model_folder)
            for name, each in scored.items():
                results[name] = final_scores(each.tally)
            results["train"] = {
                "steps": fitted.state.step,
                "samples": min(fitted.state.step * plan.batch_size, plan.total_samples),
                "seconds": round(fitted.state.elapsed_seconds, 3),
                "images_per_second": round(fitted.images_per_second, 2),
                "peak_memory_bytes": peak,
                "speeds": fitted.speeds,
            }
            results["classes"] = list(source.classes)
            results["weights"] = fitted.weights
            results["bad_images"] = fitted.state.bad_rows
            results["resize"] = pretrained.retargeting.record() if pretrained.retargeting else None
            speeds = fitted.speeds if len(plan.phases) > 1 else {}
            for size, each in speeds.items():
                run.say(f"  {size}: {each['images_per_second']:.1f} images/s, {each['steps_per_second']:.2f} steps/s")
            run.log("results", **{name: headline(results[name]) for name in scored})
            for name, each in scored.items():
                try:  # a metric of others must not cost what a night has made
                    results[name] |= further_scores(
                        recipe.run.metrics, each.predictions, each.labels, len(source.classes)
                    )
                except StoppedEarly:
                    raise
                except VitftError as error:
                    failure = [error]
            run.write_json("results.json", results)
        except VitftError as error:
            failure = [error]
    accelerator.wait_for_everyone()  # nobody ends before everything is written
    accelerator.end_training()
    if failure:
        raise failure[0]
    return results


def _resumed(folder: str | Path, changes: Mapping[str, object]) -> tuple[Run, Recipe]:
    """Open a run to go on with; its recipe may change only in what does not change the computation."""
    from vitft.train.checkpoint import RESUMABLE_CHANGES

    run = Run.open(folder)
    if run.is_finished:
        raise UsageError(
            f"the run {run.folder} is finished: its results.json is written",
            hint=f"vitft evaluate {run.model_folder} --dataset D, or a new run to train longer",
        )
    recipe = Recipe.load(run.folder / "recipe.yaml")
    changed = Recipe.load(run.folder / "recipe.yaml", changes)
    lines = [line for line in recipe.differences(changed) if line.split(":")[0] not in RESUMABLE_CHANGES]
    if lines:
        raise UsageError(
            f"a resumed run keeps its recipe, but this was to change: {'; '.join(lines)}",
            allowed=f"changes of {', '.join(sorted(RESUMABLE_CHANGES))}",
            hint=f"vitft finetune --resume {run.folder}, or a new run",
        )
    return run, changed


def _settled_micro_batch(run: Run | None, recipe: Recipe, num_processes: int) -> int | None:
    """Return the micro-batch that the checkpoint was made with, if as many processes go on with it.

    None also when another one was asked for, as somebody does whose processes ran out of memory.
    """
    from vitft.train import checkpoint

    path = checkpoint.newest(run.checkpoints) if run else None
    if path is None:
        return None
    state = checkpoint.load_state(path)
    if state.recipe["train"]["micro_batch_size"] != recipe.train.micro_batch_size:
        return None
    return int(state.layout["micro_batch_size"]) if state.layout["processes"] == num_processes else None


def _run_of_all_processes(run: Run | None, recipe: Recipe, accelerator: Any) -> Run:
    """Return the run; a new one is made by the main process and known to all."""
    folder = run.folder if run else on_main_process(lambda: Run.create(recipe, _name(recipe)).folder, accelerator)
    return Run(folder, is_main=accelerator.is_main_process)


def _name(recipe: Recipe) -> str:
    """Return the name of a run that was given none."""
    assert recipe.data.dataset is not None
    return f"{slug(recipe.model.checkpoint)}-{slug(recipe.data.dataset)}"


def _announce(run: Run | None, recipe: Recipe, accelerator: Any, *, dry_run: bool) -> tuple[Any, list[str]]:
    """Ask the Hub whether the result may be pushed; all processes learn the answer, or end alike."""
    if not recipe.hub.push:
        return None, []
    name = run.folder.resolve().name if run else Run.free_name(recipe, _name(recipe))
    if dry_run:
        check_form(recipe.hub, name)
        return None, []
    return on_main_process(lambda: announce(recipe.hub, name), accelerator)


def _publish(run: Run, recipe: Recipe, destination: Any, result: FinetuneResult) -> None:
    """Write the card, and push the model if that was asked for."""
    write_local_card(run, recipe.hub.license)
    shutil.rmtree(run.best_folder, ignore_errors=True)  # what was pushed from it is the model now, or was not the best
    if not recipe.hub.push:
        return
    try:
        result.published = publish(run, recipe.hub, destination)
    except PublishError as error:
        error.result = result
        raise


def _tell(run: Run, recipe: Recipe, source: Any, pretrained: Any, plan: Any, hub_notes: Sequence[str]) -> None:
    """Say and record everything that was chosen before the first step."""
    from vitft.train import checkpoint

    sizes = {
        name: len(s) if hasattr(s, "__len__") else s.num_rows
        for name in ("train", "validation", "test")
        if (s := getattr(source, name))
    }
    run.say(f"run      {run.folder}")
    run.say(f"dataset  {source.id}: {len(source.classes)} classes, " + ", ".join(f"{n} {s}" for n, s in sizes.items()))
    run.say(f"model    {pretrained.id} at {show_size(pretrained.image_size)}")
    for note in hub_notes:
        run.say(f"  {note}")
    if checkpoint.newest(run.checkpoints):  # a resumed run, in which all this is written already
        run.say(str(plan))
        return
    run.cut_metrics(0)
    for note in (*source.notes, *pretrained.notes):
        run.note(note)
    run.say(str(plan))
    dataset = {"id": source.id, "revision": source.revision, "fingerprint": source.fingerprint, "rows": sizes}
    model = {"id": pretrained.id, "revision": pretrained.revision, **asdict(pretrained.origin)}
    run.write_json(
        "environment.json",
        environment(dataset=dataset, model=model, device=plan.device, command=[*map(shown, sys.argv)]),
    )


def _reset_peak_memory(accelerator: Any) -> None:
    import torch

    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(accelerator.device)


def _peak_memory(accelerator: Any) -> int:
    """Return the most memory that this process had: of the GPU, or resident on the CPU."""
    import torch

    if accelerator.device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(accelerator.device))
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit

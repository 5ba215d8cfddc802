"""``vitft finetune``: flags become recipe keys; ``vitft.tasks.finetune`` does the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitft.cli.command import launched
from vitft.cli.options import Debug, Format, NumProcesses, OwnDataset, RecipeName, Settings, settings, take_dataset
from vitft.cli.recipe_flags import Changes, recipe_flags
from vitft.errors import PublishError, UsageError
from vitft.files import is_file
from vitft.outside import shown
from vitft.processes import worker

if TYPE_CHECKING:
    from vitft.recipe.recipe import Recipe
    from vitft.tasks import FinetuneResult


@recipe_flags(
    "--dataset", "--dataset-revision", "--streaming", "--max-train-samples", "--bad-images",
    "--model", "--model-revision", "--image-size", "--train", "--adapter",
    "--epochs", "--batch-size", "--lr", "--seed", "--precision", "--device", "--fsdp",
    "--deterministic", "--profile",
    "--name", "--output-dir", "--track", "--metrics",
    "--push-to-hub", "--hub-repo", "--private", "--hub-revision", "--hub-every", "--create-pr", "--force",
)  # fmt: skip
def finetune(
    ctx: typer.Context,
    *,
    dataset_given: OwnDataset = None,
    recipe: RecipeName = None,
    changes: Changes,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Resume a stopped run, with its own recipe."),
    ] = None,
    from_run: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN", help="Train a finished run's model further, in a new run with the same recipe."
        ),
    ] = None,
    num_processes: NumProcesses = None,
    trust_metrics: Annotated[
        bool,
        typer.Option("--trust-metrics", help="Run the code of metrics that a recipe file or a resumed run names."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and the plan, and stop.")
    ] = False,
    is_timed: Annotated[bool, typer.Option("--time", help="With --dry-run: also time a few steps.")] = False,
    settings_given: Settings = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Fine-tune a checkpoint on a dataset, score it and save it.

    Flags win over the recipe, and --set over both. Arguments after -- go to accelerate's launcher.
    """
    take_dataset(dataset_given, changes)
    changes |= settings(settings_given)
    if is_timed and not dry_run:
        raise UsageError("--time needs --dry-run; a training always says how long it takes", hint="--dry-run --time")
    if from_run is not None:
        recipe, changes = _going_on(from_run, recipe or resume, changes)
    resolved = _resolve(recipe, resume, changes)
    if not dry_run:
        code = launched(ctx, num_processes, resolved.train.device if resolved else "auto")
        if code is not None:
            return code

    from vitft import tasks

    try:
        result = tasks.finetune(
            None if resume else resolved,
            resume=resume,
            changes=changes,
            dry_run=dry_run,
            is_timed=is_timed,
            trust_metrics=trust_metrics,
        )
    except PublishError as error:
        _show(error.result, resolved, format)
        raise
    if worker.is_main():
        _show(result, resolved, format)
    return 0


def _show(result: FinetuneResult, resolved: Recipe | None, format: str) -> None:
    """Print the result of a run; for a dry run the recipe and the plan."""
    if result.run_dir is None:
        assert resolved is not None  # a resume without a recipe file has raised in tasks
        if format == "json":
            print(json.dumps({"recipe": resolved.model_dump(mode="json"), "plan": result.plan_text}, indent=2))
        else:
            # The plan is in comments, so that the output is a recipe that --recipe accepts.
            print(resolved.dump(), *(f"# {line}".rstrip() for line in result.plan_text.splitlines()), sep="\n")
    elif format == "json":
        published = {"published": asdict(result.published)} if result.published else {}
        print(json.dumps({"run_dir": str(result.run_dir), **result.results, **published}, indent=2))
    else:
        print(shown(result))


def _going_on(run: Path, other: str | Path | None, changes: Changes) -> tuple[str, Changes]:
    """Return the recipe of a finished run, and its changes for a new run that trains the model further."""
    from vitft.run import Run

    if other is not None:
        raise UsageError(
            f"--from uses the recipe of {run}, so {other} cannot be given with it",
            hint=f"vitft finetune --from {run} --epochs 5",
        )
    opened = Run.open(run, "vitft finetune --from", lambda run: run.is_scored)
    return str(opened.folder / "recipe.yaml"), opened.follow_up() | changes


def _resolve(recipe: str | None, resume: Path | None, changes: Changes) -> Recipe | None:
    """Return the recipe of the run; None if the run to resume has none, which tasks will explain."""
    from vitft.recipe.recipe import Recipe

    if resume is None:
        resolved = Recipe.load(recipe, changes)
        _check_push(resolved, changes)
        if resolved.data.dataset is None:
            raise UsageError(
                "no dataset was given",
                allowed="a Hub id, a folder, a file, or builtin:digits",
                hint="vitft finetune ./photos, or offline: vitft finetune --recipe quickstart",
            )
        return resolved
    if recipe is not None:
        raise UsageError(
            "--resume uses the recipe of the run, so --recipe cannot be given with it",
            hint=f"vitft finetune --resume {resume}",
        )
    if not is_file(resume / "recipe.yaml"):
        return None
    resolved = Recipe.load(resume / "recipe.yaml", changes)
    _check_push(resolved, changes)
    return resolved


def _check_push(resolved: Recipe, changes: Mapping[str, object]) -> None:
    """Raise for Hub flags without a push.

    A licence is allowed, because the local model card has it too, and so is ``hub.push=false``.
    """
    told = {key for key in changes if key.startswith("hub.")} - {"hub.push", "hub.license"}
    if told and not resolved.hub.push:
        raise UsageError("nothing is pushed without --push-to-hub", hint="add --push-to-hub")

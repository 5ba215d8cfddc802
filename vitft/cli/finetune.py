"""``vitft finetune``: flags become recipe keys; ``vitft.tasks.finetune`` does the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitft.cli.flags import (
    BadImages,
    CreatePr,
    Dataset,
    DatasetRevision,
    Debug,
    Device,
    Force,
    Format,
    HubEvery,
    HubRepo,
    HubRevision,
    ImageSize,
    Metrics,
    ModelRevision,
    NumProcesses,
    Precision,
    Private,
    PushToHub,
    Settings,
    launched,
    rank,
    settings,
)
from vitft.errors import PublishError, UsageError
from vitft.files import is_file
from vitft.outside import shown

if TYPE_CHECKING:
    from vitft.recipe.recipe import Recipe
    from vitft.tasks import FinetuneResult


def finetune(
    ctx: typer.Context,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="RECIPE", help="Recipe file, or the name of one that ships: vitft recipes ls."
        ),
    ] = None,
    dataset: Dataset = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Hub id, folder, or builtin:vit-micro.  [google/vit-base-patch16-224-in21k]",
        ),
    ] = None,
    model_revision: ModelRevision = None,
    dataset_revision: DatasetRevision = None,
    image_size: ImageSize = None,
    train: Annotated[
        str | None,
        typer.Option(
            "--train",
            metavar="PART",
            help="What learns: all, head, or last:N (the head and the last N blocks).",
        ),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", metavar="N", help="Passes over the training images.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", metavar="N", help="Images per optimizer step over all devices."),
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", metavar="RATE", help="Peak learning rate of the head.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of every random choice.")] = None,
    precision: Precision = None,
    bad_images: BadImages = None,
    streaming: Annotated[
        bool | None,
        typer.Option("--streaming", help="Read the dataset as a stream instead of downloading it."),
    ] = None,
    max_train_samples: Annotated[
        int | None, typer.Option("--max-train-samples", metavar="N", help="Train on so many images at most.")
    ] = None,
    device: Device = None,
    deterministic: Annotated[
        bool | None,
        typer.Option("--deterministic", help="Only deterministic kernels: slower, exact to resume on a GPU."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the run's folder; must be new.")
    ] = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", metavar="FOLDER", help="Folder of the runs.  [runs]")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Run directory to go on with; its recipe is used."),
    ] = None,
    num_processes: NumProcesses = None,
    track: Annotated[
        list[str] | None,
        typer.Option("--track", metavar="TRACKER", help="An experiment tracker, such as tensorboard; repeatable."),
    ] = None,
    metrics: Metrics = None,
    trust_metrics: Annotated[
        bool,
        typer.Option("--trust-metrics", help="Run the metrics that a recipe file or a resumed run names: code."),
    ] = False,
    push_to_hub: PushToHub = None,
    hub_repo: HubRepo = None,
    private: Private = None,
    hub_revision: HubRevision = None,
    hub_every: HubEvery = None,
    create_pr: CreatePr = None,
    force: Force = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe and the plan, and stop.")
    ] = False,
    settings_given: Settings = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Fine-tune a checkpoint on a dataset, score it and save it.

    Flags win over the recipe, and --set over both. Arguments after -- go to accelerate's launcher.
    """
    changes: dict[str, object] = {
        "data.dataset": dataset,
        "data.revision": dataset_revision,
        "data.bad_images": bad_images,
        "data.streaming": streaming,
        "data.max_train_samples": max_train_samples,
        "model.checkpoint": model,
        "model.revision": model_revision,
        "model.image_size": image_size,
        "model.train": train,
        "optim.lr": lr,
        "train.duration": None if epochs is None else f"{Decimal(f'{epochs:.15g}'):f} epochs",  # not 1e-05
        "train.batch_size": batch_size,
        "train.seed": seed,
        "train.precision": precision,
        "train.device": device,
        "train.deterministic": deterministic,
        "run.name": name,
        "run.output_dir": output_dir,
        "run.track": track or None,
        "run.metrics": metrics or None,
        "hub.push": push_to_hub,
        "hub.repo": hub_repo,
        "hub.private": private,
        "hub.revision": hub_revision,
        "hub.every": hub_every,
        "hub.create_pr": create_pr,
        "hub.force": force,
    }
    changes = {key: value for key, value in changes.items() if value is not None} | settings(settings_given)

    resolved = _resolve(recipe, resume, changes)
    if not dry_run:
        code = launched(ctx, num_processes, resolved.train.device if resolved else "auto")
        if code is not None:
            return code

    from vitft import tasks

    try:
        result = tasks.finetune(
            None if resume else resolved, resume=resume, changes=changes, dry_run=dry_run, trust_metrics=trust_metrics
        )
    except PublishError as error:
        _show(error.result, resolved, format)
        raise
    if rank() == 0:
        _show(result, resolved, format)
    return 0


def _show(result: FinetuneResult, resolved: Recipe | None, format: str) -> None:
    """Print what a run made; of a dry run the recipe and the plan."""
    if result.run_dir is None:
        assert resolved is not None  # a resume without a recipe file has raised in tasks
        if format == "json":
            print(json.dumps({"recipe": resolved.model_dump(mode="json"), "plan": result.plan_text}, indent=2))
        else:
            # The plan in comments: what is printed is a recipe that --recipe accepts.
            print(resolved.dump(), *(f"# {line}".rstrip() for line in result.plan_text.splitlines()), sep="\n")
    elif format == "json":
        published = {"published": asdict(result.published)} if result.published else {}
        print(json.dumps({"run_dir": str(result.run_dir), **result.results, **published}, indent=2))
    else:
        print(shown(result))


def _resolve(recipe: str | None, resume: Path | None, changes: dict[str, object]) -> Recipe | None:
    """Return the recipe of the run; None for a run to resume that has none, which is for tasks to explain."""
    from vitft.recipe.recipe import Recipe

    if resume is None:
        resolved = Recipe.load(recipe, changes)
        _check_push(resolved, changes)
        if resolved.data.dataset is None:
            raise UsageError(
                "no dataset was given",
                allowed="a Hub id, a folder, a file, or builtin:digits",
                hint="vitft finetune --dataset cifar100, or offline: vitft finetune --recipe quickstart",
            )
        return resolved
    if recipe is not None:
        raise UsageError(
            "--resume goes on with the recipe of the run; --recipe cannot be given with it",
            hint=f"vitft finetune --resume {resume}",
        )
    if not is_file(resume / "recipe.yaml"):
        return None
    resolved = Recipe.load(resume / "recipe.yaml", changes)
    _check_push(resolved, changes)
    return resolved


def _check_push(resolved: Recipe, changes: Mapping[str, object]) -> None:
    """Refuse to be told where to push what is not pushed.

    A licence stands in the card beside the model too, and ``hub.push=false`` takes back what a recipe wishes.
    """
    told = {key for key in changes if key.startswith("hub.")} - {"hub.push", "hub.license"}
    if told and not resolved.hub.push:
        raise UsageError("nothing is pushed without --push-to-hub", hint="add --push-to-hub")

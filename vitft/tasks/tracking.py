"""Start experiment trackers through accelerate, and check before training that they are installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vitft.errors import TrainError, UsageError, one_line
from vitft.recipe.recipe import Recipe
from vitft.run import Run

if TYPE_CHECKING:
    from accelerate import Accelerator

_PIP = {
    "tensorboard": "'vitft[track]'", "trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow",
    "comet_ml": "comet-ml", "aim": "aim", "clearml": "clearml", "swanlab": "swanlab",
}  # fmt: skip
"""The pip package of each tracker."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise a UsageError for trackers that are not installed; accelerate would silently leave them out."""
    if not names:
        return
    from accelerate.tracking import get_available_trackers

    here = [str(getattr(each, "value", each)) for each in get_available_trackers()]
    if missing := [name for name in names if name not in here]:
        raise UsageError(
            f"--track {missing[0]} needs a package that is not installed",
            allowed=f"{', '.join(here)}, which are installed" if here else "none: no tracker is installed",
            hint=f"pip install {' '.join(_PIP[name] for name in missing)}",
        )


def _named(run: str, project: str) -> dict[str, dict[str, str]]:
    """Return the arguments by which each tracker learns the run's name; accelerate passes on only the project's."""
    return {
        "wandb": {"name": run},
        "trackio": {"name": run},
        "mlflow": {"run_name": run},
        "aim": {"experiment": project},
        "clearml": {"project_name": project, "task_name": run},
        "swanlab": {"experiment_name": run},
    }


def start_trackers(run: Run, recipe: Recipe, accelerator: Accelerator) -> None:
    """Start the recipe's trackers; raise a TrainError if one fails, for example without a login."""
    if not recipe.run.track:
        return
    accelerator.project_configuration.logging_dir = str(run.folder)  # for trackers that write files
    config: Mapping[str, str] = {key: str(value) for key, value in recipe.flat().items()}
    try:
        names = _named(run.folder.resolve().name, recipe.run.project)
        accelerator.init_trackers(recipe.run.project, config=config, init_kwargs=names)
    except Exception as error:  # whatever third-party code raises
        raise TrainError(
            f"the tracker {', '.join(recipe.run.track)} cannot start: {one_line(error)}",
            hint="fix that, or leave out --track",
        ) from error

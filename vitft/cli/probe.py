"""``vitft probe``: rank checkpoints on a dataset without fine-tuning them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from vitft.cli.command import launched
from vitft.cli.options import Debug, Format, NumProcesses, Settings, check_one_size, data_settings
from vitft.cli.recipe_flags import Changes, recipe_flags
from vitft.errors import UsageError
from vitft.outside import shown
from vitft.processes import worker

Models = Annotated[
    list[str] | None,
    typer.Argument(
        help="Hub ids, model folders or run directories; without any, four well-known ones.", metavar="MODEL"
    ),
]
Shots = Annotated[
    str | None,
    typer.Option(
        "--shots",
        metavar="NUMBERS",
        help="Images per class of the few-shot scores, with commas.  [default: 1,5,10,25, if every class has them]",
    ),
]
Save = Annotated[
    Path | None,
    typer.Option("--save", metavar="FOLDER", help="New folder for the best model with its linear head."),
]


@recipe_flags(
    "--dataset", "--dataset-revision", "--max-train-samples", "--bad-images", "--image-size", "--method", "--seed",
    "--precision", "--device",
)  # fmt: skip
def probe(
    ctx: typer.Context,
    models: Models = None,
    *,
    changes: Changes,
    shots: Shots = None,
    save: Save = None,
    num_processes: NumProcesses = None,
    settings_given: Settings = None,
    format: Format = "text",
    debug: Debug = False,
) -> int:
    """Rank checkpoints by what their features are good for on your images, without fine-tuning.

    Features are computed once and kept. Three answers: logistic regression, chosen on validation images, which
    ranks; the nearest training images; and the ViT paper's few-shot evaluation. --set takes the keys of the
    recipe's data section. Arguments after -- go to accelerate's launcher.
    """
    check_one_size(changes)
    numbers = _numbers(shots)
    given = data_settings(settings_given, "vitft probe --dataset D --set data.label_column=label")

    from vitft.recipe.recipe import Recipe

    recipe = Recipe.load(None, changes | given)
    if recipe.data.dataset is None:
        raise UsageError(
            "no dataset was given",
            allowed="a Hub id, a folder, a file, or builtin:digits",
            hint=" ".join(["vitft probe --dataset ./photos", *(models or ())]),
        )
    code = launched(ctx, num_processes, recipe.train.device)
    if code is not None:
        return code

    from vitft import tasks

    result = tasks.probe(
        models or (),
        recipe.data,
        shots=numbers,
        image_size=recipe.model.image_size,
        method=recipe.model.resize_method,
        seed=recipe.train.seed,
        precision=recipe.train.precision,
        device=recipe.train.device,
        save=save,
    )
    if worker.is_main():
        print(json.dumps(result.plain(), indent=2) if format == "json" else shown(result))
    return 0


def _numbers(text: str | None) -> list[int] | None:
    """Parse the value of ``--shots``."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and 0 < int(word) < 10**9 for word in words):
        raise UsageError(f"--shots {text}: use whole numbers above 0, with commas", hint="--shots 1,5,10,25")
    return sorted({int(word) for word in words})

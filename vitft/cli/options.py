"""Arguments and options that several commands share and that are not recipe keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import typer

from vitft.cli.command import wrong_keys
from vitft.errors import UsageError

Model = Annotated[str, typer.Argument(help="Run directory, model folder or Hub id.", metavar="MODEL")]
OwnDataset = Annotated[str | None, typer.Argument(help="The dataset, like --dataset.", metavar="DATASET")]
RecipeName = Annotated[
    str | None, typer.Option("--recipe", metavar="RECIPE", help="Recipe file, or a name from: vitft recipes ls.")
]
Split = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Split to use: test, if there is one.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, metavar="N", help="Images per forward pass.")]
NumProcesses = Annotated[
    int | None,
    typer.Option(
        "--num-processes",
        min=1,
        metavar="N",
        help="Processes to start with accelerate; when not given one for each GPU.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a recipe key; repeatable. List the keys with: vitft recipes keys.",
    ),
]
Format = Annotated[Literal["text", "json"], typer.Option("--format", help="How to print the results.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def take_dataset(given: str | None, changes: dict[str, object]) -> None:
    """Add the dataset that was given without a flag to the changes.

    Raises:
        UsageError: if a flag names one too.
    """
    if given is not None and "data.dataset" in changes:
        raise UsageError(
            f"two datasets were given: {given} and {changes['data.dataset']}", hint="leave out one of the two"
        )
    if given is not None:
        changes["data.dataset"] = given


def settings(texts: Sequence[str] | None) -> dict[str, object]:
    """Parse the values of ``--set``; if a key is given twice, the last one counts.

    Raises:
        UsageError: naming everything that is wrong with them.
    """
    from vitft.recipe.yaml12 import parse_setting

    found: dict[str, object] = {}
    errors: list[UsageError] = []
    for text in texts or ():
        try:
            key, value = parse_setting(text)
        except UsageError as error:
            errors.append(error)
        else:
            found[key] = value
    if errors:
        wrong = [*(error.wrong for error in errors), *wrong_keys(found)]
        raise UsageError("\n  ".join(wrong), allowed=errors[0].allowed, hint=errors[0].hint)
    return found


def data_settings(texts: Sequence[str] | None, example: str) -> dict[str, object]:
    """Parse the values of ``--set`` for a command with a dataset and no recipe.

    Raises:
        UsageError: for a key of another section than ``data``.
    """
    given = settings(texts)
    others = [key for key in given if not key.startswith("data.")]
    if others:
        raise UsageError(
            f"--set {others[0]}: only the dataset has settings here",
            allowed="keys of the section data, such as data.label_column",
            hint=example,
        )
    return given


def image_sizes(text: str | None) -> list[tuple[int, int]]:
    """Parse the value of ``--image-size``: one size, or several separated by commas."""
    from vitft.recipe.sizes import parse_size

    try:
        return [parse_size(part) for part in text.split(",")] if text is not None else []
    except ValueError as error:
        raise UsageError(f"--image-size {text}: {error}", hint="--image-size 384") from None


def check_one_size(changes: Mapping[str, object]) -> None:
    """Raise UsageError if ``--image-size`` is not a single size."""
    from vitft.recipe.sizes import show_size

    text = changes.get("model.image_size")
    sizes = image_sizes(None if text is None else str(text))
    if len(sizes) > 1:
        raise UsageError(f"--image-size {text}: give one size only", hint=f"--image-size {show_size(sizes[-1])}")

"""``vitft recipes``: list, show, copy and check recipes, and describe their keys."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vitft.cli.command import CONTEXT, Command
from vitft.cli.options import Debug
from vitft.errors import RecipeError, UsageError
from vitft.files import is_folder
from vitft.outside import printable, shown

if TYPE_CHECKING:
    from vitft.recipe.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=CONTEXT,
    help="List, show, copy and check recipes.",
)

Name = Annotated[str, typer.Argument(help="Name of a recipe that ships with vitft, or a file.", metavar="NAME")]


@app.command("ls", cls=Command, context_settings=CONTEXT)
def list_recipes(debug: Debug = False) -> None:
    """List the recipes that ship with vitft, and what each claims."""
    from vitft.builtin import recipe_names, recipe_path

    names = recipe_names()
    for name in names:
        print(f"{name:{max(map(len, names))}}  {claim(recipe_path(name))}")


@app.command("show", cls=Command, context_settings=CONTEXT)
def show(name: Name, debug: Debug = False) -> None:
    """Print a recipe with every key written out and explained.

    The output is itself a recipe.
    """
    from vitft.builtin import recipe_path
    from vitft.recipe.recipe import Recipe

    path = recipe_path(name)
    recipe = Recipe.load(path)
    print(*map(printable, opening(path)), *annotated(recipe), sep="\n")


@app.command("cp", cls=Command, context_settings=CONTEXT)
def copy(
    name: Name,
    path: Annotated[
        Path | None, typer.Argument(help="New file or a folder; NAME.yaml when not given.", metavar="PATH")
    ] = None,
    debug: Debug = False,
) -> None:
    """Copy a recipe, to change it; an existing file is never overwritten."""
    from vitft.builtin import recipe_path

    source = recipe_path(name)
    target = path or Path(f"{source.stem}.yaml")
    target = target / f"{source.stem}.yaml" if is_folder(target) else target
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(source.read_text(encoding="utf-8"))
    except FileExistsError:
        raise UsageError(
            f"{target} already exists and will not be overwritten",
            hint=f"vitft recipes cp {name} OTHER.yaml",
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    print(shown(f"copied to {target}; use it with: vitft finetune --recipe {target}"), file=sys.stderr)


@app.command("validate", cls=Command, context_settings=CONTEXT)
def validate(
    files: Annotated[list[str], typer.Argument(help="Recipe files or names.", metavar="FILE")],
    debug: Debug = False,
) -> None:
    """Check recipes, and report every error of every file."""
    from vitft.recipe.recipe import Recipe

    wrong = []
    for file in files:
        try:
            Recipe.load(file)
            print(shown(f"{file}: valid"))
        except RecipeError as error:
            wrong.append(error)
    if wrong:
        raise RecipeError("\n".join(error.wrong for error in wrong), allowed=wrong[0].allowed, hint=wrong[0].hint)


@app.command("schema", cls=Command, context_settings=CONTEXT)
def schema(debug: Debug = False) -> None:
    """Print the JSON schema of recipes, for editors."""
    from vitft.recipe.recipe import Recipe

    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}
    print(json.dumps(document, indent=2))


@app.command("keys", cls=Command, context_settings=CONTEXT)
def list_keys(
    format: Annotated[Literal["text", "markdown"], typer.Option("--format", help="How to print the keys.")] = "text",
    debug: Debug = False,
) -> None:
    """List every key of a recipe with its default and meaning."""
    from vitft.recipe.describe import describe

    rows = [(key, field.default, field.meaning) for key, field in describe()]
    if format == "markdown":
        print("| key | default | meaning |\n|---|---|---|")
        for key, default, meaning in rows:
            print(f"| `{key}` | `{default}` | {meaning.replace('|', chr(92) + '|')} |")
        return
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, default, meaning in rows:
        print(f"{key:{widths[0]}}  {default:{widths[1]}}  {meaning}")


def annotated(recipe: Recipe) -> Iterator[str]:
    """Yield the lines of a recipe as YAML, with the meaning of each key above it."""
    from vitft.recipe.describe import describe, in_line

    values, written = recipe.flat(), [""]
    for dotted, field in describe():
        *sections, key = dotted.split(".")
        for depth, section in enumerate(sections):
            if written[depth : depth + 1] != [section]:
                yield f"{'  ' * depth}{section}:"
                written = [*written[:depth], section]
        written = written[: len(sections)]
        indent = "  " * len(sections)
        yield f"{indent}# {field.meaning}"
        yield f"{indent}{key}: {in_line(values[dotted])}"


def opening(path: Path) -> list[str]:
    """Return the comment lines that a recipe file opens with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next((place for place, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return lines[:end]


def claim(path: Path) -> str:
    """Return the first sentence of the comment that a recipe file opens with."""
    words = " ".join(line.lstrip("# ") for line in opening(path)).split()
    end = next((place for place, word in enumerate(words) if word.endswith(".")), len(words))
    return " ".join(words[: end + 1])

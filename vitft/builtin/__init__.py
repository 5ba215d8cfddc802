"""Find what ships with vitft: its recipes and the micro checkpoint."""

from __future__ import annotations

from pathlib import Path

from vitft.errors import RecipeError, did_you_mean
from vitft.files import is_file, is_folder

_PACKAGE = Path(__file__).resolve().parent.parent


def recipe_folder() -> Path:
    """Return the folder of the recipes: in the installed package, or beside it in a checkout."""
    packaged = _PACKAGE / "recipes"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship, sorted."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe that is given as a path, or as the name of one that ships.

    Raises:
        RecipeError: if there is no such file or name.
    """
    as_file = Path(name)
    if is_file(as_file):
        return as_file
    if is_folder(as_file) and (as_file / "recipe.yaml").is_file():
        return as_file / "recipe.yaml"
    if name in recipe_names():
        return recipe_folder() / f"{name}.yaml"
    guess = did_you_mean(name, recipe_names())
    raise RecipeError(
        f"there is no recipe {name!r}: it is neither a file nor a recipe that ships with vitft",
        allowed=f"a path, or one of {', '.join(recipe_names())}",
        hint=f"--recipe {guess}" if guess else "vitft recipes ls",
    )


def checkpoint_path() -> Path:
    """Return the folder of ``builtin:vit-micro``."""
    return _PACKAGE / "builtin" / "vit-micro"

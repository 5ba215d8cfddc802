"""Flags that set recipe keys: a command names them and gets one mapping of the values that were given.

The type, choices, default and help of a flag come from its key.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import Parameter, signature
from typing import Annotated, Any, Literal

import typer

from vitft.recipe.fields import FIELDS
from vitft.recipe.flags import FLAGS, Flag

Changes = dict[str, object]
"""Values by dotted key, for the flags that were given."""

_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "list": list[str]}
_SAYS_NOTHING = ("null", "false", "[]")  # as a default


def recipe_flags(*names: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command flags of ``vitft.recipe.flags`` instead of its parameter ``changes``.

    Typer sees a parameter for each flag, and the command gets ``changes``.
    """
    flags = [FLAGS[name] for name in names]

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        """Return the command as typer should see it."""
        shown: list[Parameter] = []
        for each in signature(command, eval_str=True).parameters.values():
            shown += map(_parameter, flags) if each.name == "changes" else [each.replace(kind=Parameter.KEYWORD_ONLY)]

        @functools.wraps(command)
        def called(**given: Any) -> int:
            values = [(flag, given.pop(flag.parameter)) for flag in flags]
            changes = {flag.key: flag.value(value) for flag, value in values if value not in (None, [])}
            return command(changes=changes, **given)

        # Typer reads both the signature and the annotations.
        called.__signature__ = signature(command).replace(parameters=shown)  # type: ignore[attr-defined]
        called.recipe_flags = names  # type: ignore[attr-defined]  # for messages
        called.__annotations__ = {each.name: each.annotation for each in shown}
        return called

    return decorate


def meaning(key: str) -> str:
    """Return the meaning of a recipe key as a line of help."""
    return FIELDS[key][3].replace("`", "")


def _parameter(flag: Flag) -> Parameter:
    """Return a flag as a function parameter for typer; None means that it was not given."""
    kind, choices, default, _ = FIELDS[flag.key]
    taken: Any = _TYPES["float" if flag.unit else kind]
    if kind == "str" and choices:
        taken = bool if flag.sets else Literal[choices]
    text = flag.help or meaning(flag.key)
    if kind == "list":
        text = f"{text.removesuffix('.')}: {', '.join(choices)}." if choices else text
        text += " Repeatable."
    if default not in _SAYS_NOTHING and not flag.sets:
        text += f"  [default: {default.removesuffix(f' {flag.unit}') if flag.unit else default}]"
    option = typer.Option(flag.name, metavar=flag.metavar, help=text)
    annotation = Annotated[taken | None, option]
    return Parameter(flag.parameter, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)

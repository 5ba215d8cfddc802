"""Turn pydantic's errors about a recipe into lines that say what to write instead."""

from __future__ import annotations

import itertools
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vitft.errors import did_you_mean
from vitft.outside import printable, quoted, shortened
from vitft.recipe.keys import Form

_MOST = 30  # lines
_WIDEST = 400  # characters of a line


def complaints(errors: Iterable[Any], known: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each key that pydantic complains about.

    Lines are limited in length and number, so that a file that is not a recipe does not fill the screen.

    Args:
        errors: of a pydantic ``ValidationError``.
        known: the pydantic field of every dotted key.
    """
    by_key = _by_key(errors, {key.rpartition(".")[0] for key in known})
    for dotted, group in itertools.islice(by_key.items(), _MOST):
        yield shortened(f"{shortened(printable(dotted), 80)}: {_complaint(dotted, group, known)}", _WIDEST)
    if len(by_key) > _MOST:
        yield f"and {len(by_key) - _MOST:,} more"


def _by_key(errors: Iterable[Any], sections: set[str]) -> dict[str, list[Any]]:
    """Group pydantic's errors by dotted key; their own locations go on to union branches and list items."""
    by_key: dict[str, list[Any]] = {}
    for error in errors:
        parts = [str(part) for part in error["loc"]]
        by_key.setdefault(".".join(parts[: 3 if ".".join(parts[:2]) in sections else 2]), []).append(error)
    return by_key


def _complaint(dotted: str, group: Sequence[Any], known: Mapping[str, Any]) -> str:
    """Say what is wrong with a key, and what to write instead."""
    first = group[0]
    given = quoted(first["input"])
    if first["type"] == "extra_forbidden":
        return f"unknown key; {_advice(dotted, known)}"
    if dotted not in known:
        return f"{given} is not a section; write its keys below it, indented"
    if found := next((each for each in group if each["type"] == "value_error"), None):
        others = [_expectation(each, known[dotted]) for each in group if each is not found]
        return ", or ".join([str(found["ctx"]["error"]), *others])
    if first["type"] == "string_pattern_mismatch":
        form = next(each for each in _metadata(known[dotted]) if isinstance(each, Form))
        guess = did_you_mean(str(first["input"])[:80], form.words)
        return f"{given} is not allowed; use {form.shown}{f' (did you mean {guess}?)' if guess else ''}"
    words = [_expectation(error, known[dotted]) for error in group]
    if type(None) in typing.get_args(known[dotted].annotation):
        words.append("null")
    return f"{given} is not allowed; use {' or '.join(dict.fromkeys(words))}"


def _metadata(field: Any) -> Iterator[Any]:
    """Yield the annotations of a field, and those inside its type."""
    waiting: list[Any] = [field.annotation]
    yield from field.metadata
    while waiting:
        kind = waiting.pop()
        yield from getattr(kind, "__metadata__", ())
        waiting += [each for each in typing.get_args(kind) if typing.get_args(each)]


_RENAMED = {"train.class_weights": "train.imbalance (weights for balanced, sqrt-weights for sqrt)"}


def _advice(dotted: str, known: Mapping[str, Any]) -> str:
    if dotted in _RENAMED:
        return f"it is now {_RENAMED[dotted]}"
    section, _, key = dotted.rpartition(".")
    inside = f"{section}." if section else ""
    siblings = list(dict.fromkeys(each.removeprefix(inside).split(".")[0] for each in known if each.startswith(inside)))
    guess = did_you_mean(key[:80], siblings)
    elsewhere = [each for each in known if each.split(".")[-1] == key]
    if elsewhere:  # the right name in the wrong section
        return f"did you mean {elsewhere[0]}?"
    return f"did you mean {guess!r}?" if guess else f"known: {', '.join(siblings)}"


_EXPECTED = {
    "int": "a whole number", "float": "a number", "finite": "a finite number", "bool": "true or false",
    "string": "text", "tuple": "a list",
}  # fmt: skip
_BOUNDS = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", ">="), "less_than": ("lt", "<")}
_BOUNDS["less_than_equal"] = ("le", "<=")


def _expectation(error: Any, field: Any) -> str:
    """Say what the branch of a key's type that pydantic tried would accept."""
    kind, limits = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return str(limits["expected"]).replace("'", "")
    if kind in _BOUNDS:
        name, sign = _BOUNDS[kind]
        return f"a number {sign} {limits[name]:g}"
    if kind == "string_unicode":
        return "a name in UTF-8 (rename the file or folder)"
    if kind == "string_too_long":
        return f"text of at most {limits['max_length']:,} characters"
    if "actual_length" in limits or kind == "missing":
        return f"a list of {len(typing.get_args(field.annotation))}"
    return _EXPECTED.get(kind.split("_")[0], str(error["msg"]))

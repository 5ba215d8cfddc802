"""What pydantic finds wrong with a recipe, as lines that tell what to write instead."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vitft.errors import did_you_mean


def complaints(errors: Iterable[Any], known: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each key that pydantic complains of.

    Args:
        errors: of a pydantic ``ValidationError``.
        known: the pydantic field of every dotted key.
    """
    by_key: dict[str, list[Any]] = {}
    sections = {key.rpartition(".")[0] for key in known}
    for error in errors:
        # Below a key the location names union branches and list places; the reader wants the key.
        parts = [str(part) for part in error["loc"]]
        by_key.setdefault(".".join(parts[: 3 if ".".join(parts[:2]) in sections else 2]), []).append(error)
    for dotted, group in by_key.items():
        first = group[0]
        if first["type"] == "extra_forbidden":
            yield f"{dotted}: unknown key; {_advice(dotted, known)}"
        elif dotted not in known:
            yield f"{dotted}: {first['input']!r} is no section; write its keys below it, indented"
        elif first["type"] == "value_error":
            yield f"{dotted}: {first['ctx']['error']}"
        elif first["type"] == "string_pattern_mismatch":
            yield f"{dotted}: {first['input']!r} is not allowed; it is: {known[dotted].description}"
        else:
            words = [_expectation(error, known[dotted]) for error in group]
            if type(None) in typing.get_args(known[dotted].annotation):
                words.append("null")
            yield f"{dotted}: {first['input']!r} is not allowed; use {' or '.join(dict.fromkeys(words))}"


def _advice(dotted: str, known: Mapping[str, Any]) -> str:
    section, _, key = dotted.rpartition(".")
    inside = f"{section}." if section else ""
    siblings = list(dict.fromkeys(each.removeprefix(inside).split(".")[0] for each in known if each.startswith(inside)))
    guess = did_you_mean(key, siblings)
    elsewhere = [each for each in known if each.split(".")[-1] == key]
    if elsewhere:  # the right name in the wrong section
        return f"did you mean {elsewhere[0]}?"
    return f"did you mean {guess!r}?" if guess else f"known: {', '.join(siblings)}"


_EXPECTED = {
    "int": "a whole number", "float": "a number", "finite": "a finite number", "bool": "true or false",
    "string": "a text", "tuple": "a list",
}  # fmt: skip
_BOUNDS = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", ">="), "less_than": ("lt", "<")}
_BOUNDS["less_than_equal"] = ("le", "<=")


def _expectation(error: Any, field: Any) -> str:
    """Say what the branch of a key's type that pydantic tried would take."""
    kind, limits = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return str(limits["expected"]).replace("'", "")
    if kind in _BOUNDS:
        name, sign = _BOUNDS[kind]
        return f"a number {sign} {limits[name]:g}"
    if "actual_length" in limits or kind == "missing":
        return f"a list of {len(typing.get_args(field.annotation))}"
    return _EXPECTED.get(kind.split("_")[0], str(error["msg"]))

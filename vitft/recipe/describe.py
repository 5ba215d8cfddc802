"""Describe recipe keys: for ``vitft recipes``, and for flags, whose help must not load pydantic.

After a change to a key, regenerate ``vitft/recipe/fields.py`` with ``python -m vitft.recipe.describe``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vitft.recipe.recipe import Recipe, keys
from vitft.recipe.yaml12 import write_yaml


class Field(NamedTuple):
    """The type, choices, default and meaning of a recipe key.

    Attributes:
        kind: ``int``, ``float``, ``bool``, ``str``, ``list`` or ``dict``; our own formats, such as sizes, are ``str``.
        choices: the words that it accepts: for a list those of its items, for a number those besides numbers.
        default: as YAML on one line.
        meaning: the field's docstring, on one line.
    """

    kind: str
    choices: tuple[str, ...]
    default: str
    meaning: str


def describe() -> Iterator[tuple[str, Field]]:
    """Yield every recipe key with its description."""
    defaults, schema = Recipe().flat(), Recipe.model_json_schema()
    for key, field in keys():
        kind, choices = _taken(_schema_of(key, schema))
        yield key, Field(kind, choices, in_line(defaults[key]), " ".join((field.description or "").split()))


def in_line(value: Any) -> str:
    """Return a value as YAML on one line."""
    text = write_yaml(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...").strip()


_KINDS = {
    "string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict",
}  # fmt: skip


def _schema_of(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the recipes' JSON schema for a key."""
    part = schema
    for name in key.split("."):
        section = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
        part = section["properties"][name]
    return part


def _taken(schema: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the kind of value that a JSON schema allows, and the words."""
    branches = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    words = [word for each in branches for word in each.get("enum", [each["const"]] if "const" in each else [])]
    kinds = {_KINDS[each["type"]] for each in branches if not {"enum", "const"} & each.keys()}
    if kinds == {"list"} and "enum" in (items := branches[0].get("items", {})):
        words = items["enum"]
    return kinds.pop() if len(kinds) == 1 else "str", tuple(words)


def fields_module() -> str:
    """Return the text of ``vitft/recipe/fields.py``."""
    lines = [
        '"""Every recipe key: (kind, choices, default, meaning), as in `describe.Field`.',
        "",
        "Generated: after a change to a key, run ``python -m vitft.recipe.describe``.",
        '"""',
        "",
        "# fmt: off",
        "FIELDS: dict[str, tuple[str, tuple[str, ...], str, str]] = {",
    ]
    for key, field in describe():
        choices = ", ".join(map(_quoted, field.choices)) + "," * (len(field.choices) == 1)
        lines.append(f"    {_quoted(key)}: ({_quoted(field.kind)}, ({choices}), {_quoted(field.default)},")
        lines.append(f"        {_quoted(field.meaning)}),")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    Path(__file__).with_name("fields.py").write_text(fields_module(), encoding="utf-8")

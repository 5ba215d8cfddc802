"""Where a checkpoint comes from, as its own model card says: the model on the Hub that it is based on, its licence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitft.errors import RecipeError
from vitft.files import read_regular
from vitft.recipe.yaml12 import parse_yaml

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(?:/[A-Za-z0-9][\w.\-]*)?")
_LONGEST = 10**7  # bytes of a card
_LICENCE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class Origin:
    """What a model card of ours has to say about a base model.

    Attributes:
        base: its id on the Hub; None if it, and what it was made from, is only here.
        license: its licence as metadata of a model card (``license``, and for ``other`` ``license_name`` and
            ``license_link``); empty if it is not known.
    """

    base: str | None = None
    license: dict[str, str] = field(default_factory=dict)


def read_origin(folder: Path, named: str, *, is_on_hub: bool) -> Origin:
    """Read the card beside a checkpoint.

    Args:
        folder: of the checkpoint.
        named: how the user called it.
        is_on_hub: whether that is an id on the Hub.
    """
    if named.startswith("builtin:"):
        return Origin(None, {"license": "apache-2.0"})  # ours, as all of vitft
    card = _metadata(folder / "README.md")
    base = named if is_on_hub else card.get("base_model")  # which other tools give as a path when it was one
    if not isinstance(base, str) or not _HUB_ID.fullmatch(base):
        base = None
    licence = {key: card[key] for key in _LICENCE_KEYS if isinstance(card.get(key), str)}
    link = licence.get("license_link", "")
    if link and is_on_hub and "://" not in link:  # a file of its repository, which is not in another
        licence["license_link"] = f"https://huggingface.co/{named}/blob/main/{link}"
    return Origin(base, licence)


def _metadata(path: Path) -> dict[str, Any]:
    """Return the metadata of a model card; nothing of one that is missing or cannot be read."""
    try:
        lines = read_regular(path, _LONGEST).decode("utf-8").splitlines()
        if lines[:1] != ["---"]:
            return {}
        values = parse_yaml("\n".join(lines[1 : lines.index("---", 1)]), str(path))
    except (OSError, ValueError, RecipeError):  # ValueError: no UTF-8, or no end of the metadata
        return {}
    return values if isinstance(values, dict) else {}

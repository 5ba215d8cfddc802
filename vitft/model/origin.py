"""Read a checkpoint's base model on the Hub and its licence from its model card."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitft.errors import RecipeError
from vitft.files import read_regular
from vitft.recipe.yaml12 import parse_yaml

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]*(?:/[A-Za-z0-9][\w.\-]*)?")
_LONGEST = 10**7  # bytes
_LICENCE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True)
class Origin:
    """What our model card says about the base model.

    Attributes:
        base: its id on the Hub; None if it is not on the Hub and names no base model that is.
        license: its licence as model card metadata (``license``, and for ``other`` also ``license_name`` and
            ``license_link``); empty if unknown.
    """

    base: str | None = None
    license: dict[str, str] = field(default_factory=dict)


def read_origin(folder: Path, named: str, *, is_on_hub: bool) -> Origin:
    """Read the model card in a checkpoint's folder.

    Args:
        folder: the checkpoint's folder.
        named: the checkpoint as the user typed it.
        is_on_hub: whether ``named`` is a Hub id.
    """
    if named.startswith("builtin:"):
        return Origin(None, {"license": "apache-2.0"})  # vitft's own licence
    card = _metadata(folder / "README.md")
    base = named if is_on_hub else card.get("base_model")  # some tools write a local path here
    if not isinstance(base, str) or not _HUB_ID.fullmatch(base):
        base = None
    licence = {key: card[key] for key in _LICENCE_KEYS if isinstance(card.get(key), str)}
    link = licence.get("license_link", "")
    if link and is_on_hub and "://" not in link:  # relative to the checkpoint's repository
        licence["license_link"] = f"https://huggingface.co/{named}/blob/main/{link}"
    return Origin(base, licence)


def _metadata(path: Path) -> dict[str, Any]:
    """Return a model card's metadata, empty if the card is missing or cannot be read."""
    try:
        lines = read_regular(path, _LONGEST).decode("utf-8").splitlines()
        if lines[:1] != ["---"]:
            return {}
        values = parse_yaml("\n".join(lines[1 : lines.index("---", 1)]), str(path))
    except (OSError, ValueError, RecipeError):  # ValueError: not UTF-8, or the metadata has no end
        return {}
    return values if isinstance(values, dict) else {}

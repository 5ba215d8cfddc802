"""Image sizes as they are written: ``384`` for a square, ``384x512`` for 384 rows of 512 pixels."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from vitft.outside import quoted

MOST_PIXELS = 4096  # per side; with more, a ViT has too many tokens for any machine


def parse_size(value: Any) -> tuple[int, int]:
    """Return (height, width) of ``384``, ``"384"``, ``"384x512"`` or ``[384, 512]``.

    Raises:
        ValueError: if it is none of these, or a side is not from 1 to 4096.
    """
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d+)(?:\s*[xX]\s*(\d+))?\s*", value)):
        height, width = int(match[1]), int(match[2] or match[1])
    elif isinstance(value, int) and not isinstance(value, bool):
        height = width = value
    elif isinstance(value, list | tuple) and len(value) == 2 and all(type(side) is int for side in value):
        height, width = value
    else:
        raise ValueError(f"{quoted(value)} is not an image size; write 384, or 384x512 for height x width")
    if not (0 < height <= MOST_PIXELS and 0 < width <= MOST_PIXELS):
        raise ValueError(f"an image size of {quoted(value)} is not between 1 and {MOST_PIXELS} pixels per side")
    return height, width


def show_size(size: tuple[int, int]) -> str:
    """Return ``384x512``."""
    return f"{size[0]}x{size[1]}"


def parse_schedule(value: Any) -> tuple[tuple[tuple[int, int], float], ...]:
    """Return (size, per cent of the steps) of ``{160: 60%, 224: 40%}``, in the order given.

    Raises:
        ValueError: if it is not such a mapping, or the shares do not add up to 100 %.
    """
    if isinstance(value, tuple):
        value = {show_size(size): f"{part}%" for size, part in value}
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{quoted(value)} is not a schedule; write sizes and shares of steps: {{160: 60%, 224: 40%}}")
    phases = []
    for size, part in value.items():
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*%\s*", part) if isinstance(part, str) else None
        if match is None or not float(match[1]):
            raise ValueError(f"{quoted(part)} for size {quoted(size)} is not a share of the steps; write it as 60%")
        phases.append((parse_size(size), float(match[1])))
    total = sum(part for _, part in phases)
    if abs(total - 100) > 0.01:
        raise ValueError(f"the shares of the schedule add up to {total:g} % of the steps, not 100 %")
    return tuple(phases)


def _plain_schedule(phases: tuple[tuple[tuple[int, int], float], ...]) -> dict[str, str]:
    return {str(_plain(size)): f"{part:g}%" for size, part in phases}


def _plain(size: tuple[int, int]) -> int | str:
    return size[0] if size[0] == size[1] else show_size(size)


ImageSize = Annotated[
    tuple[int, int],
    BeforeValidator(parse_size),
    PlainSerializer(_plain),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": r"^\d+(x\d+)?$"}]}),
]

ResolutionSchedule = Annotated[
    tuple[tuple[tuple[int, int], float], ...],
    BeforeValidator(parse_schedule),
    PlainSerializer(_plain_schedule),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "string", "pattern": r"^\d+(\.\d*)? *%$"}}),
]

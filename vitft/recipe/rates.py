"""Learning rates: one, or several to choose from, as ``1e-4,3e-4,1e-3`` or a list."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from vitft.outside import quoted

_MOST = 10  # each costs a tenth of the run
_LARGEST = 1e30  # as of other positive numbers of a recipe


def _in_order(value: object) -> object:
    """Return several rates in ascending order; leave a single value to pydantic's check of numbers."""
    parts = value.split(",") if isinstance(value, str) and "," in value else value
    if not isinstance(parts, list | tuple):
        return value
    try:
        rates = sorted(float(part) for part in parts if not isinstance(part, bool))
    except (TypeError, ValueError):
        rates = []
    is_fine = len(rates) == len(parts) == len(set(rates)) and all(0 < rate <= _LARGEST for rate in rates)
    if not is_fine or not 2 <= len(rates) <= _MOST:
        raise ValueError(
            f"{quoted(value)} is not allowed; use a number > 0, or 2 to {_MOST} different ones to choose from: "
            "1e-4,3e-4,1e-3"
        )
    return tuple(rates)


Rates = Annotated[
    Annotated[float, Field(gt=0, le=_LARGEST)] | tuple[float, ...],
    BeforeValidator(_in_order),
]
"""A learning rate, or several in ascending order."""

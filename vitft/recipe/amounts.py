"""Amounts of data with their units: ``20 GB``, ``500 MB``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from vitft.outside import quoted

_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
_AMOUNT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?)\s*([A-Za-z]+)\s*", re.ASCII)


@dataclass(frozen=True)
class Amount:
    """An amount of data with its unit, such as ``20 GB``."""

    value: float
    unit: str

    @classmethod
    def parse(cls, text: object) -> Amount:
        """Read an amount; raise ValueError, as pydantic expects, if the text is not one."""
        if isinstance(text, Amount):
            return text
        match = _AMOUNT.fullmatch(text) if isinstance(text, str) else None
        if match is None or (unit := match[2].upper()) not in _BYTES:
            raise ValueError(f"{quoted(text)} is not an amount of data; write a number and unit: 500 MB, 20 GB, 1.5 TB")
        return cls(float(match[1]), unit)

    @property
    def num_bytes(self) -> int:
        """The amount in bytes."""
        return round(self.value * _BYTES[self.unit])

    def __str__(self) -> str:
        return f"{format(Decimal(repr(self.value)), 'f').removesuffix('.0')} {self.unit}"


DataAmount = Annotated[
    Amount,
    BeforeValidator(Amount.parse),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]*)?\s*([MmGgTt][Bb])\s*$", "examples": ["20 GB", "500 MB"]}
    ),
]

"""Lengths of training with their units: ``10 epochs``, ``2500 steps``, ``5%``, ``8 h``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from vitft.errors import RecipeError

_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_UNITS = {
    "epoch": "epochs", "epochs": "epochs",
    "step": "steps", "steps": "steps",
    "%": "%",
    "s": "second", "sec": "second", "second": "second", "seconds": "second",
    "min": "minute", "minute": "minute", "minutes": "minute",
    "h": "hour", "hour": "hour", "hours": "hour",
    "d": "day", "day": "day", "days": "day",
}  # fmt: skip
_LONGEST = 10**9  # of any unit: with as many samples per step or epoch, a sample_index still fits into 64 bits
_DURATION = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]+|%)\s*")


@dataclass(frozen=True)
class Duration:
    """A length of training with its unit, such as ``10 epochs``, ``2500 steps``, ``5%`` or ``8 h``."""

    value: float
    unit: str

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Read a duration; raise ValueError, as pydantic expects, if the text is not one."""
        if isinstance(text, Duration):
            return text
        match = _DURATION.fullmatch(text) if isinstance(text, str) else None
        if match is None or match[2] not in _UNITS:
            raise ValueError(f"{text!r:.60} is not a duration; write a number and unit: 10 epochs, 2500 steps, 5%, 8 h")
        if (value := float(match[1])) > _LONGEST:
            raise ValueError(f"{match[0][:40]!r} is too long; use a number up to {_LONGEST:,}")
        return cls(value, _UNITS[match[2]])

    @property
    def is_time(self) -> bool:
        """Whether the unit is one of time."""
        return self.unit in _SECONDS

    @property
    def seconds(self) -> float:
        """The length in seconds, if the unit is one of time."""
        return self.value * _SECONDS[self.unit]

    def in_steps(self, *, batch_size: int, num_samples: int | None, total_steps: int | None = None) -> int:
        """Convert a duration in steps, epochs or per cent to optimizer steps, rounded up.

        Args:
            batch_size: samples per step.
            num_samples: samples per epoch; None for a stream of unknown length.
            total_steps: 100 per cent.
        """
        if self.unit == "steps":
            return _ceil(self.value)
        if self.unit == "epochs":
            if num_samples is None:
                raise RecipeError(
                    f"the length of this stream is unknown, so {str(self)!r} cannot be converted to steps",
                    hint="give it in steps: --set train.duration='2500 steps'",
                )
            return _ceil(self.value * num_samples / batch_size)
        assert self.unit == "%" and total_steps is not None, self
        return _ceil(self.value / 100 * total_steps)

    def __str__(self) -> str:
        number = format(Decimal(repr(self.value)), "f").removesuffix(".0")  # 1000000, not 1e+06: to be read again
        if self.unit == "%":
            return f"{number}%"
        unit = self.unit.removesuffix("s") if self.value == 1 else self.unit.removesuffix("s") + "s"
        return f"{number} {unit}"


def _ceil(value: float) -> int:
    # 0.1 * 30 is 3.0000000000000004 in floats, and must not become 4 steps.
    return -int(-value // 1) if abs(value - round(value)) > 1e-9 * max(1.0, abs(value)) else round(value)


def _in(*units: str) -> BeforeValidator:
    """Return the check that a duration is in one of ``units`` ("epochs", "steps", "%" or "time")."""

    def check(text: object) -> Duration:
        duration = Duration.parse(text)
        if ("time" if duration.is_time else duration.unit) not in units:
            raise ValueError(f"{str(duration)!r} has the wrong unit; use one of: {', '.join(units)}")
        return duration

    return BeforeValidator(check)


def _some(duration: Duration) -> Duration:
    if duration.value == 0:
        raise ValueError(f"{str(duration)!r} is nothing; use a length above 0, such as '1 epoch'")
    return duration


def _schema(*examples: str) -> WithJsonSchema:
    pattern = r"^\s*([0-9]+(\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z]+|%)\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


_AS_TEXT = PlainSerializer(str, return_type=str)
TrainingLength = Annotated[
    Duration, _in("epochs", "steps"), AfterValidator(_some), _AS_TEXT, _schema("10 epochs", "2500 steps")
]
PartOfTraining = Annotated[Duration, _in("epochs", "steps", "%"), _AS_TEXT, _schema("1 epoch", "500 steps", "10%")]
Interval = Annotated[PartOfTraining, AfterValidator(_some)]
TimeSpan = Annotated[Duration, _in("time"), _AS_TEXT, _schema("8 h", "90 min")]

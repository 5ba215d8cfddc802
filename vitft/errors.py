"""The exceptions that a user may see: what was wrong, what is allowed, what to type next.

    VitftError            1  the run could not be done
    ├── UsageError        2  the command line or the recipe was wrong
    │   └── RecipeError
    ├── DataError            a dataset, a split, a column or an image
    ├── ModelError           a checkpoint or its configuration
    ├── TrainError           the run itself: a non-finite loss, a full disk, a damaged checkpoint
    ├── HubError             the Hub refuses, or cannot be reached
    │   └── PublishError  3  the same after training: the model is saved, but not published
    └── StoppedEarly     75  not a failure: stopped on request; says how to resume

Library modules raise these and never print or exit; only ``vitft.cli`` does.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from vitft.outside import shortened, shown

_LONGEST = 20_000  # characters of a message, so that quoted text cannot fill the screen or the log


class VitftError(Exception):
    """An error that a user can act on.

    Args:
        wrong: what was wrong, with the offending value.
        allowed: what would have been accepted, if that can be listed.
        hint: what to type or do next.

    All three may quote outside text: unprintable characters are escaped and secrets removed.
    """

    exit_code = 1

    def __init__(self, wrong: str, *, allowed: str | None = None, hint: str | None = None) -> None:
        self.wrong = shown(shortened(wrong, _LONGEST))
        self.allowed, self.hint = (
            None if text is None else shown(shortened(text, _LONGEST)) for text in (allowed, hint)
        )
        super().__init__(self.wrong, self.allowed, self.hint)

    def __str__(self) -> str:
        lines = [self.wrong]
        if self.allowed:
            lines.append(f"  allowed: {self.allowed}")
        if self.hint:
            lines.append(f"  try: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # Loader workers pickle exceptions, and keyword arguments must survive that.
        return (_rebuild, (type(self), self.wrong, self.allowed, self.hint))


class UsageError(VitftError):
    """The command line was wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe, or a value that was to change it, was wrong."""


class DataError(VitftError):
    """A dataset, one of its splits or columns, or an image cannot be used."""


class ModelError(VitftError):
    """A checkpoint cannot be used."""


class TrainError(VitftError):
    """The run cannot continue."""


class HubError(VitftError):
    """The Hub refused a request or could not be reached."""


class PublishError(HubError):
    """A model was trained and saved, but not published.

    Attributes:
        result: what the task would have returned; None if it only had to publish.
    """

    exit_code = 3
    result: Any = None


class StoppedEarly(VitftError):  # noqa: N818 - an outcome, not an error
    """The run stopped on request, with a complete checkpoint or before its first step."""

    exit_code = 75


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the entry of ``known`` most similar to ``word``, or None."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def shorten(names: Sequence[str], shown: int = 8) -> str:
    """Return the first few names and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")


def _rebuild(kind: type[VitftError], wrong: str, allowed: str | None, hint: str | None) -> VitftError:
    return kind(wrong, allowed=allowed, hint=hint)


def one_line(error: BaseException) -> str:
    """Return another library's error message on one line, for quoting in ours."""
    return shown(" ".join(str(error).split())[:300])

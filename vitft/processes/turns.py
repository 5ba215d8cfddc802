"""Let the main process go first, or do something for all processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from vitft.errors import VitftError

if TYPE_CHECKING:
    from accelerate import Accelerator

Value = TypeVar("Value")


@contextmanager
def main_process_first(accelerator: Accelerator) -> Iterator[None]:
    """Let the main process go first: it downloads, and the others find it in the cache.

    If it fails, the others go anyway and fail too; accelerate's own version would let them wait for ever.
    """
    failure: Exception | None = None
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
    try:
        yield
    except Exception as error:  # of any kind: the others wait for this process
        failure = error
    if accelerator.is_main_process:
        accelerator.wait_for_everyone()
    if failure is not None:
        raise failure


def on_main_process(do: Callable[[], Value], accelerator: Accelerator) -> Value:
    """Return what ``do`` returns on the main process, in every process; if it fails, all of them fail."""
    from accelerate.utils import broadcast_object_list

    made: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            made = [do()]
        except Exception as error:  # of any kind: the others wait for this process
            made = [error if isinstance(error, VitftError) else VitftError(f"{type(error).__name__}: {error}")]
            made[0].__cause__ = error
    if accelerator.num_processes > 1:
        broadcast_object_list(made)
    if isinstance(made[0], VitftError):
        raise made[0]
    value: Value = made[0]
    return value

"""Keep a checkpoint's head, or part of it, when it was trained on the dataset's classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vitft.architectures.weights import find_key
from vitft.errors import ModelError, shorten
from vitft.names import is_placeholder
from vitft.outside import printable
from vitft.reading.words import alike
from vitft.recipe.choices import Head

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keep_head(
    wanted: Head,
    model: PreTrainedModel,
    state: Mapping[str, Tensor],
    head: Sequence[str],
    old: Sequence[str],
    classes: Sequence[str],
    named: str,
) -> tuple[int, str]:
    """Copy the checkpoint's head into a model for the classes that both have.

    With ``auto``, the head is kept only if the dataset has all of its classes: the same data again, or more classes.

    Args:
        wanted: the recipe's ``model.head``.
        model: its head is all zeros, for ``classes``.
        state: the checkpoint's tensors.
        head: names of the parameters whose shape depends on the number of classes.
        old: names of the checkpoint's classes, in order.
        classes: names of the dataset's classes, in order.
        named: the checkpoint as the user typed it.

    Returns:
        The number of classes whose part of the head was kept, and a sentence about it; 0 and "" for a new head.

    Raises:
        ModelError: if the recipe says ``keep`` and there is nothing to keep.
    """
    if wanted == "new":
        return 0, ""
    rows = match_classes(old, classes)
    keys = {name: find_key(model, name, state) for name in head}
    fitting = {name: key for name, key in keys.items() if key and state[key].shape[:1] == (len(old),)}
    is_whole = len(fitting) == len(head)
    if wanted == "auto" and (not is_whole or len(rows) < len(old)):
        return 0, ""
    if not is_whole or not rows:
        why = (
            f"it knows none of the classes {shorten([*map(printable, classes)])}" if is_whole else "it is not complete"
        )
        raise ModelError(
            f"model.head: keep, but the head of {named} cannot be kept: {why}",
            allowed="auto or new, or a checkpoint trained on some of these classes",
            hint="--set model.head=new",
        )
    with torch.no_grad():
        for name, key in fitting.items():
            parameter = model.get_parameter(name)
            parameter[list(rows)] = state[key][list(rows.values())].to(parameter.dtype)
    added = [printable(name) for place, name in enumerate(classes) if place not in rows]
    if added:
        said = f"head: kept for {len(rows)} classes of {named}; new and zero-initialised for {shorten(added)}"
    else:
        said = f"head: kept, as {named} was trained on these {len(rows)} classes (model.head=new makes a new one)"
    return len(rows), said


def match_classes(old: Sequence[str], new: Sequence[str]) -> dict[int, int]:
    """Return the index in ``old`` for each index in ``new`` with the same class name; placeholders match nothing.

    A name without an exact match may differ in case, spaces and separators, if only one name then matches.
    """
    exact: dict[str, list[int]] = {}
    loose: dict[str, list[int]] = {}
    for number, name in enumerate(old):
        if not is_placeholder(name):
            exact.setdefault(name, []).append(number)
            loose.setdefault(alike(name), []).append(number)
    found = {number: exact[name][0] for number, name in enumerate(new) if len(exact.get(name, ())) == 1}
    for number, name in enumerate(new):
        same = loose.get(alike(name), []) if name not in exact else []
        if len(same) == 1 and same[0] not in found.values():
            found[number] = same[0]
    return found

"""Read and write ``calibration.json`` beside a model: its temperature, and the scores before and after; no torch.

The weights do not include the temperature. It is applied only when asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitft.disk import write_whole
from vitft.errors import ModelError
from vitft.files import exists, is_file, is_folder, read_regular

NAME = "calibration.json"
_LONGEST = 1_000_000  # bytes
_SCORES = ("nll", "brier", "ece", "ece_equal_count")


def record(
    temperature: float, fitted_on: Mapping[str, Any], scored_on: Mapping[str, Any], before: Mapping[str, Any],
    after: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return what the file holds.

    Args:
        temperature: what to divide the logits by.
        fitted_on: ``dataset``, ``split`` and ``count`` of the images used for fitting.
        scored_on: the same for the images used for scoring.
        before: scores without the temperature, with ``intervals`` and ``reliability``.
        after: scores with it.
    """
    found = {"temperature": temperature, "fitted_on": dict(fitted_on), "scored_on": dict(scored_on)}
    for when, scores in (("before", before), ("after", after)):
        intervals = {name: scores["intervals"][name] for name in _SCORES}
        bins = {"equal_width": scores["reliability"]["equal_width"]}
        found[when] = {name: scores[name] for name in _SCORES} | {"intervals": intervals, "reliability": bins}
    return found


def write_calibration(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write the file, complete or not at all, and return its path.

    Raises:
        OSError: the system's own, if it cannot be written.
    """
    path = folder / NAME
    write_whole(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    return path


def read_calibration(folder: Path) -> dict[str, Any] | None:
    """Return the content of the file; None if there is none.

    Raises:
        ModelError: if it is damaged.
    """
    path = folder / NAME
    if not exists(path):
        return None
    try:
        content = json.loads(read_regular(path, _LONGEST))
        temperature = content["temperature"]
        if isinstance(temperature, bool) or not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"the temperature is {temperature!r}, not a positive number")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ModelError(f"{path} cannot be used: {error}", hint="delete it, then calibrate the model again") from error
    return dict(content)


def temperature_of(folder: Path, named: str) -> float:
    """Return the temperature of a model.

    Args:
        folder: of the model.
        named: the model as the user typed it.

    Raises:
        ModelError: if it has none, with the command that finds it.
    """
    content = read_calibration(folder)
    if content is None:
        raise ModelError(f"{named} is not calibrated: there is no {NAME} beside the model", hint=_command(named))
    return float(content["temperature"])


def _command(named: str) -> str:
    """Return the command that calibrates this model."""
    if is_file(Path(named) / "recipe.yaml"):
        return f"vitft evaluate {named} --calibrate"
    if is_folder(named):
        return f"vitft evaluate {named} DATASET --calibrate"
    return f"hf download {named} --local-dir FOLDER && vitft evaluate FOLDER DATASET --calibrate"

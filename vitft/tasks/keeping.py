"""Write what a command found into a new folder; nothing that exists is overwritten."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.disk import whole_folder
from vitft.errors import TrainError, UsageError
from vitft.files import at_home, exists

if TYPE_CHECKING:
    from vitft.scoring.predictions import Predictions


def new_folder(path: str | Path) -> Path:
    """Return a folder that is to be made; raise a UsageError if something is there already."""
    folder = at_home(path)
    if exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already exists and will not be overwritten", hint=f"-o {folder}-2")
    return folder


def keep_evaluation(
    folder: Path,
    split: str,
    scores: Mapping[str, Any],
    predictions: Predictions,
    classes: Sequence[str],
    source_of: Callable[[int], str],
) -> None:
    """Write ``scores.json`` and the predictions of a split, all or nothing.

    Args:
        folder: to be made.
        split: its name.
        scores, predictions: of the split.
        classes: names by id.
        source_of: returns the path or the name of a row's image.

    Raises:
        TrainError: if they cannot be written.
    """
    from vitft.scoring.predictions import file_name, write_predictions

    try:
        with whole_folder(folder) as partial:
            write_predictions(partial / file_name(split), predictions, classes, source_of)
            text = json.dumps(scores, indent=2, ensure_ascii=False)
            (partial / "scores.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainError(f"cannot write the scores to {folder}: {error}", hint="-o ANOTHER") from error

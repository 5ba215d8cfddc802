"""The predictions of a model on a split: in memory as arrays, on disk as a parquet file; no torch.

Shapes: N rows, in the order of the dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vitft.disk import flush
from vitft.errors import TrainError

if TYPE_CHECKING:
    import pyarrow as pa

BEST = 5
"""How many of the most probable classes are kept of each row; fewer where there are fewer classes."""
_ROW_GROUP = 1 << 16


@dataclass
class Predictions:
    """What a model said of each image of a split, about 80 bytes a row.

    Attributes:
        row: number of the image in its split, int64 (N,), rising.
        label, predicted: class ids, int32 (N,).
        p_label, p_predicted: probabilities of the two, float32 (N,).
        nll: negative log-likelihood of the label in nats, float32 (N,).
        brier: sum over the classes of (probability - target) squared, float32 (N,).
        entropy: of the probabilities in nats, float32 (N,).
        best: ids of the most probable classes, int32 (N, 5).
        p_best: their probabilities, float32 (N, 5).
    """

    row: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    p_label: np.ndarray
    p_predicted: np.ndarray
    nll: np.ndarray
    brier: np.ndarray
    entropy: np.ndarray
    best: np.ndarray
    p_best: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @property
    def is_correct(self) -> np.ndarray:
        """Whether the most probable class is the label, bool (N,)."""
        correct: np.ndarray = self.predicted == self.label
        return correct

    def take(self, rows: np.ndarray) -> Predictions:
        """Return some rows, by their places or a mask."""
        return Predictions(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Return the rows of all parts in the order of the dataset."""
        whole = cls(**{each.name: np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(cls)})
        is_in_order = bool(np.all(whole.row[1:] > whole.row[:-1]))  # of one process: no copy is needed
        return whole if is_in_order else whole.take(np.argsort(whole.row, kind="stable"))


def file_name(split: str) -> str:
    """Return the name of the file of a split's predictions."""
    return f"predictions-{split}.parquet"


def write_predictions(
    path: Path, predictions: Predictions, classes: Sequence[str], source_of: Callable[[int], str]
) -> None:
    """Write a parquet file, whole or not at all, in groups of 65,536 rows.

    Columns: ``row``, ``source``, ``label``, ``predicted``, ``p_label``, ``p_predicted``, ``nll``, ``brier``,
    ``entropy``, ``best`` (names of the most probable classes) and ``p_best``. Class ids become names; the ids stand in
    ``label_id`` and ``predicted_id``, since two classes may have one name.

    Args:
        path: of the file.
        predictions: of a split.
        classes: names by id.
        source_of: returns the path or the name of a row's image.

    Raises:
        TrainError: if it cannot be written.
    """
    import pyarrow.parquet as pq

    partial = path.with_name(f".{path.name}.partial")
    try:
        with pq.ParquetWriter(partial, _schema(), compression="zstd") as writer:
            for start in range(0, max(len(predictions), 1), _ROW_GROUP):
                part = predictions.take(np.arange(start, min(start + _ROW_GROUP, len(predictions))))
                writer.write_table(_table(part, classes, source_of))
        flush(partial)
        partial.replace(path)
    except OSError as error:
        raise TrainError(f"cannot write {path}: {error}", hint="make room on the disk") from error
    finally:
        partial.unlink(missing_ok=True)


def read_predictions(path: Path, classes: Sequence[str]) -> tuple[Predictions, list[str]]:
    """Return predictions and the sources of their images.

    Args:
        path: of a file that :func:`write_predictions` wrote.
        classes: names by id, for the most probable classes.

    Raises:
        ValueError, OSError: pyarrow's and numpy's own, if the file is another one, or damaged.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    ids = {name: number for number, name in reversed(list(enumerate(classes)))}
    names = table["best"].combine_chunks()
    flat = names.flatten().to_pylist() if len(table) else []
    width = len(flat) // len(table) if len(table) else 0
    plain = ("row", "p_label", "p_predicted", "nll", "brier", "entropy")
    found = Predictions(
        label=table["label_id"].to_numpy(),
        predicted=table["predicted_id"].to_numpy(),
        best=np.array([ids.get(name, -1) for name in flat], dtype=np.int32).reshape(len(table), width),
        p_best=table["p_best"].combine_chunks().flatten().to_numpy().reshape(len(table), width),
        **{name: table[name].to_numpy() for name in plain},
    )
    return found, table["source"].to_pylist()


def _schema() -> pa.Schema:
    import pyarrow as pa

    types: Mapping[str, Any] = {
        "row": pa.int64(), "source": pa.string(), "label": pa.string(), "predicted": pa.string(),
        "p_label": pa.float32(), "p_predicted": pa.float32(), "nll": pa.float32(), "brier": pa.float32(),
        "entropy": pa.float32(), "best": pa.list_(pa.string()), "p_best": pa.list_(pa.float32()),
        "label_id": pa.int32(), "predicted_id": pa.int32(),
    }  # fmt: skip
    return pa.schema(types.items())


def _table(part: Predictions, classes: Sequence[str], source_of: Callable[[int], str]) -> pa.Table:
    import pyarrow as pa

    names = pa.array(classes, pa.string())

    def named(ids: np.ndarray) -> pa.Array:
        return names.take(pa.array(ids))

    offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * part.best.shape[1])
    columns = {
        "row": part.row,
        "source": [source_of(int(row)) for row in part.row],
        "label": named(part.label),
        "predicted": named(part.predicted),
        **{name: getattr(part, name) for name in ("p_label", "p_predicted", "nll", "brier", "entropy")},
        "best": pa.ListArray.from_arrays(offsets, named(part.best.ravel())),
        "p_best": pa.ListArray.from_arrays(offsets, pa.array(part.p_best.ravel())),
        "label_id": part.label,
        "predicted_id": part.predicted,
    }
    return pa.table(columns, schema=_schema())

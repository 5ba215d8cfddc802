"""Read every row of a split exactly once over all processes, in batches, without padding or repeats."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from vitft.data.batches import Decoder, StagedBatch
from vitft.data.images import EncodedRow, ImageSplit, StreamSplit
from vitft.data.staged_store import StagedStore
from vitft.data.staging import MAX_PIXELS
from vitft.data.workers import loader

ImageProcess = Callable[[Image.Image], Tensor]
"""The steps of the model's image processor before normalisation: upright RGB -> uint8 (3, H, W)."""


def evaluation_batches(
    split: ImageSplit | StreamSplit,
    process: ImageProcess,
    *,
    batch_size: int,
    skip_bad: bool,
    workers: int,
    pin: bool = False,
    rank: int = 0,
    world_size: int = 1,
    max_pixels: int = MAX_PIXELS,
    kept: StagedStore | None = None,
) -> Iterator[StagedBatch]:
    """Yield this process's part of a split, with images at the model's size.

    With random access, the part is contiguous and ``workers`` processes stage it; if it has been ``kept``, this
    process reads it sooner than others start. In a stream, process i mod ``world_size`` reads row i.

    Raises:
        DataError: if an image cannot be used, unless ``skip_bad``.
    """
    decoder = Decoder(process, skip_bad, max_pixels, kept=kept)
    staged: Iterable[StagedBatch]
    if isinstance(split, StreamSplit):
        mine = (split.row(row, i) for i, row in enumerate(split.rows) if i % world_size == rank)
        parts = iter(lambda: list(itertools.islice(mine, batch_size)), [])
        staged = (_stage(decoder, rows) for rows in parts)
    else:
        first, last = len(split) * rank // world_size, len(split) * (rank + 1) // world_size
        starts = range(first, last, batch_size)
        if workers and kept is not None and kept.has_nearly_all(range(first, last)):
            workers = 0
        plan = (list(range(start, min(start + batch_size, last))) for start in starts)
        staged = loader(_Staging(split, decoder), plan, workers, pin=pin)
    for batch in staged:
        batch.raise_failure()
        yield batch


def _stage(decoder: Decoder, rows: Iterable[EncodedRow]) -> StagedBatch:
    return decoder.batch((row.index, (row,)) for row in rows)


class _Staging(Dataset[StagedBatch]):
    """Worker side: row numbers -> one batch."""

    def __init__(self, split: ImageSplit, decoder: Decoder) -> None:
        self.split, self.decoder = split, decoder

    def __getitems__(self, rows: list[int]) -> StagedBatch:
        return _stage(self.decoder, map(self.split.row, rows))

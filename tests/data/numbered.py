"""Images whose pixels are their own number, so that a batch tells which rows it holds."""

import io

import datasets
import numpy as np
import torch
from PIL import Image

from vitft.data.images import StreamSplit
from vitft.data.train_batches import StepSlices

N = 53
PAUSE = "SLEEP_TIME_ON_THREADS_SHUTDOWN"  # after a stream of Parquet files `datasets` waits five seconds for Arrow


def png(value: int, height: int = 6, width: int = 5) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def slices(rank=0, world_size=1, micro=4, batch_size=10, total=2 * N):
    return StepSlices(N, batch_size, micro, total, rank, world_size)


def rows_of(batch):
    return batch.images[:, 0, 0, 0].tolist()


def first_pixel(image):
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


class HastyStream(StreamSplit):
    """A stream whose reading process does not wait long at its end either."""

    def row(self, *arguments):
        setattr(datasets.config, PAUSE, 0.1)
        return super().row(*arguments)

"""`builtin:digits`: 1,797 handwritten digits of 8 x 8 pixels, for trying vitft without a network.

The test part of UCI's "Optical recognition of handwritten digits" (E. Alpaydin, C. Kaynak, 1998), which
scikit-learn ships.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

_NUM_TEST = 360


def load_digits() -> Any:
    """Return a DatasetDict with a fixed stratified split: 1,437 images in ``train``, 360 in ``test``.

    Columns are ``image`` (PNG bytes, grey, the source's 0..16 spread over 0..255) and ``label``.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
    from sklearn.datasets import load_digits as load_sklearn_digits

    source = load_sklearn_digits()
    pixels = np.rint(source.images * (255 / 16)).astype(np.uint8)  # (n, 8, 8), from 0..16
    labels = source.target.astype(np.int64)
    is_test = _stratified_test(labels)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})

    def rows(chosen: np.ndarray) -> Any:
        images = [{"bytes": _png(image), "path": None} for image in pixels[chosen]]
        return Dataset.from_dict({"image": images, "label": labels[chosen].tolist()}, features=features)

    return DatasetDict({"train": rows(~is_test), "test": rows(is_test)})


def _stratified_test(labels: np.ndarray) -> np.ndarray:
    """Mark about every fifth image of each class, 360 in all, shared out by largest remainders.

    Rows are ordered by writer, so taking every fifth spreads the writers over both splits. A random draw could
    change with a library's version.
    """
    counts = np.bincount(labels)
    quota = counts * _NUM_TEST // len(labels)
    remainder = counts * _NUM_TEST % len(labels)
    quota[np.argsort(-remainder, kind="stable")[: _NUM_TEST - quota.sum()]] += 1
    is_test = np.zeros(len(labels), dtype=bool)
    for digit, count in enumerate(quota):
        members = np.flatnonzero(labels == digit)
        is_test[members[np.arange(count) * len(members) // count]] = True
    return is_test


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()

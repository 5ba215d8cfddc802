"""Layouts that every version must read alike, and what is remembered of each reading."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILE = Path(__file__).with_name("golden_readings.json")


def bmp(value: int) -> bytes:
    """Return a BMP of 2 x 2 pixels: not compressed, so the same bytes with every version of Pillow."""
    pixels = bytes((value % 256, value // 256 % 256, value // 65536)) * 2 + b"\0\0"
    header = b"BM" + (70).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    info = (40).to_bytes(4, "little") + (2).to_bytes(4, "little") * 2 + (1).to_bytes(2, "little")
    return header + info + (24).to_bytes(2, "little") + bytes(24) + pixels * 2


def folder(root: Path, **counts: int) -> Path:
    """Write ``counts[place]`` images into each place, written with ``__`` for ``/``."""
    for number, (place, count) in enumerate(counts.items()):
        target = root / place.replace("__", "/")
        target.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (target / f"{index:02d}.bmp").write_bytes(bmp(100 * number + index))
    return root


def rows(labels: Sequence[Any], feature: Any, first: int = 0) -> datasets.Dataset:
    images = [{"bytes": bmp(first + index), "path": None} for index in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), "label": feature})
    return datasets.Dataset.from_dict({"image": images, "label": list(labels)}, features=features)


def _parquet(root: Path) -> Path:
    names = datasets.ClassLabel(names=["cat", "dog"])
    root.mkdir()
    rows([0, 1] * 5, names).to_parquet(root / "train-00000-of-00002.parquet")
    rows([1, 1, 0], names, 50).to_parquet(root / "train-00001-of-00002.parquet")
    rows([1, 0], names, 100).to_parquet(root / "test-00000-of-00001.parquet")
    return root


def _plain_parquet(root: Path) -> Path:
    root.mkdir()
    images = [{"bytes": bmp(index), "path": None} for index in range(12)]
    pq.write_table(pa.table({"photo": images, "species": ["b", "a"] * 6}), root / "photos.parquet")
    return root / "photos.parquet"


def _table(root: Path, suffix: str) -> Path:
    folder(root, images=12)
    kinds = ["NA", "None", "x y"] * 4
    if suffix == "csv":
        lines = ["file,kind", *(f"images/{index:02d}.bmp,{kind}" for index, kind in enumerate(kinds))]
    else:
        lines = [json.dumps({"file": f"images/{i:02d}.bmp", "kind": kind}) for i, kind in enumerate(kinds)]
    (root / f"train.{suffix}").write_text("\n".join(lines) + "\n")
    return root


def _integers(root: Path) -> Path:
    folder(root, images=12)
    lines = ["file,label", *(f"images/{index:02d}.bmp,{[10, 9, 100][index % 3]}" for index in range(12))]
    (root / "all.csv").write_text("\n".join(lines) + "\n")
    return root


def _metadata(root: Path) -> Path:
    folder(root, train=8, test=4)
    for split, count in (("train", 8), ("test", 4)):
        lines = ["file_name,label", *(f"{index:02d}.bmp,{'ab'[index % 2]}" for index in range(count))]
        (root / split / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


def _tars(root: Path) -> Path:
    root.mkdir()
    for name, labels, first in (("train-0", [7, 3, 3, 7, 3, 7], 0), ("val-0", [3, 7], 50)):
        with tarfile.open(root / f"{name}.tar", "w") as tar:
            for index, label in enumerate(labels):
                for suffix, content in (("bmp", bmp(first + index)), ("cls", str(label).encode())):
                    info = tarfile.TarInfo(f"{index:04d}.{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    return root


def _saved(root: Path) -> Path:
    names = datasets.ClassLabel(names=["cat", "dog"])
    splits = {"train": rows([0, 1] * 6, names), "dev": rows([1, 0], names, 50), "test": rows([1], names, 80)}
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return root


def _saved_alone(root: Path) -> Path:
    rows([10, 9, 100] * 4, datasets.Value("int64")).save_to_disk(str(root))
    return root


def _with_strays(root: Path) -> Path:
    folder(root, a=6, b=6, b__more=2, **{".cache": 2})
    (root / "notes.txt").write_text("nothing")
    (root / "sizes.csv").write_text("name,size\na,1\nb,2\n")
    return root


LAYOUTS: dict[str, Callable[[Path], Path | str]] = {
    "digits": lambda _: "builtin:digits",
    "class folders": lambda root: folder(root, dog=10, cat=20),
    "split folders": lambda root: folder(
        root, Training__a=4, Training__b=4, val__a=2, val__b=2, testing__a=3, testing__b=3
    ),
    "a class called test": lambda root: folder(root, test=6, control=6),
    "a wrapping folder": lambda root: folder(root, flowers__a=6, flowers__b=6),
    "an unlabelled test split": lambda root: folder(root, train__a=6, train__b=6, test=3),
    "a single image": lambda root: folder(root, a=10, b=10, rare=1),
    "strays and deeper folders": _with_strays,
    "parquet shards": _parquet,
    "parquet without metadata": _plain_parquet,
    "csv": lambda root: _table(root, "csv"),
    "jsonl": lambda root: _table(root, "jsonl"),
    "integers in a csv": _integers,
    "metadata in each split": _metadata,
    "webdataset": _tars,
    "saved splits": _saved,
    "saved alone": _saved_alone,
}


def remembered(source: Any) -> dict[str, Any]:
    """Return what must not change of a reading."""
    splits = {}
    for role in ("train", "validation", "test"):
        split = getattr(source, role)
        if split is not None:
            counts = np.bincount(split.labels, minlength=len(source.classes)).tolist()
            splits[role] = {"counts": counts, "rows": split.source_rows.tolist(), "labels": split.labels.tolist()}
            if len(split) > 100:
                splits[role] = {"counts": counts}
    return {"fingerprint": source.fingerprint, "classes": list(source.classes), "splits": splits}

"""Any folder is read or refused: never another exception, never an image in two splits, never one lost unsaid.

Trees and tables are drawn from the words that mean something to the reading. ``VITFT_SLOW=1`` tries more of them.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
from golden import bmp
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from vitft.errors import VitftError
from vitft.reading.columns import is_image_name
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe

IS_LONG = os.environ.get("VITFT_SLOW") == "1"

SPLITS = (
    "train",
    "val",
    "test",
    "Train Set",
    "seg_train",
    "seg_test",
    "train_images",
    "validation",
    "test2017",
    "fold1",
)
CLASSES = ("cat", "dog", "fox", "Cat", "0", "1", "10", "007", "True")
ROLES = ("images", "masks", "labels", "annotations", "data", "extra", "full", "thumbs")
ODD = ("café", "cafe\u0301", "a b", " cat", "__MACOSX", ".hidden", "-x", "猫", "x.jpg", "50%", "a,b", "line\nbreak")
STEMS = ("0", "1", "2", "10", "img_1", "cat.1", "train_1", "X", "X_mask", "é", "e\u0301", ".thumb", "a b")
IMAGES = (".jpg", ".png", ".JPG", ".bmp", ".tif")
OTHERS = (".heic", ".txt", ".xml", "", ".mat", ".json", ".npy")
TABLES = (
    "labels.csv", "train.csv", "test.csv", "val.tsv", "metadata.csv", "metadata.jsonl", "train.txt", "list.txt",
    "sample_submission.csv", "labels.json", "train_test_split.txt", "_classes.csv",
)  # fmt: skip
FILE_COLUMNS = ("file", "file_name", "id", "image_id", "path", "Image Index", "x")
COLUMNS = ("label", "class", "split", "fold", "is_train", "width", "cat", "dog", "caption", "age", "label_id", "")
VALUES = (*CLASSES[:6], "train", "test", "val", "0.5", "-1", "-100", "", "a|b", "cat ", "300", "NaN", "1.0")


@dataclass(frozen=True)
class Tree:
    """Image files with their content (equal numbers: equal bytes), other files, and tables."""

    images: Mapping[str, int]
    others: tuple[str, ...]
    tables: Mapping[str, bytes]
    link: tuple[str, str] | None


WORDS = st.sampled_from(CLASSES[:3]) | st.sampled_from(SPLITS) | st.sampled_from(ROLES) | st.sampled_from(CLASSES + ODD)


@st.composite
def _folders(draw: st.DrawFn) -> list[str]:
    """Draw folders as people arrange them, levels of words under each other, and a few more without any order."""
    usual = [("classes",), ("splits", "classes"), ("one", "splits", "classes"), ("classes", "splits"), ("splits",)]
    levels = draw(st.sampled_from(usual) | st.lists(st.sampled_from(("splits", "classes", "roles", "one")), max_size=3))
    paths = [""]
    for level in levels:
        words = {"splits": SPLITS, "classes": CLASSES, "roles": ROLES, "one": ROLES + ODD}[level]
        number = {"min_size": 1, "max_size": 1} if level == "one" else {"min_size": 2, "max_size": 3}
        chosen = draw(st.lists(st.sampled_from(words[:3] if draw(st.booleans()) else words), unique=True, **number))
        paths = [f"{path}/{word}".lstrip("/") for path in paths for word in chosen]
    strays = draw(st.just([]) | st.lists(st.lists(WORDS, max_size=3).map("/".join), max_size=2))
    return list(dict.fromkeys([*paths[:8], *strays]))


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    folders = draw(_folders())
    images: dict[str, int] = {}
    for folder in folders:
        for stem in draw(st.lists(st.sampled_from(STEMS), min_size=draw(st.integers(0, 3)), max_size=4, unique=True)):
            if len(images) < 24:
                number = len(images)
                is_copy = number and draw(st.integers(0, 19)) == 0
                path = f"{folder}/{stem}{draw(st.sampled_from(IMAGES))}".lstrip("/")
                images[path] = draw(st.integers(0, number - 1)) if is_copy else number
    others = []
    for _ in range(draw(st.integers(0, 3))):
        stem, suffix = draw(st.sampled_from(STEMS)), draw(st.sampled_from(OTHERS))
        others.append(f"{draw(st.sampled_from(folders))}/{stem}{suffix}".lstrip("/"))
    tables = {}
    for name in draw(st.just([]) | st.lists(st.sampled_from(TABLES), max_size=3, unique=True)):
        folder = draw(st.sampled_from(["", "", *folders]))
        tables[f"{folder}/{name}".lstrip("/")] = draw(_table(name, sorted(images)))
    link = None
    if draw(st.integers(0, 7)) == 0:
        link = (draw(WORDS), draw(st.sampled_from([*filter(None, folders), "."])))
    return Tree(images, tuple(others), tables, link)


@st.composite
def _table(draw: st.DrawFn, name: str, paths: Sequence[str]) -> bytes:
    spelling = draw(st.sampled_from(("path", "name", "stem", "windows", "inner")))
    chosen = draw(st.lists(st.sampled_from(paths), max_size=20)) if paths and draw(st.booleans()) else list(paths)
    chosen += ["gone.jpg"] * (draw(st.integers(0, 5)) == 0)
    spelled = [_spelled(path, spelling) for path in chosen]
    columns = draw(st.lists(st.sampled_from(COLUMNS), max_size=3))
    parts: list[Sequence[str]] = []
    for column in columns:
        if draw(st.booleans()):  # a column that means what its name says
            parts.append([_sensible(column, path) for path in chosen])
        else:
            few = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=3))
            parts.append([few[draw(st.integers(0, len(few) - 1))] for _ in chosen])
    head = [draw(st.sampled_from(FILE_COLUMNS)), *columns]
    rows = [[path, *(part[index] for part in parts)] for index, path in enumerate(spelled)]
    if name.endswith(".jsonl"):
        text = "\n".join(json.dumps(dict(zip(head, row, strict=True))) for row in rows)
    elif name.endswith(".json"):
        records = [dict(zip(head, row, strict=True)) for row in rows]
        text = json.dumps(records if draw(st.booleans()) else {row[0]: row[-1] for row in rows})
    else:
        sep = " " if name.endswith(".txt") else "\t" if name.endswith(".tsv") else draw(st.sampled_from(",;\t|"))
        lines = rows if name.endswith(".txt") or draw(st.integers(0, 7)) == 0 else [head, *rows]
        text = "\n".join(sep.join(line) for line in lines) + draw(st.sampled_from(("\n", "", "\n\n")))
    encoding = draw(st.sampled_from(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1")))
    return text.encode(encoding, errors="replace")


def _spelled(path: str, spelling: str) -> str:
    name = path.rsplit("/", 1)[-1]
    if spelling == "stem":
        return name.rsplit(".", 1)[0]
    if spelling == "inner":
        return path.split("/", 1)[-1]
    return {"path": path, "name": name, "windows": "C:\\data\\" + path.replace("/", "\\")}[spelling]


def _sensible(column: str, path: str) -> str:
    above = path.split("/")[:-1] or ["cat"]
    if column in ("split", "fold", "is_train"):
        is_test = "test" in path
        return {"split": "test" if is_test else "train", "fold": "1", "is_train": str(not is_test)}[column]
    if column in ("cat", "dog"):
        return str(int(column in above))
    return above[-1] if column in ("label", "class") else str(len(path))


@pytest.fixture(scope="module", autouse=True)
def _no_hub_and_a_cache_of_its_own() -> Any:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a local source went to the network")

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as cache:
        patch.setattr("huggingface_hub.HfApi.dataset_info", forbidden)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", Path(cache))
        yield


ASKED = st.fixed_dictionaries(
    {},
    optional={
        "layout": st.sampled_from(("folders", "table")),
        "class_level": st.integers(1, 3),
        "bad_images": st.just("skip"),
        "accept_classes": st.just(True),
        "similar_names": st.sampled_from(("merge", "keep")),
        "split_column": st.sampled_from(("none", "split")),
    },
)


@settings(
    max_examples=5_000 if IS_LONG else 200,
    deadline=None,
    derandomize=not IS_LONG,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    tree=trees(),
    asked=st.just({}) | st.just({"accept_classes": True, "similar_names": "keep", "bad_images": "skip"}) | ASKED,
)
@pytest.mark.timeout(3_600)
def test_a_random_tree_is_read_whole_or_refused(tree: Tree, asked: dict[str, Any]) -> None:
    root = Path(tempfile.mkdtemp()) / "root"
    try:
        _write(tree, root)
        try:
            source = open_source(DataRecipe(dataset=str(root), **asked), seed=0)
        except VitftError as error:
            assert error.wrong.strip()
            event("refused")
            return
        event("read")
        _check(source, tree, root)
    finally:
        shutil.rmtree(root.parent)


def _write(tree: Tree, root: Path) -> None:
    root.mkdir()
    contents = {**{path: bmp(value) for path, value in tree.images.items()}, **dict.fromkeys(tree.others, b"x")}
    for path, content in {**contents, **tree.tables}.items():
        file = root / path
        if any(parent.is_file() for parent in file.parents) or file.is_dir():
            continue  # "x.jpg" is a folder here and a file there
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    if tree.link is not None and not (root / tree.link[0]).exists():
        (root / tree.link[0]).symlink_to(tree.link[1])


def _check(source: Any, tree: Tree, root: Path) -> None:
    places: dict[str, tuple[str, ...]] = {}  # real path -> the splits it is in; carved validation is another split
    num_rows = 0
    for role in ("train", "validation", "test"):
        split = getattr(source, role)
        if split is None:
            continue
        assert len(split) == len(split.labels) == len(split.source_rows) and split.source_rows.max() < len(split.rows)
        assert len(split) == 0 or 0 <= split.labels.min() <= split.labels.max() < len(source.classes)
        for index in range(len(split)):
            path = split.encoded(index)
            assert isinstance(path, str)
            assert Path(path).is_file(), path
            real = os.path.realpath(path)
            places[real] = (*places.get(real, ()), role)
            num_rows += 1
    assert not {path: roles for path, roles in places.items() if len(set(roles)) > 1}
    contents: dict[bytes, set[str]] = {}
    for path, roles in places.items():
        contents.setdefault(Path(path).read_bytes(), set()).update(roles)
    is_carved = source.validation is not None and source.validation.source_name == source.train.source_name
    for roles in contents.values():
        assert len(roles - {"validation"} if is_carved else roles) <= 1, "the same bytes in two splits"
    num_left_out = sum(source.left_out.values())
    assert all(reason and number > 0 for reason, number in source.left_out.items())
    # Each file is either in a split or counted; what lies in hidden folders need not be counted.
    visible, hidden = _image_files(root)
    told = (visible, hidden, num_rows, source.left_out, source.notes)
    assert num_rows + num_left_out >= visible, told
    if tree.link is None:  # else a file may have several names
        assert num_rows + num_left_out <= visible + hidden, told
    for reason, number in source.left_out.items():
        assert any(f"{number:,}" in note for note in source.notes), f"{reason}: {number} in no note: {source.notes}"


def _image_files(root: Path) -> tuple[int, int]:
    """Return how many image files there are, and how many more in hidden folders; links are not followed."""
    visible, hidden = 0, 0
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not (Path(folder) / name).is_symlink()]
        number = sum(map(is_image_name, files))
        inside = Path(folder).relative_to(root).parts
        if any(part.startswith((".", "__MACOSX")) for part in inside):
            hidden += number
        else:
            visible += number
    return visible, hidden

from __future__ import annotations

import csv
import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitft.data.images import ImageSource, ImageSplit, StreamSplit
from vitft.errors import DataError
from vitft.reading import fingerprint
from vitft.reading.formats import split_of
from vitft.reading.source import open_for_evaluation, open_source
from vitft.recipe.keys import DataRecipe


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value % 256, value // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root: Path, counts: dict[str, int]) -> Path:
    for number, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / folder / f"{index}.png").write_bytes(png(100 * number + index))
    return root


def rows_of(labels: Sequence[Any], feature: Any = None, *, label: str = "label") -> datasets.Dataset:
    feature = feature or datasets.ClassLabel(names=["cat", "dog"])
    images = [{"bytes": png(index), "path": None} for index in range(len(labels))]
    features = datasets.Features({"image": datasets.Image(), label: feature})
    return datasets.Dataset.from_dict({"image": images, label: list(labels)}, features=features)


def renumbered(rows: datasets.Dataset, first: int) -> datasets.Dataset:
    """Return rows with other images, so that no image is in two splits."""
    images = [{"bytes": png(first + index), "path": None} for index in range(len(rows))]
    return (
        rows.remove_columns("image")
        .add_column("image", images, feature=datasets.Image())
        .select_columns(rows.column_names)
    )


def save(root: Path, **splits: datasets.Dataset) -> str:
    apart = {
        name: renumbered(rows, 1000 * number) if number and "image" in rows.column_names and len(rows) else rows
        for number, (name, rows) in enumerate(splits.items())
    }
    datasets.DatasetDict(apart).save_to_disk(str(root))
    return str(root)


def emptied(root: str) -> str:
    """Make the split train what datasets saves of one without rows; datasets 5.0 cannot save such a split."""
    state = Path(root) / "train" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_data_files": []}))
    return root


def opened(dataset: object, *, seed: int = 0, **keys: Any) -> ImageSource:
    return open_source(DataRecipe(dataset=str(dataset), **keys), seed=seed)


def names(split: ImageSplit | StreamSplit | None, source: ImageSource) -> list[str]:
    assert isinstance(split, ImageSplit)
    return [source.classes[index] for index in split.labels]


def note(source: ImageSource, words: str) -> str:
    found = [line for line in source.notes if words in line]
    assert found, source.notes
    return found[0]


# --- kinds of sources --------------------------------------------------------------------------------------


def test_digits_open_with_a_carved_validation() -> None:
    source = opened("builtin:digits")
    assert isinstance(source.train, ImageSplit) and source.validation is not None and source.test is not None
    assert (len(source.train), len(source.validation), len(source.test)) == (1293, 144, 360)  # type: ignore[arg-type]
    assert source.classes == tuple("0123456789") and source.id == "builtin:digits"


def test_class_folders_become_sorted_classes_and_paths(tmp_path: Path) -> None:
    source = opened(write_folder(tmp_path / "photos", {"dog": 10, "cat": 20}))
    assert source.classes == ("cat", "dog") and source.test is None
    split = source.train
    assert isinstance(split, ImageSplit)
    for index in range(len(split)):
        path = split.encoded(index)
        assert isinstance(path, str) and Path(path).parent.name == source.classes[split.labels[index]]


def test_split_folders_are_found_by_their_synonyms(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "p", {f"{s}/{c}": 3 for s in ("Training", "val", "testing") for c in "ab"})
    source = opened(root)
    assert [len(split) for split in (source.train, source.validation, source.test)] == [6, 6, 6]  # type: ignore[arg-type]


def test_a_class_named_test_is_no_split(tmp_path: Path) -> None:
    assert opened(write_folder(tmp_path / "p", {"test": 4, "control": 4})).classes == ("control", "test")


def test_a_wrapping_folder_is_passed_through_with_a_note(tmp_path: Path) -> None:
    source = opened(write_folder(tmp_path / "p", {"flowers/a": 4, "flowers/b": 4}))
    assert source.classes == ("a", "b")
    note(source, "flowers, which only wraps")


def test_hidden_and_other_files_are_left_out_and_counted_but_broken_images_are_not(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "p", {"a": 4, "b": 4})
    (root / "a" / ".hidden.png").write_bytes(b"x")
    (root / "a" / "notes.txt").write_bytes(b"x")
    (root / "a" / "broken.png").write_bytes(b"no image")
    source = opened(root, check_images="off")
    assert len(source.train) + len(source.validation) == 9  # type: ignore[arg-type]
    note(source, "1 file without an image suffix")


def test_flat_test_images_make_an_unlabelled_split_that_is_left_out(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "p", {"train/a": 4, "train/b": 4, "test": 3})
    source = opened(root)
    assert source.test is None
    note(source, "test: test was left out")


def test_parquet_shards_use_the_class_names_in_their_metadata(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    rows_of([0, 1] * 5).to_parquet(tmp_path / "p" / "train-00000-of-00002.parquet")
    renumbered(rows_of([1, 1, 0]), 50).to_parquet(tmp_path / "p" / "train-00001-of-00002.parquet")
    renumbered(rows_of([1, 0]), 100).to_parquet(tmp_path / "p" / "test-00000-of-00001.parquet")
    source = opened(tmp_path / "p")
    assert source.classes == ("cat", "dog")
    assert len(source.train) + len(source.validation) == 13  # type: ignore[arg-type]
    assert names(source.test, source) == ["dog", "cat"]


def test_parquet_without_metadata_is_read_by_content(tmp_path: Path) -> None:
    images = [{"bytes": png(index), "path": None} for index in range(6)]
    pq.write_table(pa.table({"photo": images, "species": ["b", "a"] * 3}), tmp_path / "structs.parquet")
    pq.write_table(pa.table({"raw": [png(i) for i in range(6)], "species": ["b", "a"] * 3}), tmp_path / "raw.parquet")
    for file, column in (("structs", "photo"), ("raw", "raw")):
        source = opened(tmp_path / f"{file}.parquet")
        assert isinstance(source.train, ImageSplit) and source.train.image_columns == (column,)
        assert source.train.encoded(0) == png(int(source.train.source_rows[0])) and source.classes == (
            "a",
            "b",
        )


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_tables_name_images_relative_to_themselves(tmp_path: Path, kind: str) -> None:
    root = write_folder(tmp_path / "p", {"images": 8})
    rows = [{"file": f"images/{index}.png", "kind": ["NA", "None"][index % 2]} for index in range(8)]
    with (root / f"train.{kind}").open("w", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, ["file", "kind"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    for dataset in (root, root / f"train.{kind}"):
        source = opened(dataset)
        assert source.classes == ("NA", "None")  # words that pandas takes for gaps
        assert isinstance(source.train, ImageSplit)
        row = source.train.source_rows[0]
        assert source.train.encoded(0) == str(root / "images" / f"{row}.png")


def test_a_table_that_names_no_images_does_not_hide_class_folders(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "p", {"a": 4, "b": 4})
    (root / "sizes.csv").write_text("name,size\na,1\nb,2\n")
    source = opened(root)
    assert source.classes == ("a", "b")
    note(source, "sizes.csv was left out")


def write_tar(path: Path, labels: Sequence[int]) -> None:
    with tarfile.open(path, "w") as tar:
        for index, label in enumerate(labels):
            for suffix, content in (("png", png(index)), ("cls", str(label).encode())):
                info = tarfile.TarInfo(f"{index:04d}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def test_webdataset_tars_open(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    write_tar(tmp_path / "w" / "train-0.tar", [7, 3, 3, 7, 3, 7])
    source = opened(tmp_path / "w")
    assert source.classes == ("3", "7") and isinstance(source.train, ImageSplit)
    assert source.train.image_columns == ("image",) and isinstance(source.train.encoded(0), bytes)


def test_saved_datasets_open_with_and_without_splits(tmp_path: Path) -> None:
    rows_of([0, 1] * 4).save_to_disk(str(tmp_path / "one"))
    save(tmp_path / "two", train=rows_of([0, 1] * 4), dev=rows_of([0, 1]), test=rows_of([1]))
    assert opened(tmp_path / "one").classes == ("cat", "dog")
    source = opened(tmp_path / "two")
    assert names(source.validation, source) == ["cat", "dog"] and names(source.test, source) == ["dog"]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00004.parquet", "train"), ("val/0.csv", "validation"), ("x_test.csv", "test"),
        ("photos.csv", "train"), ("extra-00000-of-00001.parquet", "extra"), ("contest.csv", "train"),
    ],
)  # fmt: skip
def test_split_of_a_data_file(path: str, split: str) -> None:
    assert split_of(path) == split


# --- the Hub, without it -----------------------------------------------------------------------------------


def test_an_unknown_id_is_an_error_at_once_when_the_hub_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", _unreachable)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("it would try for half a minute"))
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(DataError, match="cannot reach"):
        opened("owner/unknown")


def test_an_unknown_id_is_an_error_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE"):
        opened("owner/unknown")


def test_a_cached_dataset_opens_by_its_old_name_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    rows_of([0, 1] * 6).to_parquet(tmp_path / "x.parquet")
    built = datasets.load_dataset("parquet", data_files=str(tmp_path / "x.parquet"), split="train")
    folder = Path(built.cache_files[0]["filename"]).parent
    place = tmp_path / "cache" / "uoft-cs___cifar100" / "default" / "0.0.0" / commit
    shutil.copytree(folder, place)
    (place / "parquet-train.arrow").rename(place / "cifar100-train.arrow")
    info = json.loads((place / "dataset_info.json").read_text())
    (place / "dataset_info.json").write_text(json.dumps({**info, "config_name": "default", "dataset_name": "cifar100"}))
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    source = opened("cifar100")
    assert (source.id, source.revision) == ("uoft-cs/cifar100", commit)
    assert source.fingerprint == opened(tmp_path / "x.parquet").fingerprint
    with pytest.raises(DataError, match=f"has commit {commit}"):
        opened("cifar100", revision="f" * 40)


def test_several_configurations_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ValueError("BuilderConfig 'smal' not found. Available: ['small', 'large']")

    info = type("Info", (), {"id": "owner/name", "sha": "c0ffee"})
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: info)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(DataError, match=r"no configuration 'smal'\n  allowed: small, large\n.*data.config=small"):
        opened("owner/name", config="smal")


def _unreachable(*_: object, **__: object) -> None:
    raise ConnectionError("no route to host")


# --- columns and labels ------------------------------------------------------------------------------------


def two_labels(**splits: int) -> dict[str, datasets.Dataset]:
    fine, coarse = datasets.ClassLabel(names=["a", "b", "c"]), datasets.ClassLabel(names=["x", "y"])
    return {
        name: rows_of([i % 2 for i in range(n)], coarse, label="coarse").add_column(
            "fine", [i % 3 for i in range(n)], feature=fine
        )
        for name, n in splits.items()
    }


def test_the_label_with_most_classes_is_taken_and_the_other_named(tmp_path: Path) -> None:
    path = save(tmp_path / "d", **two_labels(train=30))
    source = opened(path)
    assert source.classes == ("a", "b", "c")
    assert "not used: coarse (2); to switch: --set data.label_column=coarse" in note(source, "most classes (3)")
    assert opened(path, label_column="coarse").classes == ("x", "y")


def test_integer_labels_are_ordered_as_numbers(tmp_path: Path) -> None:
    path = save(tmp_path / "d", train=rows_of([10, 9, 100] * 4, datasets.Value("int64")))
    source = opened(path)
    assert source.classes == ("9", "10", "100")
    assert isinstance(source.train, ImageSplit)
    original = np.array([10, 9, 100] * 4)[source.train.source_rows]
    assert [int(name) for name in names(source.train, source)] == original.tolist()


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"label_column": "lable"}, "did you mean 'label'"),
        ({"image_column": "img"}, "image .Image."),
        ({"image_column": "label"}, "holds no images"),
        ({"train_split": "trian"}, "did you mean 'train'"),
        ({"validation_split": "train", "train_split": "train"}, "train and validation"),
        ({"revision": "main"}, "does not apply"),
        ({"streaming": True}, "cannot be streamed"),
    ],
)
def test_wrong_names_are_answered_with_what_there_is(keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        opened("builtin:digits", **keys)


@pytest.mark.parametrize(
    ("labels", "feature", "expected"),
    [
        ([0, 1, None, -1, 0], None, r"2 of 5 rows of train have no label .*: rows 2, 3"),
        (["a", "", "b", "a"], datasets.Value("string"), r"1 of 4 rows .*: rows 1"),
        ([1, 1, 1], None, "all 3 training images have the same label, 'dog'"),
        ([None, None], None, "no row of train has a label"),
        ([[0], [0, 1]], datasets.List(datasets.ClassLabel(names=["a", "b"])), "several labels per image"),
        ([0.5, 1.5], datasets.Value("float32"), "no label column"),
        ([f"id{i}" for i in range(20)], datasets.Value("string"), "its own label"),
    ],
)
def test_labels_that_cannot_train_are_errors(tmp_path: Path, labels: list[Any], feature: Any, expected: str) -> None:
    path = save(tmp_path / "d", train=rows_of(labels, feature))
    with pytest.raises(DataError, match=expected):
        opened(path)


def test_empty_splits_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train is empty"):
        opened(emptied(save(tmp_path / "a", train=rows_of([0, 1]))))
    (tmp_path / "b").mkdir()
    rows_of([0, 1]).to_parquet(tmp_path / "b" / "train.parquet")
    pq.ParquetWriter(tmp_path / "b" / "test.parquet", pq.read_schema(tmp_path / "b" / "train.parquet")).close()
    with pytest.raises(DataError, match=r"the split test of .* is empty: no row in test.parquet"):
        opened(tmp_path / "b")


def test_missing_columns_are_errors_that_list_the_columns(tmp_path: Path) -> None:
    no_image = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    no_label = rows_of([0, 1]).remove_columns("label")
    with pytest.raises(DataError, match=r"no image column(.|\n)*text \(string\), label \(int64\)"):
        opened(save(tmp_path / "a", train=no_image))
    with pytest.raises(DataError, match=r"no label column(.|\n)*image \(Image\)"):
        opened(save(tmp_path / "b", train=no_label))


def test_paths_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,label\ngone.jpg,a\nlost.jpg,b\n")
    with pytest.raises(DataError, match=r"such as gone\.jpg, but there is no such file"):
        opened(tmp_path / "t.csv")


def test_validation_classes_that_train_lacks_are_named(tmp_path: Path) -> None:
    three = datasets.ClassLabel(names=["cat", "dog", "eel"])
    declared = save(tmp_path / "a", train=rows_of([0, 1, 0], three), validation=rows_of([0, 2], three))
    text = datasets.Value("string")
    written = save(tmp_path / "b", train=rows_of(["cat", "dog"], text), validation=rows_of(["eel"], text))
    for path in (declared, written):
        with pytest.raises(DataError, match=r"validation has classes without an image in train: eel\n"):
            opened(path)


def test_splits_with_other_label_orders_agree_by_name(tmp_path: Path) -> None:
    text = datasets.Value("string")
    path = save(tmp_path / "d", train=rows_of(["b", "c", "a"] * 2, text), validation=rows_of(["c", "b"], text))
    source = opened(path)
    assert names(source.validation, source) == ["c", "b"]


def test_an_unlabelled_split_is_left_out_with_a_note(tmp_path: Path) -> None:
    path = save(tmp_path / "d", train=rows_of([0, 1] * 5), validation=rows_of([-1, -1]), test=rows_of([-1] * 3))
    source = opened(path)
    assert source.test is None and len(source.validation) == 2  # type: ignore[arg-type]  # carved, one of each class
    note(source, "test was left out, because none of its 3 rows has a label")


# --- carving, limits and the fingerprint -------------------------------------------------------------------


def test_single_images_stay_in_training_with_a_note(tmp_path: Path) -> None:
    source = opened(write_folder(tmp_path / "p", {"a": 10, "b": 10, "rare": 1}))
    assert "rare" in names(source.train, source) and "rare" not in names(source.validation, source)
    assert note(source, "one image").endswith("rare")


def test_max_train_samples_leaves_validation_alone(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "p", {"a": 30, "b": 30})
    whole, part = opened(root), opened(root, max_train_samples=10)
    assert isinstance(part.train, ImageSplit) and np.bincount(part.train.labels).tolist() == [5, 5]
    assert isinstance(whole.validation, ImageSplit) and isinstance(part.validation, ImageSplit)
    assert np.array_equal(whole.validation.source_rows, part.validation.source_rows)
    assert whole.fingerprint != part.fingerprint


def test_rows_are_named_by_their_place_in_the_source(tmp_path: Path) -> None:
    source = opened(write_folder(tmp_path / "p", {"a": 30, "b": 30}))
    split = source.validation
    assert isinstance(split, ImageSplit)
    path = str(split.encoded(0))
    assert split.where(0) == f"row {split.source_rows[0]} of train (a/{Path(path).name})"


def test_the_fingerprint_is_the_same_wherever_the_data_lie(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "p", {"a": 6, "b": 6})
    shutil.copytree(first, tmp_path / "elsewhere" / "q")
    assert opened(first).fingerprint == opened(tmp_path / "elsewhere" / "q").fingerprint
    rows = rows_of([0, 1] * 6)
    rows.to_parquet(tmp_path / "x.parquet")
    (tmp_path / "y").mkdir()
    rows.to_parquet(tmp_path / "y" / "x.parquet", batch_size=3)  # other row groups, other chunks in memory
    assert opened(tmp_path / "x.parquet").fingerprint == opened(tmp_path / "y" / "x.parquet").fingerprint


@pytest.mark.parametrize("many", [fingerprint._MANY_ROWS, 5])
@pytest.mark.parametrize("change", ["label", "image", "order", "row", "classes"])
def test_the_fingerprint_follows_the_data(
    tmp_path: Path, change: str, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_MANY_ROWS", many)
    rows = rows_of([0, 1] * 6)
    other = {
        "label": lambda: rows_of([1, 0] + [0, 1] * 5),
        "image": lambda: rows.map(
            lambda row, i: {"image": {"bytes": png(i + (i == 4)), "path": None}}, with_indices=True
        ),
        "order": lambda: rows.select([2, 1, 0, *range(3, 12)]),
        "row": lambda: rows.select(range(11)),
        "classes": lambda: rows_of([0, 1] * 6, datasets.ClassLabel(names=["cat", "fox"])),
    }[change]()
    first, second = opened(save(tmp_path / "a", train=rows)), opened(save(tmp_path / "b", train=other))
    assert first.fingerprint != second.fingerprint


def test_a_split_can_be_sent_to_another_process(tmp_path: Path) -> None:
    source = opened(save(tmp_path / "d", train=rows_of([0, 1] * 6)))
    split = source.train
    assert isinstance(split, ImageSplit)
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        there = list(pool.map(split.encoded, range(len(split))))
    assert there == [split.encoded(i) for i in range(len(split))]
    assert [split.encoded(i) for i in range(len(split))] == [png(int(row)) for row in split.source_rows]


# --- evaluation --------------------------------------------------------------------------------------------


def test_evaluation_translates_labels_by_class_name(tmp_path: Path) -> None:
    path = save(tmp_path / "d", train=rows_of([0, 1]), test=rows_of([0, 1, 1]))
    split = open_for_evaluation(DataRecipe(dataset=path), ["dog", "eel", "cat"], split=None)
    assert split.name == "test" and split.labels.tolist() == [2, 0, 0]
    assert len(open_for_evaluation(DataRecipe(dataset=path), ["dog", "cat"], split="train")) == 2


def test_evaluation_names_classes_that_the_model_does_not_know(tmp_path: Path) -> None:
    path = save(tmp_path / "d", test=rows_of([0, 1]))
    with pytest.raises(DataError, match="does not know 1 of the classes in test: dog"):
        open_for_evaluation(DataRecipe(dataset=path), ["cat", "fox"], split="test")


def test_evaluation_falls_back_on_validation_and_else_lists_the_splits(tmp_path: Path) -> None:
    both = save(tmp_path / "a", val=rows_of([0]), test=rows_of([-1]))
    assert open_for_evaluation(DataRecipe(dataset=both), ["cat", "dog"], split=None).name == "val"
    only_train = save(tmp_path / "b", train=rows_of([0, 1]))
    with pytest.raises(DataError, match=r"allowed: one of its splits: train\n.*--split train"):
        open_for_evaluation(DataRecipe(dataset=only_train), ["cat", "dog"], split=None)
    with pytest.raises(DataError, match="no split 'extra'"):
        open_for_evaluation(DataRecipe(dataset=only_train), ["cat", "dog"], split="extra")


# --- streams -----------------------------------------------------------------------------------------------


def test_a_parquet_stream_is_parted_by_content(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    rows_of([i % 2 for i in range(100)]).to_parquet(tmp_path / "p" / "train.parquet")
    source = opened(tmp_path / "p", streaming=True)
    assert isinstance(source.train, StreamSplit) and isinstance(source.validation, StreamSplit)
    parts = [{split.encoded(row) for row in split.rows} for split in (source.train, source.validation)]
    assert parts[0] | parts[1] == {png(i) for i in range(100)} and not parts[0] & parts[1]
    assert 3 <= len(parts[1]) <= 20 and source.train.num_rows == 90
    again = opened(tmp_path / "p", streaming=True)
    assert isinstance(again.train, StreamSplit)
    assert [again.train.label(row) for row in again.train.rows] == [source.train.label(r) for r in source.train.rows]


def test_a_webdataset_stream_finds_its_classes(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    write_tar(tmp_path / "w" / "train-0.tar", [7, 3, 3, 7])
    write_tar(tmp_path / "w" / "val-0.tar", [3, 7])
    source = opened(tmp_path / "w", streaming=True)
    split = source.validation
    assert source.classes == ("3", "7") and isinstance(split, StreamSplit)
    assert [split.label(row) for row in split.rows] == [0, 1]
    note(source, "read once")


def test_a_stream_names_a_missing_label(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    rows_of([0, 1, -1, 0]).to_parquet(tmp_path / "p" / "train.parquet")
    source = opened(tmp_path / "p", streaming=True, validation_fraction=0.01)
    split = source.train
    assert isinstance(split, StreamSplit)
    with pytest.raises(DataError, match="the label -1"):
        [split.label(row) for row in split.rows]


@pytest.mark.real
def test_cifar100_takes_fine_labels_and_carves_a_tenth() -> None:
    root = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar100"
    if not root.is_dir():
        pytest.skip("../shared/data is not here")
    source = opened(root)
    assert isinstance(source.train, ImageSplit) and isinstance(source.validation, ImageSplit)
    assert (len(source.train), len(source.validation), len(source.test)) == (45_000, 5_000, 10_000)  # type: ignore[arg-type]
    assert len(source.classes) == 100 and set(np.bincount(source.validation.labels)) == {50}
    note(source, "fine_label, the one with the most classes (100)")

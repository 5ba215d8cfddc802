from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from golden import rows

from vitft.data.images import ImageSplit, StreamSplit
from vitft.errors import DataError
from vitft.reading.shards import class_names, schema_of
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe


def declared(*names: str) -> datasets.ClassLabel:
    return datasets.ClassLabel(names=[*names])


def parquet(root: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), root)
    return root


def test_shards_that_agree_need_no_joining(tmp_path: Path) -> None:
    for number in range(2):
        rows([0, 1], declared("cat", "dog")).to_parquet(tmp_path / f"{number}.parquet")
    assert class_names(sorted(tmp_path.iterdir())) == {}


def test_shards_that_differ_give_rows_and_names_of_each(tmp_path: Path) -> None:
    rows([0, 1], declared("cat", "dog")).to_parquet(tmp_path / "0.parquet")
    rows([0, 1, 1], declared("dog", "cat")).to_parquet(tmp_path / "1.parquet")
    assert class_names(sorted(tmp_path.iterdir())) == {"label": [(2, ("cat", "dog")), (3, ("dog", "cat"))]}


def test_a_shard_without_names_beside_others_with_names_is_refused(tmp_path: Path) -> None:
    rows([0, 1], declared("cat", "dog")).to_parquet(tmp_path / "0.parquet")
    rows([0], declared("dog", "cat")).to_parquet(tmp_path / "1.parquet")
    parquet(tmp_path / "2.parquet", label=pa.array([0, 1, 0]))
    with pytest.raises(DataError, match=r"2\.parquet does not name the classes of 'label'"):
        class_names(sorted(tmp_path.iterdir()))


def test_numbers_in_one_shard_and_text_in_another_are_refused_with_the_files(tmp_path: Path) -> None:
    first = parquet(tmp_path / "0.parquet", label=pa.array([0, 1]))
    second = parquet(tmp_path / "1.parquet", label=pa.array(["cat"]))
    with pytest.raises(DataError, match=r"holds numbers and text .*0\.parquet \(numbers\), 1\.parquet \(text\)"):
        class_names([first, second])


@pytest.mark.parametrize("writer", ["new_stream", "new_file"])
def test_both_kinds_of_arrow_files_are_read(tmp_path: Path, writer: str) -> None:
    table = pa.table({"label": [1, 2, 3]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, getattr(pa.ipc, writer)(sink, table.schema) as out:
        out.write_table(table)
    schema, number = schema_of(tmp_path / "a.arrow")
    assert schema.names == ["label"] and number == 3


def test_shards_that_number_classes_differently_train_by_name(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    rows([0] * 6 + [1] * 2, declared("cat", "dog")).to_parquet(tmp_path / "p" / "train-00000-of-00002.parquet")
    rows([1] * 6 + [0] * 2, declared("dog", "cat"), 50).to_parquet(tmp_path / "p" / "train-00001-of-00002.parquet")
    source = open_source(DataRecipe(dataset=str(tmp_path / "p"), validation_fraction=0.01), seed=0)
    assert isinstance(source.train, ImageSplit) and isinstance(source.validation, ImageSplit)
    ids = [*source.train.labels, *source.validation.labels]
    assert [ids.count(source.classes.index(name)) for name in ("cat", "dog")] == [12, 4]


def test_a_stream_of_such_shards_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    rows([0, 1], declared("cat", "dog")).to_parquet(tmp_path / "p" / "train-00000-of-00002.parquet")
    rows([0, 1], declared("dog", "cat"), 50).to_parquet(tmp_path / "p" / "train-00001-of-00002.parquet")
    with pytest.raises(DataError, match="its files number the classes differently"):
        open_source(DataRecipe(dataset=str(tmp_path / "p"), streaming=True), seed=0)


def test_parquet_files_and_row_groups_without_rows_are_read_or_named(tmp_path: Path) -> None:
    rows([0, 1] * 6, declared("cat", "dog")).to_parquet(tmp_path / "whole.parquet")
    whole = pq.read_table(tmp_path / "whole.parquet")
    (tmp_path / "p").mkdir()
    with pq.ParquetWriter(tmp_path / "p" / "train-00000-of-00002.parquet", whole.schema) as file:
        for part in (whole.slice(0, 0), whole):  # `datasets` reads as many rows at once as the first group has
            file.write_table(part)
    # As pandas writes it: without types and class names.
    pq.write_table(pa.table({"image": pa.nulls(0)}), tmp_path / "p" / "train-00001-of-00002.parquet")
    for is_streaming in (False, True):
        source = open_source(DataRecipe(dataset=str(tmp_path / "p"), streaming=is_streaming), seed=0)
        assert source.classes == ("cat", "dog")
        assert "left out, because it has no rows: train-00001-of-00002.parquet" in source.notes
        splits = [each for each in (source.train, source.validation) if each is not None]
        counts = [sum(1 for _ in each.rows) if isinstance(each, StreamSplit) else len(each) for each in splits]
        assert sum(counts) == 12
    (tmp_path / "p" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: train-00000-of-00002.parquet\n---\n"
    )
    with pytest.raises(DataError, match=r"begins with an empty row group[\s\S]*data.layout=parquet"):
        open_source(DataRecipe(dataset=str(tmp_path / "p")), seed=0)
    (tmp_path / "p" / "README.md").unlink()
    (tmp_path / "p" / "train-00000-of-00002.parquet").rename(tmp_path / "p" / "test.parquet")
    with pytest.raises(DataError, match=r"the split train of .* is empty: no row in train-00001-of-00002.parquet"):
        open_source(DataRecipe(dataset=str(tmp_path / "p")), seed=0)

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from small_trees import write

from vitft.reading.tables import Table, Unreadable, columns_of, read_table, table_files


def read(root: Path, name: str, content: str | bytes, files: tuple[str, ...] = ()) -> Table:
    return read_table(str(write(root, {name: content})), name, lambda text: text in files)


# --- bytes -> rows of text ---------------------------------------------------------------------------------

CELLS = st.text(st.sampled_from("abzZ019 .,;|\t\"'éß漢-_\n"), max_size=8).map(str.strip)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])


@settings(max_examples=120, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6),
    encoding=ENCODINGS,
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@example([("a, b", "")] * 20, "utf-8", ";", "\n", csv.QUOTE_MINIMAL)
def test_what_a_spreadsheet_writes_is_read_as_it_was(
    rows: list[tuple[str, str]], encoding: str, delimiter: str, line_end: str, quoting: int
) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=line_end, quoting=quoting)  # type: ignore[arg-type]
    body = [(f"{number}.jpg", *row) for number, row in enumerate(rows)]
    writer.writerows([("file", "label", "more"), *body])
    try:
        content = buffer.getvalue().encode(encoding)
    except UnicodeEncodeError:
        assume(False)
    with tempfile.TemporaryDirectory() as folder:
        table = read(Path(folder), "t.csv", content)
    assert [*table.columns] == ["file", "label", "more"]
    assert [*zip(*table.columns.values(), strict=True)] == [tuple(each or None for each in row) for row in body]


@pytest.mark.parametrize("text", ["007", "True", "1.0", "1e5", "NA", "None", "null", "+3"])
def test_text_stays_as_it_is_written(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, "t.csv", f"file,label\na.jpg,{text}\n").columns["label"] == [text]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("cp1252", "line 3 is not UTF-8"), ("utf-16", "read as utf-16"), ("utf-16-le", "no byte order mark")],
)
def test_another_encoding_is_said(tmp_path: Path, encoding: str, words: str) -> None:
    table = read(tmp_path, "t.csv", "file,label\na.jpg,tea\nb.jpg,café\n".encode(encoding))
    assert table.columns["label"] == ["tea", "café"] and words in table.notes[0]


@pytest.mark.parametrize(
    ("delimiter", "words"), [(";", "separated by ';'"), ("\t", "separated by tabs"), ("|", "separated by '|'")]
)
def test_another_delimiter_is_said(tmp_path: Path, delimiter: str, words: str) -> None:
    assert words in read(tmp_path, "t.csv", f"file{delimiter}label\na.jpg{delimiter}x\n").notes[0]


def test_a_delimiter_that_cuts_the_header_beats_one_that_stands_in_every_label(tmp_path: Path) -> None:
    lines = ["file;label", *(f"{number}.jpg;cat, black" for number in range(30))]
    assert read(tmp_path, "t.csv", "\n".join(lines)).columns["label"] == ["cat, black"] * 30


def test_excels_own_first_line_is_passed_over(tmp_path: Path) -> None:
    assert [*read(tmp_path, "t.csv", "sep=;\nfile;label\na.jpg;x\n").columns] == ["file", "label"]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n", ""])
def test_excels_own_first_line_alone_is_no_table(tmp_path: Path, end: str) -> None:
    with pytest.raises(Unreadable, match="empty"):
        read(tmp_path, "t.csv", f"sep=;{end}")


def test_lines_may_end_as_on_an_old_mac(tmp_path: Path) -> None:
    assert read(tmp_path, "t.csv", "sep=;\rfile;label\ra.jpg;x\r").columns == {"file": ["a.jpg"], "label": ["x"]}


def test_names_of_columns_that_come_twice_or_are_empty_are_numbered(tmp_path: Path) -> None:
    assert [*read(tmp_path, "t.csv", ",file,file\n0,a.jpg,b\n").columns] == ["column_1", "file", "file_3"]


def test_a_row_with_more_fields_than_the_header_is_a_problem_that_names_it(tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", "file,label\na.jpg,x\nb.jpg,y,z,w\nc.jpg\n")
    assert table.columns["file"] == ["a.jpg", "b.jpg", "c.jpg"] and table.columns["label"][2] is None
    assert "row 1 of t.csv has 4 fields, but the first line has 2" in str(table.problem)


def test_a_list_or_json_named_like_an_image_belongs_to_it() -> None:
    names, notes = table_files(["x/1.txt", "x/1.json", "1.csv", "train.txt"], {"1"})
    assert names == ["1.csv", "train.txt"] and "2 files for single images left out (x/1.json" in notes[0]


def test_a_csv_without_a_header_is_told_by_the_image_in_its_first_row(tmp_path: Path) -> None:
    table = read(tmp_path, "t.csv", "a.jpg,x\nb.jpg,y\n")
    assert table.columns == {"column_1": ["a.jpg", "b.jpg"], "column_2": ["x", "y"]} and table.is_listed


def test_a_list_is_parted_by_spaces_and_has_no_header(tmp_path: Path) -> None:
    table = read(tmp_path, "t.txt", "a/1.jpg 0\nb/2.jpg 1\n")
    assert table.columns == {"column_1": ["a/1.jpg", "b/2.jpg"], "column_2": ["0", "1"]} and table.is_listed


def test_a_list_may_have_a_header_if_its_next_lines_name_images(tmp_path: Path) -> None:
    table = read(tmp_path, "t.txt", "id label\na 0\nb 1\n", files=("a", "b"))
    assert table.columns == {"id": ["a", "b"], "label": ["0", "1"]} and not table.is_listed


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("t.csv", b"", "empty"),
        ("t.csv", b" \n\n", "empty"),
        ("t.csv", b",,\n,,\n", "empty"),
        ("t.csv", b"PK\x03\x04\0abcdefghij", "compressed .zip"),
        ("t.csv", b"\xff\xfea", "broken utf-16"),
        ("t.json", b"{", "not JSON"),
        ("t.json", b"[1, 2]", "no list of objects"),
        ("t.json", b"[]", "no list of objects"),
        ("t.json", b"[" * 100_000, "nested too deeply|not JSON"),
        ("t.json", b'{"images": [{}], "annotations": [], "categories": []}', "COCO"),
        ("t.parquet", b"PAR1nothing", "not a parquet file"),
    ],
)
def test_what_is_no_table_says_why(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    with pytest.raises(Unreadable, match=why):
        read(tmp_path, name, content)


def test_a_table_that_is_not_there_says_why(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        read_table(str(tmp_path), "gone.csv")


# --- JSON --------------------------------------------------------------------------------------------------

ROWS = {"file": ["a.jpg", "b.jpg"], "label": ["x", "y"]}


@pytest.mark.parametrize(
    "value",
    [
        [{"file": "a.jpg", "label": "x"}, {"file": "b.jpg", "label": "y"}],
        {"info": {}, "rows": [{"file": "a.jpg", "label": "x"}, {"file": "b.jpg", "label": "y"}]},
        {"a.jpg": {"label": "x"}, "b.jpg": {"label": "y"}},
        {"a.jpg": "x", "b.jpg": "y"},
    ],
    ids=["list", "one list in an object", "objects by file", "labels by file"],
)
def test_json_says_the_same_in_many_shapes(tmp_path: Path, value: object) -> None:
    assert read(tmp_path, "t.json", json.dumps(value)).columns == ROWS


def test_json_columns_are_read_as_columns(tmp_path: Path) -> None:
    assert read(tmp_path, "t.json", '{"id": ["a", "b"], "label": [1, 2]}').columns == {
        "id": ["a", "b"],
        "label": ["1", "2"],
    }


def test_json_lines_are_rows(tmp_path: Path) -> None:
    assert read(tmp_path, "t.jsonl", '{"file": "a.jpg"}\n\n{"file": "b.jpg", "label": "y"}\n').columns == {
        "file": ["a.jpg", "b.jpg"],
        "label": [None, "y"],
    }


def test_names_by_class_are_read_as_rows(tmp_path: Path) -> None:
    table = read(tmp_path, "t.json", '{"cat": ["cat/1", "cat/2"], "dog": ["dog/1"]}')
    assert table.columns == {"class": ["cat", "cat", "dog"], "file": ["cat/1", "cat/2", "dog/1"]}


def test_coco_gives_each_image_its_categories_by_name(tmp_path: Path) -> None:
    value = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 3, "file_name": "c.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 7}, {"image_id": 1, "category_id": 7},
                        {"image_id": 2, "category_id": 7}, {"image_id": 2, "category_id": 8}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
    }  # fmt: skip
    table = read(tmp_path, "t.json", json.dumps(value))
    assert table.columns == {"file_name": ["a.jpg", "b.jpg", "c.jpg"], "category": ["cat", "cat|dog", None]}


def test_what_is_nested_gets_a_name_of_its_way() -> None:
    assert columns_of([{"a": {"b": [{"c": 1}]}, "d": ["x", "y"], "e": [1, {"f": 2}]}]) == {
        "a.b.c": ["1"], "d": ["x|y"], "e": [None]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"), [(True, "true"), (2.0, "2"), (2.5, "2.5"), (None, None), ("", None), (" a ", "a")]
)
def test_values_of_json_become_text(value: object, text: str | None) -> None:
    assert columns_of([{"a": value}]) == {"a": [text]}


def test_half_a_character_in_json_becomes_text_that_can_be_written(tmp_path: Path) -> None:
    [label] = read(tmp_path, "t.jsonl", '{"file": "a.jpg", "label": "x\\ud83d"}').columns["label"]
    assert label is not None and label.encode()


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.one_of(st.text(max_size=3), st.sampled_from(["images", "annotations", "categories", "id", "file_name"])),
        inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(JSON)
@example({"images": [], "annotations": [], "categories": [{"id": [], "name": 1}]})
@example({"images": [[]], "annotations": [], "categories": []})
def test_any_json_is_a_table_or_unreadable(value: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            table = read(Path(folder), "t.json", json.dumps(value))
        except Unreadable:
            return
    assert {len(values) for values in table.columns.values()} <= {table.num_rows}


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["t.csv", "t.txt", "t.tsv", "t.jsonl"]))
@example(b'sep=,\r"', "t.csv")
def test_any_bytes_are_a_table_or_unreadable(content: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            table = read(Path(folder), name, content)
        except Unreadable:
            return
    assert {len(values) for values in table.columns.values()} <= {table.num_rows}


# --- which files are tables --------------------------------------------------------------------------------


def test_parquet_columns_become_text(tmp_path: Path) -> None:
    values = {"file": ["a", "b"], "label": [7, 10], "flag": [True, None], "size": [1.0, 2.5], "blob": [b"x", b"y"]}
    pq.write_table(pa.table(values), tmp_path / "t.parquet")
    assert read_table(str(tmp_path), "t.parquet").columns == {
        "file": ["a", "b"], "label": ["7", "10"], "flag": ["true", None], "size": ["1", "2.5"]
    }  # fmt: skip


def test_tables_are_told_by_suffix() -> None:
    assert table_files(["b.csv", "a.TSV", "x.md", "y.parquet", "c.json"], ()) == (["a.TSV", "b.csv", "c.json"], [])


def test_as_many_files_as_images_are_no_tables_and_that_is_said() -> None:
    names, notes = table_files([*(f"labels/x/{number}.txt" for number in range(60)), "classes.txt", "t.csv"], ())
    assert names == ["classes.txt", "t.csv"] and notes == ["60 .txt files left out: too many to be tables of images"]

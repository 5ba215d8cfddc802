from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from golden import bmp
from small_trees import write

from vitft.reading.encoded import EncodedImages

STRUCTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def mixed(tmp_path: Path) -> EncodedImages:
    """Return four images: bytes, a file, one that is not there, and nothing."""
    write(tmp_path, {"1.bmp": 1})
    values = [{"bytes": b"abcd", "path": "x"}, {"path": "1.bmp"}, {"path": "gone.bmp"}, {}]
    return EncodedImages(pa.chunked_array([pa.array(values, STRUCTURE)]), (str(tmp_path),))


def of_bytes(*contents: bytes) -> EncodedImages:
    return EncodedImages(pa.chunked_array([pa.array([each], pa.binary()) for each in contents]), ())


def test_sizes_tell_missing_files_from_empty_rows(mixed: EncodedImages) -> None:
    assert mixed.sizes.tolist() == [4, 70, -1, 0]


def test_bytes_come_before_a_path(mixed: EncodedImages, tmp_path: Path) -> None:
    assert [mixed.at(row) for row in range(4)] == [b"abcd", str(tmp_path / "1.bmp"), str(tmp_path / "gone.bmp"), b""]


def test_ends_are_read_without_the_rest(mixed: EncodedImages) -> None:
    assert [mixed.tail(row, 3) for row in range(4)] == [b"bcd", bmp(1)[-3:], b"", b""]


def test_a_file_has_the_digest_of_what_is_in_it(mixed: EncodedImages) -> None:
    assert mixed.digest(1) == hashlib.sha256(bmp(1)).digest() and mixed.digest(0) == hashlib.sha256(b"abcd").digest()


def test_a_file_that_is_not_there_has_the_digest_of_no_other(mixed: EncodedImages) -> None:
    assert len({mixed.digest(row) for row in range(4)}) == 4


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()], ids=str)
def test_a_column_of_paths_is_files(tmp_path: Path, kind: pa.DataType) -> None:
    write(tmp_path, {"1.bmp": 1})
    column = EncodedImages(pa.chunked_array([pa.array(["1.bmp", None], kind)]), (str(tmp_path),))
    assert not column.are_bytes and column.sizes.tolist() == [70, 0]


def test_images_in_several_chunks_are_one_column() -> None:
    column = of_bytes(b"a", b"bb", b"ccc")
    assert column.are_bytes and len(column) == 3 and column.sizes.tolist() == [1, 2, 3] and column.at(2) == b"ccc"


def test_rows_taken_twice_are_those_of_the_column(mixed: EncodedImages) -> None:
    taken = mixed.take(np.array([2, 1, 0])).take(np.array([1, 2]))
    assert len(taken) == 2 and taken.sizes.tolist() == [70, 4] and taken.at(1) == b"abcd"


def test_rows_chosen_from_the_start_have_sizes_of_their_own() -> None:
    column = pa.chunked_array([pa.array([b"a", b"bb", b"ccc"], pa.binary())])
    assert EncodedImages(column, (), np.array([2, 0])).sizes.tolist() == [3, 1]


def test_no_images_have_no_sizes() -> None:
    assert EncodedImages(pa.chunked_array([pa.array([], pa.binary())]), ()).sizes.tolist() == []

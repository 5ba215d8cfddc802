"""Files of others: what is no regular file is not read, and no more is read than is allowed."""

import bz2
import gzip
import lzma
import os
import socket

import pytest

from vitft.files import compression_of, is_file, is_folder, read_regular


def test_a_regular_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_regular(tmp_path / "a", 7) == read_regular(str(tmp_path / "link"), 100) == b"content"


def test_a_larger_file_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    with pytest.raises(OSError, match="it has 7 bytes; the limit is 6"):
        read_regular(tmp_path / "a", 6)


def test_a_sparse_file_of_a_terabyte_costs_nothing(tmp_path):
    with (tmp_path / "sparse.jpg").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="the limit is"):
        read_regular(tmp_path / "sparse.jpg", 10**6)


def test_a_device_is_not_read(tmp_path):
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="it is a device"):
        read_regular(tmp_path / "zero.jpg", 100)


@pytest.mark.timeout(5)
def test_a_pipe_without_a_writer_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for read in (lambda path: read_regular(path, 100), compression_of):
        with pytest.raises(OSError, match="it is a named pipe"):
            read(tmp_path / "pipe.jpg")


def test_a_socket_and_a_folder_are_not_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind("s.jpg")
        with pytest.raises(OSError, match="it is a socket"):
            read_regular("s.jpg", 100)
    with pytest.raises(OSError, match="it is a folder"):
        read_regular(tmp_path, 100)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "x/" * 3000, ""])
def test_a_name_that_no_file_can_have_is_none(name):
    assert not is_file(name)
    assert not is_folder(name)
    with pytest.raises(OSError):
        read_regular(name, 100)


PACKED = {"gzip": gzip.compress(b"a"), "bzip2": bz2.compress(b"a"), "xz": lzma.compress(b"a"), "zip": b"PK\x03\x04"}
PLAIN = {"a name": b"BZh.jpg", "text": b"a,b\n", "nothing": b"", "tar": b"PK.jpg" + bytes(506)}


@pytest.mark.parametrize("kind", [*PACKED, *PLAIN])
def test_a_packed_file_is_known_by_its_first_bytes(kind, tmp_path):
    (tmp_path / "a.csv").write_bytes((PACKED | PLAIN)[kind])
    assert compression_of(tmp_path / "a.csv") == (kind if kind in PACKED else None)

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vitft.errors import DataError, ModelError
from vitft.names import classify_dataset, explain_hub_error, find_dataset_on_hub, slug


def test_importing_names_stays_light() -> None:
    heavy = "{'torch', 'datasets', 'huggingface_hub', 'numpy'}"
    code = f"import sys, vitft.names; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["cifar100", "uoft-cs/cifar100", "imagenet-1k", "a.b/c_d-1"])
def test_names_of_nothing_local_are_hub_ids(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = classify_dataset(text)
    assert (name.kind, name.text) == ("hub", text)


def test_what_exists_here_wins_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "table.csv").touch()
    monkeypatch.chdir(tmp_path)
    assert classify_dataset("owner/name").text == str(tmp_path / "owner" / "name")
    assert classify_dataset("table.csv").kind == "file"


@pytest.mark.parametrize("text", ["./photos", "../photos", "/nowhere/photos", "a/b/c", "photos.parquet", "photos/"])
def test_missing_paths_are_not_looked_for_on_the_hub(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="no folder or file"):
        classify_dataset(text)


def test_a_missing_path_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(DataError, match=f"did you mean {tmp_path}/flowers"):
        classify_dataset(f"{tmp_path}/flowerz")


@pytest.mark.parametrize("text", ["builtin:digit", "", "not a name", "-x/y"])
def test_names_of_nothing_at_all_are_errors(text: str) -> None:
    with pytest.raises(DataError, match="builtin:digits"):
        classify_dataset(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("uoft-cs/CIFAR100", "cifar100"), ("./my photos/", "my-photos"), ("builtin:digits", "digits"),
        ("/data/x.parquet", "x"), ("google/vit-base-patch16-224", "vit-base-patch16-224"), ("..", "unnamed"),
    ],
)  # fmt: skip
def test_slug_is_safe_in_a_file_name(text: str, expected: str) -> None:
    assert slug(text) == expected


def test_old_names_are_known_without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: True)
    found = find_dataset_on_hub("cifar100")
    assert found.id == "uoft-cs/cifar100" and found.note is not None


def test_the_hub_is_asked_for_the_full_id_and_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def dataset_info(self, name: str, *, revision: str | None, timeout: float) -> object:
            assert (name, revision) == ("renamed", "v2")
            return type("Info", (), {"id": "owner/renamed", "sha": "c0ffee"})

    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    found = find_dataset_on_hub("renamed", "v2")
    assert (found.id, found.revision) == ("owner/renamed", "c0ffee")


def test_an_unreachable_hub_is_not_the_end_of_a_cached_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def dataset_info(self, *_: object, **__: object) -> object:
            raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    found = find_dataset_on_hub("mnist")
    assert found.id == "ylecun/mnist" and isinstance(found.unreachable, ConnectionError)


def _error(name: str, *bases: type[Exception]) -> Exception:
    return type(name, bases or (Exception,), {})("it failed")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (_error("RepositoryNotFoundError"), "there is no dataset"),
        (_error("GatedRepoError", type(_error("RepositoryNotFoundError"))), "is gated"),
        (_error("RevisionNotFoundError"), "no revision 'v9'"),
        (_error("ConnectError"), "cannot reach"),
        (RuntimeError("Dataset scripts are no longer supported, but found x.py"), "refs/convert/parquet"),
        (ValueError("something else\nand more"), "ValueError: something else"),
    ],
)
def test_hub_failures_say_what_they_mean(error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    told = explain_hub_error(error, "owner/name", kind="dataset", revision="v9")
    assert isinstance(told, DataError) and expected in str(told) and told.hint


def test_hub_failures_are_read_through_their_causes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    outer = OSError("we could not load this file")
    outer.__cause__ = _error("GatedRepoError")
    told = explain_hub_error(outer, "owner/model", kind="model")
    assert isinstance(told, ModelError) and "gated" in told.wrong


def test_offline_failures_name_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    told = explain_hub_error(ConnectionError("x"), "owner/name", kind="model")
    assert "HF_HUB_OFFLINE" in told.wrong


def test_a_misspelt_old_name_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    told = explain_hub_error(_error("RepositoryNotFoundError"), "cifra100", kind="dataset")
    assert told.hint is not None and "uoft-cs/cifar100" in told.hint

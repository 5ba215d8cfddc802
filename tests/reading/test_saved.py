from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest
from golden import rows

from vitft.data.images import ImageSplit
from vitft.errors import DataError
from vitft.reading.saved import has_configs, open_clone, open_saved
from vitft.reading.source import open_source
from vitft.recipe.keys import DataRecipe

CATS = datasets.ClassLabel(names=["cat", "dog"])
DOGS = datasets.ClassLabel(names=["dog", "cat"])


def data(root: Path, **keys: object) -> DataRecipe:
    return DataRecipe(dataset=str(root), **keys)  # type: ignore[arg-type]


def saved(root: Path, **splits: datasets.Dataset) -> Path:
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return root


def test_one_saved_dataset_is_a_split_that_names_no_splits(tmp_path: Path) -> None:
    rows([0, 1], CATS).save_to_disk(str(tmp_path / "d"))
    opened = open_saved(tmp_path / "d", data(tmp_path / "d"), is_dict=False)
    assert [*opened.splits] == ["train"] and not opened.has_splits


def test_saved_splits_keep_their_names(tmp_path: Path) -> None:
    root = saved(tmp_path / "d", train=rows([0, 1], CATS), dev=rows([1], CATS, 9))
    opened = open_saved(root, data(root), is_dict=True)
    assert [*opened.splits] == ["train", "dev"] and opened.has_splits


@pytest.mark.parametrize(("keys", "said"), [({"config": "x"}, "does not apply"), ({"streaming": True}, "be streamed")])
def test_wishes_that_a_saved_dataset_cannot_fulfil_are_refused(
    tmp_path: Path, keys: dict[str, object], said: str
) -> None:
    root = saved(tmp_path / "d", train=rows([0, 1], CATS))
    with pytest.raises(DataError, match=said):
        open_saved(root, data(root, **keys), is_dict=True)


@pytest.mark.parametrize("state", ["{", "{}", '{"_data_files": [{}]}', "[]", '{"_data_files": 3}'])
def test_a_state_that_describes_nothing_is_named(tmp_path: Path, state: str) -> None:
    root = saved(tmp_path / "d", train=rows([0, 1], CATS))
    (root / "train" / "state.json").write_text(state)
    with pytest.raises(DataError, match=r"train/state\.json does not describe a saved dataset"):
        open_saved(root, data(root), is_dict=True)


def test_an_empty_saved_split_is_named(tmp_path: Path) -> None:
    root = saved(tmp_path / "d", train=rows([0, 1], CATS))
    state = root / "train" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_data_files": []}))
    with pytest.raises(DataError, match="train is empty"):
        open_saved(root, data(root), is_dict=True)


def test_a_file_that_is_gone_is_an_error_that_names_the_dataset(tmp_path: Path) -> None:
    root = saved(tmp_path / "d", train=rows([0, 1], CATS))
    next((root / "train").glob("*.arrow")).unlink()
    with pytest.raises(DataError, match=r"cannot read|No such file"):
        open_saved(root, data(root), is_dict=True)


def test_parts_of_a_saved_dataset_that_number_classes_differently_are_joined_by_name(tmp_path: Path) -> None:
    root = saved(tmp_path / "d", train=rows([0] * 6 + [1] * 2, CATS))
    rows([1] * 6 + [0] * 2, DOGS, 50).save_to_disk(str(tmp_path / "more"))
    [more] = (tmp_path / "more").glob("*.arrow")
    more.rename(root / "train" / "more.arrow")
    state = root / "train" / "state.json"
    files = json.loads(state.read_text())
    files["_data_files"].append({"filename": "more.arrow"})
    state.write_text(json.dumps(files))
    source = open_source(data(root, validation_fraction=0.01), seed=0)
    assert isinstance(source.train, ImageSplit) and isinstance(source.validation, ImageSplit)
    ids = [*source.train.labels, *source.validation.labels]
    assert [ids.count(source.classes.index(name)) for name in ("cat", "dog")] == [12, 4]


# --- copies of Hub repositories ----------------------------------------------------------------------------

README = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: mine/*.parquet\n---\n# d\n"


def clone(root: Path) -> Path:
    (root / "mine").mkdir(parents=True)
    (root / "other").mkdir()
    (root / "README.md").write_text(README)
    rows([0, 1] * 6, CATS).to_parquet(root / "mine" / "a.parquet")
    rows([0, 1], CATS, 90).to_parquet(root / "other" / "b.parquet")
    return root


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        (README, True),
        ("---\nlicense: mit\n---\nconfigs:\n", False),
        ("# configs:\n", False),
        ("", False),
        (None, False),
    ],
)
def test_only_the_head_of_a_readme_names_configurations(tmp_path: Path, readme: str | None, expected: bool) -> None:
    if readme is not None:
        (tmp_path / "README.md").write_text(readme)
    assert has_configs(tmp_path) is expected


def test_a_clone_is_read_as_its_readme_says(tmp_path: Path) -> None:
    source = open_source(data(clone(tmp_path / "c")), seed=0)
    assert len(source.train) + len(source.validation) == 12  # type: ignore[arg-type]


def test_a_clone_may_be_streamed(tmp_path: Path) -> None:
    root = clone(tmp_path / "c")
    opened = open_clone(root, data(root, streaming=True))
    assert len([*opened.splits["train"]]) == 12


def test_a_configuration_that_a_clone_lacks_gets_those_that_there_are(tmp_path: Path) -> None:
    root = clone(tmp_path / "c")
    with pytest.raises(DataError, match="has no configuration 'defolt'"):
        open_clone(root, data(root, config="defolt"))

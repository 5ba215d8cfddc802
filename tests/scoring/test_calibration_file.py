"""calibration.json: whole or not at all, read with suspicion."""

import json

import pytest

from vitft.errors import ModelError
from vitft.scoring.calibration_file import read_calibration, record, temperature_of, write_calibration

NUMBERS = {"nll": 1.0, "brier": 0.5, "ece": 0.1, "ece_equal_count": 0.1, "top1": 0.9}
BINS = {"equal_width": [{"confidence": 0.9, "accuracy": 0.8, "count": 5}], "equal_count": []}
SCORES = NUMBERS | {"intervals": {name: [0.0, 1.0] for name in NUMBERS}, "reliability": BINS}


def test_what_was_written_is_read(tmp_path):
    content = record(1.5, {"split": "val"}, {"split": "test"}, SCORES, SCORES)
    path = write_calibration(tmp_path, content)
    assert [each.name for each in tmp_path.iterdir()] == ["calibration.json"] == [path.name]
    assert read_calibration(tmp_path) == content
    assert temperature_of(tmp_path, "m") == 1.5
    assert set(content["before"]) == {"nll", "brier", "ece", "ece_equal_count", "intervals", "reliability"}
    assert content["after"]["reliability"] == {"equal_width": BINS["equal_width"]}
    assert set(content["after"]["intervals"]) == {"nll", "brier", "ece", "ece_equal_count"}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "1"]
    + [f'{{"temperature": {each}}}' for each in ("0", "-1", '"1"', "NaN", "true", "null", "Infinity", "1" + "0" * 400)],
)
def test_a_damaged_file_is_an_error_that_names_it(text, tmp_path):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ModelError, match=r"calibration.json cannot be used[\s\S]*delete it"):
        temperature_of(tmp_path, "m")


def test_a_model_without_one_names_the_command(tmp_path):
    assert read_calibration(tmp_path) is None
    with pytest.raises(ModelError, match=f"vitft evaluate {tmp_path} DATASET --calibrate"):
        temperature_of(tmp_path, str(tmp_path))
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(ModelError, match=f"vitft evaluate {tmp_path} --calibrate"):
        temperature_of(tmp_path, str(tmp_path))
    with pytest.raises(ModelError, match="hf download me/flowers"):
        temperature_of(tmp_path, "me/flowers")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_calibration(tmp_path, {"temperature": 2.0})

    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vitft.disk.flush", refuse)
    with pytest.raises(OSError, match="No space"):
        write_calibration(tmp_path, {"temperature": 3.0})
    assert [json.loads(each.read_text()) for each in tmp_path.iterdir()] == [{"temperature": 2.0}]

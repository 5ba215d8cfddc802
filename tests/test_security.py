"""Every sentence of SECURITY.md has a test, and the few that no other file has stand here."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from vitft import evaluate, finetune, predict, resize
from vitft.errors import VitftError
from vitft.outside import printable
from vitft.recipe.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent

TESTS = {
    "Weights are read from safetensors": [
        "model/test_load.py::test_a_pickle_that_wants_to_run_code_is_refused_and_has_not_run"
    ],
    "Code, attention kernels and other files": [
        "faults/test_hostile_configs.py::test_what_would_run_code_or_change_the_answer_is_left_out",
        "model/test_load.py::test_code_of_the_checkpoint_s_own_is_never_run",
    ],
    "vitft never asks on the terminal": [
        "faults/test_hostile_configs.py::test_what_would_run_code_or_change_the_answer_is_left_out",
        "faults/test_hostile_configs.py::test_an_unknown_processor_is_the_family_s_own_as_for_pipeline",
    ],
    "Every command checks a checkpoint in the same way": [
        "faults/test_hostile_configs.py::test_a_config_that_lies_is_refused_alike_by_every_command",
        "faults/test_hostile_configs.py::test_a_processor_that_lies_is_refused_alike_by_every_command",
        "faults/test_hostile_configs.py::test_any_lie_is_a_result_or_an_error_of_ours",
    ],
    "A configuration of a far larger model": [
        "faults/test_hostile_configs.py::test_a_model_far_larger_than_its_weights_takes_no_memory"
    ],
    "Weights that are not finite": [
        "faults/test_hostile_configs.py::test_weights_that_are_not_finite_are_said_and_predict_nothing",
        "scoring/test_prediction.py::test_values_that_are_not_finite_are_an_error_and_no_prediction",
    ],
    "An image is decoded only if": [
        "data/test_staging.py::test_an_image_over_the_limit_is_refused_whatever_its_format",
        "faults/test_hostile_images.py::test_a_damaged_image_is_read_or_refused_in_little_time_and_memory",
    ],
    "Formats that run programs": [
        "data/test_staging.py::test_a_format_that_unpacks_without_a_limit_is_not_read",
        "data/test_staging.py::test_what_is_no_complete_image_is_refused_with_its_reason",
    ],
    "A damaged image costs": [
        "faults/test_hostile_images.py::test_a_damaged_image_is_read_or_refused_in_little_time_and_memory"
    ],
    "Only regular files are read": [
        "test_files.py::test_a_device_is_not_read",
        "data/test_staging.py::test_what_is_no_regular_file_is_refused",
        "faults/test_hostile_configs.py::test_a_config_that_is_no_regular_file_is_refused",
        "faults/test_hostile_names.py::test_a_recipe_that_is_no_regular_file_is_refused",
        "faults/test_hostile_names.py::test_a_csv_path_that_cannot_be_is_a_bad_image",
    ],
    "A data file that is compressed": [
        "faults/test_hostile_names.py::test_a_packed_data_file_is_refused_before_anything_is_unpacked"
    ],
    "A recipe is read as plain values": [
        "faults/test_hostile_recipes.py::test_a_known_attack_is_refused_at_once",
        "faults/test_hostile_recipes.py::test_an_alias_bomb_takes_no_memory",
    ],
    "Nothing in this package imports pickle": ["test_house.py::test_nothing_unsafe_is_done"],
    "The only third-party code that runs": [
        "test_security.py::test_a_metric_that_is_not_named_is_not_run",
        "faults/test_beginnings.py::test_a_metric_that_a_flag_names_or_trusts_is_run",
    ],
    "Predictions and scores leave no file": ["test_security.py::test_predictions_and_scores_leave_no_file"],
    "A resized checkpoint is one new folder": ["test_security.py::test_a_resized_checkpoint_is_one_new_folder"],
    "A run is one new folder": [
        "test_security.py::test_a_run_is_one_new_folder_and_holds_no_secret",
        "test_run.py::test_a_name_in_use_is_an_error_and_its_folder_is_untouched",
    ],
    "A model is written as safetensors": ["model/test_processor.py::test_a_model_is_written_whole_or_not_at_all"],
    "Passwords and tokens in addresses": [
        "test_security.py::test_a_run_is_one_new_folder_and_holds_no_secret",
        "test_outside.py::test_a_secret_is_taken_out",
        "cli/test_cli.py::test_a_traceback_holds_no_secret",
        "faults/test_hostile_names.py::test_a_name_that_cannot_be_is_an_error_that_shows_it_safely",
    ],
    "A push stops if a file contains": ["hub/test_bundle.py::test_a_secret_stops_the_push_and_is_named"],
    "Local paths lose": ["hub/test_bundle.py::test_the_bundle_holds_no_path_of_this_machine"],
    "Names, labels and messages": [
        "test_outside.py::test_no_character_of_unicode_is_obeyed",
        "cli/test_predict.py::test_predict_shows_names_and_labels_from_outside_safely",
        "hub/test_card.py::test_class_names_and_notes_hide_nothing",
    ],
    "A CSV cell from outside": [
        "test_outside.py::test_no_cell_is_a_formula",
        "cli/test_predict.py::test_predict_writes_no_formula_and_keeps_numbers",
    ],
}  # fmt: skip


def sentences():
    """The promises of SECURITY.md: every item of its lists."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    return [" ".join(item.split()) for item in re.findall(r"^- (.*?)(?=^- |^#|\Z)", text, re.MULTILINE | re.DOTALL)]


def test_every_sentence_has_a_test():
    for sentence in sentences():
        assert len([start for start in TESTS if sentence.startswith(start)]) == 1, sentence
    assert len(TESTS) == len(sentences())


@pytest.mark.parametrize("test", sorted({test for tests in TESTS.values() for test in tests}))
def test_the_tests_of_the_sentences_exist(test):
    path, name = test.split("::")
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


# --- what no other file tests ------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path):
    """One step on a dozen images, started in an empty folder beside them."""
    for number in range(12):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(path)
    (tmp_path / "here").mkdir()
    settings = {"train.duration": "1 steps", "train.device": "cpu", "run.pictures": "off", "train.batch_size": 4}
    return Recipe.load("quickstart", {**settings, "data.dataset": str(tmp_path / "photos")})


def test_predictions_and_scores_leave_no_file(tmp_path, monkeypatch):
    photo = tmp_path / "photo.png"
    Image.new("RGB", (32, 32)).save(photo)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    predict("builtin:vit-micro", [photo], device="cpu")
    with pytest.raises(VitftError):
        evaluate("builtin:vit-micro", "./nowhere", device="cpu")
    assert list((tmp_path / "here").iterdir()) == []


def test_a_resized_checkpoint_is_one_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resize("builtin:vit-micro", "out", image_size=(48, 48))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".json", ".safetensors"}


def test_a_run_is_one_new_folder_and_holds_no_secret(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "argv", ["vitft", "finetune", "--set", "a=https://user:TOKEN@host", "\x1b"])
    finetune(tiny)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["runs"]
    [run] = (tmp_path / "here" / "runs").iterdir()
    for path in run.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".yaml", ".md"):
            text = path.read_text(encoding="utf-8")
            assert "TOKEN" not in text, path
            assert printable(text, lines=True) == text, path
    assert "https://***@host" in json.loads((run / "environment.json").read_text())["command"][3]
    assert "TOKEN" not in "".join(capsys.readouterr())


def test_a_metric_that_is_not_named_is_not_run(tiny, tmp_path, monkeypatch):
    """A metric beside the data or in the working directory is a file like any other."""
    monkeypatch.chdir(tmp_path / "here")
    for place in ("here", "photos/a"):
        for name in ("accuracy", "top1", "vitft_classification"):
            (tmp_path / place / name).mkdir()
            (tmp_path / place / name / f"{name}.py").write_text("raise SystemExit('code of a stranger was run')")
    assert finetune(tiny).results["validation"]["count"] > 0

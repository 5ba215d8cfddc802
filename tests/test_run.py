from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from vitft.errors import TrainError, UsageError
from vitft.ownership import Ownership
from vitft.quantities import duration_text
from vitft.recipe.recipe import Recipe
from vitft.run import Run


def recipe(folder: Path, **run: object) -> Recipe:
    return Recipe.load(None, {"run.output_dir": str(folder)} | {f"run.{key}": value for key, value in run.items()})


def test_without_a_name_runs_count_up(tmp_path: Path) -> None:
    made = [Run.create(recipe(tmp_path), "vit-digits").folder.name for _ in range(3)]
    assert made == ["vit-digits", "vit-digits-2", "vit-digits-3"]


def test_a_name_in_use_is_an_error_and_its_folder_is_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"precious")
    with pytest.raises(UsageError, match="already exists and will not be overwritten") as error:
        Run.create(recipe(tmp_path, name="mine"), "unused")
    assert error.value.hint == "--name mine-2"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.png"]


def test_a_name_in_use_says_what_the_run_that_has_it_can_do(tmp_path: Path) -> None:
    folder = Run.create(recipe(tmp_path, name="mine"), "unused").folder
    (tmp_path / "mine-2").mkdir()

    def hint() -> str:
        with pytest.raises(UsageError) as error:
            Run.require_free(recipe(tmp_path, name="mine"))
        return str(error.value.hint)

    assert hint() == f"vitft finetune --resume {folder} continues it; --name mine-3 starts anew"
    (folder / "model").mkdir()
    (folder / "model" / "config.json").touch()
    (folder / "results.json").write_text('{"train": {}, "classes": []}')
    assert hint() == f"vitft finetune --from {folder} trains its model further; --name mine-3 starts anew"


def test_the_recipe_in_the_run_is_the_whole_recipe(tmp_path: Path) -> None:
    given = recipe(tmp_path, name="mine")
    assert Recipe.load(Run.create(given, "unused").folder / "recipe.yaml") == given


def test_a_run_directory_that_cannot_be_made_is_an_error_that_names_the_place(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(TrainError, match=f"cannot make a run directory in {tmp_path / 'runs'}"):
        Run.create(recipe(tmp_path / "runs"), "vit-digits")


def test_without_room_for_the_recipe_no_run_directory_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainError, match="No space left on device"):
        Run.create(recipe(tmp_path), "vit-digits")
    assert list(tmp_path.iterdir()) == []


def test_without_room_a_file_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    run.write_json("results.json", {"top1": 0.5})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainError, match="No space left on device") as error:
        run.write_json("results.json", {"top1": 0.9})
    assert error.value.hint == f"make room, then: vitft finetune --resume {tmp_path}"
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    assert json.loads((tmp_path / "results.json").read_text()) == {"top1": 0.5}


def test_what_is_no_run_is_not_opened_and_the_nearest_is_proposed(tmp_path: Path) -> None:
    run = Run.create(recipe(tmp_path, name="flowers"), "unused")
    with pytest.raises(UsageError, match="does not exist") as error:
        Run.open(tmp_path / "flower")
    assert error.value.hint == f"vitft finetune --resume {run.folder}"
    assert error.value.allowed == str(run.folder)
    with pytest.raises(UsageError, match=rf"none of the runs in {tmp_path} can be used here; vitft runs ls {tmp_path}"):
        Run.open(tmp_path / "flower", "vitft push", lambda run: run.is_scored)
    with pytest.raises(UsageError, match=r"is not a run directory: it has no recipe\.yaml"):
        Run.open(tmp_path)


def test_a_run_is_finished_when_its_card_is_there_which_comes_after_model_and_results(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.model_folder.mkdir()
    run.write_json("model/config.json", {})
    run.write_json("results.json", {"train": {}, "classes": []})
    assert run.is_scored and not run.is_finished and run.can_go_on()
    owner = Ownership.take(run.folder)
    assert not run.can_go_on()
    owner.release()
    run.write_text("model/README.md", "a card")
    assert run.is_finished and not run.can_go_on()
    (tmp_path / "results.json").write_text("")
    assert not run.is_scored and run.results() is None
    assert run.broken() == ["results.json is empty"]


def events(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_metrics_are_cut_to_what_a_checkpoint_knows(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log("step", step=1)
    length = run.metrics_length()
    run.log("step", step=2)
    run.cut_metrics(length)
    run.log("step", step=2)
    assert events(run) == [{"event": "step", "step": 1}, {"event": "step", "step": 2}]


def test_metrics_that_a_power_cut_shortened_are_not_filled_up(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.log("step", step=1)
    run.cut_metrics(run.metrics_length() + 50)
    run.log("step", step=3)
    assert [each["step"] for each in events(run)] == [1, 3]


def test_only_the_main_process_writes_and_speaks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path, is_main=False)
    run.note("chosen")
    run.write_json("results.json", {})
    run.cut_metrics(0)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_the_command_that_resumes_a_run_can_be_pasted(tmp_path: Path) -> None:
    assert Run(tmp_path / "my runs").resume_command == f"vitft finetune --resume '{tmp_path}/my runs'"
    assert Run(Path("runs/a"), flags=("--trust-metrics",)).resume_command == (
        "vitft finetune --resume runs/a --trust-metrics"
    )


def test_lines_that_are_no_events_are_taken_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.log("step", step=1)
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'\0\0\n[]\n{"event": 1}\n\xff\xfe\n"event"\n')
    run.note("a line\u2028in two")
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"event": "st')
    assert len(run.events()) == 2
    assert not run.has_whole_log()
    run.cut_metrics(run.metrics_length())
    assert "broken lines removed from metrics.jsonl: 6" in capsys.readouterr().err
    assert [each["event"] for each in run.events()] == ["step", "note"]


def test_a_note_for_those_who_use_the_model_says_what_it_is_about(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.note("a new head")
    assert events(run) == [{"event": "note", "text": "a new head"}]


def test_a_note_is_said_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    run.note("the column größe was chosen")
    assert events(run) == [{"event": "note", "text": "the column größe was chosen"}]
    assert capsys.readouterr().err == "  the column größe was chosen\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5340, "89 min"), (11400, "3 h 10 min")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text

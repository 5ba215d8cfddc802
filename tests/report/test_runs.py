"""The runs of a folder: what each is, and what it takes."""

import json
import os

import pytest

from vitft.cli import main
from vitft.ownership import Ownership
from vitft.recipe.recipe import Recipe
from vitft.report.runs import clean, list_runs
from vitft.run import Run


def make(folder, name, *, step=None, scored=False, finished=False):
    """Make a run directory as far as it came."""
    run = Run.create(Recipe.load(None, {"run.name": name, "run.output_dir": str(folder)}), name)
    run.write_json("environment.json", {"dataset": {"id": "someone/photos"}, "model": {"id": "a/vit"}})
    if step:
        checkpoint = run.checkpoints / f"step-{step:08d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text("{}")
        (checkpoint / "model.safetensors").write_bytes(bytes(1000))
    if scored:
        run.model_folder.mkdir()
        (run.model_folder / "config.json").write_text("{}")
        results = {"train": {"steps": step, "seconds": 200.0}, "classes": ["a"], "test": {"top1": 0.75}}
        results["test"] |= {"intervals": {"top1": [0.7, 0.8]}} if finished else {}
        run.write_json("results.json", results)
    if finished:
        run.write_text("model/README.md", "card")
    return run


@pytest.fixture
def folder(tmp_path):
    make(tmp_path, "begun")
    make(tmp_path, "stopped", step=7)
    make(tmp_path, "scored", step=9, scored=True)
    make(tmp_path, "done", step=9, scored=True, finished=True)
    for age, name in enumerate(("begun", "stopped", "scored", "done")):
        os.utime(tmp_path / name / "recipe.yaml", (10**9 + age, 10**9 + age))
    return tmp_path


def test_each_run_has_its_state_and_the_newest_stands_first(folder):
    found = list_runs(folder).runs
    states = [("done", "done"), ("scored", "stopped"), ("stopped", "stopped"), ("begun", "begun")]
    assert [(each.folder.name, each.state) for each in found] == states
    assert [each.step for each in found] == [9, 9, 7, None]
    assert found[0].top1 == 0.75 and found[0].split == "test" and found[2].top1 is None
    assert found[0].interval == [0.7, 0.8] and found[1].interval is None
    assert "75.00% test (70.0 to 80.0)" in str(list_runs(folder))
    assert found[0].checkpoint_bytes == 1002
    assert [bool(each.next_command) for each in found] == [False, True, True, True]


def test_a_run_that_somebody_works_on_is_running(folder):
    owner = Ownership.take(folder / "stopped")
    assert next(each for each in list_runs(folder).runs if each.folder.name == "stopped").state == "running"
    owner.release()
    assert next(each for each in list_runs(folder).runs if each.folder.name == "stopped").state == "stopped"


def test_a_failed_run_says_why_until_it_goes_on(folder):
    run = Run(folder / "stopped")
    run.log("failed", text="the disk is full: \x1b[31m")
    table = list_runs(folder)
    found = next(each for each in table.runs if each.folder == run.folder)
    assert (found.state, found.failure, found.next_command) == (
        "failed",
        "the disk is full: \x1b[31m",
        run.resume_command,
    )
    assert "failed:\n  stopped: the disk is full: \\x1b[31m" in str(table)
    run.log("step", step=8)
    assert next(each for each in list_runs(folder).runs if each.folder == run.folder).state == "stopped"


def test_only_the_end_of_a_long_log_is_read(folder):
    run = Run(folder / "stopped")
    for _ in range(3):
        run.log("note", text="long " * 10_000)
    assert run.failure() == ""
    run.log("failed", text="a reason")
    assert run.failure() == "a reason"
    (run.folder / "metrics.jsonl").write_bytes(b'{"event": "failed", "text": "half')
    assert run.failure() == ""


def test_the_table_names_what_goes_on_and_how(folder):
    text = str(list_runs(folder))
    assert "done     done     photos   vit    75.00% test (70.0 to 80.0)  3 min" in text
    assert f"stopped: vitft finetune --resume {folder / 'stopped'}" in text


def test_broken_files_leave_gaps_and_no_traceback(folder):
    (folder / "done" / "environment.json").write_text("[1, 2")
    (folder / "done" / "results.json").write_text('{"train": {}, "classes": [], "test": 3}')
    assert list_runs(folder).runs[0].top1 is None
    (folder / "scored" / "results.json").write_text(
        '{"train": {}, "classes": [], "test": {"intervals": {"top1": "x"}}}'
    )
    assert list_runs(folder).runs[1].interval is None
    assert "\x1b" not in str(list_runs(folder))


def test_only_finished_runs_are_cleaned_and_only_when_asked(folder, capsys):
    with pytest.raises(SystemExit):
        main(["runs", "clean", str(folder)])
    assert (folder / "done" / "checkpoints").is_dir()
    assert "to remove them: vitft runs clean" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["runs", "clean", str(folder), "--yes"])
    assert [(folder / name / "checkpoints").is_dir() for name in ("done", "scored", "stopped")] == [False, True, True]
    assert (folder / "done" / "model" / "config.json").is_file()


def test_cleaning_a_run_that_is_not_done_is_our_own_fault(folder):
    with pytest.raises(AssertionError):
        clean(list_runs(folder).runs[2])


def test_the_list_is_also_for_programs(folder, capsys):
    with pytest.raises(SystemExit):
        main(["runs", "ls", str(folder), "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in rows] == ["done", "stopped", "stopped", "begun"]
    assert rows[0]["dataset"] == "someone/photos"


def test_without_a_command_the_runs_here_are_listed(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(SystemExit) as ended:
        main(["runs"])
    assert ended.value.code == 0
    assert "there are no runs in runs" in capsys.readouterr().out

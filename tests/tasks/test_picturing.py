"""The pictures of a run: of before and after, where they are worth what they cost."""

import errno
import json
from types import SimpleNamespace

import pytest

from vitft import Recipe, finetune
from vitft.processes.signals import StopRequest
from vitft.run import Run
from vitft.tasks import picturing

MICRO = "builtin:vit-micro"


def recipe(tmp_path, pictures, **changes):
    return Recipe.load(
        None,
        {
            "data.dataset": "builtin:digits",
            "data.max_train_samples": 40,
            "data.workers": 0,
            "model.checkpoint": MICRO,
            "model.train": "head",
            "train.duration": "1 epoch",
            "train.batch_size": 20,
            "run.output_dir": str(tmp_path / "runs"),
            "run.name": "one",
            "run.pictures": pictures,
            **changes,
        },
    )


def notes(run_dir):
    events = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [each["text"] for each in events if each["event"] == "note"]


def test_a_run_has_pictures_of_before_and_after(tmp_path):
    result = finetune(recipe(tmp_path, "on"))
    names = sorted(path.name for path in (result.run_dir / "figures").iterdir())
    assert names == [f"{kind}-before-after.png" for kind in ("distance", "filters", "positions", "rollout")]
    assert any("before and after" in note for note in notes(result.run_dir))


def drawn_for(tmp_path, pictures, train_gflop):
    """What is noted, and whether there are figures, where a finished run is to have pictures."""
    asked = recipe(tmp_path, pictures)
    run = Run.create(asked, "one")
    plan = SimpleNamespace(phases=[SimpleNamespace(gflop=1.0)], total_gflop=3 * train_gflop, is_sharded=False)
    setup = SimpleNamespace(recipe=asked, source=None, plan=plan, accelerator=SimpleNamespace(is_main_process=True))
    picturing.picture_run(run, setup)
    return (notes(run.folder) if (run.folder / "metrics.jsonl").exists() else []), (run.folder / "figures").exists()


def test_pictures_that_cost_more_than_a_twentieth_of_the_run_are_left_out(tmp_path):
    [note], is_there = drawn_for(tmp_path, "auto", train_gflop=100.0)
    assert "they would cost 21 % of the run's FLOPs" in note
    assert not is_there


def test_no_pictures_are_drawn_where_none_are_wanted(tmp_path):
    assert drawn_for(tmp_path, "off", train_gflop=1e9) == ([], False)


@pytest.mark.parametrize("error", [StopRequest("SIGTERM"), OSError(errno.ENOSPC, "No space left on device")])
def test_what_ends_the_run_ends_its_pictures_too_and_a_resumed_run_draws_them(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(picturing, "load_untrained", fail)
    with pytest.raises(type(error)):
        drawn_for(tmp_path, "auto", train_gflop=1e9)
    assert not [*tmp_path.rglob("metrics.jsonl"), *tmp_path.rglob("figures"), *tmp_path.rglob(".figures*")]


@pytest.mark.parametrize("error", [MemoryError("too large"), ValueError("odd")])
def test_pictures_that_fail_cost_the_run_nothing(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(picturing, "load_untrained", fail)
    [note], is_there = drawn_for(tmp_path, "auto", train_gflop=1e9)
    assert f"everything else is saved: {type(error).__name__}" in note
    assert not is_there

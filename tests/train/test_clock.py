"""Where the time of a training goes: what is counted, and what is said of it."""

import re

import pytest
import tiny
import torch

from vitft import finetune
from vitft.errors import TrainError
from vitft.train import progress
from vitft.train.clock import Clock, TimeSpent
from vitft.train.late import LateValues

PARTS = {"data", "copy", "views", "forward", "backward", "optimizer", "averaging", "logging"}


@pytest.fixture(scope="module")
def run(home):
    return finetune(tiny.recipe(home, run__name="timed", train__profile=True))


def test_every_step_says_where_its_time_went(run):
    lines = [line for line in tiny.raw_events(run.run_dir) if line["event"] == "step"]
    assert [set(line["seconds"]) for line in lines] == [PARTS - {"logging"}, *[PARTS] * (len(lines) - 1)]
    assert all(0 <= seconds < 60 for line in lines for seconds in line["seconds"].values())


def test_the_results_sum_the_parts_without_the_first_step(run):
    lines = [line["seconds"] for line in tiny.raw_events(run.run_dir) if line["event"] == "step"]
    found = run.results["train"]["seconds_by_part"]
    assert set(found) == PARTS | {"validation", "checkpoints"}
    for part in PARTS - {"logging"}:
        assert found[part] == pytest.approx(sum(each[part] for each in lines[1:]), abs=0.002)


def test_a_profile_prints_the_sentence_and_the_table(home, capsys):
    finetune(tiny.recipe(home, run__name="profiled", train__profile=True, train__duration="3 steps"))
    said = capsys.readouterr().err
    assert re.search(r"time: .*\d+%.*; .* would make it faster", said)
    assert re.search(r"part +seconds  share\ndata +\d", said)
    finetune(tiny.recipe(home, run__name="plain", train__duration="3 steps"))
    said = capsys.readouterr().err
    assert "time: " in said and "share" not in said


def test_parts_pauses_and_waiting_are_counted_apart():
    clock = Clock(torch.device("cpu"))
    for _ in clock.waiting(range(2)):
        with clock.part("forward"), clock.part("views"):
            pass
        clock.end_step()
    with clock.pause("validation"):
        pass
    assert set(clock.spent().seconds) == {"data", "forward", "views", "validation"}


def test_of_a_single_step_its_own_time_is_told():
    clock = Clock(torch.device("cpu"))
    with clock.part("backward"):
        pass
    assert set(clock.end_step()) == set(clock.spent().seconds) == {"backward"}


@pytest.mark.parametrize(
    ("seconds", "device", "is_exact", "said"),
    [
        ({"forward": 3, "backward": 6, "data": 1}, "cpu", True,
         "time: the model 90%, waiting for images 10%; a GPU, --train head or a smaller --image-size"),
        ({"forward": 1, "backward": 2, "data": 6, "copy": 1}, "cuda", True, "--set data.workers=5"),
        ({"forward": 3, "backward": 6, "data": 1}, "cuda", True, "; --precision bf16"),
        ({"forward": 1, "validation": 5}, "cpu", True, "train.evaluate_every"),
        ({"forward": 1, "checkpoints": 5}, "cpu", True, "train.checkpoint_every"),
        ({"forward": 9, "data": 1}, "cuda", False, "time: 10% waiting for images; --profile measures the rest"),
        ({"forward": 1, "data": 3}, "cuda", False, "time: 75% waiting for images: more processes that read images"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_limits_and_what_to_change(seconds, device, is_exact, said):
    assert said in str(TimeSpent(seconds, device, 3, is_exact))


# --- numbers that are read later ---------------------------------------------------------------------------


def test_late_numbers_come_in_order_after_the_lag():
    late = LateValues(torch.device("cpu"), lag=2)
    for step in range(4):
        late.put(step, torch.tensor([float(step), 0.5]))
        expected = [(step - 2, [step - 2.0, 0.5])] if step >= 2 else []
        assert list(late.take()) == expected
    assert [step for step, _ in late.take(every=True)] == [2, 3]
    assert list(late.take(every=True)) == []


def test_a_run_whose_numbers_come_late_logs_the_same(home, run, monkeypatch):
    monkeypatch.setattr(progress, "LateValues", lambda device: LateValues(device, lag=2))
    late = finetune(tiny.recipe(home, run__name="late")).run_dir
    tiny.assert_same_run(late, run.run_dir)


def test_a_number_that_is_not_finite_is_noticed_before_it_is_saved(home, monkeypatch):
    monkeypatch.setattr(progress, "LateValues", lambda device: LateValues(device, lag=2))
    settings = {"optim__lr": 1e30, "optim__warmup": "0 steps", "optim__max_grad_norm": None, "optim__name": "sgd"}
    with pytest.raises(TrainError, match=r"became (nan|inf) at step") as failed:
        finetune(tiny.recipe(home, run__name="exploded", train__checkpoint_every="1 steps", **settings))
    run = home / "runs" / "exploded"
    step = int(re.search(r"at step (\d+)", failed.value.wrong)[1])
    assert tiny.last_checkpoint(run).name == f"step-{step - 1:08d}"

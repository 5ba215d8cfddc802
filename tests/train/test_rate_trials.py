"""Several learning rates: each trial is a short run, the best goes on as if it had been the only one."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import tiny
from tiny import assert_killed, at_call, in_child, resume, send

from vitft import finetune
from vitft.errors import RecipeError, TrainError, UsageError
from vitft.features import backbone
from vitft.recipe.recipe import Recipe
from vitft.train import fit, rate_trials
from vitft.train.plan import Phase, Plan
from vitft.train.rate_trials import Tried, best_of, shortened

RATES = "0.03,0.001,1e25"  # the last one diverges
PLAIN = {"run__pictures": "off", "train__evaluate_every": "100%"}


@pytest.fixture(scope="module")
def chosen(home: Path) -> Path:
    """Return a run that tried three rates undisturbed."""
    run = finetune(tiny.recipe(home, run__name="rates", optim__lr=RATES, **PLAIN)).run_dir
    assert run is not None
    return run


def trials_of(run: Path) -> dict[str, object]:
    return json.loads((run / "results.json").read_text())["learning_rates"]


# --- the choice --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tried", "expected"),
    [
        ([(0.1, 0.5, 1.0), (0.2, 0.6, 2.0)], 0.2),  # top-1 comes first
        ([(0.1, 0.5, 1.0), (0.2, 0.5, 0.8), (0.4, 0.5, 0.9)], 0.2),  # then nll
        ([(0.1, 0.5, 1.0), (0.2, 0.5, 1.0)], 0.1),  # a tie: the smaller
        ([(0.1, 0.5, 1.2), (0.2, 0.5, 1.008), (0.4, 0.5, 1.0), (0.8, 0.4, 0.9)], 0.2),  # a plateau: its smallest
        ([(0.1, None, None), (0.2, 0.1, 9.0)], 0.2),
    ],
)
def test_the_best_rate_is_taken(tried: list[tuple[float, float | None, float | None]], expected: float) -> None:
    assert best_of([Tried(*each) for each in tried]) == expected
    assert best_of([Tried(*each) for each in reversed(tried)]) == expected


def test_if_every_rate_diverges_lower_ones_are_proposed() -> None:
    with pytest.raises(TrainError, match="with every learning rate: 10, 20") as error:
        best_of([Tried(10.0), Tried(20.0)])
    assert "--lr 0.1,1" in str(error.value.hint)


def test_a_trial_is_a_tenth_of_the_run_in_every_length() -> None:
    phases = (Phase(0, (8, 8), 1.0), Phase(60, (16, 16), 4.0))
    long = dict.fromkeys(Plan.__dataclass_fields__, 0) | {"phases": phases, "reasons": {}, "lr": 0.1}
    long |= {"total_steps": 95, "total_samples": 1420, "batch_size": 15, "warmup_steps": 12, "evaluate_every": 5}
    short = shortened(Plan(**long | {"checkpoint_every": 50, "patience": 3}))
    assert (short.total_steps, short.total_samples, short.warmup_steps) == (10, 150, 2)
    assert (short.evaluate_every, short.checkpoint_every, short.patience) == (10, 10, None)
    assert short.phases == (phases[0], Phase(6, (16, 16), 4.0))


def test_the_run_goes_on_as_if_the_chosen_rate_had_been_the_only_one(home: Path, chosen: Path) -> None:
    found = trials_of(chosen)
    assert [each["lr"] for each in found["tried"]] == [0.001, 0.03, 1e25]
    assert found["tried"][2] == {"lr": 1e25, "top1": None, "nll": None} and found["chosen"] in (0.001, 0.03)
    alone = finetune(tiny.recipe(home, optim__lr=found["chosen"], **PLAIN)).run_dir
    ours, theirs = tiny.tensors(chosen), tiny.tensors(alone)
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items()) and ours.keys() == theirs.keys()
    assert tiny.events(chosen, "step") == tiny.events(alone, "step")
    assert not (chosen / "trials").exists()
    [note] = [line["text"] for line in tiny.events(chosen, "note") if line["text"].startswith("learning rate")]
    assert note.startswith(f"learning rate {found['chosen']:g}, the best in its trial") and "diverged" in note
    page = (chosen / "report.html").read_text()
    assert "the best in its trial" in page
    [row] = [row for row in json.loads((chosen / "plan.json").read_text())["rows"] if row["name"] == "lr"]
    assert row["value"] == "0.001 or 0.03 or 1e+25" and row["reason"].startswith("each tried for 2 steps")


def test_a_trial_scores_what_a_short_run_scores(home: Path, chosen: Path) -> None:
    short = {
        "train__duration": "2 steps",
        "optim__warmup": "1 steps",
        "train__weights": "last",
        "train__patience": None,
    }
    alone = finetune(tiny.recipe(home, optim__lr=0.03, **PLAIN | short)).run_dir
    [scored] = tiny.events(alone, "validation")
    assert {"lr": 0.03, "top1": scored["top1"], "nll": scored["nll"]} == trials_of(chosen)["tried"][1]


def test_features_are_computed_once_for_all_trials(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    original = backbone.features_of
    monkeypatch.setattr(
        backbone,
        "features_of",
        lambda model, module, pixels: [passes.append(len(pixels)), original(model, module, pixels)][1],
    )
    head = {"model__train": "head", "model__drop_path": 0, "augment__mixup_alpha": 0, "data__cache": "off"}
    run = finetune(tiny.recipe(home, optim__lr=[0.01, 0.1], **PLAIN | head)).run_dir
    assert sum(passes) == 40 + 16 and len(trials_of(run)["tried"]) == 2


# --- killed, stopped, resumed ------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_ended_in_a_trial_a_run_goes_on_with_it_and_repeats_none(
    home: Path, chosen: Path, ending: signal.Signals
) -> None:
    run = home / "runs" / f"rates-{ending.name}"

    def start() -> None:
        at_call(fit, "take_step", 4, send(ending))  # the second step of the second rate
        finetune(tiny.recipe(home, run__name=run.name, optim__lr=RATES, **PLAIN))

    first = in_child(start)
    if ending == signal.SIGKILL:
        assert_killed(first, run)
    else:
        assert first.code == 75 and "in the trial of the learning rate 0.03: stopped at step 2 of 2" in first.text
        assert f"vitft finetune --resume {run}\n" in first.text  # of the run, not of the trial
    last = resume(run)
    assert last.code == 0, last.text
    assert "rate 0.001 (1 of 3)" in first.text and "rate 0.001 (1 of 3)" not in last.text
    assert "trying the learning rate 0.03 (2 of 3)" in last.text
    assert ("resumed from" in last.text) == (ending == signal.SIGTERM)
    tiny.assert_same_run(run, chosen)
    assert trials_of(run) == trials_of(chosen)


def test_a_run_killed_after_the_choice_keeps_it(home: Path, chosen: Path) -> None:
    run = home / "runs" / "rates-later"

    def start() -> None:
        at_call(rate_trials, "_write", 4, lambda: at_call(fit, "take_step", 5, send(signal.SIGKILL)), after=True)
        finetune(tiny.recipe(home, run__name=run.name, optim__lr=RATES, **PLAIN))

    assert_killed(in_child(start), run)
    last = resume(run)
    assert last.code == 0 and "trying" not in last.text and "the best in its trial" in last.text
    tiny.assert_same_run(run, chosen)


# --- bad input ---------------------------------------------------------------------------------------------


def test_rates_to_choose_from_are_refused_for_a_resumed_run(chosen: Path) -> None:
    for rates in ("1e-3,1e-2", RATES):
        with pytest.raises(UsageError, match="goes on with the learning rate that it chose") as error:
            finetune(resume=chosen, changes={"optim.lr": rates})
        assert f"vitft finetune --resume {chosen}" in str(error.value.hint)


def test_rates_are_put_in_order_and_written_as_a_list() -> None:
    recipe = Recipe.load(None, {"optim.lr": "1e-3, 1e-4,3e-4"})
    assert recipe.optim.lr == (1e-4, 3e-4, 1e-3) == Recipe.load(None, {"optim.lr": [3e-4, 1e-4, 1e-3]}).optim.lr
    assert "lr:\n  - 0.0001\n  - 0.0003\n  - 0.001\n" in recipe.dump()
    assert Recipe.load(None, {"optim.lr": "3e-4"}).optim.lr == 3e-4


@pytest.mark.parametrize(
    "rates",
    ["1e-3,fast", "1e-3,-1", "0,1e-3", "1e-3,1e-3", [1e-3], [], "1e-3,", "1,inf", [True, 0.5], [0.1] * 11, [[1, 2]]],
)
def test_nonsense_is_refused_with_an_example(rates: object) -> None:
    with pytest.raises(RecipeError, match=r"optim.lr: .* is not allowed; use a number > 0, or 2 to 10 .*1e-4,3e-4"):
        Recipe.load(None, {"optim.lr": rates})

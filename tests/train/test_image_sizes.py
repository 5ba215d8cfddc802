"""A run at several image sizes: which step has which, what is kept, and that a resume changes nothing."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file
from tiny import assert_killed, at_call, in_child, resume, send

from vitft import finetune
from vitft.errors import ModelError, RecipeError
from vitft.train import step

SCHEDULE = {"train__resolution_schedule": {12: "40%", "8x16": "20%", 16: "40%"}}


@pytest.fixture(scope="module")
def scheduled(home: Path) -> Path:
    run = finetune(tiny.recipe(home, run__name="several-sizes", **SCHEDULE)).run_dir
    assert run is not None
    return run


def test_every_step_has_the_size_of_its_phase(scheduled: Path) -> None:
    sizes = [line["image_size"] for line in tiny.events(scheduled, "step")]
    assert sizes == [[12, 12]] * 4 + [[8, 16]] * 3 + [[16, 16]] * 4  # of 11 steps: 4.4 and 6.6, rounded


def test_the_checkpoint_has_the_final_size_from_the_first_step_on(scheduled: Path) -> None:
    tables = [
        load_file(path)["vit.embeddings.position_embeddings"].shape
        for path in sorted(scheduled.glob("checkpoints/*/model.safetensors"))
    ]
    assert tables and all(shape == (1, 17, 16) for shape in tables)
    saved = json.loads((scheduled / "model" / "config.json").read_text())
    assert saved["image_size"] == 16
    results = json.loads((scheduled / "results.json").read_text())
    assert results["resize"]["image_size"] == {"before": [8, 8], "after": [16, 16]}
    assert set(results["train"]["speeds"]) == {"12x12", "8x16", "16x16"}
    assert all(each["steps_per_second"] > 0 for each in results["train"]["speeds"].values())


@pytest.mark.parametrize("at", [3, 6, 9])
def test_a_run_killed_at_any_size_resumes_bit_for_bit(home: Path, scheduled: Path, at: int) -> None:
    name = f"killed-at-{at}"

    def work() -> None:
        at_call(step, "_accumulate", at, send(signal.SIGKILL))
        finetune(tiny.recipe(home, run__name=name, **SCHEDULE))

    run = home / "runs" / name
    assert_killed(in_child(work), run)
    assert resume(run).code == 0
    tiny.assert_same_run(run, scheduled)


def test_a_part_too_small_for_a_step_is_left_out_but_never_the_last(home: Path) -> None:
    schedule = {8: "98%", 12: "1%", 16: "1%"}
    plan = finetune(tiny.recipe(home, train__resolution_schedule=schedule), dry_run=True).plan_text
    assert "8x8 from step 0, 16x16 from step 10" in plan


def test_what_cannot_be_is_said_before_anything_is_written(home: Path) -> None:
    before = sorted((home / "runs").iterdir()) if (home / "runs").exists() else []
    with pytest.raises(ModelError, match=r"train\.resolution_schedule: an image size of 10x10 is not divisible by 4"):
        finetune(tiny.recipe(home, train__resolution_schedule={10: "50%", 16: "50%"}))
    with pytest.raises(RecipeError, match="add up to 90 % of the steps"):
        tiny.recipe(home, train__resolution_schedule={8: "50%", 16: "40%"})
    with pytest.raises(RecipeError, match="is not a share of the steps"):
        tiny.recipe(home, train__resolution_schedule={8: 50, 16: "50%"})
    with pytest.raises(RecipeError, match=r"ends at 16x16, but model\.image_size is 8x8"):
        tiny.recipe(home, train__resolution_schedule={8: "50%", 16: "50%"}, model__image_size=8)
    assert (sorted((home / "runs").iterdir()) if (home / "runs").exists() else []) == before

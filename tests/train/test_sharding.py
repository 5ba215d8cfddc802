"""A model divided over two processes takes the steps of two that have it whole, and resumes bit for bit.

The processes are forked from the test's own, as in ``test_processes.py``.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import Any

import every_process
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import events, last_checkpoint
from torch import Tensor
from torch.distributed import fsdp  # noqa: F401 - before the fork, not in each process
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

from vitft.errors import ModelError, RecipeError
from vitft.processes.accelerate_config import AccelerateSettings, Said
from vitft.recipe.recipe import Recipe
from vitft.train import checkpoint, sharding

pytestmark = pytest.mark.timeout(600)  # on a machine that others use too

UNEVEN = {  # of a step, one process has 8 images and the other 10: two and three passes; of the last, none and 2
    "train.batch_size": 18,
    "train.micro_batch_size": 4,
    "train.duration": f"{146 / 40} epochs",
}
HALF = {
    "train.precision": "bf16",
    "train.gradient_checkpointing": True,
    "model.train": "last:1",
    "train.features": "off",
    "optim.name": "sgd",
    "train.duration": "3 steps",
    "train.evaluate_every": "3 steps",
}
STEPS = 9


def job(home: Path, folder: Path, name: str, how: str, **changes: object) -> dict[str, Any]:
    values = tiny.recipe(home).flat() | UNEVEN | {"data.dataset": str(folder / "photos"), "run.pictures": "auto"}
    values |= {"run.output_dir": str(folder), "run.name": name, "train.sharding": how}
    return {"finetune": values | {key.replace("__", "."): value for key, value in changes.items()}}


def killed() -> None:
    """Kill the main process when all parts of the second checkpoint are written, but not its manifest."""
    if os.environ["RANK"] == "0":
        tiny.at_call(checkpoint, "complete", 2, tiny.send(signal.SIGKILL))


def without_room() -> None:
    """Let the second process find no room for its part of its second checkpoint."""

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if os.environ["RANK"] == "1":
        tiny.at_call(HuggingFaceStorageWriter, "write_data", 2, full)


@pytest.fixture(scope="module")
def runs(home: Path, uninterrupted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the runs; the last one is resumed after its main process was killed."""
    folder = tmp_path_factory.mktemp("sharding")
    validation = tiny.make_photos(folder / "photos") / "validation" / "ash"
    some = next(validation.glob("*.png"))
    Image.open(some).rotate(180).save(validation / "more.png")  # 17: one process has a batch more than the other
    chosen = {
        "ddp": job(home, folder, "ddp", "none"),
        "fsdp": job(home, folder, "fsdp", "fsdp"),
        "ddp-half": job(home, folder, "ddp-half", "none", **{k.replace(".", "__"): v for k, v in HALF.items()}),
        "fsdp-half": job(home, folder, "fsdp-half", "fsdp", **{k.replace(".", "__"): v for k, v in HALF.items()}),
        "full": job(home, folder, "full", "fsdp", train__checkpoint_every="1 steps")
        | {"before": without_room, "fails": True},
        "killed": job(home, folder, "killed", "fsdp") | {"before": killed},
    }
    with pytest.raises(torch.multiprocessing.ProcessExitedException):
        every_process.launch(2, chosen, folder)
    run = folder / "killed"
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert left == [".step-00000006.partial", "step-00000003"]
    alone = tiny.resume(run)
    assert alone.code == 1 and f"vitft finetune --resume {run} --num-processes 2" in alone.text, alone.text
    every_process.launch(2, {"resumed": {"resume": run}}, folder)
    return folder


def logged(run: Path, key: str) -> Tensor:
    return torch.tensor([event[key] for event in events(run, "step")], dtype=torch.float64)


def parts(run: Path) -> list[dict[str, Tensor]]:
    return [load_file(path) for path in sorted(last_checkpoint(run).glob("shard-*.safetensors"))]


def put_together(run: Path) -> dict[str, Tensor]:
    """Return the whole tensors of a divided model's last checkpoint."""
    found = parts(run)
    names = dict.fromkeys(name for part in found for name in part)
    each = {name: [part[name] for part in found if name in part] for name in names}
    return {name: pieces[0] if pieces[0].ndim == 0 else torch.cat(pieces) for name, pieces in each.items()}


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the norm of all differences against the norm of all tensors."""
    assert ours.keys() == theirs.keys()
    apart = sum((ours[name] - theirs[name]).double().square().sum() for name in ours)
    return float((apart / sum(tensor.double().square().sum() for tensor in theirs.values())) ** 0.5)


def test_the_steps_are_those_of_whole_copies(runs: Path) -> None:
    for key in ("loss", "grad_norm"):
        ours, theirs = logged(runs / "fsdp", key), logged(runs / "ddp", key)
        print(key, float(((ours - theirs) / theirs).abs().max()))
        assert len(ours) == STEPS
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    assert logged(runs / "ddp", "grad_norm").max() > 1.5  # it was clipped


def test_weights_averages_and_moments_are_those_of_whole_copies(runs: Path) -> None:
    ours = put_together(runs / "fsdp")
    for group in ("model", "averaged", "best", "optimizer"):
        theirs = load_file(last_checkpoint(runs / "ddp") / f"{group}.safetensors")
        apart = difference({k.split("/", 1)[1]: t for k, t in ours.items() if k.split("/")[0] == group}, theirs)
        print(group, apart)
        assert apart < 1e-4, group


def test_each_process_writes_its_part(runs: Path) -> None:
    sizes = [sum(tensor.numel() for tensor in part.values()) for part in parts(runs / "fsdp")]
    assert len(sizes) == 2 and sum(sizes) * 0.4 < min(sizes)


def test_the_saved_model_is_a_plain_one(runs: Path) -> None:
    from transformers import AutoModelForImageClassification

    torch.manual_seed(0)
    image, logits = torch.randn(1, 3, 8, 8), []
    for name in ("fsdp", "ddp"):
        model, report = AutoModelForImageClassification.from_pretrained(runs / name / "model", output_loading_info=True)
        assert type(model).__name__ == "ViTForImageClassification" and not any(report.values())
        logits.append(model(image).logits)
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)
    saved = [load_file(runs / name / "model" / "model.safetensors") for name in ("fsdp", "ddp")]
    assert difference(*saved) < 1e-4
    config = [(runs / name / "model" / "config.json").read_text() for name in ("fsdp", "ddp")]
    assert config[0] == config[1]


def test_every_image_is_scored_once(runs: Path) -> None:
    for name in ("fsdp", "ddp"):
        assert len(events(runs / name, "validation")) == 5
        results = (runs / name / "results.json").read_text()
        assert '"count": 17' in results and '"count": 6' in results
    ours, theirs = ([event["nll"] for event in events(runs / name, "validation")] for name in ("fsdp", "ddp"))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_half_precision_and_recomputed_activations_come_close(runs: Path) -> None:
    ours, theirs = (logged(runs / f"{name}-half", "loss") for name in ("fsdp", "ddp"))
    print("bf16", float(((ours - theirs) / theirs).abs().max()))
    assert len(ours) == 3
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=0)


def test_a_killed_run_resumes_bit_for_bit(runs: Path) -> None:
    tiny.assert_same_run(runs / "killed", runs / "fsdp")


def test_a_process_that_finds_no_room_ends_all_and_leaves_the_checkpoint_before(runs: Path) -> None:
    for rank in range(2):
        said = (runs / f"full.{rank}.json").read_text()
        assert "step-00000002" in said and "No space left on device" in said and "step-00000001 is complete" in said
    assert [path.name for path in (runs / "full" / "checkpoints").iterdir()] == ["step-00000001"]
    checkpoint.verify(last_checkpoint(runs / "full"))


# --- what is asked for, and what is refused ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "settled", "accelerate", "processes", "expected"),
    [
        ("fsdp", None, None, 2, True),
        ("fsdp", None, None, 1, False),
        ("auto", None, None, 2, False),
        ("auto", None, "fsdp", 2, True),
        ("auto", "none", "fsdp", 2, False),
        ("auto", "fsdp", None, 2, True),
    ],
)
def test_the_recipe_decides_then_the_checkpoint_then_accelerate(
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    settled: str | None,
    accelerate: str | None,
    processes: int,
    expected: bool,
) -> None:
    said = AccelerateSettings(sharding=Said(accelerate, "it") if accelerate else None)
    monkeypatch.setattr(sharding, "accelerate_settings", lambda: said)
    reasons: dict[str, str] = {}
    recipe = Recipe.load(None, {"train.sharding": wanted})
    assert sharding.choose_sharding(recipe, processes, settled, reasons) is expected
    assert ("sharding" in reasons) == (expected or wanted == "fsdp")  # nothing is silent


@pytest.mark.parametrize(
    ("changes", "precision", "on_features", "match"),
    [
        ({}, "fp16", False, "loss scale"),
        ({"train.compile": "on"}, "no", False, "train.compile"),
        ({"model.image_size": 8, "train.resolution_schedule": {4: "50%", 8: "50%"}}, "no", False, "several image"),
        ({"model.train": "head"}, "no", True, "features"),
        ({"model.train": "lora"}, "no", False, "model.train: lora"),
        ({"train.head_first": True}, "no", False, "head_first"),
        ({"optim.lr": [1e-4, 1e-3]}, "no", False, "several learning rates"),
        ({"hub.push": True, "hub.every": "best"}, "no", False, "hub.every"),
    ],
)
def test_what_does_not_go_with_a_divided_model_is_refused(
    home: Path, changes: dict[str, object], precision: str, on_features: bool, match: str
) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    model = ViTForImageClassification(ViTConfig.from_pretrained(home / "checkpoint"))
    sharding.check_sharding(Recipe(), model, "bf16", on_features=False)
    with pytest.raises(RecipeError, match=match) as error:
        sharding.check_sharding(Recipe.load(None, changes), model, precision, on_features=on_features)
    assert error.value.hint


def test_a_model_with_batch_normalisation_is_not_divided(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    model = ResNetForImageClassification(ResNetConfig.from_pretrained(tiny.make_convolutions(tmp_path)))
    with pytest.raises(ModelError, match=r"resnet model: .*(blocks|BatchNorm)"):
        sharding.check_sharding(Recipe(), model, "no", on_features=False)

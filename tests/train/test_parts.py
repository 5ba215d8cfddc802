"""Everything that `model.train` can be, in runs: what moves, and that a stopped run ends with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file

from vitft import finetune
from vitft.errors import StoppedEarly
from vitft.train.stopping import StopRequests

# value: (its recipe, what stays of the backbone)
PARTS: dict[str, tuple[dict[str, object], Callable[[str], bool]]] = {
    "attention": ({}, lambda name: ".attention." not in name),
    "last:1": (  # on features
        {"model__drop_path": 0, "augment__mixup_alpha": 0, "augment__erase": 0, "augment__flip": 0}
        | {"augment__crop_scale": [1, 1]},
        lambda name: ".layer.1." not in name and not name.startswith("vit.layernorm"),
    ),
    "norms-and-biases": ({}, lambda name: not (name.endswith("bias") or "layernorm" in name)),
    "all-but-embedding": ({"optim__head_lr_factor": 3}, lambda name: "embeddings" in name),
    "lora": (
        {"model__lora_rank": 2, "model__lora_dropout": 0.3, "train__head_first": True},
        lambda name: not name.endswith(("q_proj.weight", "v_proj.weight", "query.weight", "value.weight")),
    ),
    "dora": (
        {"model__lora_targets": "all-linear", "model__adapter": True},
        lambda name: not (".layer" in name and name.endswith("weight") and "layernorm" not in name),
    ),
}

RARELY = {"train__evaluate_every": "3 steps", "train__checkpoint_every": "3 steps", "run__pictures": "off"}


def settings(what: str) -> dict[str, object]:
    return {"model__train": what, "train__duration": "3 steps", **RARELY} | PARTS[what][0]


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what comes after the scores, which takes longer than these runs."""
    for name in ("finish", "keep_thumbnails"):
        monkeypatch.setattr(f"vitft.tasks.training.{name}", lambda *_: None)


@pytest.mark.parametrize("what", PARTS)
def test_a_stopped_run_resumes_to_the_same_bits_and_only_its_part_has_moved(
    home: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    name = what.replace(":", "-")
    whole = finetune(tiny.recipe(home, run__name=f"{name}-whole", **settings(what))).run_dir
    assert whole is not None
    asked = 0

    def request(_: StopRequests) -> str:
        nonlocal asked
        asked += "metrics.jsonl" in [path.name for path in run.glob("*")] and len(tiny.events(run, "step")) == 2
        return "the test" if asked else ""

    run = home / "runs" / f"{name}-stopped"
    with monkeypatch.context() as patch, pytest.raises(StoppedEarly, match="at step 2 of 3"):
        patch.setattr(StopRequests, "request", request)
        finetune(tiny.recipe(home, run__name=run.name, **settings(what)))
    finetune(resume=run)
    tiny.assert_same_run(run, whole)

    before, after = (load_file(folder / "model.safetensors") for folder in (home / "checkpoint", run / "model"))
    assert before.keys() == after.keys()  # adapters are merged
    backbone = {name for name in before if not name.startswith("classifier")}
    stayed = {name for name in backbone if torch.equal(before[name], after[name])}
    assert stayed == {name for name in backbone if PARTS[what][1](name)}
    assert after["classifier.weight"].any()
    assert (run / "adapter" / "adapter_model.safetensors").is_file() == (what == "dora")

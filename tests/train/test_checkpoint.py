from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vitft.errors import TrainError
from vitft.recipe.keys import OptimRecipe
from vitft.train import checkpoint
from vitft.train.checkpoint import Best, TrainState
from vitft.train.optim import make_optimizer

TENSORS = {
    "model": {"weight": torch.arange(6.0).view(2, 3).T, "count": torch.tensor(3)},  # one is not contiguous
    "averaged": {"weight": torch.tensor([1e-45, -0.0, float("inf")])},
    "best": {},
}


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save(folder, TrainState(step=step), TENSORS, keep)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    state = TrainState(
        step=12,
        evaluated=10,
        best=Best(0.5, 1.25, 10),
        is_out_of_patience=True,
        elapsed_seconds=0.1 + 0.2,
        bad_rows={"größe.png": "cut short"},
        stream=[{"0": {"epoch": 1}}],
        scaler={"scale": 65536.0},
        conditions={"processes": 1},
        recipe={"optim": {"lr": 1e-4}},
    )
    loaded, tensors = checkpoint.load(checkpoint.save(tmp_path, state, TENSORS, keep=1))
    assert loaded == state
    assert set(tensors) == {"model", "averaged"}  # what is empty has no file
    assert torch.equal(tensors["model"]["weight"], TENSORS["model"]["weight"])
    assert tensors["model"]["count"] == 3
    assert (
        tensors["averaged"]["weight"].view(torch.int32).tolist()
        == TENSORS["averaged"]["weight"].view(torch.int32).tolist()
    )


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (2, 9, 10, 11, 100):
        save(tmp_path, step, keep=3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000010", "step-00000011", "step-00000100"]
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000100"


def test_what_a_killed_process_left_is_no_checkpoint_and_is_swept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".step-00000002.partial").mkdir()
    (tmp_path / ".step-00000000.removed").mkdir()
    assert checkpoint.newest(tmp_path) == tmp_path / "step-00000001"
    save(tmp_path, 3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000001", "step-00000003"]


def test_without_checkpoints_there_is_no_newest(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "none") is None


@pytest.mark.parametrize("name", ["model.safetensors", "averaged.safetensors", "state.json", "manifest.json"])
def test_a_flipped_byte_anywhere_is_found_and_its_file_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1)
    whole = (path / name).read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 25)):
        (path / name).write_bytes(whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :])
        with pytest.raises(TrainError, match="is damaged") as error:
            checkpoint.load(path)
        if name != "manifest.json":  # a damaged manifest may accuse the file whose line was hit
            assert f"damaged: {name} is not what was written" in error.value.wrong


LIES = {
    "a list": "[]",
    "nothing": "null",
    "no file": "{}",
    "empty": "",
    "deep": "[" * 100_000,
    "another folder": json.dumps({"../model.safetensors": {"bytes": 1, "sha256": ""}}),
    "a number": json.dumps({"model.safetensors": 7}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_damage(tmp_path: Path, lie: str) -> None:
    path = save(tmp_path, 1)
    (path / "manifest.json").write_text(LIES[lie])
    for read in (checkpoint.load, checkpoint.load_state):
        with pytest.raises(TrainError, match=r"the checkpoint .* is damaged") as error:
            read(path)
        assert error.value.hint == f"remove {path} and resume from the one before it"


@pytest.mark.parametrize("state", [[], {}, {"best": None, "step": "7"}, {"best": 7}, {"best": None, "colour": 1}, None])
def test_a_state_that_is_none_is_damage_even_with_the_right_checksum(tmp_path: Path, state: object) -> None:
    path = save(tmp_path, 1)
    (path / "state.json").write_text(json.dumps(state))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["state.json"] = checkpoint._fingerprint(path / "state.json")
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainError, match=r"damaged: state\.json"):
        checkpoint.load(path)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json"])
def test_a_file_that_is_missing_or_short_is_named(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1)
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[:-1])
    with pytest.raises(TrainError, match=f"damaged: {name}"):
        checkpoint.load(path)
    (path / name).unlink()
    with pytest.raises(TrainError, match=f"damaged: {name}"):
        checkpoint.load(path)


def test_the_state_alone_is_verified_too(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "state.json").write_text((path / "state.json").read_text().replace('"step": 1', '"step": 2'))
    with pytest.raises(TrainError, match=r"damaged: state\.json"):
        checkpoint.load_state(path)


def test_a_first_checkpoint_that_cannot_be_written_says_that_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(TrainError, match="there is no earlier one") as error:
        save(tmp_path / "checkpoints", 1)
    assert error.value.hint == f"make room, then: vitft finetune --resume {tmp_path}"


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_an_optimizer_goes_on_as_if_it_had_never_stopped(name: str) -> None:
    recipe = OptimRecipe(name=name, lr=0.1)

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        named = dict(model.named_parameters())
        halves = [list(named)[:1], list(named)[1:]]
        groups = [{"params": [named[n] for n in half], "names": half, "lr_scale": 1.0} for half in halves]
        return model, make_optimizer(groups, recipe, fused=True)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
            model(inputs).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    whole, whole_optimizer = make()
    train(whole, whole_optimizer, range(6))

    model, optimizer = make()
    train(model, optimizer, range(3))
    weights: dict[str, Tensor] = {key: t.clone() for key, t in model.state_dict().items()}
    state = {key: t.clone() for key, t in checkpoint.optimizer_tensors(optimizer).items()}
    assert state
    model, optimizer = make()
    model.load_state_dict(weights)
    checkpoint.load_optimizer(optimizer, state)
    train(model, optimizer, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_a_state_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    values = json.loads((path / "state.json").read_text())
    del values["evaluated"], values["is_out_of_patience"]
    assert TrainState.from_json(values) == TrainState(step=1)

"""What goes up says nothing of whose machine it came from."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from vitft.errors import HubError
from vitft.hub.bundle import MODEL, check_secrets, collect, collect_training, shortener
from vitft.hub.card import write_card
from vitft.recipe.recipe import Recipe


def test_local_paths_lose_what_stands_before_their_last_part(run: Path) -> None:
    shorten = shortener(run)
    recipe = (run / "recipe.yaml").read_text()
    photos = next(line.split(": ")[1] for line in recipe.splitlines() if "dataset:" in line)
    assert shorten(f"skipped {photos}/train/ash/003.png: broken") == "skipped photos/train/ash/003.png: broken"
    assert shorten("see /home/ada/secret plans/x.txt") == "see secret plans/x.txt"
    assert shorten(r"C:\Users\ada\x.txt and ~/photos/cat.png") == "x.txt and cat.png"
    for text in (
        "https://huggingface.co/uoft-cs/cifar100",
        "1/2 and/or 3/4",
        "positions 8x8 -> 12x12",
        "a / b",
        "</s>",
    ):
        assert shorten(text) == text


def test_the_bundle_holds_no_path_of_this_machine(run: Path) -> None:
    (run / "figures").mkdir()
    (run / "figures" / "rollout.png").write_bytes(b"picture")
    (run / "figures" / "notes.txt").write_text("not for others")
    (run / "adapter").mkdir()
    (run / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(run / "base")}))
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    bundle = collect(run, run / "model", write_card(run, run / "model", "me/leaves").text)
    assert "figures/rollout.png" in bundle and "figures/notes.txt" not in bundle
    assert json.loads(bundle["adapter/adapter_config.json"]) == {"base_model_name_or_path": "base"}
    assert all(MODEL.fullmatch(name) for name in bundle)
    for name, content in (bundle | collect_training(run, next((run / "checkpoints").glob("step-*")))).items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        assert str(run.parent).encode() not in data and b"/tmp" not in data, name
    assert b"push: false" in bundle["recipe.yaml"]


def test_a_checkpoint_that_went_up_can_be_resumed(run: Path, tmp_path: Path) -> None:
    from vitft.train.checkpoint import load

    bundle = collect_training(run, sorted((run / "checkpoints").glob("step-*"))[-1])
    for name, content in bundle.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    [checkpoint] = (tmp_path / "training" / "checkpoints").iterdir()
    state, tensors = load(checkpoint)  # verifies every checksum
    assert state.step == 11 and tensors["model"]


def test_a_secret_stops_the_push_and_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    monkeypatch.setattr(socket, "gethostname", lambda: "ada-laptop")
    check_secrets(collect(run, run / "model", "clean"), "hf_secret")
    for content, what in {
        "log in with hf_secret": "token",
        "see /home/ada/x": "home folder",
        "made on ada-laptop.": "name of this machine",
    }.items():
        with pytest.raises(HubError, match=f"README.md contains .*{what}"):
            check_secrets({"README.md": content.encode()}, "hf_secret")
    for harmless in ("/home/adalbert/x", "not-ada-laptop-at-all", "ada-laptops"):
        check_secrets({"README.md": harmless.encode()}, "hf_secret")


@pytest.mark.parametrize("host", ["model", "main", "train", "birch"])
def test_a_machine_called_by_a_common_word_holds_no_push_back(
    host: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    check_secrets(collect(run, run / "model", f"The {host} is good."), "hf_secret")
    with pytest.raises(HubError, match="name of this machine"):
        check_secrets({"README.md": f"made by ada@{host}".encode()}, "hf_secret")


def test_the_first_part_of_a_full_host_name_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-17.lab.example")
    for text in (b"on gpu-17", b"on gpu-17.lab.example"):
        with pytest.raises(HubError, match="name of this machine"):
            check_secrets({"README.md": text}, "hf_secret")


def test_a_home_folder_like_the_end_of_an_address_holds_no_push_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/docs"))
    check_secrets({"README.md": b"https://huggingface.co/docs"}, "hf_secret")
    with pytest.raises(HubError):
        check_secrets({"README.md": b"read from /docs/photos"}, "hf_secret")


def test_a_token_is_found_in_any_file_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitft.hub.bundle._CHUNK", 16)
    picture = tmp_path / "x.png"
    for place in range(40):
        picture.write_bytes(b"." * place + b"hf_secret" + b"." * 20)
        with pytest.raises(HubError, match=r"figures/x\.png"):
            check_secrets({"figures/x.png": picture}, "hf_secret")
    picture.write_bytes(b"hf_secre" * 20)
    check_secrets({"figures/x.png": picture}, "hf_secret")


def test_a_command_line_names_no_folder(run: Path) -> None:
    path = run / "environment.json"
    words = [
        "/opt/bin/vitft",
        "--recipe",
        "clients/acme/r.yaml",
        "--set",
        "data.config=../x/y",
        "--output-dir=out/secret",
    ]
    words += ["my photos/a b", "--lr", "1e-4", "--model", "acme/tiny-vit"]
    recipe = run / "recipe.yaml"
    recipe.write_text(re.sub("checkpoint: .*", "checkpoint: acme/tiny-vit", recipe.read_text()))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"command": words, "model": {"revision": "a" * 40}}))
    theirs = collect(run, run / "model", "")["environment.json"]
    assert isinstance(theirs, bytes)
    assert json.loads(theirs)["command"] == [
        "vitft", "--recipe", "r.yaml", "--set", "data.config=y", "--output-dir=secret", "a b", "--lr", "1e-4",
        "--model", "acme/tiny-vit",
    ]  # fmt: skip


def test_the_candidates_of_a_run_lose_their_folders(run: Path) -> None:
    candidates = {"model.candidates": [str(run.parent / "other"), "some/body"]}
    (run / "recipe.yaml").write_text(Recipe.load(run / "recipe.yaml", candidates).dump())
    bundle = collect(run, run / "model", write_card(run, run / "model", "me/leaves").text)
    assert b"- other\n  - some/body\n" in bundle["recipe.yaml"]
    assert not any(str(run.parent).encode() in bundle[name] for name in ("recipe.yaml", "README.md"))


def test_classes_are_no_paths(run: Path) -> None:
    path = run / "results.json"
    classes = ["/m/01g317", "/m/0k4j", "~/x"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"classes": classes}))
    theirs = collect(run, run / "model", "")["results.json"]
    assert isinstance(theirs, bytes) and json.loads(theirs)["classes"] == classes


def test_environment_keeps_what_is_not_a_path(run: Path) -> None:
    bundle = collect(run, run / "model", "")
    assert isinstance(bundle["environment.json"], bytes)
    ours, theirs = json.loads((run / "environment.json").read_text()), json.loads(bundle["environment.json"])
    assert theirs["versions"] == ours["versions"] and theirs["dataset"]["rows"] == ours["dataset"]["rows"]
    assert theirs["dataset"]["id"] == "photos" and theirs["model"]["id"] == "checkpoint"


def test_a_calibration_goes_up_with_its_model_and_leaves_with_it(run: Path) -> None:
    (run / "model" / "calibration.json").write_text('{"temperature": 1.5}')
    assert collect(run, run / "model", "card")["calibration.json"] == run / "model" / "calibration.json"
    assert MODEL.fullmatch("calibration.json")

"""From a Hub with a dataset and a checkpoint to a model on it that everybody can use, also on a bad night."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_client import Client
from hub_server import Fault, Hub
from PIL import Image

CLASSES = ["beaver", "dolphin", "海豹", "whale: blue", 'it\'s "a" | seal', "yes"]
BASICS = (
    "--batch-size", 8, "--set", "train.duration=6 steps", "--set", "train.evaluate_every=2 steps",
    "--set", "train.checkpoint_every=2 steps", "--set", "data.workers=0", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def cifar() -> dict[str, bytes]:
    """Return the files of a dataset of CIFAR-100's shape."""
    import datasets

    generator = np.random.default_rng(0)
    files = {"README.md": b"---\nlicense: mit\n---\n# a few animals\n"}
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=CLASSES),
            "coarse_label": datasets.ClassLabel(names=["fish", "not fish"]),
        }
    )
    for split, count in {"train": 48, "test": 12}.items():
        labels = [number % len(CLASSES) for number in range(count)]
        pixels = generator.integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
        rows = {"img": [Image.fromarray(each) for each in pixels], "fine_label": labels,
                "coarse_label": [each % 2 for each in labels]}  # fmt: skip
        buffer = io.BytesIO()
        datasets.Dataset.from_dict(rows, features=features).to_parquet(buffer)
        files[f"data/{split}-00000-of-00001.parquet"] = buffer.getvalue()
    return files


@pytest.fixture
def world(hub: Hub, cifar: dict[str, bytes], finished: Path, client: Client) -> Iterator[Hub]:
    """Return a Hub with the dataset, under its old name too, and a checkpoint; the user's folder is empty."""
    hub.make("dataset", "uoft-cs/cifar100", cifar)
    hub.renamed["dataset", "cifar100"] = "uoft-cs/cifar100"
    checkpoint = finished.parents[1] / "checkpoint"
    card = b"---\nlicense: apache-2.0\nbase_model: someone/else\n---\n# tiny\n"
    hub.make("model", "acme/tiny-vit", {p.name: p.read_bytes() for p in checkpoint.iterdir()} | {"README.md": card})
    yield hub
    client.empty()


def forget(client: Client) -> None:
    """Empty the user's caches."""
    shutil.rmtree(client.home / "hf", ignore_errors=True)


def finetune(client: Client, *more: object, **options: Any) -> Any:
    return client.run("finetune", "--dataset", "cifar100", "--model", "acme/tiny-vit", *BASICS, *more, **options)


def test_from_an_empty_cache_to_a_model_that_everybody_can_use(world: Hub, client: Client) -> None:
    outcome = finetune(client, "--push-to-hub")
    assert outcome.code == 0, outcome.err
    assert f"published: {world.url}/me/tiny-vit-cifar100" in outcome.out
    run = client.home / "runs" / "tiny-vit-cifar100"
    repo = world.repos["model", "me/tiny-vit-cifar100"]
    assert [each.title for each in repo.branches["main"][1:]] == [
        f"acme/tiny-vit fine-tuned on uoft-cs/cifar100, test top-1 "
        f"{100 * json.loads((run / 'results.json').read_text())['test']['top1']:.2f} % of 12"
    ]

    photo = client.home / "photo.jpg"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(photo)
    ours = json.loads(client.run("predict", run, photo, "--format", "json", "--top-k", 6).out)[0]["predictions"]
    forget(client)
    theirs = client.python(
        "from transformers import pipeline; import json\n"
        "classify = pipeline('image-classification', model='me/tiny-vit-cifar100', top_k=6)\n"
        "print('=>', json.dumps(classify('photo.jpg')))",
        token=None,
    )
    predictions = json.loads(theirs.out.partition("=>")[2])
    assert [each["label"] for each in predictions] == [each["label"] for each in ours]
    assert [each["score"] for each in predictions] == pytest.approx([each["score"] for each in ours], abs=1e-5)

    card = repo.head("main").files["README.md"].decode()
    [snippet] = re.findall(r"```python\n(.*?)```", card, re.S)
    shown = client.python(snippet, token=None)
    assert shown.code == 0 and repr(predictions[0]["label"]) in shown.out, shown.err
    assert repo.card["license"] == "apache-2.0" and repo.card["base_model"] == "acme/tiny-vit"
    assert repo.card["datasets"] == ["uoft-cs/cifar100"] and repo.card["base_model_relation"] == "finetune"
    result = repo.card["model-index"][0]["results"][0]
    assert result["dataset"] == {
        "name": "uoft-cs/cifar100", "type": "uoft-cs/cifar100", "split": "test",
        "revision": world.repos["dataset", "uoft-cs/cifar100"].head("main").oid,
    }  # fmt: skip

    # The token is in no file, no line and no address.
    assert "hf_writer" not in outcome.out + outcome.err
    assert not [path for path in run.rglob("*") if path.is_file() and b"hf_writer" in path.read_bytes()]
    assert not [each.path for each in world.log if "hf_writer" in each.path]
    # Nor is this machine.
    for name, content in repo.head("main").files.items():
        assert str(client.home).encode() not in content, name


@pytest.mark.parametrize(("stage", "kind"), [("whoami", 503), ("commit", 500), ("lfs-put", "drop")])
def test_the_hub_ends_no_training(stage: str, kind: int | str, world: Hub, client: Client) -> None:
    world.faults = [Fault(stage, kind)]
    outcome = finetune(client, "--push-to-hub")
    assert outcome.code == 3, outcome.err
    run = client.home / "runs" / "tiny-vit-cifar100"
    assert (
        "top1" in outcome.out
        and "trained and saved" in outcome.err
        and f"vitft push {Path('runs') / run.name}" in outcome.err
    )
    assert json.loads((run / "results.json").read_text())["train"]["steps"] == 6
    world.faults = []
    again = ("push", Path("runs") / run.name) if stage != "lfs-put" else ("finetune", "--resume", run)
    outcome = client.run(*again)
    assert outcome.code == 0, outcome.err
    assert len(world.repos["model", "me/tiny-vit-cifar100"].branches["main"]) == 2
    if stage == "lfs-put":  # resuming pushed it, and did nothing else
        assert "making what is missing: the publication" in outcome.err
        assert client.run("finetune", "--resume", run).code == 2


def test_a_bad_token_costs_no_training(world: Hub, client: Client) -> None:
    outcome = finetune(client, "--push-to-hub", token="hf_reader")
    assert outcome.code == 1 and "is read-only" in outcome.err
    assert not (client.home / "runs").exists() and not world.stages("resolve")


def test_what_ends_before_training_leaves_no_repository(world: Hub, client: Client) -> None:
    assert client.run("finetune", "--dataset", "./nope", "--model", "acme/tiny-vit", "--push-to-hub").code == 1
    assert finetune(client, "--push-to-hub", "--dry-run").code == 0
    assert finetune(client, "--push-to-hub", "--hub-repo", "a/b/c", "--dry-run").code == 2
    assert ("model", "me/tiny-vit-cifar100") not in world.repos and not world.stages("create")


@pytest.mark.parametrize("every", ["best", "checkpoint"])
def test_what_is_pushed_while_it_trains(every: str, world: Hub, client: Client) -> None:
    pace = "import vitft.hub.background as b, vitft.train.fit as f, time, vitft.cli\nb.POLL_SECONDS = 0.01\n"
    # Training waits a little at each step, so that there is a while for the background.
    pace += "take = f.take_step\nf.take_step = lambda *a: (__import__('select').select([], [], [], 0.3), take(*a))[1]\n"
    arguments = ["finetune", "--dataset", "cifar100", "--model", "acme/tiny-vit", *map(str, BASICS), "--push-to-hub",
                 "--hub-every", every]  # fmt: skip
    outcome = client.python(f"{pace}vitft.cli.main({arguments!r})")
    assert outcome.code == 0, outcome.err
    history = world.repos["model", "me/tiny-vit-cifar100"].branches["main"]
    during = history[1:-1]
    assert during, outcome.err
    if every == "best":
        assert not (client.home / "runs" / "tiny-vit-cifar100" / "best").exists()
        assert all(each.title == "The best model so far" and "model.safetensors" in each.files for each in during)
        assert b"Training is still going on" in during[0].files["README.md"]
    else:
        assert all(re.fullmatch(r"Checkpoint at step \d", each.title) for each in during)
        assert not any("model.safetensors" in each.files for each in during)
        taken = client.home / "taken"
        for name, content in during[-1].files.items():
            (taken / name).parent.mkdir(parents=True, exist_ok=True)
            (taken / name).write_bytes(content)
        resumed = client.run("finetune", "--resume", taken / "training")
        assert resumed.code == 0, resumed.err
    assert "fine-tuned on" in history[-1].title and not [n for n in history[-1].files if n.startswith("training/")]
    assert b"still going on" not in history[-1].files["README.md"]


def test_a_push_that_fails_in_the_background_is_noted_and_made_up_for(world: Hub, client: Client) -> None:
    world.faults = [Fault("commit", 403, times=1)]
    pace = "import vitft.hub.background as b, vitft.train.fit as f, vitft.cli\nb.POLL_SECONDS = 0.01\n"
    pace += "take = f.take_step\nf.take_step = lambda *a: (__import__('select').select([], [], [], 0.3), take(*a))[1]\n"
    arguments = ["finetune", "--dataset", "cifar100", "--model", "acme/tiny-vit", *map(str, BASICS), "--push-to-hub",
                 "--hub-every", "checkpoint"]  # fmt: skip
    outcome = client.python(f"{pace}vitft.cli.main({arguments!r})")
    assert outcome.code == 0, outcome.err
    assert "was not pushed, training goes on: this token has no write access" in outcome.err


# --- names and downloads -------------------------------------------------------------------------------------


def test_revisions_are_what_is_opened(world: Hub, client: Client) -> None:
    old = world.repos["model", "acme/tiny-vit"].head("main").oid
    world.repos["model", "acme/tiny-vit"].add("main", {"config.json": b"broken"}, "a bad day")
    data = world.repos["dataset", "uoft-cs/cifar100"].head("main").oid
    outcome = finetune(client, "--model-revision", old, "--dataset-revision", data)
    assert outcome.code == 0, outcome.err
    facts = json.loads((client.home / "runs/tiny-vit-cifar100/environment.json").read_text())
    assert (facts["model"]["revision"], facts["dataset"]["revision"]) == (old, data)
    assert "has no revision 'v9'" in finetune(client, "--model-revision", "v9").err
    assert "has no revision 'v9'" in finetune(client, "--dataset-revision", "v9").err


def test_a_gated_or_private_checkpoint_says_what_to_do(world: Hub, client: Client) -> None:
    world.repos["model", "acme/tiny-vit"].gated = True
    outcome = finetune(client)
    assert outcome.code == 1 and "gated" in outcome.err and f"{world.url}/acme/tiny-vit" in outcome.err
    world.repos["model", "acme/tiny-vit"].gated, world.repos["model", "acme/tiny-vit"].private = False, True
    outcome = finetune(client)
    assert outcome.code == 1 and "private" in outcome.err and "hf auth login" in outcome.err


def test_offline_with_nothing_cached_says_what_to_type(world: Hub, client: Client) -> None:
    outcome = client.run_anew("finetune", "--dataset", "cifar100", env={"HF_HUB_OFFLINE": "1"})
    assert outcome.code == 1 and "HF_HUB_OFFLINE" in outcome.err and "a folder (./FOLDER)" in outcome.err
    assert not world.log


@pytest.mark.parametrize(("stage", "kind"), [("info", 503), ("resolve", 503), ("resolve", "cut"), ("resolve", "drop")])
def test_a_download_that_breaks_is_repeated(stage: str, kind: int | str, world: Hub, client: Client) -> None:
    world.faults = [Fault(stage, kind, times=1)]
    outcome = client.run("predict", "acme/tiny-vit", write_photo(client), "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert world.faults[0].times == 0


def test_a_bit_that_flips_on_the_way_is_noticed(world: Hub, client: Client) -> None:
    world.faults = [Fault("model.safetensors", "flip", times=1)]
    photo = write_photo(client)
    first = client.run("predict", "acme/tiny-vit", photo, "--device", "cpu", "--format", "json")
    assert first.code == 0 and world.faults[0].times == 0, first.err
    forget(client)
    assert client.run("predict", "acme/tiny-vit", photo, "--device", "cpu", "--format", "json").out == first.out
    forget(client)
    world.faults = [Fault("model.safetensors", "flip")]
    assert "was damaged in two downloads" in client.run("predict", "acme/tiny-vit", photo, "--device", "cpu").err


def test_without_a_hub_name_nobody_is_called(hub: Hub, client: Client, finished: Path) -> None:
    home = finished.parents[1]
    outcome = client.run("finetune", "--dataset", home / "photos", "--model", home / "checkpoint", *BASICS)
    assert outcome.code == 0, outcome.err
    run = client.home / "runs" / "checkpoint-photos"
    assert (run / "model" / "README.md").is_file()
    assert client.run("evaluate", run, "--dataset", home / "photos", "--device", "cpu").code == 0
    assert client.run("finetune", "--dataset", home / "photos", "--model", "builtin:vit-micro", *BASICS).code == 0
    assert not hub.log, hub.log
    client.empty()


def write_photo(client: Client) -> Path:
    path = client.home / "photo.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(path)
    return path

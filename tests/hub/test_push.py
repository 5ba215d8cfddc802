"""A push: what it holds, what it replaces, what it refuses, and what it says."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_client import Client
from hub_server import Fault, Hub


def test_a_push_is_one_commit_with_everything(hub: Hub, client: Client, run: Path) -> None:
    outcome = client.run("push", run)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == f"published: {hub.url}/me/leaves"
    [title] = hub.titles()
    assert "test top-1" in title and title.startswith("checkpoint fine-tuned on photos")
    files = hub.repos["model", "me/leaves"].head("main").files
    assert set(files) >= {
        "config.json", "model.safetensors", "preprocessor_config.json", "README.md", "recipe.yaml", "results.json",
        "environment.json",
    }  # fmt: skip
    assert not [name for name in files if name.startswith("training/")]
    assert files["model.safetensors"] == (run / "model" / "model.safetensors").read_bytes()
    published = json.loads((run / "published.json").read_text())
    assert published["repo"] == "me/leaves" and published["commit"] == hub.repos["model", "me/leaves"].head("main").oid


def test_a_lost_answer_to_a_pull_request_opens_no_second_one(hub: Hub, client: Client, run: Path) -> None:
    hub.make("model", "other/theirs", {"model.safetensors": b"theirs"})
    hub.faults = [Fault("commit", "lose", times=1)]
    outcome = client.run("push", run, "other/theirs", "--create-pr")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == f"published: {hub.url}/other/theirs/discussions/1"
    assert set(hub.repos["model", "other/theirs"].branches) == {"main", "refs/pr/1"}
    assert len(hub.titles("other/theirs", "refs/pr/1")) == 1


def test_a_hub_that_asks_to_wait_is_waited_for(hub: Hub, client: Client, run: Path) -> None:
    hub.faults = [Fault("whoami", 429, times=1, retry_after="4")]  # sleeps take a fiftieth, at most a tenth of a second
    assert client.run("push", run).code == 0
    first, second = hub.stages("whoami")
    assert second.time - first.time > 0.07


def test_a_commit_by_someone_else_in_between_is_built_upon(hub: Hub, client: Client, run: Path) -> None:
    assert client.run("push", run).code == 0
    repo = hub.repos["model", "me/leaves"]
    hub.faults = [Fault("preupload", "meanwhile", times=1)]
    outcome = client.run("push", run, "--license", "mit")
    assert outcome.code == 0, outcome.err
    assert [each.title for each in repo.branches["main"]][2] == "meanwhile"
    assert len(repo.branches["main"]) == 4
    assert b"license: mit" in repo.head("main").files["README.md"] and "theirs.txt" in repo.head("main").files


def test_the_same_push_twice_makes_one_commit(hub: Hub, client: Client, run: Path) -> None:
    for _ in range(2):
        assert client.run("push", run).code == 0
    assert len(hub.titles()) == 1


def test_what_an_earlier_push_left_is_removed(hub: Hub, client: Client, run: Path) -> None:
    assert client.run("push", run, "--training").code == 0
    repo = hub.repos["model", "me/leaves"]
    names = set(repo.head("main").files)
    assert any(name.startswith("training/checkpoints/step-") for name in names)
    repo.head("main").files |= {"model-00001-of-00002.safetensors": b"old", "notes.txt": b"mine"}
    assert client.run("push", run).code == 0
    names = set(repo.head("main").files)
    assert "notes.txt" in names and "model-00001-of-00002.safetensors" not in names
    assert not any(name.startswith("training/") for name in names)


def test_a_refused_card_does_not_hold_the_weights_back(hub: Hub, client: Client, run: Path) -> None:
    hub.faults = [Fault("validate", 400, times=1)]
    outcome = client.run("push", run)
    assert outcome.code == 0, outcome.err
    assert "the model card was refused" in outcome.err and "minimal" in outcome.err
    files = hub.repos["model", "me/leaves"].head("main").files
    assert b"library_name: transformers" in files["README.md"] and "model.safetensors" in files
    hub.faults = [Fault("validate", 400)]
    assert client.run("push", run, "me/again").code == 0
    files = hub.repos["model", "me/again"].head("main").files
    assert "README.md" not in files and "model.safetensors" in files


def test_a_card_that_cannot_be_made_does_not_hold_the_weights_back(hub: Hub, client: Client, run: Path) -> None:
    path = run / "results.json"
    results = json.loads(path.read_text())
    del results["test"]["macro_f1"]  # as of a version that had none
    path.write_text(json.dumps(results))
    outcome = client.run("push", run)
    assert outcome.code == 0 and "the model card could not be written" in outcome.err, outcome.err
    files = hub.repos["model", "me/leaves"].head("main").files
    assert b"library_name: transformers" in files["README.md"] and "model.safetensors" in files


# --- what must not be pushed to, or with ---------------------------------------------------------------------


def refusal(outcome: object) -> str:
    assert outcome.code != 0, outcome  # type: ignore[attr-defined]
    return " ".join(outcome.err.split())  # type: ignore[attr-defined]


def test_without_a_token_there_is_a_way_to_get_one(hub: Hub, client: Client, run: Path) -> None:
    assert "hf auth login" in refusal(client.run("push", run, token=None))
    assert not hub.log


def test_a_token_that_is_not_known_is_told_from_one_that_may_not_write(hub: Hub, client: Client, run: Path) -> None:
    assert "does not accept this token" in refusal(client.run("push", run, token="hf_nobody"))
    hub.make("model", "me/leaves", {"README.md": b"---\ntags: [vitft]\n---\n"})
    assert "is read-only" in refusal(client.run("push", run, token="hf_reader"))
    assert not hub.titles()


@pytest.mark.parametrize("name", ["a/b/c", "me/bad name", "me/a--b", "me/.x", "me/x.git", "é/x"])
def test_a_name_that_no_repository_can_have_is_refused_unasked(name: str, hub: Hub, client: Client, run: Path) -> None:
    outcome = client.run("push", run, name)
    assert outcome.code == 2 and "is not a valid repository name" in outcome.err
    assert not hub.log


def test_the_name_of_a_run_must_be_one_that_a_repository_can_have(hub: Hub, client: Client, run: Path) -> None:
    outcome = client.run("push", run.rename(run.with_name("my leaves")))
    assert outcome.code == 2 and "--hub-repo my-leaves" in outcome.err
    assert not hub.log


def test_a_run_is_called_as_its_folder_however_that_is_written(hub: Hub, client: Client, run: Path) -> None:
    assert client.run("push", run / "model" / "..").out.strip() == f"published: {hub.url}/me/leaves"


def test_a_licence_is_spelled_as_the_hub_does(hub: Hub, client: Client, run: Path) -> None:
    outcome = client.run("push", run, "--license", "Apache 2.0")
    assert outcome.code == 2 and "--license apache-2.0" in outcome.err
    assert not hub.log


def test_the_command_that_finishes_a_push_is_the_same_push(hub: Hub, client: Client, run: Path) -> None:
    hub.faults = [Fault("commit", 403)]
    spaced = run.rename(run.with_name("my leaves"))
    flags = "--training --private --hub-revision v2 --license mit --force"
    outcome = client.run("push", spaced, "me/x", *flags.split())
    assert outcome.code == 3 and outcome.err.strip().endswith(f"vitft push '{spaced}' me/x {flags}")


def test_a_request_to_stop_in_the_middle_of_a_push_is_answered(hub: Hub, client: Client, run: Path) -> None:
    """A batch system's SIGTERM; the process says how to go on instead of vanishing."""
    hub.faults = [Fault("commit", "slow", seconds=1.5)]
    number = client.home / "number"
    number.unlink(missing_ok=True)

    def stop() -> None:
        while not hub.stages("commit"):
            time.sleep(0.05)
        os.kill(int(number.read_text()), signal.SIGTERM)

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    code = f"import os, vitft.cli\nopen({str(number)!r}, 'w').write(str(os.getpid()))\n"
    outcome = client.python(f"{code}vitft.cli.main(['push', {str(run)!r}])")
    assert outcome.code == 3 and "SIGTERM arrived before" in outcome.err and f"vitft push {run}" in outcome.err


def test_what_is_made_on_the_way_is_said(hub: Hub, client: Client, run: Path) -> None:
    assert "created the private repository me/leaves" in client.run("push", run, "--private").err


def test_a_foreign_owner_is_refused_and_an_own_organisation_is_not(hub: Hub, client: Client, run: Path) -> None:
    said = refusal(client.run("push", run, "google/leaves"))
    assert "me cannot push to google" in said and "allowed: me, lab" in said and "--hub-repo me/leaves" in said
    assert "has only read access there" in refusal(client.run("push", run, "club/leaves"))
    assert client.run("push", run, "lab/leaves").code == 0


def test_what_vitft_did_not_make_is_overwritten_only_by_force(hub: Hub, client: Client, run: Path) -> None:
    hub.make("model", "me/leaves", {"pytorch_model.bin": b"years of work"})
    said = refusal(client.run("push", run))
    assert "pytorch_model.bin" in said and "--force" in said and not hub.titles()
    assert client.run("push", run, "--force").code == 0
    assert hub.repos["model", "me/leaves"].head("main").files["pytorch_model.bin"] == b"years of work"


def test_a_private_repository_is_made_private_and_a_public_one_is_no_place_for_a_secret(
    hub: Hub, client: Client, run: Path
) -> None:
    assert client.run("push", run, "me/secret", "--private").code == 0
    assert hub.repos["model", "me/secret"].private
    hub.make("model", "me/open")
    assert "is public" in refusal(client.run("push", run, "me/open", "--private"))


def test_a_branch_is_made_and_a_reference_that_is_not_there_is_not(hub: Hub, client: Client, run: Path) -> None:
    assert client.run("push", run, "--hub-revision", "v2").code == 0
    assert len(hub.titles(branch="v2")) == 1 and not hub.titles()
    assert "has no refs/pr/7" in refusal(client.run("push", run, "--hub-revision", "refs/pr/7"))


def test_offline_nothing_is_tried(hub: Hub, client: Client, run: Path) -> None:
    said = refusal(client.run("push", run, env={"HF_HUB_OFFLINE": "1"}))
    assert "HF_HUB_OFFLINE" in said and not hub.log


def test_a_run_that_is_not_finished_is_resumed_first(hub: Hub, client: Client, run: Path) -> None:
    (run / "results.json").unlink()
    outcome = client.run("push", run)
    assert outcome.code == 2 and f"--resume {run}" in outcome.err and not hub.log


# --- Xet -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def xet_client(_hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    pytest.importorskip("hf_xet", reason="this machine's client has no Xet")
    client = Client(_hub.url, tmp_path_factory.mktemp("xet"), xet=True)
    yield client
    client.close()


def test_a_push_through_xet_is_one_commit_of_the_same_files(hub: Hub, xet_client: Client, run: Path) -> None:
    outcome = xet_client.run("push", run)
    assert outcome.code == 0, outcome.err
    assert hub.stages("xet-shard") and not hub.stages("lfs-put")
    assert len(hub.titles()) == 1
    weights = hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert hub.repos["model", "me/leaves"].head("main").files["model.safetensors"] == f"in xet: {weights}".encode()


@pytest.mark.parametrize(("stage", "kind"), [("xet-token", 404), ("xet-shard", 404)])
def test_where_xet_fails_plain_http_takes_over(stage: str, kind: int, hub: Hub, xet_client: Client, run: Path) -> None:
    hub.faults = [Fault(stage, kind)]
    outcome = xet_client.run("push", run)
    assert outcome.code == 0, outcome.err
    assert "through Xet failed" in outcome.err and hub.stages("lfs-put")
    assert len(hub.titles()) == 1

"""What is refused before the first step leaves nothing behind, and runs nobody's code."""

from __future__ import annotations

import shutil
from pathlib import Path

import accelerate
import attack
import pytest
from attack import metric

from vitft import cli, finetune
from vitft.errors import HubError, TrainError, UsageError, VitftError
from vitft.recipe.recipe import Recipe
from vitft.tasks import training


def refused(recipe: Recipe | None, kind: type[VitftError], match: str, **options: object) -> VitftError:
    with pytest.raises(kind, match=match) as error:
        finetune(recipe, **options)
    assert error.value.hint
    return error.value


def test_a_push_that_is_refused_when_the_repository_is_made_leaves_no_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise HubError("me/leaves: 403", hint="another --hub-repo")

    monkeypatch.setattr(training, "prepare", refuse)
    refused(attack.recipe(home, "refused"), HubError, "403")
    assert not list((home / "refused").iterdir())


def test_a_tracker_that_is_not_installed_is_refused_with_its_pip_line(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: [])
    asked = attack.recipe(home, "untracked", run__track=["tensorboard", "wandb"])
    error = refused(asked, UsageError, "--track tensorboard needs a package that is not installed")
    assert error.hint == "pip install 'vitft[track]' wandb"
    assert not (home / "untracked").exists()


def test_a_tracker_that_cannot_start_leaves_no_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("not logged in")

    monkeypatch.setattr("accelerate.Accelerator.init_trackers", fail)
    refused(attack.recipe(home, "loggedout", run__track=["tensorboard"]), TrainError, "cannot start: not logged in")
    assert not list((home / "loggedout").iterdir())


def test_a_tracker_that_fails_on_the_way_ends_no_run(home: Path, whole: Path) -> None:
    def prepare() -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError("quota exceeded")

        accelerate.Accelerator.log = fail

    outcome = attack.start(home, "quota", prepare, run__track=["tensorboard"], run__pictures="off")
    assert outcome.code == 0, outcome.text
    assert outcome.text.count("nothing more is sent to tensorboard: quota exceeded") == 1
    assert attack.results(home / "quota" / attack.NAME) == attack.results(whole)


# --- metrics are code --------------------------------------------------------------------------------------


@pytest.fixture
def witness(tmp_path: Path) -> tuple[str, Path]:
    """Return a metric that leaves a trace wherever it is imported, and that trace."""
    trace = tmp_path / "it-ran"
    named = metric(tmp_path, "pass")
    script = Path(named) / "mine.py"
    script.write_text(script.read_text() + f"\nopen({str(trace)!r}, 'w').close()\n")
    return named, trace


def test_a_metric_that_only_a_recipe_file_names_is_not_run(home: Path, witness: tuple[str, Path]) -> None:
    named, trace = witness
    path = home / "stranger.yaml"
    path.write_text(attack.recipe(home, "stranger", run__metrics=[named]).dump())
    error = refused(Recipe.load(path), UsageError, f"{path} names metrics, which are Python code that would run")
    assert "--trust-metrics" in str(error) and not trace.exists() and not (home / "stranger").exists()
    for words in (["--dry-run"], []):
        with pytest.raises(SystemExit) as ended:
            cli.main(["finetune", "--recipe", str(path), *words])
        assert ended.value.code == 2 and not trace.exists()


@pytest.mark.parametrize("trusted", ["a flag that names it", "--trust-metrics"])
def test_a_metric_that_a_flag_names_or_trusts_is_run(home: Path, witness: tuple[str, Path], trusted: str) -> None:
    named, trace = witness
    path = home / f"{len(trusted)}.yaml"
    recipe = attack.recipe(home, "trusted", run__metrics=[] if "flag" in trusted else [named])
    path.write_text(recipe.dump())
    if "flag" in trusted:
        recipe = Recipe.load(path, {"run.metrics": [named]})
        finetune(recipe, dry_run=True)
    else:
        finetune(Recipe.load(path), dry_run=True, trust_metrics=True)
    assert trace.exists()


def test_a_run_of_a_stranger_is_not_resumed_with_its_metrics(
    whole: Path, tmp_path: Path, witness: tuple[str, Path]
) -> None:
    named, trace = witness
    run = tmp_path / "downloaded"
    shutil.copytree(whole, run)
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("metrics: []", f"metrics: [{named}]"))
    (run / "results.json").unlink()
    refused(None, UsageError, "names metrics, which are Python code", resume=run)
    assert not trace.exists() and not (run / "results.json").exists()

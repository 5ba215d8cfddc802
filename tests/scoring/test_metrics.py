"""The final scores through ``evaluate``, and metrics of others, which may break nothing but themselves."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vitft.errors import UsageError
from vitft.processes.signals import StopRequest
from vitft.scoring.metrics import OURS, check_metrics, final_scores, further_scores, plain, try_metrics
from vitft.scoring.scores import Tally, scores


def sample(num_classes: int, missing: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Make logits that are right about half the time, and labels without the classes in ``missing``."""
    generator = torch.Generator().manual_seed(num_classes)
    present = torch.tensor([k for k in range(num_classes) if k not in missing])
    labels = present[torch.randint(len(present), (240,), generator=generator)]
    logits = torch.randn(240, num_classes, generator=generator)
    logits[torch.arange(240), labels] += 1.0
    return logits, labels


def tally_of(logits: Tensor, labels: Tensor) -> Tally:
    tally = Tally(logits.shape[1])
    tally.add(logits, labels)
    return tally


# --- our own --------------------------------------------------------------------------------------


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Refuse every connection and look-up, and list what was refused."""
    refused: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        refused.append(arguments)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return refused


@pytest.mark.parametrize("num_classes", [3, 6])
def test_final_scores_equal_the_periodic_ones_without_network(num_classes: int, no_network: list[object]) -> None:
    logits, labels = sample(num_classes, missing=(1,))
    tally = tally_of(logits, labels)
    final = final_scores(tally, [f"class {k}" for k in range(num_classes)])
    assert {name: final[name] for name in scores(tally).present()} == scores(tally).present()
    assert final["confusion"] == tally.confusion.tolist()
    assert final["per_class"]["support"] == tally.support.tolist()
    assert ("top5" in final) == (num_classes > 5)
    assert no_network == []


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")  # no folder can be made below a file, whoever asks
    script = (
        "import torch\nfrom vitft.scoring.metrics import final_scores\nfrom vitft.scoring.scores import Tally\n"
        "tally = Tally(2); tally.add(torch.eye(2), torch.tensor([0, 0])); print(final_scores(tally, 'ab')['top1'])"
    )
    root = Path(importlib.import_module("vitft").__file__).parents[1]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "file" / "hf"), "PYTHONPATH": str(root)}
    for name in ("HF_MODULES_CACHE", "HF_METRICS_CACHE", "HF_DATASETS_CACHE"):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "0.5", done.stderr


# --- metrics of others -------------------------------------------------------------------------------------


def write_metric(folder: Path, name: str, body: str, top: str = "") -> str:
    """Write a metric of one's own, as a user would, and return its folder."""
    (folder / name).mkdir(parents=True)
    (folder / name / f"{name}.py").write_text(
        f"""
import datasets
import evaluate
{top}

class Mine(evaluate.Metric):
    def _info(self):
        value = datasets.Value("int64")
        return evaluate.MetricInfo(description="", citation="", inputs_description="",
            features=datasets.Features({{"predictions": value, "references": value}}))

    def _compute(self, predictions, references, **options):
        {body}
"""
    )
    return str(folder / name)


def test_further_metrics_have_names_of_their_own(tmp_path: Path) -> None:
    count = "sum(p != r for p, r in zip(predictions, references))"
    metric = write_metric(tmp_path, "wrong", f"return {{'wrong': {count}, 'n': len(references)}}")
    further = further_scores([metric], [0, 1, 2], [0, 2, 1], num_classes=3)
    assert (further.values, further.refused) == ({"wrong": 2, "wrong.n": 3}, {})


def test_a_metric_for_two_classes_is_averaged_over_more_and_says_so(tmp_path: Path) -> None:
    metric = write_metric(tmp_path, "style", "return {'style': 1.0}")
    script = Path(metric) / "style.py"
    script.write_text(script.read_text().replace("**options", "average='binary'").replace("1.0", "average"))
    assert further_scores([metric], [0, 1], [0, 1], num_classes=2).values == {"style": "binary"}
    assert further_scores([metric], [0, 2], [0, 1], num_classes=3).values == {"style_macro": "macro"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_metric_cannot_have_the_name_of_a_score(tmp_path: Path, name: str) -> None:
    metric = write_metric(tmp_path, name, f"return {{{name!r}: -1.0}}")
    assert further_scores([metric], [0], [0], num_classes=2).values == {f"metric.{name}": -1.0}


def test_every_name_in_a_splits_results_is_ours() -> None:
    logits, labels = sample(6)
    assert final_scores(tally_of(logits, labels), "abcdef").keys() <= OURS


def test_two_metrics_of_one_name_both_stay(tmp_path: Path) -> None:
    both = [write_metric(tmp_path / each, "mine", f"return {{'mine': {each!r}}}") for each in ("a", "b")]
    assert further_scores(both, [0], [0], num_classes=2).values == {"mine": "a", "mine#2": "b"}


ODD = {
    "raises": ("raise KeyError('x')", "cannot be computed.*x"),
    "asks": ("return {'a': options['beta']}", "cannot be computed.*beta"),
    "leaves": ("raise SystemExit(3)", "tried to exit the program"),
    "speechless": ("raise Mute()", "cannot be computed.*Mute"),
    "objects": ("return {'a': object()}", "JSON cannot hold: a object"),
    "sets": ("return {'a': {1, 2}}", "JSON cannot hold: a set"),
    "bytekeys": ("return {b'a': 1}", "JSON cannot hold: the key b'a'"),
    "innerkeys": ("return {'a': {1: 2}}", "JSON cannot hold: a dict"),
    "listing": ("return [1, 2]", "cannot be|cannot hold"),
    "surrogates": ("return {'a': chr(0xD800)}", "JSON cannot hold"),
    "digits": ("return {'a': 10 ** 9999}", "JSON cannot hold"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_metric_that_breaks_is_refused_by_name_and_costs_no_other(tmp_path: Path, name: str) -> None:
    body, match = ODD[name]
    mute = "class Mute(Exception):\n    def __str__(self): raise RuntimeError\n"
    broken = write_metric(tmp_path, name, body, top=mute)
    good = write_metric(tmp_path, "good", "return {'good': 1}")
    further = further_scores([broken, good], [0, 1], [0, 1], num_classes=2)
    assert further.values == {"good": 1}
    with pytest.raises(UsageError, match=match) as caught:
        try_metrics([good, broken], num_classes=2)
    assert broken in caught.value.wrong and further.refused.keys() == {broken}


def test_a_metric_that_cannot_be_imported_is_refused_by_name(tmp_path: Path) -> None:
    metric = write_metric(tmp_path, "needs", "return {}", top="import no_such_package")
    with pytest.raises(UsageError, match=r"cannot be loaded.*no_such_package"):
        try_metrics([metric], num_classes=2)


def test_what_a_metric_does_to_the_program_is_undone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    body = "import os; os.chdir('/'); print('noise'); predictions[0] = 9; return {'a': 1}"
    place = Path.cwd()
    given = [0, 1]
    assert further_scores([write_metric(tmp_path, "rude", body)], given, given, num_classes=2).values
    assert (Path.cwd(), given, capsys.readouterr().out) == (place, [0, 1], "")


@pytest.mark.parametrize("request_", [StopRequest("SIGTERM"), KeyboardInterrupt()])
def test_a_request_to_stop_is_no_failure_of_the_metric_that_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_: BaseException
) -> None:
    def stop(*_: object) -> None:
        raise request_

    metric = write_metric(tmp_path, "slow", "return {'a': 1}")
    monkeypatch.setattr("vitft.scoring.metrics._named", stop)
    with pytest.raises(type(request_)):
        further_scores([metric], [0], [0], num_classes=2)


def test_a_value_becomes_plain_json() -> None:
    value = {
        "a": np.float32(0.5),
        "b": torch.tensor([1, 2]),
        "c": (True, None, "x"),
        "d": float("nan"),
        "e": np.int64(3),
    }
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "a": 0.5, "b": [1, 2], "c": [True, None, "x"], "d": None, "e": 3,
    }  # fmt: skip


def test_a_hub_metric_without_network_is_refused_by_name(no_network: list[object]) -> None:
    with pytest.raises(UsageError, match="'no_such_metric_anywhere' cannot be loaded"):
        try_metrics(["no_such_metric_anywhere"], num_classes=2)


def test_a_path_to_no_metric_is_found_before_training(tmp_path: Path) -> None:
    metric = write_metric(tmp_path, "mine", "pass")
    (tmp_path / "empty").mkdir()
    check_metrics(["accuracy", "user/metric", metric, f"{metric}/mine.py"])
    for wrong in (f"{tmp_path}/mien", "./mine_too", str(tmp_path / "empty"), "a/b/c", "metric.py"):
        with pytest.raises(UsageError, match="there is no metric at"):
            check_metrics([wrong])

"""What accelerate was told, and what that means for a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
from machine import make_plain, write_config

from vitft.errors import UsageError
from vitft.processes import accelerate_config
from vitft.processes.accelerate_config import AccelerateSettings, Said


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return make_plain(monkeypatch, tmp_path)


AUTO = {"train.precision": "auto", "train.device": "auto", "train.micro_batch_size": "auto"}


def reconcile(settings: AccelerateSettings, **values: object) -> dict[str, object]:
    laid = AUTO | {f"train.{key}": value for key, value in values.items()}
    filled = accelerate_config.reconcile(settings, laid, batch_size=128, num_processes=2)
    return {key: said.value for key, said in filled.items()}


def test_defaults_of_accelerate_say_nothing(monkeypatch: pytest.MonkeyPatch, plain_machine: Path) -> None:
    write_config(plain_machine, use_cpu="false")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    assert accelerate_config.accelerate_settings() == AccelerateSettings()
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "False")
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "default")
    assert accelerate_config.accelerate_settings() == AccelerateSettings()


def test_the_config_file_speaks_and_is_named(plain_machine: Path) -> None:
    path = write_config(plain_machine, mixed_precision="bf16", use_cpu="true")
    said = accelerate_config.accelerate_settings()
    assert (said.precision.value, said.use_cpu.value, said.accumulation) == ("bf16", True, None)
    assert path in said.precision.source and path in said.use_cpu.source


def test_the_launcher_speaks_through_the_environment(monkeypatch: pytest.MonkeyPatch, plain_machine: Path) -> None:
    write_config(plain_machine, mixed_precision="bf16", use_cpu="true")  # the launcher was told otherwise
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "default")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    said = accelerate_config.accelerate_settings()
    assert (said.precision.value, said.use_cpu, said.accumulation.value) == ("fp16", None, 4)
    assert "accelerate launch" in said.precision.source


def test_auto_takes_what_accelerate_says() -> None:
    settings = AccelerateSettings(Said("bf16", "it"), Said(4, "it"), Said(True, "it"))
    assert reconcile(settings) == {
        "train.precision": "bf16",
        "train.device": "cpu",
        "train.micro_batch_size": 16,
    }
    assert reconcile(settings, precision="bf16", device="cpu", micro_batch_size=16) == {}
    assert reconcile(AccelerateSettings()) == {}


@pytest.mark.parametrize(
    ("batch_size", "num_processes", "k"), [(62, 1, 2), (62, 2, 1), (128, 3, 4), (10, 1, 3), (2, 1, 1)]
)
def test_the_micro_batch_gives_the_accumulation_that_was_said(batch_size: int, num_processes: int, k: int) -> None:
    from vitft.data.order import step_slots

    settings = AccelerateSettings(accumulation=Said(k, "it"))
    filled = accelerate_config.reconcile(settings, AUTO, batch_size=batch_size, num_processes=num_processes)
    micro = filled["train.micro_batch_size"].value
    largest = max(stop - start for start, stop in step_slots(batch_size, num_processes))
    assert micro % 2 == 0 and -(-largest // micro) == k


@pytest.mark.parametrize(
    ("settings", "values", "both"),
    [
        (AccelerateSettings(precision=Said("bf16", "the file")), {"precision": "fp32"}, ("fp32", "bf16")),
        (AccelerateSettings(use_cpu=Said(True, "the file")), {"device": "cuda"}, ("cuda", "cpu")),
        (
            AccelerateSettings(accumulation=Said(4, "the file")),
            {"micro_batch_size": 64},
            ("64", "4 accumulation"),
        ),
    ],
)
def test_a_contradiction_names_both_sides(
    settings: AccelerateSettings, values: dict[str, object], both: tuple[str, str]
) -> None:
    with pytest.raises(UsageError) as caught:
        reconcile(settings, **values)
    key = f"train.{next(iter(values))}"
    assert all(word in caught.value.wrong for word in (key, *both, "the file"))


def test_a_precision_that_vitft_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="fp8"):
        reconcile(AccelerateSettings(precision=Said("fp8", "the file")))

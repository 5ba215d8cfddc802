"""Starting processes and looking after them.

The parent is a process of its own here (``drive.py``), so that it can be sent signals. Two tests go through
accelerate's real launcher; the others put a small stand-in in its place, since it takes seconds to import.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from machine import make_plain, see_devices, write_config

from vitft.errors import UsageError
from vitft.processes import launch
from vitft.processes.accelerate_config import accelerate_settings
from vitft.processes.device import make_accelerator
from vitft.processes.launch import Launch
from vitft.recipe.recipe import Recipe

DRIVE = """
import signal
import sys
from vitft.errors import VitftError
from vitft.processes import launch

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in the background
launcher, count, script = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if launcher == "accelerate":
    chosen = launch.choose(count, "cpu")
else:
    chosen = launch.Launch(count, "")
    launch.Launch.command = lambda self, module, arguments, folder: [
        sys.executable, launcher, str(self.num_processes), module, *arguments]
launch._GRACE = 2.0
try:
    code = launch.run(chosen, [script], module="probe")
except VitftError as error:
    print(error, flush=True)
    code = error.exit_code
print("OUTCOME", code, flush=True)
sys.exit(code)
"""

STAND_IN = """
import os, subprocess, sys, time
count, module, *arguments = sys.argv[1:]
workers = [
    subprocess.Popen(
        [sys.executable, "-m", module, *arguments], start_new_session=True,
        env={**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": count})
    for rank in range(int(count))
]
while any(worker.poll() is None for worker in workers):
    if any(worker.poll() for worker in workers):
        time.sleep(2)
        print("THE LAUNCHER REPORTS A FAILURE", flush=True)
        sys.exit(1)
    time.sleep(0.1)
sys.exit(any(worker.wait() for worker in workers))
"""

PROBE = """
import os, signal, sys, time
from vitft.processes import launch

rank = int(os.environ["RANK"])
def say(*words): os.write(1, (' '.join(map(str, words)) + chr(10)).encode())  # in one piece
def end(code, message=""): say(rank, "records", code); sys.exit(launch.record(code, message))
def handle(number, frame): end(75)

launch.register()
exec(sys.argv[1])
"""


class Parent:
    """A running ``drive.py`` and what it and its workers print."""

    started: ClassVar[list[subprocess.Popen[str]]] = []

    def __init__(self, folder: Path, script: str, *, launcher: str = "stand_in.py", count: int = 2) -> None:
        for name, text in {"drive.py": DRIVE, "stand_in.py": STAND_IN, "probe.py": PROBE}.items():
            (folder / name).write_text(text)
        root = Path(launch.__file__).parents[2]
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ACCELERATE_")}
        # No config file of this machine; TMPDIR shows whether anything is left behind.
        (folder / "tmp").mkdir()
        self.tmp = folder / "tmp"
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "drive.py", launcher, str(count), script],
            cwd=folder,
            env={
                **clean,
                "PYTHONPATH": f"{root}:{folder}",
                "HF_HOME": str(folder),
                "TMPDIR": str(folder / "tmp"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(self.process)
        self.output = ""

    def wait_for(self, words: str, times: int = 1) -> None:
        while self.output.count(words) < times:
            line = self.process.stdout.readline()
            assert line, f"ended without {words!r}:\n{self.output}"
            self.output += line

    def finish(self) -> int:
        """Return the exit code, and check that no worker and no file is left."""
        rest, _ = self.process.communicate(timeout=60)
        self.output += rest
        assert not self.workers(), self.output
        return self.process.returncode

    def workers(self) -> list[psutil.Process]:
        mine = []
        for process in psutil.process_iter(["cmdline", "status", "environ"]):
            is_probe = (process.info["cmdline"] or [])[-3:-1] == ["-m", "probe"]
            if is_probe and (process.info["environ"] or {}).get("TMPDIR") == str(self.tmp):
                mine.append(process)
        return [each for each in mine if each.info["status"] != psutil.STATUS_ZOMBIE]


@pytest.fixture(autouse=True)
def no_leftovers() -> Iterator[None]:
    yield
    while Parent.started:
        Parent.started.pop().kill()  # its workers follow, as a test below shows


# --- run ---------------------------------------------------------------------------------------------------


def test_accelerates_launcher_starts_synchronised_processes_without_a_gpu(tmp_path: Path) -> None:
    script = (
        "import torch; from accelerate import Accelerator; accelerator = Accelerator(cpu=True)\n"
        "total = torch.tensor([10 ** rank]); torch.distributed.all_reduce(total)\n"
        "say('sum', int(total), 'of', accelerator.num_processes); accelerator.end_training(); end(0)"
    )
    parent = Parent(tmp_path, script, launcher="accelerate", count=2)
    assert parent.finish() == 0, parent.output
    assert parent.output.count("sum 11 of 2") == 2
    assert "WARNING" not in parent.output and "Traceback" not in parent.output, parent.output


def test_a_killed_worker_ends_the_run_promptly_with_one_clear_line(tmp_path: Path) -> None:
    script = "say('up'); time.sleep(1 if rank else 600); os.kill(os.getpid(), signal.SIGKILL)"
    parent = Parent(tmp_path, script, launcher="accelerate")
    parent.wait_for("up", times=2)
    start = time.monotonic()
    assert parent.finish() == 1
    assert time.monotonic() - start < 10
    assert re.search(r"training process 1 \(process id \d+\) ended unexpectedly: it crashed or was", parent.output)
    assert "Traceback" not in parent.output and "ChildFailedError" not in parent.output, parent.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_every_worker_and_their_outcome_is_the_exit_code(tmp_path: Path, number: int) -> None:
    script = f"signal.signal({number:d}, handle); say('up'); time.sleep(600)"
    parent = Parent(tmp_path, script, count=3)
    parent.wait_for("up", times=3)
    parent.process.send_signal(number)
    assert parent.finish() == 75
    assert parent.output.count("records 75") == 3
    assert not list(parent.tmp.iterdir())


def test_a_signal_before_anything_can_be_saved_says_so(tmp_path: Path) -> None:
    parent = Parent(tmp_path, "say('up'); time.sleep(600)")  # no handler: the default action ends the workers
    parent.wait_for("up", times=2)
    parent.process.send_signal(signal.SIGTERM)
    assert parent.finish() == 143
    assert "ended by SIGTERM before a checkpoint could be written" in parent.output


def test_interrupt_gives_130(tmp_path: Path) -> None:
    script = "try:\n say('up'); time.sleep(600)\nexcept KeyboardInterrupt: end(130)"
    parent = Parent(tmp_path, script)
    parent.wait_for("up", times=2)
    parent.process.send_signal(signal.SIGINT)
    assert parent.finish() == 130
    assert parent.output.count("records 130") == 2


def test_a_second_interrupt_ends_workers_that_ignore_the_first(tmp_path: Path) -> None:
    parent = Parent(tmp_path, "signal.signal(signal.SIGINT, lambda *_: say('no')); say('up')\nwhile 1: time.sleep(1)")
    parent.wait_for("up", times=2)
    parent.process.send_signal(signal.SIGINT)
    parent.wait_for("no", times=2)
    parent.process.send_signal(signal.SIGINT)
    assert parent.finish() == 130


def test_a_parent_that_is_killed_takes_its_workers_along(tmp_path: Path) -> None:
    parent = Parent(tmp_path, "say('up'); time.sleep(600)")
    parent.wait_for("up", times=2)
    workers = parent.workers()
    assert len(workers) == 2
    parent.process.kill()
    _, alive = psutil.wait_procs(workers, timeout=10)
    parent.process.communicate()
    assert [each for each in alive if each.status() != psutil.STATUS_ZOMBIE] == []


def test_the_failure_of_another_than_the_main_process_is_told_by_the_parent(tmp_path: Path) -> None:
    parent = Parent(tmp_path, "end(2, 'row 7 is no image') if rank else time.sleep(600)")
    assert parent.finish() == 2
    assert "row 7 is no image" in parent.output
    assert "THE LAUNCHER REPORTS" not in parent.output


def test_a_failure_that_the_main_process_told_is_not_told_again(tmp_path: Path) -> None:
    parent = Parent(tmp_path, "time.sleep(0.5 * (rank == 0)); end(2, f'bad recipe, says {rank}')")
    assert parent.finish() == 2
    assert "bad recipe" not in parent.output


def test_the_main_process_alone_may_fail_to_publish(tmp_path: Path) -> None:
    assert Parent(tmp_path, "end(0 if rank else 3)").finish() == 3


def test_a_worker_that_never_registers_is_an_error(tmp_path: Path) -> None:
    parent = Parent(tmp_path, "say('up')")
    (tmp_path / "probe.py").write_text("raise SystemExit(9)")
    assert parent.finish() == 1
    assert "accelerate's launcher ended with exit code 1 before its workers" in parent.output


def test_workers_of_a_foreign_launcher_keep_their_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITFT_LAUNCH_DIR", raising=False)
    launch.register()
    assert launch.record(75) == 75


def test_threads_are_shared_among_the_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(launch, "_num_cores", lambda: 12)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert Launch(4, "").environment(tmp_path)["OMP_NUM_THREADS"] == "3"
    assert Launch(4, "", num_machines=2).environment(tmp_path)["OMP_NUM_THREADS"] == "6"
    assert Launch(24, "").environment(tmp_path)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert Launch(4, "").environment(tmp_path)["OMP_NUM_THREADS"] == "7"


# --- choose ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    return make_plain(monkeypatch, tmp_path)


def number(chosen: Launch | None) -> int:
    return chosen.num_processes if chosen else 1


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:1", "mps"])
def test_one_device_runs_in_this_process(device: str) -> None:
    assert launch.choose(None, device) is None
    assert launch.choose(1, device) is None


def test_every_visible_gpu_gets_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    see_devices(monkeypatch, 4)
    assert launch.choose(None, "auto") == launch.choose(None, "cuda")
    chosen = launch.choose(None, "auto")
    assert (number(chosen), chosen.on_cpu, chosen.reason) == (4, False, "4 visible devices")
    assert launch.choose(None, "cpu") is None
    assert launch.choose(None, "cuda:1") is None
    assert launch.choose(1, "cuda") is None


def test_the_flag_wins_over_the_launchers_argument_over_the_config_over_the_devices(
    monkeypatch: pytest.MonkeyPatch, plain_machine: Path, tmp_path: Path
) -> None:
    see_devices(monkeypatch, 8)
    assert number(launch.choose(None, "auto")) == 8
    write_config(plain_machine, distributed_type="MULTI_GPU", num_processes=2)
    assert number(launch.choose(None, "auto")) == 2
    other = write_config(tmp_path / "other.yaml", distributed_type="MULTI_GPU", num_processes=3)
    assert number(launch.choose(None, "auto", ["--config_file", other])) == 3
    assert number(launch.choose(None, "auto", ["--config_file", other, "--num_processes", "4"])) == 4
    assert number(launch.choose(5, "auto", ["--config_file", other, "--num_processes", "4"])) == 5


def test_a_count_of_gpus_in_the_default_config_says_nothing_about_other_devices(
    monkeypatch: pytest.MonkeyPatch, plain_machine: Path
) -> None:
    see_devices(monkeypatch, 2)
    write_config(plain_machine, distributed_type="MULTI_GPU", num_processes=2)
    assert launch.choose(None, "cpu") is None
    assert launch.choose(None, "cuda:0") is None


def test_a_cpu_config_starts_its_processes_on_the_cpu(plain_machine: Path, tmp_path: Path) -> None:
    write_config(plain_machine, distributed_type="MULTI_CPU", num_processes=3, use_cpu="true")
    chosen = launch.choose(None, "auto")
    assert (number(chosen), chosen.on_cpu) == (3, True)
    assert chosen.environment(tmp_path)["ACCELERATE_USE_CPU"] == "true"


def test_the_launchers_cpu_flag_does_not_make_it_start_a_single_process(tmp_path: Path) -> None:
    chosen = launch.choose(2, "auto", ["--cpu", "--mixed-precision", "bf16"])
    command = chosen.command("vitft", ["finetune", "--lr", "1"], tmp_path)
    assert chosen.on_cpu and "--cpu" not in command and "--multi_gpu" in command
    assert command[-5:] == ["--module", "vitft", "finetune", "--lr", "1"]
    assert command[command.index("--mixed-precision") + 1] == "bf16" and "--mixed_precision" not in command


def test_machines_share_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    see_devices(monkeypatch, 2)
    others = [
        "--num_machines",
        "2",
        "--machine_rank",
        "1",
        "--main_process_ip",
        "10.0.0.1",
        "--main_process_port",
        "77",
    ]
    chosen = launch.choose(None, "auto", others)
    assert (chosen.num_processes, chosen.num_local) == (4, 2)
    command = chosen.command("vitft", [], Path("folder"))
    assert command.count("--main_process_port") == 1 and "77" in command
    with pytest.raises(UsageError, match=r"3 processes .* cannot be divided among 2 machine"):
        launch.choose(3, "auto", others)


@pytest.mark.parametrize(
    ("count", "device", "visible", "match"),
    [
        (2, "cuda", 1, "2 processes .* device cuda allows 1"),
        (2, "auto", 1, "2 processes"),
        (2, "cuda", 0, "--device cpu"),
        (2, "cuda:1", 4, "device cuda:1 allows 1"),
        (2, "mps", 0, "device mps allows 1"),
    ],
)
def test_more_processes_than_devices_are_refused(
    monkeypatch: pytest.MonkeyPatch, count: int, device: str, visible: int, match: str
) -> None:
    see_devices(monkeypatch, visible)
    with pytest.raises(UsageError, match=match):
        launch.choose(count, device)
    assert number(launch.choose(count, "cpu")) == count


def test_chosen_gpus_count(monkeypatch: pytest.MonkeyPatch) -> None:
    see_devices(monkeypatch, 8)
    assert number(launch.choose(None, "auto", ["--gpu_ids", "2,5,6"])) == 3


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"distributed_type": "DEEPSPEED", "num_processes": 2}, "asks for DEEPSPEED"),
        ({"distributed_type": "FSDP", "num_processes": 2}, "asks for FSDP version 1"),
        (
            {"distributed_type": "FSDP", "fsdp_config": "{fsdp_version: 2, fsdp_offload_params: true}"},
            "asks for fsdp_offload_params",
        ),
        ({"distributed_type": "MEGATRON_LM", "num_processes": 2}, "asks for MEGATRON_LM"),
        ({"distributed_type": "XLA", "num_processes": 2}, "asks for XLA"),
        ({"distributed_type": "MULTI_GPU", "num_proceses": 2}, "cannot be read.*num_proceses"),
    ],
)
def test_a_config_for_another_engine_or_with_a_typo_is_refused(
    plain_machine: Path, values: dict[str, object], match: str
) -> None:
    path = write_config(plain_machine, **values)
    with pytest.raises(UsageError, match=match) as caught:
        launch.choose(None, "cpu")
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--use_fsdp"], "asks for FSDP version 1"),
        (["--use_deepspeed"], "asks for DEEPSPEED"),
        (["--num_procs", "2"], "--num_procs"),
        (["train.py"], "unexpected argument 'train.py'"),
        (["--config_file", "nowhere.yaml"], "nowhere.yaml"),
        (["--num_processes", "two"], "two"),
    ],
)
def test_bad_launcher_arguments_are_refused(arguments: list[str], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        launch.choose(None, "auto", arguments)


@pytest.mark.parametrize("engine", ["DEEPSPEED", "FSDP", "MEGATRON_LM"])
def test_an_engine_that_the_environment_asks_for_is_refused_without_a_launcher_too(
    monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    for ask in (lambda: launch.choose(None, "cpu"), lambda: make_accelerator(Recipe())):
        with pytest.raises(
            UsageError, match=rf"the environment \(ACCELERATE_USE_{engine}\) asks for {engine}"
        ) as error:
            ask()
        assert error.value.hint.startswith(f"unset ACCELERATE_USE_{engine}")


@pytest.mark.parametrize("how", ["config", "arguments"])
def test_fsdp2_is_passed_on_to_the_processes_and_done_by_vitft(
    how: str, plain_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--num_machines", "1"]
    if how == "config":
        how_many = {"num_processes": 2, "use_cpu": "true"}
        write_config(plain_machine, distributed_type="FSDP", fsdp_config="{fsdp_version: 2}", **how_many)
    else:
        about = ["--use_fsdp", "--fsdp_version", "2", "--fsdp-reshard-after-forward=true"]
        arguments = [*about, *arguments, "--num_processes", "2"]
    chosen = launch.choose(None, "cpu", arguments)
    assert chosen is not None and chosen.num_processes == 2
    command = chosen.command("vitft", [], tmp_path)
    assert "--multi_gpu" in command and not [word for word in command if word.startswith(("--use_fsdp", "--fsdp"))]

    environment = {name: value for name, value in chosen.environment(tmp_path).items() if "FSDP" in name}
    assert environment == {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    for name, value in (environment | {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}).items():
        monkeypatch.setenv(name, value)
    assert launch.choose(None, "cpu") is None  # in a process that was launched
    assert "ACCELERATE_USE_FSDP" not in os.environ  # accelerate and transformers would obey it in their own ways
    said = accelerate_settings().sharding
    assert said is not None and said.value == "fsdp"
    with pytest.raises(UsageError, match=r"train\.sharding: none, but accelerate launch .* says fsdp"):
        make_accelerator(Recipe.load(None, {"train.sharding": "none"}))


def test_a_launched_process_does_not_launch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    see_devices(monkeypatch, 2)
    for name, value in {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        assert not launch.is_worker()
        monkeypatch.setenv(name, value)
    assert launch.is_worker()
    assert launch.choose(None, "auto") is None and launch.choose(2, "auto") is None
    with pytest.raises(UsageError, match="--num-processes 3 was given inside a launcher that started 2"):
        launch.choose(3, "auto")
    with pytest.raises(UsageError, match="inside a launcher"):
        launch.choose(None, "auto", ["--num_processes", "2"])
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="FSDP"):
        launch.choose(None, "auto")

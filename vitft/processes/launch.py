"""Run a command in this process, or in several through accelerate's launcher.

torch's launcher (beneath accelerate's) turns every worker's failure into exit code 1 under a long traceback, and kills
its workers on SIGTERM instead of passing it on. So the parent looks after the workers itself: it passes signals on,
learns how each worker ended, and ends those that are left. ``vitft.processes.worker`` says how they communicate.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitft.errors import TrainError, UsageError, VitftError
from vitft.processes import signals
from vitft.processes.accelerate_config import (
    check_worker,
    is_worker,
    parse_launcher_args,
    read_config,
    refuse_other_engines,
    take_over_engines,
)
from vitft.processes.fsdp import ASK_FOR_FSDP, asks_for_fsdp, without_fsdp
from vitft.processes.worker import FOLDER, ORDERLY, STOPPED, Outcome, record, register

__all__ = ["Launch", "choose", "is_worker", "record", "register", "run"]

_GRACE = 5.0  # seconds that the others have to report a failure too, after a first one
_PATIENCE = 60.0  # seconds that the others have to stop too, after one stopped early
_POLL = 0.05


# --- how many processes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """A run in separate processes, through accelerate's launcher."""

    num_processes: int
    """Training processes on all machines together."""
    reason: str
    """Where the number comes from, for messages."""
    on_cpu: bool = False
    num_machines: int = 1
    arguments: tuple[str, ...] = ()
    """Further arguments for the launcher."""
    is_fsdp: bool = False
    """Whether the launcher's arguments or its config ask for FSDP2."""

    @property
    def num_local(self) -> int:
        """Processes on this machine."""
        return self.num_processes // self.num_machines

    def command(self, module: str, arguments: Sequence[str], folder: Path) -> list[str]:
        """Return the command line that starts ``python -m module arguments`` in every process."""
        ours = ["--num_processes", str(self.num_processes)]
        if self.num_processes > 1:
            ours.append("--multi_gpu")  # without GPUs too: --cpu would silently start a single process
        if self.num_machines == 1:
            # Any free port, so that runs do not clash. The long interval lets us see a crash first.
            ours += ["--main_process_port", "0", "--log_dir", str(folder / "logs"), "--monitor_interval", "2"]
        return [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *(*self.arguments, *ours, "--module", module, *arguments),
        ]

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the environment of the launcher, which its workers inherit."""
        environment = {**os.environ, FOLDER: str(folder)}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, _num_cores() // self.num_local)))
        if self.on_cpu:
            environment["ACCELERATE_USE_CPU"] = "true"
        if self.is_fsdp:
            environment |= ASK_FOR_FSDP
        return environment


def choose(num_processes: int | None, device: str, launcher_args: Sequence[str] = ()) -> Launch | None:
    """Decide in how many processes to run.

    The number is ``num_processes``, else the launcher's ``--num_processes``, else that of accelerate's config
    file, else that of the visible devices.

    Args:
        num_processes: what the user asked for, or None.
        device: the recipe's ``train.device``.
        launcher_args: arguments for accelerate's launcher.

    Returns:
        None to run in this process.

    Raises:
        UsageError: for more processes than devices, for unknown launcher arguments, and for a config file that
            cannot be read or asks for something that vitft does not support.
    """
    if is_worker():
        check_worker(num_processes, launcher_args)
        return None
    take_over_engines()
    said = parse_launcher_args(launcher_args)
    config, path = (None, "") if said.cpu and not said.config_file else read_config(said.config_file)
    refuse_other_engines(said, config, path)

    on_cpu = device == "cpu" or (device == "auto" and (said.cpu or bool(config and config.use_cpu)))
    gpu_ids = said.gpu_ids or (config.gpu_ids if config else None)
    num_visible = 0 if on_cpu else _num_visible(device, gpu_ids)
    num_machines = said.num_machines or (config.num_machines if config else None) or 1
    # A number of GPUs in the default config does not apply to a device chosen on the command line.
    fits = config is not None and (device in ("auto", "cuda", "xpu") or config.use_cpu or bool(said.config_file))
    configured = config.num_processes if config is not None and fits and config.num_processes > 0 else None
    candidates = [
        (num_processes, "--num-processes"),
        (said.num_processes, "the launcher's --num_processes"),
        (configured, f"accelerate's config {path}"),
        (num_visible * num_machines or None, f"{num_visible} visible device{'s' * (num_visible > 1)}"),
        (1, "no accelerator"),
    ]
    count, reason = next((count, reason) for count, reason in candidates if count is not None)
    if count < 1 or count % num_machines:
        raise UsageError(
            f"{count} processes ({reason}) cannot be divided among {num_machines} machine(s)",
            allowed="a total over all machines that is a multiple of the number of machines",
        )
    num_local = count // num_machines
    needs_devices = not on_cpu and (num_visible > 0 or device not in ("auto", "cpu"))
    if needs_devices and num_local > max(num_visible, 1):
        raise UsageError(
            f"{num_local} processes ({reason}) need as many devices, but device {device} allows {num_visible}",
            hint=f"--num-processes {num_visible}, or --device cpu" if num_visible else "--device cpu",
        )
    if count == 1 and not launcher_args and gpu_ids in (None, "all"):
        return None
    if not hasattr(os, "killpg"):
        raise UsageError(
            f"{count} process(es) through accelerate's launcher ({reason}) are not possible on this system, which has "
            "no process groups",
            allowed="training in one process, on one device",
            hint="--num-processes 1, without arguments for the launcher",
        )
    arguments = [each for each in without_fsdp(launcher_args) if each.replace("-", "_") not in ("__cpu", "__multi_gpu")]
    if config is None:  # the launcher prints a long list of options it was not given
        for name, value in (("num_machines", "1"), ("mixed_precision", "no"), ("dynamo_backend", "no")):
            if getattr(said, name) is None:
                arguments += [f"--{name}", value]
    return Launch(count, reason, on_cpu, num_machines, tuple(arguments), asks_for_fsdp(said, config))


def _num_visible(device: str, gpu_ids: str | None) -> int:
    """Count the devices that a run may use; 0 without an accelerator."""
    with signals.postponed():  # interrupting the import of torch crashes in C++
        import torch

    if device not in ("auto", "cuda", "xpu"):
        return 1
    count = 0
    if device != "xpu":
        count = torch.cuda.device_count()
    if device == "xpu" or (device == "auto" and count == 0):
        count = torch.xpu.device_count()
    return count if gpu_ids in (None, "all") else min(count, len(str(gpu_ids).split(",")))


def _num_cores() -> int:
    """Count the physical cores that this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


# --- the parent --------------------------------------------------------------------------------------------


def run(launch: Launch, arguments: Sequence[str], module: str = "vitft") -> int:
    """Run ``python -m module arguments`` in the processes of ``launch`` and look after them to the end.

    SIGTERM, SIGUSR1 and SIGINT are passed on to every worker; a second SIGINT ends them. All processes started here
    end with this call, or with this process.

    Returns:
        The exit code on which the workers agreed; 130 if they were interrupted.

    Raises:
        TrainError: if a worker ended without an outcome, or failed when the main process, which prints, did not.
            Its ``exit_code`` is the run's.
    """
    import fcntl

    with (
        tempfile.TemporaryDirectory(prefix="vitft-launch-", ignore_cleanup_errors=True) as name,
        (Path(name) / "alive").open("w") as alive,
        _received_signals() as received,
    ):
        fcntl.flock(alive, fcntl.LOCK_EX)
        folder = Path(name)
        # Its own session: Ctrl-C in the terminal reaches only this process, which passes it on.
        launcher = subprocess.Popen(
            launch.command(module, arguments, folder),
            env=launch.environment(folder),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        deaths = _deaths_for_memory()
        try:
            lost = _wait(launcher, folder, launch.num_local, received)
            outcomes = _outcomes(folder)
            if launch.num_machines > 1 and not lost and all(each.code == 0 for each in outcomes.values()):
                launcher.wait()  # for the other machines
        finally:
            exit_code = launcher.poll()
            _end(launcher, folder)
        return _verdict(_outcomes(folder), launch.num_local, _lost(folder, lost, deaths), received, exit_code)


@contextmanager
def _received_signals() -> Iterator[list[int]]:
    """Collect the signals for the workers, in order of arrival."""
    received: list[int] = []
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait(launcher: subprocess.Popen[bytes], folder: Path, num_workers: int, received: list[int]) -> list[int]:
    """Wait until all workers have ended, or the others have nothing left to wait for.

    Returns:
        The ranks (on this machine) of workers that ended without recording an outcome.
    """
    import psutil

    workers: dict[int, psutil.Process | None] = {}
    num_told: Counter[int] = Counter()
    first_failure: float | None = None
    while True:
        # First see which processes are alive, then read outcomes: a process that is gone has written everything.
        is_launcher_gone = launcher.poll() is not None
        for file in folder.glob("*.pid"):
            if int(file.stem) not in workers:
                try:
                    workers[int(file.stem)] = psutil.Process(int(file.read_text()))
                except psutil.NoSuchProcess:
                    workers[int(file.stem)] = None
        alive = {rank: worker for rank, worker in workers.items() if worker is not None and _is_alive(worker)}
        outcomes = _outcomes(folder)
        for rank, worker in alive.items():
            for number in received[num_told[rank] :] if rank not in outcomes else ():
                with suppress(psutil.NoSuchProcess):
                    worker.send_signal(number)
            num_told[rank] = len(received)

        lost = sorted(workers.keys() - alive.keys() - outcomes.keys())
        has_failed = any(outcome.code not in ORDERLY for outcome in outcomes.values())
        has_stopped = any(outcome.code == STOPPED for outcome in outcomes.values())
        if (has_failed or has_stopped) and first_failure is None:
            first_failure = time.monotonic()
        if len(outcomes) == num_workers and (has_failed or not alive):
            return lost
        if lost or is_launcher_gone or received.count(signal.SIGINT) > 1:
            return lost
        if first_failure is not None and time.monotonic() - first_failure > (_GRACE if has_failed else _PATIENCE):
            return lost
        time.sleep(_POLL)


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end(launcher: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill the remaining processes: the launcher first, so that it does not report its workers' end as a failure."""
    import psutil

    try:
        tree = psutil.Process(launcher.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        tree = []
    with suppress(ProcessLookupError):
        os.killpg(launcher.pid, signal.SIGKILL)
    launcher.wait()
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for file in folder.glob("*.pid"):  # a worker leads a group; its loader processes may outlive it
        with suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)
    psutil.wait_procs(tree, timeout=10)


def _outcomes(folder: Path) -> dict[int, Outcome]:
    return {int(file.stem): Outcome(**json.loads(file.read_text())) for file in folder.glob("*.outcome")}


@dataclass(frozen=True)
class _Lost:
    """What is known about workers that ended without an outcome, and about their run."""

    ranks: list[int]
    ids: list[int]
    was_for_memory: bool
    """Whether the kernel has killed a process of this container for lack of memory meanwhile."""
    safe: str
    resume: str


def _lost(folder: Path, ranks: list[int], deaths: int) -> _Lost:
    ids = [int((folder / f"{rank}.pid").read_text()) for rank in ranks]
    told = folder / "0.run"
    where, resume = told.read_text().split("\n", 1) if told.is_file() else ("", "the same command again")
    safe = ""
    if where:
        done = sorted(path.parent.name for path in Path(where).glob("checkpoints/step-*/manifest.json"))
        safe = f"the checkpoint of step {int(done[-1][5:])} is complete" if done else "there is no checkpoint yet"
    return _Lost(ranks, ids, _deaths_for_memory() > deaths, safe, resume)


def _deaths_for_memory() -> int:
    """Count the processes of this control group that the kernel killed for lack of memory; 0 if it does not say."""
    with suppress(OSError, ValueError, IndexError):
        group = Path("/proc/self/cgroup").read_text().split("::")[-1].strip().lstrip("/")
        for place in (Path("/sys/fs/cgroup") / group, Path("/sys/fs/cgroup")):
            if (place / "memory.events").is_file():
                counts = dict(line.split() for line in (place / "memory.events").read_text().splitlines())
                return int(counts.get("oom_kill", 0))
    return 0


def _verdict(
    outcomes: Mapping[int, Outcome], num_workers: int, lost: _Lost, received: Sequence[int], launcher_code: int | None
) -> int:
    """Return the exit code of the run, or raise an error that no worker has printed yet."""
    failures = sorted((each for each in outcomes.values() if each.code not in ORDERLY), key=lambda each: each.time)
    echoes, failures = [each for each in failures if each.is_echo], [each for each in failures if not each.is_echo]
    if len(outcomes) == num_workers and not failures and not echoes:
        return max(each.code for each in outcomes.values())
    if signal.SIGINT in received:
        return 128 + signal.SIGINT
    for failure in failures:
        if failure.is_main:
            return failure.code  # it has printed why
    if failures:
        raise _with_code(TrainError(failures[0].message or "a worker process failed"), failures[0].code)
    if any(each.code == STOPPED for each in outcomes.values()):
        return STOPPED  # it has printed how to resume; the others waited for it in vain
    if received:
        name = signal.Signals(received[-1]).name
        raise _with_code(
            TrainError(f"ended by {name} before a checkpoint could be written", hint=lost.resume), 128 + received[-1]
        )
    if lost.ranks:
        raise _process_lost(lost)
    if echoes:
        raise TrainError(echoes[0].message)
    raise TrainError(
        f"accelerate's launcher ended with exit code {launcher_code} before its workers; the reason is printed above"
    )


def _process_lost(lost: _Lost) -> TrainError:
    who = ", ".join(f"{rank} (process id {number})" for rank, number in zip(lost.ranks, lost.ids, strict=True))
    why = "the kernel killed it because memory ran out" if lost.was_for_memory else "it crashed or was killed"
    likely = "" if lost.was_for_memory else " (running out of memory is the usual reason)"
    return TrainError(
        f"training process {who} ended unexpectedly: {why}{likely}" + (f"; {lost.safe}" if lost.safe else ""),
        allowed="to save memory: fewer processes, --set data.workers=0, a smaller train.micro_batch_size",
        hint=lost.resume,
    )


def _with_code(error: VitftError, code: int) -> VitftError:
    error.exit_code = code
    return error

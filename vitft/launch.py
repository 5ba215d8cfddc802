"""In this process, or in several through accelerate's launcher.

torch's launcher (beneath accelerate's) turns every failure of a worker into exit code 1 under a long
traceback, and kills its workers on a SIGTERM instead of passing it on. So the parent looks after the workers
itself: it sends them the signals that it gets, learns from them how they ended, and ends what is left. They
meet in a private folder, named by the environment variable ``VITFT_LAUNCH_DIR``:

    alive            locked by the parent as long as it lives
    <rank>.pid       written by a worker when it starts (``register``)
    <rank>.outcome   written by a worker when it ends (``record``)

Under a foreign launcher there is no such folder, and ``register`` and ``record`` do nothing.
"""

from __future__ import annotations

import json
import os
import shutil
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

_FOLDER = "VITFT_LAUNCH_DIR"
_ORDERLY = (0, 3, 75)  # codes after which all workers end by themselves: done, not published, stopped early
_GRACE = 5.0  # seconds that the others have, after a first failure, to report the same one
_POLL = 0.05


# --- how many processes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Launch:
    """A run in processes of its own, through accelerate's launcher."""

    num_processes: int
    """Training processes on all machines together."""
    reason: str
    """Where the number comes from, for people."""
    on_cpu: bool = False
    num_machines: int = 1
    arguments: tuple[str, ...] = ()
    """Further arguments for the launcher."""

    @property
    def num_local(self) -> int:
        """Processes on this machine."""
        return self.num_processes // self.num_machines

    def command(self, module: str, arguments: Sequence[str], folder: Path) -> list[str]:
        """Return the command line that starts ``python -m module arguments`` in every process."""
        ours = ["--num_processes", str(self.num_processes)]
        if self.num_processes > 1:
            ours.append("--multi_gpu")  # without GPUs too: --cpu starts a single process and says nothing
        if self.num_machines == 1:
            # Any free port, so that runs do not clash. Looking rarely leaves it to us to see a crash first.
            ours += ["--main_process_port", "0", "--log_dir", str(folder / "logs"), "--monitor_interval", "2"]
        return [
            *(sys.executable, "-m", "accelerate.commands.launch"),
            *(*self.arguments, *ours, "--module", module, *arguments),
        ]

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the environment of the launcher, which its workers inherit."""
        environment = {**os.environ, _FOLDER: str(folder)}
        environment.setdefault("OMP_NUM_THREADS", str(max(1, _num_cores() // self.num_local)))
        if self.on_cpu:
            environment["ACCELERATE_USE_CPU"] = "true"
        return environment


def is_worker() -> bool:
    """Whether a launcher started this process: torchrun, or accelerate's also when it starts only one."""
    return {"WORLD_SIZE", "RANK", "LOCAL_RANK"} <= os.environ.keys() or "ACCELERATE_DYNAMO_MODE" in os.environ


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
        UsageError: a number that the devices do not allow, arguments that the launcher does not know, a
            config file that cannot be read or asks for what vitft does not do.
    """
    if is_worker():
        _check_worker(num_processes, launcher_args)
        return None
    said = _parse(launcher_args)
    config, path = _read_config(said.config_file, skip_default=said.cpu)
    _refuse_other_engines(said, config, path)

    on_cpu = device == "cpu" or (device == "auto" and (said.cpu or bool(config and config.use_cpu)))
    gpu_ids = said.gpu_ids or (config.gpu_ids if config else None)
    num_visible = 0 if on_cpu else _num_visible(device, gpu_ids)
    # A count of GPUs in the default config is no answer to a device that was chosen on the command line.
    fits = bool(config) and (device in ("auto", "cuda", "xpu") or config.use_cpu or said.config_file is not None)
    num_machines = said.num_machines or (config.num_machines if config else None) or 1
    visible = f"{num_visible} visible device{'s' * (num_visible > 1)}"
    configured = config.num_processes if config and fits and config.num_processes > 0 else None
    candidates = [
        (num_processes, "--num-processes"),
        (said.num_processes, "the launcher's --num_processes"),
        (configured, f"accelerate's config {path}"),
        (num_visible * num_machines or None, visible),
        (1, "no accelerator"),
    ]
    count, reason = next((count, reason) for count, reason in candidates if count is not None)
    if count < 1 or count % num_machines:
        raise UsageError(
            f"{count} processes ({reason}) cannot be shared by {num_machines} machine(s)",
            allowed="the number of processes on all machines together, a multiple of the machines",
        )
    num_local = count // num_machines
    if num_local > max(num_visible, 1) and (num_visible or device not in ("auto", "cpu")) and not on_cpu:
        raise UsageError(
            f"{num_local} processes ({reason}) need as many devices, but device {device} is {num_visible}",
            hint=f"--num-processes {num_visible}, or --device cpu" if num_visible else "--device cpu",
        )
    if count == 1 and not launcher_args and gpu_ids in (None, "all"):
        return None
    arguments = [each for each in launcher_args if each.replace("-", "_") not in ("__cpu", "__multi_gpu")]
    if config is None:  # the launcher lists at length what it was not told
        for name, value in (("num_machines", "1"), ("mixed_precision", "no"), ("dynamo_backend", "no")):
            if getattr(said, name) is None:
                arguments += [f"--{name}", value]
    return Launch(count, reason, on_cpu, num_machines, tuple(arguments))


def _check_worker(num_processes: int | None, launcher_args: Sequence[str]) -> None:
    """Raise if a launched process was asked for what only its launcher could have done."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    if num_processes not in (None, world_size):
        raise UsageError(
            f"--num-processes {num_processes} inside a launcher that started {world_size}",
            hint=f"leave it out, or give the launcher --num_processes {num_processes}",
        )
    if launcher_args:
        raise UsageError(
            f"launcher arguments ({' '.join(launcher_args)}) inside a launcher",
            hint="give them to that launcher",
        )
    for engine in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        if _is_true(os.environ.get(f"ACCELERATE_USE_{engine}", "")):
            raise _other_engine(engine, "accelerate launch")


def _parse(launcher_args: Sequence[str]) -> Any:
    """Read the launcher's arguments with its own parser."""
    from accelerate.commands.launch import launch_command_parser

    def refuse(message: str) -> None:
        raise UsageError(f"accelerate's launcher: {message}", hint="accelerate launch --help lists its arguments")

    parser = launch_command_parser()
    parser.error = refuse
    script = "-"  # the launcher wants a script: the first word that is no option
    said = parser.parse_args([*launcher_args, script])
    if said.training_script != script or said.training_script_args:
        refuse(f"unexpected argument {said.training_script!r}")
    return said


def _read_config(path: str | None, skip_default: bool = False) -> tuple[Any, str]:
    """Return accelerate's config, None if there is none, and its path."""
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    if path is None and (skip_default or not Path(default_config_file).is_file()):
        return None, ""
    path = path or default_config_file
    try:
        return load_config_from_file(path), path
    except Exception as error:  # a file by hand fails in as many ways as there are typos
        reason = " ".join(str(error).split())
        raise UsageError(
            f"accelerate's config {path} cannot be read: {reason}", hint="accelerate config writes a new one"
        ) from error


def _refuse_other_engines(said: Any, config: Any, path: str) -> None:
    asked = {"DEEPSPEED": said.use_deepspeed, "FSDP": said.use_fsdp, "MEGATRON_LM": said.use_megatron_lm}
    asked |= {"TPU": said.tpu, "N-d parallelism": said.use_parallelism_config}
    for engine, is_on in asked.items():
        if is_on:
            raise _other_engine(engine, "the launcher's arguments")
    if config is None:
        return
    engine = str(getattr(config.distributed_type, "value", config.distributed_type))
    if str(getattr(config.compute_environment, "value", "")) == "AMAZON_SAGEMAKER":
        raise _other_engine("SageMaker", f"accelerate's config {path}")
    if engine != "NO" and not engine.startswith("MULTI_"):
        raise _other_engine(engine, f"accelerate's config {path}")
    if config.parallelism_config:
        raise _other_engine("N-d parallelism", f"accelerate's config {path}")


def _other_engine(engine: str, source: str) -> UsageError:
    return UsageError(
        f"{source} asks for {engine}, which vitft does not do: it trains a whole copy per device (DDP)",
        allowed="distributed_type NO, MULTI_GPU, MULTI_CPU, MULTI_XPU, ...",
        hint="accelerate config --config_file ddp.yaml, then vitft finetune ... -- --config_file ddp.yaml",
    )


def _num_visible(device: str, gpu_ids: str | None) -> int:
    """Count the devices that a run may use; 0 without an accelerator."""
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


@dataclass(frozen=True)
class _Outcome:
    code: int
    message: str
    is_main: bool
    time: float


def run(launch: Launch, arguments: Sequence[str], module: str = "vitft") -> int:
    """Run ``python -m module arguments`` in the processes of ``launch`` and look after them to the end.

    SIGTERM, SIGUSR1 and SIGINT are passed on to every worker; a second SIGINT ends them. Nothing that was
    started outlives this call, nor this process.

    Returns:
        The exit code on which the workers agreed; 130 if they were interrupted.

    Raises:
        TrainError: a worker ended without a word, or failed where the main process, which prints, did not.
            Its ``exit_code`` is the outcome's.
    """
    import fcntl

    with (
        tempfile.TemporaryDirectory(prefix="vitft-launch-", ignore_cleanup_errors=True) as name,
        (Path(name) / "alive").open("w") as alive,
        _received_signals() as received,
    ):
        fcntl.flock(alive, fcntl.LOCK_EX)
        folder = Path(name)
        # A session of its own: Ctrl-C in the terminal reaches only us, and the workers through us.
        launcher = subprocess.Popen(
            launch.command(module, arguments, folder),
            env=launch.environment(folder),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            lost = _wait(launcher, folder, launch.num_local, received)
            outcomes = _outcomes(folder)
            if launch.num_machines > 1 and not lost and all(each.code == 0 for each in outcomes.values()):
                launcher.wait()  # for the other machines
        finally:
            exit_code = launcher.poll()
            _end(launcher, folder)
        return _verdict(_outcomes(folder), launch.num_local, lost, received, exit_code)


@contextmanager
def _received_signals() -> Iterator[list[int]]:
    """Collect the signals that are meant for the workers, in the order in which they come."""
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
    """Return when all workers have ended, or when the rest has nothing to wait for.

    Returns:
        The ranks (on this machine) of workers that ended without recording an outcome.
    """
    import psutil

    workers: dict[int, psutil.Process | None] = {}
    num_told: Counter[int] = Counter()
    first_failure: float | None = None
    while True:
        # Whether processes live is asked before what they left is read: who is gone has written all it will.
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
        has_failed = any(outcome.code not in _ORDERLY for outcome in outcomes.values())
        if has_failed and first_failure is None:
            first_failure = time.monotonic()
        if len(outcomes) == num_workers and (has_failed or not alive):
            return lost
        if lost or is_launcher_gone or received.count(signal.SIGINT) > 1:
            return lost
        if first_failure is not None and time.monotonic() - first_failure > _GRACE:
            return lost
        time.sleep(_POLL)


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _end(launcher: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill what is left: the launcher first, so that it does not report its workers' end as a failure."""
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
    for file in folder.glob("*.pid"):  # a worker leads a group; when it is gone its loader processes may not be
        with suppress(ProcessLookupError):
            os.killpg(int(file.read_text()), signal.SIGKILL)
    psutil.wait_procs(tree, timeout=10)


def _outcomes(folder: Path) -> dict[int, _Outcome]:
    return {int(file.stem): _Outcome(**json.loads(file.read_text())) for file in folder.glob("*.outcome")}


def _verdict(
    outcomes: Mapping[int, _Outcome],
    num_workers: int,
    lost: Sequence[int],
    received: Sequence[int],
    launcher_code: int | None,
) -> int:
    """Return the exit code of the whole, or raise what nobody has said yet."""
    failures = sorted((each for each in outcomes.values() if each.code not in _ORDERLY), key=lambda each: each.time)
    if len(outcomes) == num_workers and not failures:
        return max(each.code for each in outcomes.values())
    if signal.SIGINT in received:
        return 128 + signal.SIGINT
    for failure in failures:
        if failure.is_main:
            return failure.code  # it has printed why
    if failures:
        raise _with_code(TrainError(failures[0].message or "a worker process failed"), failures[0].code)
    if received:
        name = signal.Signals(received[-1]).name
        raise _with_code(TrainError(f"ended by {name} before a checkpoint could be written"), 128 + received[-1])
    if lost:
        ranks = ", ".join(map(str, lost))
        raise TrainError(
            f"training process {ranks} ended without a word: it crashed, or was killed (out of memory?)",
            hint="vitft finetune --resume RUN goes on from the last checkpoint",
        )
    raise TrainError(
        f"accelerate's launcher ended with exit code {launcher_code} before its workers; it says why above"
    )


def _with_code(error: VitftError, code: int) -> VitftError:
    error.exit_code = code
    return error


# --- a worker ----------------------------------------------------------------------------------------------


def register() -> None:
    """Tell the parent that this worker is there, and end when the parent does."""
    if (name := os.environ.get(_FOLDER)) is not None:
        threading.Thread(target=_end_with_parent, args=(Path(name),), name="vitft-parent", daemon=True).start()
        _write(Path(name), "pid", str(os.getpid()))


def record(code: int, message: str = "") -> int:
    """Tell the parent how this worker ends.

    Args:
        code: the exit code of the run, as this worker sees it.
        message: why, if it failed; the parent shows it unless the main process failed too and said it.

    Returns:
        The exit code for this process. Under our parent that is 0, for the parent reports the run's.
    """
    if (name := os.environ.get(_FOLDER)) is None:
        return code
    is_main = os.environ.get("RANK", "0") == "0"
    _write(Path(name), "outcome", json.dumps(vars(_Outcome(code, message, is_main, time.time()))))
    if code not in _ORDERLY:
        # Ending now would tear connections that others wait on, and each would report that as its own
        # failure. The parent ends all of us.
        sys.stdout.flush()
        sys.stderr.flush()
        threading.Event().wait(4 * _GRACE)
    return 0


def _write(folder: Path, kind: str, text: str) -> None:
    rank = os.environ.get("LOCAL_RANK", "0")
    partial = folder / f"{rank}.partial"
    with suppress(FileNotFoundError):  # the parent is gone, and the thread that waits for this acts on it
        partial.write_text(text)
        partial.rename(folder / f"{rank}.{kind}")


def _end_with_parent(folder: Path) -> None:
    """Wait until the parent's lock is free, that is until it has died, however it did; then end the group."""
    import fcntl

    with suppress(FileNotFoundError), (folder / "alive").open() as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
    shutil.rmtree(folder, ignore_errors=True)
    # The group is this worker's own, with its loader processes, or the launcher's if it started only one.
    os.killpg(0, signal.SIGKILL)


# --- what accelerate's config says about recipe keys -------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """A value and who said it, for people."""

    value: Any
    source: str


@dataclass(frozen=True)
class AccelerateSettings:
    """What accelerate's config, launcher or environment says that a recipe says too; None where nothing."""

    precision: Said | None = None
    accumulation: Said | None = None
    use_cpu: Said | None = None


def accelerate_settings() -> AccelerateSettings:
    """Collect what accelerate was told. Its defaults (no mixed precision, one micro-step) say nothing."""
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    use_cpu = _is_true(os.environ.get("ACCELERATE_USE_CPU", ""))
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    told = "accelerate launch ({} or its config file)" if is_worker() else "the environment (ACCELERATE_{})"
    precision_source = told.format("--mixed_precision" if is_worker() else "MIXED_PRECISION")
    cpu_source = told.format("--cpu" if is_worker() else "USE_CPU")
    config, path = (None, "") if is_worker() else _read_config(None)  # a launcher has read the file already
    if config is not None and precision == "no":
        precision, precision_source = (
            str(config.mixed_precision or "no").lower(),
            f"accelerate's config {path}",
        )
    if config is not None and not use_cpu:
        use_cpu, cpu_source = bool(config.use_cpu), f"accelerate's config {path}"
    return AccelerateSettings(
        precision=Said(precision, precision_source) if precision != "no" else None,
        use_cpu=Said(True, cpu_source) if use_cpu else None,
        accumulation=(
            Said(int(steps), "the environment (ACCELERATE_GRADIENT_ACCUMULATION_STEPS)")
            if steps.isdigit() and int(steps) > 1
            else None
        ),
    )


def reconcile(
    settings: AccelerateSettings, values: Mapping[str, object], *, batch_size: int, num_processes: int
) -> dict[str, Said]:
    """Fill recipe values that are ``auto`` with what accelerate says.

    Args:
        settings: what accelerate says.
        values: the recipe's plain values by dotted key.
        batch_size: images per step over all processes.
        num_processes: training processes.

    Returns:
        The values to use instead, by dotted key, each with its source.

    Raises:
        UsageError: accelerate and an explicit value of the recipe contradict each other.
    """
    filled: dict[str, Said] = {}
    if said := settings.precision:
        if said.value not in ("bf16", "fp16"):
            raise UsageError(
                f"{said.source} says mixed precision {said.value}, which vitft does not do",
                allowed="no, bf16, fp16",
            )
        filled |= _fill("train.precision", values["train.precision"], said)
    if said := settings.use_cpu:
        filled |= _fill("train.device", values["train.device"], Said("cpu", said.source))
    if said := settings.accumulation:
        # A step is cut at even slots, so that no mixing pair is parted (data/order.py).
        num_pairs = (batch_size + 1) // 2
        largest_part = 2 * -(-num_pairs // num_processes)
        micro = values["train.micro_batch_size"]
        if not isinstance(micro, int):
            micro = 2 * -(-largest_part // (2 * said.value))
            filled["train.micro_batch_size"] = Said(micro, f"{said.source}: {said.value} accumulation steps")
        elif -(-largest_part // micro) != said.value:
            raise _contradiction(
                "train.micro_batch_size",
                f"{micro}, which is {-(-largest_part // micro)} accumulation steps",
                Said(f"{said.value} accumulation steps", said.source),
            )
    return filled


def _fill(key: str, value: object, said: Said) -> dict[str, Said]:
    if value not in ("auto", said.value):
        raise _contradiction(key, str(value), said)
    return {key: said} if value == "auto" else {}


def _contradiction(key: str, value: str, said: Said) -> UsageError:
    return UsageError(
        f"the recipe says {key}: {value}, but {said.source} says {said.value}",
        allowed="one of the two",
        hint=f"--set {key}=auto takes accelerate's",
    )


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "t", "yes", "y", "on")

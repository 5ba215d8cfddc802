"""Report why a task was cut short: a request to stop, an interrupt, a lost process, lack of memory or disk space.

Each message says what happened, what is safe on the disk, and what to type next.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from vitft.errors import StoppedEarly, TrainError, VitftError, one_line
from vitft.outside import shown
from vitft.ownership import Ownership
from vitft.processes import signals, worker
from vitft.run import Run

_FEWEST_FILES, _ENOUGH_FILES = 256, 4096


@dataclass
class Session:
    """A task and its run, as far as it has come.

    Attributes:
        run: None until it exists.
        ownership: the lock on the run, in the process that writes.
        is_trained: whether the last step is done.
        num_processes: number of training processes.
    """

    run: Run | None = None
    ownership: Ownership | None = None
    is_trained: bool = False
    num_processes: int = field(default_factory=lambda: int(os.environ.get("WORLD_SIZE") or 1))

    def own(self, run: Run) -> None:
        """Make this the session's run, and lock it in the process that writes.

        Raises:
            TrainError: if another process is working on it.
        """
        if run.is_main:
            self.ownership = Ownership.take(run.folder)
            if self.ownership.note:
                run.say(f"  {self.ownership.note}")
        self.run = run

    def forget(self) -> None:
        """Unlock the run and forget it."""
        if self.ownership is not None:
            self.ownership.release()
        self.ownership = self.run = None

    def failed(self, error: Exception) -> None:
        """Record in the run why it failed, for :func:`vitft.report.runs.list_runs`."""
        if self.ownership is None or self.run is None or self.run.is_finished:
            return
        reason = error.wrong if isinstance(error, VitftError) else f"{type(error).__name__}: {one_line(error)}"
        with suppress(TrainError):  # a full disk, most likely the failure itself
            self.run.log("failed", text=shown(reason))

    def stopped(self, signal: str) -> StoppedEarly:
        """Return the outcome of a request to stop that came outside the training loop."""
        if self.run is None:
            return StoppedEarly(
                f"stopped before the first step ({signal}): there is nothing to resume", hint="the same command again"
            )
        if self.run.is_scored:
            return StoppedEarly(
                f"stopped after training ({signal}); the model and its scores are saved",
                hint=self.run.resume_command,
            )
        safe = self.run.newest_checkpoint()
        if safe is None:
            return StoppedEarly(
                f"stopped before the first checkpoint ({signal})",
                hint=f"{self.run.resume_command} (from the first step)",
            )
        when = "after the last step" if self.is_trained else f"at step {step_of(safe.name)}"
        return StoppedEarly(f"stopped {when} ({signal}); the checkpoint is complete", hint=self.run.resume_command)

    def what_is_safe(self) -> str:
        """Say what is safe on the disk."""
        if self.run is None:
            return ""
        if self.run.is_scored:
            return "; the model and its scores are saved"
        safe = self.run.newest_checkpoint()
        return f"; the checkpoint of step {step_of(safe.name)} is complete" if safe else "; there is no checkpoint yet"


def step_of(name: str) -> int:
    """Return the step from the name of a checkpoint folder."""
    return int(name.removeprefix("step-"))


@contextmanager
def ended_well(session: Session) -> Iterator[None]:
    """Say how to resume a run, whatever ends it, and unlock it.

    Raises:
        StoppedEarly: after SIGTERM or SIGUSR1, outside the training loop.
        TrainError: for a lost process, or lack of memory, disk space or file handles.
    """
    try:
        with signals.stoppable(session.stopped), explained(session):
            yield
    except KeyboardInterrupt as interrupt:
        if session.run is not None and not getattr(interrupt, "__notes__", ()):
            interrupt.add_note(f"resume with: {session.run.resume_command}{session.what_is_safe()}")
        raise
    except StoppedEarly:
        raise
    except Exception as error:  # whatever it is, it ended the run
        session.failed(error)
        raise
    finally:
        session.forget()


@contextmanager
def explained(session: Session | None = None) -> Iterator[None]:
    """Turn errors that the machine caused into errors that say so."""
    session = session or Session()
    try:
        need_open_files()
        yield
    except Exception as error:  # any library may raise; explain() decides
        if not isinstance(error, VitftError):
            signals.check()  # we were asked to stop too, but a peer heard it first and broke our collective
        found = explain(error, session)
        if found is None:
            raise
        raise found from error


def explain(error: BaseException, session: Session) -> VitftError | None:
    """Explain another library's error if this machine or its user caused it; otherwise return None.

    Args:
        error: from torch, the operating system or a library.
        session: the task that it ended.
    """
    from vitft.data.workers import ReaderLost  # imports torch

    if isinstance(error, ReaderLost):
        return _lost_reader(str(error.process), error.signal, session)
    if isinstance(error, VitftError):
        return None
    again = session.run.resume_command if session.run else "the same command again"
    safe, text = session.what_is_safe(), str(error)
    if found := re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: ([^.]*))?", text):
        return _lost_reader(found[1].strip(), (found[2] or "").strip(), session)
    if session.num_processes > 1 and _is_lost_connection(error):
        return worker.PeerLost(
            f"another training process is gone: it failed, crashed or was killed (out of memory?){safe}; "
            f"the connection failed with: {one_line(error)}",
            hint=again,
        )
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        smaller = "--set data.workers=0, fewer processes, a smaller --image-size or micro-batch"
        return TrainError(f"out of memory: {one_line(error) or 'none is left'}{safe}", allowed=smaller, hint=again)
    number = _errno(error)
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        limit = _file_limit()
        return TrainError(
            f"too many open files{f': the limit here is {limit} (ulimit -n)' if limit else ''}{safe}",
            hint=f"ulimit -n 1024, then: {again}",
        )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return TrainError(f"the disk is full: {one_line(error)}{safe}", hint=f"make room, then: {again}")
    return None


def _lost_reader(process: str, signal: str, session: Session) -> TrainError:
    """Return the error for a process that read images and died without a message."""
    if signal in ("Bus error", "SIGBUS"):
        why = "shared memory is full (/dev/shm; in a container, --shm-size)"
    elif signal in ("Killed", "SIGKILL", ""):
        why = "it was killed, or crashed (running out of memory is the usual reason)"
    else:
        why = f"{signal} ended it"
    command = session.run.resume_command if session.run else "the same command again"
    return TrainError(
        f"a process that reads images ({process}) is gone: {why}{session.what_is_safe()}",
        allowed="fewer of these processes: --set data.workers=1, or 0 for none",
        hint=f"{command} --set data.workers=0" if session.run else f"{command}, with --set data.workers=0",
    )


def _is_lost_connection(error: BaseException) -> bool:
    import torch

    kinds = tuple(
        kind
        for name in ("DistBackendError", "DistNetworkError", "DistStoreError")
        if (kind := getattr(torch.distributed, name, None)) is not None
    )
    words = r"gloo|nccl|TCPStore|Connection (?:closed|reset)|Broken pipe|connectFullMesh"
    return isinstance(error, kinds) or (
        isinstance(error, RuntimeError | OSError) and bool(re.search(words, str(error), re.IGNORECASE))
    )


def _errno(error: BaseException | None) -> int | None:
    """Return the operating system's number of an error or of its cause."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def _file_limit() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def need_open_files() -> None:
    """Raise this process's limit of open files, because batches that other processes send take some each.

    Raises:
        TrainError: if the limit stays too low. Without this, Python's own threads would hang later.
    """
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _ENOUGH_FILES:
        soft = _ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft != resource.RLIM_INFINITY and soft < _FEWEST_FILES:
        raise TrainError(
            f"too few open files: the limit here is {soft} (ulimit -n)",
            allowed=f"at least {_FEWEST_FILES}",
            hint=f"ulimit -n {_ENOUGH_FILES}, then the same command again",
        )

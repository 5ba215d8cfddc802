"""Do jobs one after the other in every process of a launch, and write down what each process ended with.

The processes are forked from the warm one of the tests and are told what accelerate's launcher would tell them:
starting Python anew takes longer than all the jobs. A job is ``{"finetune": {"optim.lr": 1, ...}}``, with
``"slow_save": seconds`` if saving is to take a while, ``{"resume": run}``, or ``{"evaluate": [model, dataset]}``.
``"before"`` is called first, and ``"fails": True`` expects a TrainError. Process 1 writes about the job ``x`` into
``FOLDER/x.1.json``.
"""

from __future__ import annotations

import faulthandler
import gc
import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch.multiprocessing import start_processes

from vitft import Recipe, tasks
from vitft.errors import StoppedEarly, TrainError
from vitft.model import load
from vitft.train import checkpoint
from vitft.train.sharding import whole


def do_all(jobs: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    for name, job in jobs.items():
        seen = Witness()
        try:
            seen.do(job)
        except StoppedEarly:
            seen.facts["stopped"] = time.time()
        except TrainError as error:
            if not job.get("fails"):
                raise
            seen.facts["failed"] = str(error)
        finally:
            seen.leave()
        rank = os.environ.get("RANK", "0")
        (folder / f"{name}.{rank}.json").write_text(json.dumps(seen.facts))
        forget_accelerator()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def forget_accelerator() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


class Witness:
    """Looks on while a job is done: at the model that is trained, the processes that are there, the saving."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._model: torch.nn.Module | None = None
        self._load, self._save, self._end = load.load_for_training, checkpoint.save, Accelerator.end_training
        load.load_for_training = self._see_load
        Accelerator.end_training = lambda _: self._see_end()

    def leave(self) -> None:
        load.load_for_training, checkpoint.save, Accelerator.end_training = self._load, self._save, self._end

    def do(self, job: Mapping[str, Any]) -> None:
        job.get("before", lambda: None)()
        if "resume" in job:
            tasks.finetune(resume=job["resume"])
        elif "evaluate" in job:
            self.facts["scores"] = tasks.evaluate(*job["evaluate"]).scores
        else:
            if seconds := job.get("slow_save"):
                checkpoint.save = lambda *args: self._see_save(seconds, *args)
            tasks.finetune(Recipe.load(None, job["finetune"]))

    def _see_load(self, *args: Any, **more: Any) -> Any:
        pretrained = self._load(*args, **more)
        self._model = pretrained.model
        return pretrained

    def _see_save(self, seconds: float, *args: Any) -> Path:
        time.sleep(seconds)
        path = self._save(*args)
        self.facts["saved"] = time.time()
        return path

    def _see_end(self) -> None:
        # The group stays, since processes that have parted cannot meet again under the same launcher.
        digest = hashlib.sha256()
        for name, tensor in self._model.state_dict().items():
            digest.update(name.encode() + whole(tensor).numpy().tobytes())
        self.facts["weights"] = digest.hexdigest()
        if torch.distributed.is_initialized():
            everyone = torch.tensor([1])
            torch.distributed.all_reduce(everyone)
            self.facts["processes"] = int(everyone)


def launch(count: int, jobs: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Do all jobs in ``count`` forked processes that find each other; raise what one of them raises."""
    forget_accelerator()  # of a run of the test's own process
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = start_processes(_process, (count, port, jobs, folder), count, join=False, start_method="fork")
    while not processes.join():
        pass


def _process(rank: int, count: int, port: int, jobs: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    gc.freeze()  # a collection would look at, and so copy, all that the parent has
    faulthandler.dump_traceback_later(250, exit=True, file=2)  # a hang shows where
    inherited = [name for name in os.environ if name.startswith(("ACCELERATE_", "VITFT_")) and name != "VITFT_CACHE"]
    for name in inherited:
        del os.environ[name]
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    said = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_DYNAMO_MODE": "default"}
    os.environ |= {name: str(value) for name, value in (place | said | {"ACCELERATE_MIXED_PRECISION": "no"}).items()}
    do_all(jobs, folder)

"""Do jobs one after the other in every process of a launch, and write down what each process ended with.

    accelerate launch --multi_gpu --num_processes 2 every_process.py JOBS.json FOLDER

A start takes longer than all the jobs, so they share one. A job is ``{"finetune": {"optim.lr": 1, ...}}``, with
``"slow_save": seconds`` if saving is to take a while, or ``{"evaluate": [model, dataset]}``. Process 1 writes
about the job ``x`` into ``FOLDER/x.1.json``.
"""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from vitft import Recipe, tasks
from vitft.errors import StoppedEarly
from vitft.model import load
from vitft.train import checkpoint


def do_all(jobs: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    for name, job in jobs.items():
        seen = Witness()
        try:
            seen.do(job)
        except StoppedEarly:
            seen.facts["stopped"] = time.time()
        finally:
            seen.leave()
        rank = os.environ.get("RANK", "0")
        (folder / f"{name}.{rank}.json").write_text(json.dumps(seen.facts))
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


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
        if "evaluate" in job:
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
            digest.update(name.encode() + tensor.numpy().tobytes())
        self.facts["weights"] = digest.hexdigest()
        if torch.distributed.is_initialized():
            everyone = torch.tensor([1])
            torch.distributed.all_reduce(everyone)
            self.facts["processes"] = int(everyone)


if __name__ == "__main__":
    faulthandler.dump_traceback_later(250, exit=True)  # a hang shows where
    do_all(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

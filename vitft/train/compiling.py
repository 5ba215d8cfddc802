"""Compile the network, where that is wanted or was measured to help."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from vitft.errors import one_line
from vitft.processes.turns import on_main_process
from vitft.quantities import duration_text
from vitft.run import Run
from vitft.train.plan import Plan
from vitft.train.trial import left_as_it_was, trial_pass

if TYPE_CHECKING:
    from accelerate import Accelerator

_LONG = 900.0  # seconds of training that repay compiling, which takes about a minute
_GAIN = 1.03  # a smaller one is not worth another result than the eager network's
_PASSES = 5


def compiled_if_faster(network: nn.Module, wanted: str, plan: Plan, accelerator: Accelerator, run: Run) -> nn.Module:
    """Return the network, compiled or as it is.

    Args:
        network: on the accelerator's device.
        wanted: ``on``, ``off``, or ``auto``: on a GPU, if a few passes are faster and the training is long; a CPU may
            become slower as well as faster, so there never.
        plan: the numbers of the run.
        accelerator: where it trains.
        run: gets a note about the choice.
    """
    if wanted == "off" or (wanted == "auto" and accelerator.device.type != "cuda"):
        return network
    eager = None
    if wanted == "auto":
        eager = _seconds(network, plan, accelerator)
        expected = eager * plan.work() / plan.phases[-1].gflop / plan.world_size / plan.micro_batch_size
        if not on_main_process(lambda: expected > _LONG, accelerator):
            return network
    try:
        compiled: nn.Module = torch.compile(network)  # type: ignore[assignment]
        begun = time.perf_counter()
        _seconds(compiled, plan, accelerator, passes=1)
        took = duration_text(time.perf_counter() - begun)
        seconds = _seconds(compiled, plan, accelerator)
        failure = ""
    except Exception as error:  # the compiler is a program of its own, and may be missing
        failure = f"{type(error).__name__}: {one_line(error)}"[:300]
    if failures := [each for each in _of_all(failure, accelerator) if each]:
        run.note(f"the model is not compiled, because that failed: {failures[0]}")
        return network
    if eager is None:
        run.note(f"the model is compiled ({took})")
        return compiled
    gain = on_main_process(lambda: eager / seconds, accelerator)
    if gain < _GAIN:
        run.note(f"the model is not compiled: that made a step {gain:.2f} times as fast")
        return network
    run.note(f"the model is compiled: a step is {gain:.2f} times as fast")
    return compiled


def _seconds(network: nn.Module, plan: Plan, accelerator: Accelerator, passes: int = _PASSES) -> float:
    """Return the seconds of the fastest training pass of a micro-batch."""
    shape = (plan.micro_batch_size, 3, *plan.phases[-1].image_size)
    with left_as_it_was(network):
        return min(trial_pass(network, shape, accelerator) for _ in range(passes))


def _of_all(failure: str, accelerator: Accelerator) -> list[str]:
    from accelerate.utils import gather_object

    return list(gather_object([failure]))

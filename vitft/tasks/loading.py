"""Load what a run is made of, and make its plan; nothing is written."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vitft.outside import shown
from vitft.processes import signals
from vitft.processes.turns import main_process_first
from vitft.recipe.choices import AUTO
from vitft.recipe.recipe import Recipe
from vitft.run import Run
from vitft.tasks.picturing import load_untrained
from vitft.tasks.probing import choose_checkpoint

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitft.train.setup import Setup


def load_setup(
    run: Run | None, recipe: Recipe, accelerator: Accelerator, reasons: Mapping[str, str], *, is_quiet: bool = False
) -> Setup:
    """Open and print the dataset, choose or load the checkpoint and make the plan; the main process goes first.

    Args:
        run: to resume; None for a new one.
        recipe, accelerator: what to do, and where.
        reasons: for device and precision, from :func:`vitft.processes.device.make_accelerator`.
        is_quiet: print nothing.
    """
    from vitft.model.trainable import choose_trainable
    from vitft.reading.overview import overview_of
    from vitft.reading.source import open_source
    from vitft.train.head_first import check_head_first
    from vitft.train.plan import make_plan
    from vitft.train.setup import Setup

    with main_process_first(accelerator):
        source = open_source(recipe.data, seed=recipe.train.seed)
        overview = str(overview_of(source))
        if accelerator.is_main_process and not is_quiet:
            print(shown(overview), file=sys.stderr, flush=True)
    signals.check()
    chosen = ""
    if recipe.model.checkpoint == AUTO:
        recipe, chosen = choose_checkpoint(recipe, source, accelerator)
    with main_process_first(accelerator):
        classifier = load_untrained(recipe, source)
    classifier.notes[:0] = [chosen] if chosen else []
    signals.check()
    classifier.add_adapter(recipe.model, recipe.train.seed)
    classifier.notes.append(choose_trainable(classifier.model, recipe.model.train, classifier.head))
    classifier.notes += check_head_first(recipe, source, classifier)
    settled = _settled_micro_batch(run, recipe, accelerator.num_processes)
    sharding = _settled_sharding(run)
    plan = make_plan(recipe, source, classifier, accelerator, dict(reasons), settled, sharding)
    return Setup(recipe, source, classifier, plan, accelerator, overview)


def _settled_micro_batch(run: Run | None, recipe: Recipe, num_processes: int) -> int | None:
    """Return the micro-batch of the newest checkpoint, if the number of processes is still the same.

    None if the recipe asks for another one, for example after running out of memory.
    """
    from vitft.train import checkpoint

    path = checkpoint.newest(run.checkpoints) if run else None
    if path is None:
        return None
    state = checkpoint.load_state(path)
    if state.recipe["train"]["micro_batch_size"] != recipe.train.micro_batch_size:
        return None
    return int(state.conditions["micro_batch_size"]) if state.conditions["processes"] == num_processes else None


def _settled_sharding(run: Run | None) -> str | None:
    """Return ``fsdp`` if each process has written a part of the newest checkpoint, else ``none``; None without one."""
    from vitft.train import checkpoint

    path = checkpoint.newest(run.checkpoints) if run else None
    return None if path is None else str(checkpoint.load_state(path).conditions.get("sharding", "none"))

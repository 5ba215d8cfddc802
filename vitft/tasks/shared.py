"""What several tasks need: processes that go in order, finished checkpoints, tables of scores."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from vitft import signals
from vitft.errors import VitftError
from vitft.outside import shown
from vitft.recipe import Recipe

Value = TypeVar("Value")


@dataclass
class Ready:
    """A finished checkpoint on its device.

    Attributes:
        accelerator: says device, precision and processes.
        model: in evaluation mode.
        processor: its image processor.
        retargeting: what another size made of it; ``retargeting.new`` is its size.
        has_head: whether it has a trained head.
    """

    accelerator: Any
    model: Any
    processor: Any
    retargeting: Any
    has_head: bool = True

    @property
    def process(self) -> Any:
        """The function that makes an image the model's input."""
        from vitft.model.processor import ImageProcess

        return ImageProcess(self.processor, self.retargeting.new)


def ready(
    model: str | Path,
    precision: str,
    device: str,
    image_size: tuple[int, int] | None = None,
    method: Any = "bicubic",
    revision: str | None = None,
    *,
    needs_head: bool = True,
) -> Ready:
    """Load a finished checkpoint, at its own size or another."""
    from vitft.model.load import load_finished
    from vitft.model.locate import locate
    from vitft.model.retarget import Target
    from vitft.train.device import make_accelerator

    quiet_libraries()
    recipe = Recipe.load(None, {"train.precision": precision, "train.device": device})
    accelerator, _ = make_accelerator(recipe)
    with main_process_first(accelerator):
        folder, _ = locate(str(model), revision)
    finished = load_finished(folder, str(model), Target(image_size, method=method), needs_head=needs_head)
    if accelerator.is_main_process:
        for note in finished.notes:
            print(shown(note), file=sys.stderr)
    network = finished.model.to(accelerator.device)
    return Ready(accelerator, network, finished.processor, finished.retargeting, finished.has_head)


@contextmanager
def main_process_first(accelerator: Any) -> Iterator[None]:
    """Let the main process go first: it downloads, and the others find it in the cache.

    If it fails they go all the same and fail alike; accelerate's own would let them wait for ever.
    """
    failure: Exception | None = None
    if not accelerator.is_main_process:
        accelerator.wait_for_everyone()
    try:
        yield
    except Exception as error:  # whatever it is: the others wait for this process
        failure = error
    if accelerator.is_main_process:
        accelerator.wait_for_everyone()
    if failure is not None:
        raise failure


def on_main_process(do: Callable[[], Value], accelerator: Any) -> Value:
    """Return what the main process finds when it does something; the others wait, and fail if it does."""
    from accelerate.utils import broadcast_object_list

    made: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            made = [do()]
        except Exception as error:  # whatever it is: the others wait for this process
            made = [error if isinstance(error, VitftError) else VitftError(f"{type(error).__name__}: {error}")]
            made[0].__cause__ = error
    if accelerator.num_processes > 1:
        broadcast_object_list(made)
    if isinstance(made[0], VitftError):
        raise made[0]
    value: Value = made[0]
    return value


HEADLINES = ("top1", "top5", "mean_per_class_accuracy", "macro_f1", "nll", "count")


def headline(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores that stand in every table."""
    return {name: scores[name] for name in HEADLINES if name in scores}


def score_table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Return the scores of splits as an aligned table, in per cent where that is the custom."""
    further = [
        name
        for name, value in (rows[0][1] if rows else {}).items()
        if name not in HEADLINES and isinstance(value, int | float)
    ]
    names = [*(name for name in HEADLINES if any(name in scores for _, scores in rows)), *further]
    cells = [["", *names]] + [[split, *(_cell(name, scores.get(name)) for name in names)] for split, scores in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in cells)


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "count":
        return f"{value:,}"
    if name == "images/s":
        return f"{value:.1f}"
    is_part = name == "shift_consistency" or (name in HEADLINES and name != "nll")
    return f"{100 * value:.2f}%" if is_part else f"{value:.4f}"


_LIBRARIES = ("torch", "accelerate", "datasets", "transformers", "vitft.train.fit", "vitft.scoring.metrics")


def import_libraries() -> None:
    """Import what training needs while a request to stop waits: breaking into an import of torch ends in C++."""
    with signals.postponed():
        for name in _LIBRARIES:
            import_module(name)
        from transformers import AutoImageProcessor, AutoModelForImageClassification  # noqa: F401 - loaded when named


def quiet_libraries(*, with_datasets: bool = True) -> None:
    """Keep libraries' own bars and advice off the terminal; what matters of it, vitft says itself."""
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not with_datasets:  # which takes a second to import
        return
    import datasets

    datasets.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()

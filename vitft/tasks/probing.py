"""Rank checkpoints on a dataset without fine-tuning them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.errors import DataError, ModelError, UsageError, VitftError, one_line
from vitft.libraries import quiet_libraries
from vitft.notebook import ShownAsText
from vitft.outside import printable
from vitft.processes import signals
from vitft.processes.turns import main_process_first, on_main_process
from vitft.processes.worker import PeerLost
from vitft.recipe.choices import CANDIDATES, ResizeMethod
from vitft.recipe.describe import in_line
from vitft.recipe.flags import FLAGS
from vitft.recipe.keys import DataRecipe
from vitft.recipe.recipe import Recipe
from vitft.recipe.yaml12 import parse_setting
from vitft.status import Status
from vitft.tasks.candidate import load_candidate, probe_candidate
from vitft.tasks.ending import explained
from vitft.tasks.keeping import keep_probe, new_folder

if TYPE_CHECKING:
    from accelerate import Accelerator

    from vitft.data.images import ImageSource
    from vitft.probes.outcome import NotProbed, Probed


@dataclass
class ProbeResult(ShownAsText):
    """A ranking of checkpoints on a dataset.

    Attributes:
        ranking: those that were probed, the best first.
        refused: those that could not be, each with the reason.
        dataset: as the user typed it.
        images: number of usable images by split.
        num_classes: of the dataset.
        notes: what was left out.
        settings: flags, besides dataset and model, by which ``vitft finetune`` reads the images in the same way.
        saved: the folder of the best checkpoint with its head; None if it was not saved.
    """

    ranking: list[Probed]
    refused: list[NotProbed]
    dataset: str
    images: dict[str, int]
    num_classes: int
    notes: list[str] = field(default_factory=list)
    settings: tuple[str, ...] = ()
    saved: Path | None = None

    @property
    def best(self) -> Probed:
        """The best checkpoint."""
        return self.ranking[0]

    def __str__(self) -> str:
        commands = self._next()
        width = max(len(command) for command, _ in commands)
        told = ["next:", *(f"  {command:{width}}  {what}" for command, what in commands)]
        return "\n".join([self.table(), "", *told])

    def table(self) -> str:
        """Return the ranking as text."""
        from vitft.probes.table import ranking

        return "\n".join([*ranking(self.ranking, self.refused), *self.notes])

    def plain(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "dataset": self.dataset,
            "classes": self.num_classes,
            "images": self.images,
            "ranked_by": "top-1 of logistic regression on the validation images, then likelihood",
            "models": [*(each.plain() for each in self.ranking), *(each.plain() for each in self.refused)],
            "notes": self.notes,
            "saved": None if self.saved is None else str(self.saved),
            "next": [command for command, _ in self._next()],
        }

    def _next(self) -> list[tuple[str, str]]:
        """Return commands to type next, with what each does."""
        command = shlex.join(["vitft", "finetune", self.dataset, "--model", self.best.model, *self.settings])
        found = [
            (command, "fine-tunes the best"),
            (f"{command} --train head", "trains only its head, on the features in the cache"),
        ]
        if self.saved is not None:
            found.append((f"vitft predict {shlex.quote(str(self.saved))} IMAGES", "labels of your images"))
        return found


@explained()
def probe(
    models: Sequence[str | Path],
    dataset: str | DataRecipe,
    *,
    shots: Sequence[int] | None = None,
    image_size: tuple[int, int] | None = None,
    method: ResizeMethod = "bicubic",
    seed: int = 0,
    precision: str = "auto",
    device: str = "auto",
    save: str | Path | None = None,
) -> ProbeResult:
    """Rank checkpoints by what their features are good for on a dataset; nothing is fine-tuned.

    Features are computed once, and read from the cache the next time.

    Args:
        models: folders, run directories or Hub ids; if there are none, the usual candidates.
        dataset: a value of ``--dataset``, or a recipe's data section.
        shots: images per class of the few-shot scores; by default 1, 5, 10 and 25, as far as every class has them.
        image_size: (height, width) of the input; by default each checkpoint's own.
        method: how position tables are resampled to that size.
        seed: decides which validation images are set aside, as in a run.
        precision, device: as in the recipe.
        save: new folder for the best checkpoint with its head by logistic regression, as transformers loads it.

    Raises:
        UsageError: if a class has too few images for ``shots``.
        DataError: if the dataset cannot be used.
        ModelError: if no checkpoint can be probed, or the best cannot be saved.
    """
    from vitft.processes.device import make_accelerator
    from vitft.reading.overview import overview_of
    from vitft.reading.source import open_source

    quiet_libraries()
    folder = None if save is None else new_folder(save, "--save")
    recipe = Recipe.load(None, {"train.seed": seed, "train.precision": precision, "train.device": device})
    data = DataRecipe(dataset=dataset) if isinstance(dataset, str) else dataset
    model = recipe.model.model_copy(update={"image_size": image_size, "resize_method": method})
    recipe = recipe.model_copy(update={"data": data, "model": model})
    if data.streaming:
        raise UsageError("a stream is read only once, so it has no features to keep", hint="leave out data.streaming")
    accelerator, _ = make_accelerator(recipe)
    status = Status(enabled=accelerator.is_main_process)
    with main_process_first(accelerator):
        source = open_source(recipe.data, seed=recipe.train.seed)
    status.say(str(overview_of(source)))
    result = rank([str(each) for each in models] or CANDIDATES, recipe, source, accelerator, shots)
    if folder is not None:
        best = load_candidate(result.best.model, recipe, source)
        try:
            on_main_process(lambda: keep_probe(folder, best, result.best, result.plain()), accelerator)
        except ModelError:
            status.say(result.table())  # the work of minutes
            raise
        result.saved = folder
    return result


def choose_checkpoint(recipe: Recipe, source: ImageSource, accelerator: Accelerator) -> tuple[Recipe, str]:
    """Replace ``model.checkpoint: auto`` by the best of ``model.candidates`` on a dataset.

    Returns:
        The recipe with the choice, and a sentence about it.
    """
    result = rank(recipe.model.candidates or CANDIDATES, recipe, source, accelerator, ())
    Status(enabled=accelerator.is_main_process).say(result.table())

    def share(each: Probed) -> str:
        return f"{100 * each.scores.validation.top1:.1f} %"

    others = [f"{each.model} {share(each)}" for each in result.ranking[1:]]
    others += [f"{each.model} could not be probed: {each.reason}" for each in result.refused]
    said = (
        f"model.checkpoint: auto chose {result.best.model}, with {share(result.best)} of "
        f"{result.images['validation']:,} validation images right by logistic regression on its features"
    )
    model = recipe.model.model_copy(update={"checkpoint": result.best.model})
    return recipe.model_copy(update={"model": model}), "; ".join([said, *others])


def rank(
    models: Sequence[str], recipe: Recipe, source: ImageSource, accelerator: Accelerator, shots: Sequence[int] | None
) -> ProbeResult:
    """Probe checkpoints one after the other; one that cannot be probed does not stop the others.

    Args:
        models: their names.
        recipe: how images are read, at which size, on which device.
        source: the dataset.
        accelerator: where to compute.
        shots: images per class of the few-shot scores; None for the usual ones, as far as every class has them.

    Raises:
        UsageError, DataError, ModelError: as :func:`probe`.
    """
    from vitft.probes.outcome import NotProbed, ranked

    shots, notes = _shots(source, shots)
    status = Status(enabled=accelerator.is_main_process)
    outcomes: list[Probed | NotProbed] = []
    images: dict[str, int] = {}
    skipped: dict[str, int] = {}
    for name in dict.fromkeys(models):
        status.say(name)
        try:
            probed, splits = probe_candidate(name, recipe, source, accelerator, shots, status)
        except (DataError, PeerLost):  # not the checkpoint's fault
            raise
        except Exception as error:  # third-party code can fail in any way
            reason = error.wrong if isinstance(error, VitftError) else f"{type(error).__name__}: {one_line(error)}"
            signals.check()  # third-party code may have swallowed the request
            status.say(f"  not probed: {reason}")
            outcomes.append(NotProbed(name, printable(reason)))
            continue
        outcomes.append(probed)
        there = {role: rows for role, rows in splits._asdict().items() if rows is not None}
        images = {role: len(rows) for role, rows in there.items()}
        skipped = {role: rows.num_skipped for role, rows in there.items() if rows.num_skipped}
    found = ranked(outcomes)
    refused = [each for each in outcomes if isinstance(each, NotProbed)]
    if not found:
        reasons = "".join(f"\n  {each.model}: {each.reason}" for each in refused)
        raise ModelError(f"no checkpoint could be probed:{reasons}", hint="vitft probe --dataset DATASET MODEL")
    notes += [f"{role} images that cannot be decoded were left out: {count:,}" for role, count in skipped.items()]
    dataset, num_classes = str(recipe.data.dataset), len(source.classes)
    return ProbeResult(found, refused, dataset, images, num_classes, notes, tuple(_settings(recipe)))


def _settings(recipe: Recipe) -> Iterator[str]:
    """Yield the flags for what a recipe changes, besides dataset and model."""
    defaults, flags = Recipe().flat(), {flag.key: flag.name for flag in FLAGS.values() if flag.metavar}
    flags |= {"data.bad_images": "--bad-images", "train.precision": "--precision"}
    for key, value in recipe.flat().items():
        if value == defaults[key] or key in ("data.dataset", "model.checkpoint", "model.candidates"):
            continue
        text = in_line(value)
        if isinstance(value, str) and text == f"'{value}'" and parse_setting(f"{key}={value}")[1] == value:
            text = value  # such as off, which other readers of YAML would take for false
        yield from (flags[key], text) if key in flags else ("--set", f"{key}={text}")


def _shots(source: ImageSource, wanted: Sequence[int] | None) -> tuple[Sequence[int], list[str]]:
    """Return the few-shot numbers, and a note on those that the smallest class does not have.

    Raises:
        UsageError: if they were asked for.
        DataError: if there is nothing to choose by.
    """
    import numpy as np

    from vitft.data.images import ImageSplit
    from vitft.probes.few_shot import SHOTS

    if not isinstance(source.train, ImageSplit) or not isinstance(source.validation, ImageSplit):
        raise DataError(
            "checkpoints are ranked on validation images, but there are none",
            hint="--set data.validation_split=NAME",
        )
    counts = source.train.class_counts(len(source.classes))
    smallest = int(np.where(counts > 0, counts, counts.max()).argmin())
    most, name = int(counts[smallest]), printable(source.classes[smallest])
    few = f"the class {name!r} has {most} training image{'s' if most != 1 else ''}"
    if wanted is None:
        left_out = [str(each) for each in SHOTS if each > most]
        note = [f"few-shot scores left out: {', '.join(left_out)} ({few})"] if left_out else []
        return [each for each in SHOTS if each <= most], note
    if too_many := [each for each in wanted if each > most]:
        raise UsageError(f"--shots {max(too_many)}: {few}", allowed=f"1 to {most}", hint=f"--shots {min(most, 5)}")
    return wanted, []

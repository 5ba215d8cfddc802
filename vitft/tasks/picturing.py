"""Draw small pictures of a run's checkpoint before and after fine-tuning, into its ``figures/``."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vitft.errors import one_line
from vitft.processes import signals
from vitft.recipe.recipe import Recipe
from vitft.run import Run
from vitft.tasks.photos import evenly_spaced

if TYPE_CHECKING:
    from vitft.data.images import ImageSource
    from vitft.model.classifier import Classifier
    from vitft.pictures.look import Look, Photo
    from vitft.train.setup import Setup

KINDS = ("filters", "positions", "distance", "rollout")
_IMAGES, _SHOWN = 16, 3
_MOST = 0.05  # of the run's FLOPs, with run.pictures: auto


def picture_run(run: Run, setup: Setup) -> None:
    """Draw what fine-tuning changed, after model and results are saved; existing pictures stay.

    Only the main process draws. A failure is only noted, but a request to stop or a full disk ends the run, and
    resuming it draws the pictures.
    """
    recipe, plan = setup.recipe, setup.plan
    if recipe.run.pictures == "off" or not setup.accelerator.is_main_process:
        return
    if (run.folder / "figures").is_dir():
        note_pictures(run)
        return
    if recipe.run.pictures == "auto" and plan.is_sharded:
        run.note("no pictures, which need the whole model on one device (--set run.pictures=on, or vitft inspect RUN)")
        return
    # Two checkpoints; reading attention costs at most as much again as the forward pass.
    part = 2 * _IMAGES * 2 * plan.phases[-1].gflop / plan.total_gflop
    if recipe.run.pictures == "auto" and part > _MOST:
        run.note(
            f"no pictures: they would cost {100 * part:.0f} % of the run's FLOPs, and auto draws them below "
            f"{100 * _MOST:.0f} % (--set run.pictures=on, or vitft inspect RUN)"
        )
        return
    try:
        _draw(run, setup)
    except Exception as error:  # whatever it is, the run is complete without pictures
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        run.note(f"no pictures, but everything else is saved: {type(error).__name__}: {one_line(error)}")
        return
    signals.check()
    note_pictures(run)


def note_pictures(run: Run) -> None:
    """Note which pictures a run has."""
    if drawn := [kind for kind in KINDS if (run.folder / "figures" / _file(kind)).is_file()]:
        run.note(f"pictures of the checkpoint before and after: {', '.join(drawn)} in figures/")


def load_untrained(recipe: Recipe, source: ImageSource) -> Classifier:
    """Load a recipe's checkpoint as it is before the first step, with the white level of the dataset's images."""
    from vitft.data.staging import WHITE_LEVEL
    from vitft.model.load import load_for_training

    wanted = recipe.model.model_copy(update={"image_size": recipe.image_size})
    classifier = load_for_training(wanted, source.classes, recipe.data.fit, seed=recipe.train.seed)
    if (level := source.white_level) != WHITE_LEVEL:
        classifier.processor.white_level = level
        classifier.notes.append(f"white level: {level:,}, also written into preprocessor_config.json")
    return classifier


def _file(kind: str) -> str:
    return f"{kind}-before-after.png"


def _draw(run: Run, setup: Setup) -> None:
    from vitft.disk import whole_folder
    from vitft.model.load import load_finished
    from vitft.pictures.figures import draw

    untrained = load_untrained(setup.recipe, setup.source)
    untrained.model.eval()
    trained = load_finished(run.model_folder, run.folder.name)
    looks = [("before", _look(untrained, setup)), ("after fine-tuning", _look(trained, setup))]
    with whole_folder(run.folder / "figures") as folder:
        for kind in KINDS:
            draw(kind, looks, folder / _file(kind))


def _look(classifier: Classifier, setup: Setup) -> Look:
    from vitft.pictures.look import look

    classifier.to(setup.accelerator.device)
    seen = look(classifier, KINDS, _photos(classifier, setup.source), show=_SHOWN)
    seen.images = "of the validation split" if setup.source.validation is not None else "of the training split"
    return seen


def _photos(classifier: Classifier, source: ImageSource) -> Iterator[Photo]:
    """Yield a few images; unreadable ones are left out, because the run has already reported them."""
    from vitft.data.images import ImageSplit

    split = source.validation if source.validation is not None else source.train
    if isinstance(split, ImageSplit):  # a stream cannot be read at evenly spaced places
        yield from evenly_spaced(split, source.classes, classifier, _IMAGES, first=_SHOWN, skipped=[])

"""Pictures of a run's checkpoint before and after the fine-tuning, small, in its ``figures/``."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from vitft import signals
from vitft.errors import one_line
from vitft.recipe import Recipe
from vitft.run import Run
from vitft.tasks.photos import evenly_spaced, subject_of
from vitft.tasks.shared import Ready

if TYPE_CHECKING:
    from vitft.pictures.look import Look, Photo

KINDS = ("filters", "positions", "distance", "rollout")
_IMAGES, _SHOWN = 16, 3
_MOST = 0.05  # of the run's FLOPs, with run.pictures: auto


def picture_run(run: Run, recipe: Recipe, source: Any, plan: Any, accelerator: Any) -> None:
    """Draw what fine-tuning changed, once results and model are safely written.

    The main process does it alone. A failure is a note: no picture may cost what a night has made. A request to stop
    and a full disk are none: the resumed run draws them.

    Args:
        run: finished, with its model. Pictures that it has already stay.
        recipe, source, plan, accelerator: what it was made of; source and plan are needed to draw.
    """
    if recipe.run.pictures == "off" or not accelerator.is_main_process:
        return
    if (run.folder / "figures").is_dir():
        _note_pictures(run, [kind for kind in KINDS if (run.folder / "figures" / _file(kind)).is_file()])
        return
    # Two checkpoints; reading attention costs about as much again as the forward pass, and twice is generous.
    part = 2 * _IMAGES * 2 * plan.phases[-1].gflop / (3 * plan.work())
    if recipe.run.pictures == "auto" and part > _MOST:
        run.note(
            f"no pictures: they would cost {100 * part:.0f} % of the run's FLOPs, and auto draws them below "
            f"{100 * _MOST:.0f} % (--set run.pictures=on, or vitft inspect RUN)"
        )
        return
    try:
        drawn = _draw(run, recipe, source, accelerator)
    except Exception as error:  # whatever it is: the run is complete without them
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        run.note(f"no pictures, and nothing else is lost: {type(error).__name__}: {one_line(error)}")
        return
    signals.check()
    _note_pictures(run, drawn)


def _note_pictures(run: Run, drawn: Sequence[str]) -> None:
    run.note(f"pictures of the checkpoint before and after: {', '.join(drawn)} in figures/")


def _file(kind: str) -> str:
    return f"{kind}-before-after.png"


def _draw(run: Run, recipe: Recipe, source: Any, accelerator: Any) -> list[str]:
    from vitft.disk import whole_folder
    from vitft.pictures.figures import draw

    looks = [
        ("before", _look(_before(recipe, source, accelerator), recipe.model.checkpoint, source)),
        ("after fine-tuning", _look(_after(run, accelerator), run.folder.name, source)),
    ]
    with whole_folder(run.folder / "figures") as folder:
        return [kind for kind in KINDS if draw(kind, looks, folder / _file(kind))]


def _before(recipe: Recipe, source: Any, accelerator: Any) -> Ready:
    """Load the checkpoint again as it was before the first step."""
    from vitft.model.load import load_for_training

    wanted = recipe.model.model_copy(update={"image_size": recipe.image_size})
    pretrained = load_for_training(wanted, source.classes, recipe.data.fit, seed=recipe.train.seed)
    network = pretrained.model.eval().to(accelerator.device)
    return Ready(accelerator, network, pretrained.processor, pretrained.retargeting, has_head=False)


def _after(run: Run, accelerator: Any) -> Ready:
    from vitft.model.load import load_finished

    finished = load_finished(run.model_folder, str(run.model_folder))
    return Ready(accelerator, finished.model.to(accelerator.device), finished.processor, finished.retargeting)


def _look(loaded: Ready, named: str, source: Any) -> Look:
    from vitft.pictures.look import look

    seen = look(subject_of(loaded, named), KINDS, _photos(loaded, source), show=_SHOWN)
    seen.images = "of the validation split" if source.validation is not None else "of the training split"
    return seen


def _photos(loaded: Ready, source: Any) -> Iterator[Photo]:
    """Yield a few images; one that cannot be read is left out, as the run has said already."""
    split = source.validation if source.validation is not None else source.train
    if hasattr(split, "encoded") and hasattr(split, "__len__"):  # a stream has no images from all over it
        yield from evenly_spaced(split, source.classes, loaded, _IMAGES, first=_SHOWN, skipped=[])

"""Draw what a model has learnt, as in the ViT paper."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from vitft.disk import whole_folder
from vitft.errors import ModelError, TrainError, UsageError, did_you_mean
from vitft.names import slug
from vitft.notebook import ShownAsText
from vitft.recipe.choices import PictureFormat, ResizeMethod
from vitft.recipe.keys import DataRecipe
from vitft.recipe.sizes import show_size
from vitft.tasks.ending import explained
from vitft.tasks.keeping import new_folder
from vitft.tasks.models import load_model
from vitft.tasks.photos import Photos

if TYPE_CHECKING:
    from vitft.model.classifier import Classifier
    from vitft.pictures.captions import Looks
    from vitft.pictures.look import Look

FORMATS = get_args(PictureFormat)


@dataclass
class InspectResult(ShownAsText):
    """The pictures of a model and their numbers.

    Attributes:
        folder: the new folder; None if nothing was written.
        numbers: the data of the pictures, as plain values.
        pictures: the files, by kind.
        notes: remarks on the images and the model.
    """

    folder: Path | None
    numbers: dict[str, Any]
    pictures: dict[str, Path] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{kind:<11}{path}" for kind, path in self.pictures.items()]
        lines += [f"not drawn: {each}" for each in _told(self.numbers["not_drawn"])]
        return "\n".join([*lines, *([f"{'page':<11}{self.folder / 'index.html'}"] if self.folder else [])])


@explained()
def inspect(
    model: str | Path,
    images: Sequence[str | Path] = (),
    *,
    dataset: str | DataRecipe | None = None,
    split: str | None = None,
    only: Sequence[str] = (),
    num_images: int | None = None,
    show: int = 4,
    target_class: str | None = None,
    out: str | Path | None = None,
    format: str = "png",
    image_size: tuple[int, int] | None = None,
    method: ResizeMethod = "bicubic",
    bad_images: str = "stop",
    device: str = "auto",
    revision: str | None = None,
) -> InspectResult:
    """Draw what a model has learnt and where it looks.

    Args:
        model: folder, run directory or Hub id; a trained head is not needed.
        images: paths of image files.
        dataset: a value of ``--dataset``; gives images if there are no paths, and training images for neighbours.
        split: of the dataset; by default test, or validation if there is no test split.
        only: kinds of pictures, from :data:`vitft.pictures.look.KINDS`; by default all that are possible, but
            ``relevance`` only with a class.
        num_images: at most; by default all files, or 128 evenly spaced images of a dataset.
        show: number of images, from the first, that are shown one by one.
        target_class: name or number of the class whose relevance is shown; by default the predicted one.
        out: the new folder; by default named after the model, and none for ``json``.
        format: ``png``, ``svg``, or ``json`` for the numbers alone.
        image_size: (height, width) of the model's input; positions are then shown at both sizes.
        method: how position tables are resampled to that size.
        bad_images: ``stop`` or ``skip``.
        device: as in the recipe.
        revision: branch, tag or commit of a Hub model.

    Raises:
        UsageError: for a kind, format, class or folder that cannot be used.
        DataError: if an image cannot be read.
        ModelError: if the model cannot be loaded.
    """
    from vitft.pictures.look import look

    kinds, reasons = _kinds(only, target_class, has_images=bool(images or dataset), has_dataset=bool(dataset))
    if format not in FORMATS:
        raise UsageError(f"pictures cannot be written as {format!r}", allowed=", ".join(FORMATS))
    folder = _free_folder(out, model) if out or format != "json" else None
    classifier, before = _load(model, device, image_size, method, revision, has_positions="positions" in kinds)
    photos = Photos(classifier, images, dataset, split, num_images, show=show, skip_bad=bad_images == "skip")
    if not classifier.has_head:
        photos.notes.append("the checkpoint has no trained head, so nothing is predicted")
    seen = look(
        classifier,
        kinds,
        photos.read(),
        show=show,
        target_class=_class_number(classifier.classes, target_class),
        pool=photos.training(),
    )
    if only:
        _require_one(kinds, seen, classifier)
    seen.images = photos.source
    seen.reasons |= reasons
    photos.note_few(seen)
    return _written(folder, format, kinds, before, seen, photos.notes)


def _load(
    model: str | Path,
    device: str,
    image_size: tuple[int, int] | None,
    method: ResizeMethod,
    revision: str | None,
    *,
    has_positions: bool,
) -> tuple[Classifier, Looks]:
    """Return the model at the requested size, and its positions before the resize if there was one."""
    from vitft.pictures.look import look

    classifier, _ = load_model(model, "fp32", device, revision=revision, needs_head=False)
    old = classifier.image_size
    if image_size is None or image_size == old:
        return classifier, []
    before: Looks = [(show_size(old), look(classifier, ["positions"]))] if has_positions else []
    return load_model(model, "fp32", device, image_size, method, revision, needs_head=False)[0], before


# --- which pictures ----------------------------------------------------------------------------------------


def _kinds(
    only: Sequence[str], target_class: str | None, *, has_images: bool, has_dataset: bool
) -> tuple[list[str], dict[str, str]]:
    """Return the kinds of pictures to draw, and why the others are left out."""
    from vitft.pictures.look import KINDS, OF_WEIGHTS, check_kinds

    wanted = check_kinds(only or KINDS)
    reasons = {kind: "it needs images: IMAGES or --dataset" for kind in KINDS if kind not in OF_WEIGHTS}
    reasons = {} if has_images else reasons
    if not has_dataset:
        reasons["neighbours"] = "it needs training images: --dataset"
    missing = [kind for kind in wanted if kind in reasons]
    if only and missing:
        raise UsageError(
            f"{', '.join(missing)}: {reasons[missing[0]]}",
            allowed=f"without images: {', '.join(OF_WEIGHTS)}",
            hint="vitft inspect MODEL photos/, or --dataset builtin:digits",
        )
    if not only and target_class is None:
        reasons |= {"relevance": "it is drawn only on request: --class NAME, or --only relevance"}
    if target_class is not None and has_images and "relevance" not in wanted:
        wanted = check_kinds([*wanted, "relevance"])
    kept = [kind for kind in wanted if kind not in reasons]
    return kept, {} if only else {kind: reasons[kind] for kind in KINDS if kind in reasons}


def _require_one(kinds: Sequence[str], seen: Look, classifier: Classifier) -> None:
    """Raise a ModelError if none of the requested pictures can be drawn."""
    from vitft.pictures.look import drawable

    if all(kind in seen.reasons for kind in kinds):
        raise ModelError(
            f"none of these pictures can be drawn of {classifier.name}: {'; '.join(_told(seen.reasons))}",
            allowed=", ".join(drawable(classifier.config)),
            hint="--only filters",
        )


def _class_number(classes: Sequence[str], wanted: str | None) -> int | None:
    """Return the number of a class, given its name or its number."""
    if wanted is None:
        return None
    names = {name: number for number, name in enumerate(classes)}
    if wanted in names:
        return names[wanted]
    if wanted.isdigit() and int(wanted) < len(classes):
        return int(wanted)
    guess = did_you_mean(wanted, names)
    raise UsageError(
        f"the model has no class {wanted!r}",
        allowed=f"{', '.join(list(names)[:8])}{', ...' if len(names) > 8 else ''}, or a number below {len(names)}",
        hint=f"--class {guess!r}" if guess else None,
    )


def _free_folder(out: str | Path | None, model: str | Path) -> Path:
    """Return the folder to write; an existing one is never touched."""
    if out is not None:
        return new_folder(out)
    name, number = f"pictures-{slug(str(model))}", 1
    while (folder := Path(name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder


def _told(reasons: Mapping[str, str]) -> list[str]:
    """Return reasons as sentences, one for all kinds of pictures with the same reason."""
    sentences = []
    for reason in dict.fromkeys(reasons.values()):
        sentences.append(f"{', '.join(kind for kind, each in reasons.items() if each == reason)}: {reason}")
    return sentences


# --- files -------------------------------------------------------------------------------------------------


def _written(
    folder: Path | None, format: str, kinds: Sequence[str], before: Looks, seen: Look, notes: list[str]
) -> InspectResult:
    """Write figures, numbers and the page; the folder is written completely or not at all."""
    from vitft.pictures.numbers import plain, write_distances

    result = InspectResult(folder, plain(seen), notes=notes)
    if before:
        result.numbers["positions_before"] = plain(before[0][1]).get("positions", [])
    if folder is None:
        return result
    try:
        with whole_folder(folder) as partial:
            if format != "json":
                names = _draw(partial, format, kinds, before, seen, notes)
                result.pictures = {kind: folder / name for kind, name in names.items()}
            if seen.layers:
                write_distances(seen, partial / "distance.csv")
            text = json.dumps(result.numbers, ensure_ascii=False)
            (partial / "numbers.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise TrainError(f"cannot write the pictures to {folder}: {error}", hint="-o ANOTHER") from error
    return result


def _draw(
    folder: Path, format: str, kinds: Sequence[str], before: Looks, seen: Look, notes: list[str]
) -> dict[str, str]:
    """Draw the figures and the page; return the file names by kind."""
    from vitft.pictures.captions import short_name
    from vitft.pictures.figures import draw
    from vitft.pictures.page import write_page

    pictures = []
    for kind in kinds:
        looks = [*before, (show_size(seen.image_size), seen)] if kind == "positions" and before else [("", seen)]
        drawn = draw(kind, looks, folder / f"{kind}.{format}", for_page=True)
        if drawn is not None:
            pictures.append(drawn)
    facts = {
        "model": f"{seen.named} ({seen.family})",
        "image size": f"{show_size(seen.image_size)} pixels, height x width",
        "images": f"{seen.num_images:,} {seen.images}" if seen.num_images else "",
        "attention read by": seen.how,
        "family": seen.note,
        "notes": "; ".join(notes),
    }
    write_page(folder / "index.html", f"Inside {short_name(seen.named)}", facts, pictures, seen.reasons)
    return {each.kind: f"{each.kind}.{format}" for each in pictures}

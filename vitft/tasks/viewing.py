"""Show what the network will see of a dataset: images, how they are scored, and their random views in training."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.errors import DataError, UsageError
from vitft.files import at_home, is_folder
from vitft.notebook import ShownAsText
from vitft.outside import shown
from vitft.recipe.fields import FIELDS
from vitft.recipe.recipe import Recipe
from vitft.recipe.sizes import show_size
from vitft.tasks.ending import explained
from vitft.tasks.loading import load_setup
from vitft.tasks.photos import decoded
from vitft.tasks.reporting import free_path, keep_page
from vitft.tasks.training_views import TrainingViews, as_image, main_labels

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from vitft.data.images import ImageSplit
    from vitft.recipe.keys import AugmentRecipe
    from vitft.train.setup import Setup

PAGE = "views.html"
_SIDE, _QUALITY = 160, 85  # pixels of the longer side on the page; of its JPEGs


@dataclass(frozen=True)
class ViewsResult(ShownAsText):
    """A page of views that was written.

    Attributes:
        path: where it is.
        notes: what differs from the views of every image in every epoch.
    """

    path: Path
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([*self.notes, f"views: {self.path}"])


@explained()
def show_views(recipe: Recipe, *, number: int = 8, per_image: int = 6, output: str | Path | None = None) -> ViewsResult:
    """Write a page of what the network will see, exactly as training with this recipe will show it.

    Nothing is trained. Random choices depend on the recipe's seed and the epoch, so the page shows the very views of
    the first epochs, mixed with the partners that the images will have.

    Args:
        recipe: everything a run needs.
        number: training images to show: those that training takes first.
        per_image: epochs to show.
        output: file to write, or a folder to write ``views.html`` into; by default ``views.html`` here.

    Raises:
        UsageError: if the recipe names no dataset, or the page cannot be written.
        DataError: if the dataset cannot be read, or is a stream.
        ModelError: if the checkpoint cannot be used.
    """
    from vitft.data.images import ImageSplit
    from vitft.libraries import quiet_libraries
    from vitft.processes.device import make_accelerator
    from vitft.report.page import render

    if recipe.data.dataset is None:
        raise UsageError("no dataset was given", hint="vitft views ./photos, or: vitft views --recipe quickstart")
    path = at_home(output if output is not None else PAGE)
    path = free_path(path / PAGE if is_folder(path) else path)
    quiet_libraries()
    here = recipe.train.model_copy(update={"device": "cpu", "precision": "auto"})  # nothing here is worth a GPU
    silent = recipe.run.model_copy(update={"track": ()})
    recipe = recipe.model_copy(update={"train": here, "run": silent})
    setup = load_setup(None, recipe, *make_accelerator(recipe), is_quiet=True)
    if not isinstance(setup.source.train, ImageSplit):
        raise DataError("the images of a stream can be read only once, in its order", hint="leave out --streaming")
    album = _Album(setup, setup.source.train, number, per_image)
    rows = [album.row(row) for row in album.chosen()]
    keep_page(path, render("views.html.j2", _facts(setup, album) | {"rows": rows}), is_default=output is None)
    return ViewsResult(path, album.notes)


class _Album:
    """The images that the page shows, and their views."""

    def __init__(self, setup: Setup, split: ImageSplit, number: int, per_image: int) -> None:
        from vitft.train.imbalance import SAMPLING

        self.setup, self.split, self.number = setup, split, number
        plan, features = setup.plan, setup.plan.features
        num_epochs = -(-plan.total_samples // len(split))
        num_views = num_epochs if features is None else features.num_views
        self.num_views = min(per_image, num_views)
        self.notes = list(features.notes) if features else []
        if features is None and num_epochs < per_image:
            self.notes.append(f"the training has no more than {num_epochs} epoch{'s' if num_epochs > 1 else ''}")
        if setup.recipe.train.imbalance in SAMPLING:
            self.notes.append("sampling shows these images at other times, so with other random choices")
        self.training = TrainingViews(setup, split, plan.slices(0))

    def chosen(self) -> list[int]:
        """Return the rows of the images that training takes first, without those that cannot be read."""
        import torch

        from vitft.data import order

        count = min(len(self.split), 4 * self.number)
        rows = order.sample_at(self.setup.recipe.train.seed, torch.arange(count), len(self.split)).tolist()
        return [row for row in rows if self._decoded(row) is not None][: self.number]

    def row(self, row: int) -> dict[str, Any]:
        """Return an image of the split, as it is, as it is scored, and its views."""
        image, classifier = self._decoded(row), self.setup.classifier
        assert image is not None
        scored = classifier.process(image)
        return {
            "label": self.setup.source.classes[self.split.row(row).label()],
            "source": shown(self.split.source(row)),
            "size": f"{image.width} x {image.height}",
            "original": _address(image),
            "scored": _address(as_image(scored)),
            "views": list(self._views(row)),
        }

    def _decoded(self, row: int) -> Image | None:
        return decoded(self.split, row, self.setup.recipe.data.max_pixels)

    def _views(self, row: int) -> Iterator[dict[str, Any]]:
        """Yield the view of an image in each epoch, as long as the training lasts."""
        import torch

        from vitft.data import order
        from vitft.views.random_ops import draw_operations, in_words

        seed, n = self.setup.recipe.train.seed, len(self.split)
        for epoch in range(self.num_views):
            place = int(order.place_of(seed, torch.tensor([row]), n, epoch=epoch))
            index = epoch * n + place
            if index >= self.setup.plan.total_samples and self.setup.plan.features is None:
                return
            levels, target = self._seen(index)
            drawn = draw_operations(self.training.augment, seed, torch.tensor([index]))
            labels = main_labels(target, self.setup.source.classes)
            yield {"image": _address(as_image(levels)), "labels": labels, "drawn": in_words(drawn)[0]}

    def _seen(self, index: int) -> tuple[Tensor, Tensor]:
        """Return levels (3, H, W) and target (K,) of a sample index, mixed with its partner in the step."""
        plan = self.setup.plan
        step, slot = divmod(index, plan.batch_size)
        first = step * plan.batch_size + slot // 2 * 2
        last = min((step + 1) * plan.batch_size, max(plan.total_samples, index + 1))
        batch = self.training.batches.at(list(range(first, min(first + 2, last))))
        levels, targets = self.training.of(batch, step)
        return levels[index - first], targets[index - first]


# --- the page ----------------------------------------------------------------------------------------------


def _facts(setup: Setup, album: _Album) -> dict[str, Any]:
    """Return what stands around the images."""
    recipe, plan = setup.recipe, setup.plan
    names, values = in_use(recipe.augment), recipe.flat()
    keys = [("data.fit", *_said("data.fit", values))]
    keys += [(f"augment.{name}", *_said(f"augment.{name}", values)) for name in names]
    rest = [f"augment.{name}" for name in type(recipe.augment).model_fields if name not in names]
    sizes = ", then ".join(show_size(phase.image_size) for phase in plan.phases)
    return {
        "dataset": str(recipe.data.dataset),
        "model": setup.classifier.name,
        "facts": [
            ("image size", f"{sizes} pixels, height x width"),
            ("staged", f"at most {plan.stage_size} pixels a side, before random changes"),
            ("seed", str(recipe.train.seed)),
        ],
        "num_views": album.num_views,
        "what": "view" if plan.features else "epoch",
        "keys": keys,
        "rest": rest,
        "notes": album.notes,
    }


def _said(key: str, values: dict[str, object]) -> tuple[str, str]:
    """Return the value of a key, and what it does."""
    from vitft.recipe.describe import in_line

    return in_line(values[key]), FIELDS[key][3].replace("`", "")


def in_use(augment: AugmentRecipe) -> list[str]:
    """Return the keys of the section that change something with these values."""
    has_mixing = (augment.mixup_alpha > 0 or augment.cutmix_alpha > 0) and augment.mix_probability > 0
    needs = {
        "crop_scale": augment.crop == "random-resized",
        "crop_ratio": augment.crop == "random-resized" and augment.crop_scale != (1, 1),
        "erase_area": augment.erase > 0,
        "policy": augment.policy != "none",
        "mixup_alpha": has_mixing and augment.mixup_alpha > 0,
        "cutmix_alpha": has_mixing and augment.cutmix_alpha > 0,
        "mix_probability": has_mixing,
    }
    of_randaugment = [name for name in type(augment).model_fields if name.startswith("policy_")]
    needs |= dict.fromkeys(of_randaugment, augment.policy == "randaugment")
    return [name for name, value in augment if needs.get(name, bool(value))]


def _address(image: Image) -> str:
    """Return a small copy of an image as a part of the page."""
    from PIL import Image

    from vitft.svg import address

    image, data = image.copy(), io.BytesIO()
    if max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        image.save(data, "JPEG", quality=_QUALITY)
        return address(data.getvalue(), "image/jpeg")
    image.save(data, "PNG")
    return address(data.getvalue(), "image/png")

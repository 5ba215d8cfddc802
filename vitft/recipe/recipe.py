"""The recipe: everything that a run needs, typed, frozen and documented field by field.

Values are merged once, defaults < recipe file < flags < ``--set``, validated together and never changed afterwards.
Numbers derived from them are in the plan.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PrivateAttr, ValidationError

from vitft.errors import RecipeError
from vitft.files import read_regular
from vitft.recipe.choices import ADAPTERS, AUTO
from vitft.recipe.complaints import complaints
from vitft.recipe.keys import (
    MAY_CHANGE,
    AugmentRecipe,
    DataRecipe,
    HubRecipe,
    ModelRecipe,
    OptimRecipe,
    RunRecipe,
    Section,
    TrainRecipe,
)
from vitft.recipe.sizes import show_size
from vitft.recipe.yaml12 import MOST_CHARACTERS, parse_yaml, write_yaml


class Recipe(Section):
    """Everything that a run needs."""

    data: DataRecipe = DataRecipe()
    model: ModelRecipe = ModelRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    optim: OptimRecipe = OptimRecipe()
    train: TrainRecipe = TrainRecipe()
    run: RunRecipe = RunRecipe()
    hub: HubRecipe = HubRecipe()
    _metrics_from: str = PrivateAttr("")

    def __eq__(self, other: object) -> bool:
        """Whether two recipes have the same values, wherever they come from."""
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    @property
    def metrics_from(self) -> str:
        """The recipe file that names ``run.metrics``, which are code; empty if the user named them directly."""
        return self._metrics_from

    @classmethod
    def load(cls, base: str | Path | None = None, changes: Mapping[str, object] | None = None) -> Recipe:
        """Read a recipe and apply changes to it.

        Args:
            base: path or name of a recipe file; None starts from the defaults.
            changes: values by dotted key, such as ``{"optim.lr": 3e-4}``; they win over the file.

        Raises:
            RecipeError: naming every unknown key and every bad value at once.
        """
        from vitft.builtin import recipe_path

        source = "the recipe"
        values: dict[str, Any] = {}
        if base is not None:
            path = recipe_path(str(base))
            source = f"{path} with the given changes" if changes else str(path)
            values = read_yaml(path)
        recipe = validate(overlay(values, changes or {}), source)
        if base is not None and recipe.run.metrics and "run.metrics" not in (changes or {}):
            recipe._metrics_from = str(path)
        return recipe

    @property
    def image_size(self) -> tuple[int, int] | None:
        """The model's final (height, width); None for the checkpoint's own."""
        schedule = self.train.resolution_schedule
        return schedule[-1][0] if schedule else self.model.image_size

    def dump(self) -> str:
        """Return the recipe, with every key, as YAML that :meth:`load` accepts."""
        return write_yaml(self.model_dump(mode="json"), sort_keys=False, width=100)

    def flat(self) -> dict[str, object]:
        """Return the plain values by dotted key."""
        values = self.model_dump(mode="json")
        return {key: functools.reduce(operator.getitem, key.split("."), values) for key, _ in keys()}

    def broken_by(self, changed: Recipe) -> list[str]:
        """Return the differences to ``changed`` that a resumed run may not have."""
        return [line for line in self.differences(changed) if line.split(":")[0] not in RESUMABLE_CHANGES]

    def differences(self, other: Recipe) -> list[str]:
        """Return one line for each key whose value differs in ``other``."""
        mine, theirs = self.flat(), other.flat()
        return [f"{key}: {mine[key]} -> {theirs[key]}" for key in mine if mine[key] != theirs[key]]


def keys(section: type[BaseModel] | None = None) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, pydantic field) for every key of a recipe or of one section of it, in order."""
    for name, field in (section or Recipe).model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from ((f"{name}.{key}", each) for key, each in keys(field.annotation))
        else:
            yield name, field


RESUMABLE_CHANGES = frozenset(key for key, field in keys() if MAY_CHANGE in field.metadata)
"""Keys that may change when a run is resumed: they do not change what is computed from good images."""

# --- reading, overlaying, validating -----------------------------------------------------------------------


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a recipe file into nested dictionaries, without checking keys or values."""
    try:
        text = read_regular(path, MOST_CHARACTERS).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read the recipe {path}: {error}") from error
    return parse_recipe(text, str(path))


def parse_recipe(text: str, source: str) -> dict[str, Any]:
    """Read the text of a recipe into nested dictionaries, without checking keys or values."""
    values = parse_yaml(text, source)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(
            f"{source} contains a {type(values).__name__}, not a recipe",
            allowed=f"a mapping with the sections {', '.join(Recipe.model_fields)}",
            hint="vitft recipes show default",
        )
    return values


def overlay(values: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """Return a copy of nested ``values`` with the dotted keys of ``changes`` set."""
    result: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        place = result
        for section in sections:
            below = place.get(section)
            place[section] = below = dict(below) if isinstance(below, dict) else {}
            place = below
        place[key] = value
    return result


def validate(values: Mapping[str, Any], source: str) -> Recipe:
    """Make a recipe from nested values, or raise one RecipeError that lists everything wrong with them."""
    try:
        recipe = Recipe.model_validate(dict(values))
    except ValidationError as error:
        lines = list(complaints(error.errors(), dict(keys())))
        raise RecipeError(
            f"{source} has {len(lines)} error{'s' if len(lines) > 1 else ''}:\n  " + "\n  ".join(lines),
            hint="vitft recipes show default (all keys with their defaults)",
        ) from None
    lines = list(_contradictions(recipe))
    if lines:
        raise RecipeError(
            f"{source} contradicts itself:\n  " + "\n  ".join(lines), hint="change one of the two, or leave it out"
        )
    return recipe


def _contradictions(recipe: Recipe) -> Iterator[str]:
    """Yield a line for values that are fine alone but wrong together."""
    for key in ("crop_scale", "crop_ratio", "erase_area"):
        low, high = getattr(recipe.augment, key)
        if low > high:
            yield f"augment.{key}: the first bound, {low:g}, is larger than the second, {high:g}"
    if recipe.augment.crop_scale[0] == 0:
        yield "augment.crop_scale: an area of 0 leaves nothing of the image"
    if recipe.model.init == "random" and recipe.model.train != "all":
        yield f"model.init: random with model.train: {recipe.model.train} leaves random weights untrained"
    if recipe.model.init == "random" and recipe.model.head == "keep":
        yield "model.init: random with model.head: keep: a kept head is useless on random weights"
    yield from _contradictions_about_parts(recipe)
    if recipe.model.checkpoint == AUTO:
        yield from _against_auto(recipe)
    if recipe.train.feature_views and (recipe.model.train != "head" or recipe.train.features == "off"):
        yield (
            f"train.feature_views: {recipe.train.feature_views} needs features, but model.train is "
            f"{recipe.model.train} and train.features is {recipe.train.features}"
        )
    tau, imbalance = recipe.train.imbalance_tau, recipe.train.imbalance
    if tau != 1 and imbalance != "logit-adjustment":
        yield f"train.imbalance_tau: {tau:g} needs train.imbalance: logit-adjustment, not {imbalance}"
    schedule, size = recipe.train.resolution_schedule, recipe.model.image_size
    if schedule and size and schedule[-1][0] != size:
        yield (
            f"train.resolution_schedule: it ends at {show_size(schedule[-1][0])}, "
            f"but model.image_size is {show_size(size)}"
        )
    batch, micro = recipe.train.batch_size, recipe.train.micro_batch_size
    if isinstance(batch, int) and isinstance(micro, int) and micro > batch:
        yield f"train.micro_batch_size: {micro} is larger than train.batch_size: {batch}"


def _contradictions_about_parts(recipe: Recipe) -> Iterator[str]:
    """Yield a line for keys on what is trained that do not go together."""
    model, usual = recipe.model, ModelRecipe()
    of_adapters = ("lora_rank", "lora_alpha", "lora_dropout", "lora_targets", "adapter")
    given = [key for key in of_adapters if getattr(model, key) != getattr(usual, key)]
    if given and model.train not in ADAPTERS:
        yield f"model.{given[0]}: {getattr(model, given[0])} needs model.train: lora or dora, not {model.train}"
    if recipe.train.head_first and model.train == "head":
        yield "train.head_first: true with model.train: head: nothing is left to train after the head"
    if recipe.train.head_first and model.init == "random":
        yield "train.head_first: true with model.init: random: features of random weights say little"
    if recipe.train.head_first and recipe.data.streaming:
        yield "train.head_first: true with data.streaming: true: features need images that can be read again"


def _against_auto(recipe: Recipe) -> Iterator[str]:
    """Yield a line for each value that contradicts the choice of a checkpoint by its features."""
    if recipe.data.streaming:
        yield "model.checkpoint: auto ranks features of all images, but data.streaming reads images only once"
    if recipe.model.init == "random":
        yield "model.checkpoint: auto ranks weights, but model.init: random does not use them"
    if recipe.model.revision is not None:
        yield f"model.checkpoint: auto has several candidates, but model.revision: {recipe.model.revision} is of one"
    if recipe.model.head == "keep":
        yield "model.checkpoint: auto ranks checkpoints by new heads, but model.head: keep keeps the old one"
    if AUTO in recipe.model.candidates:
        yield "model.candidates: auto is no checkpoint"

"""Change a checkpoint's image, patch or window size: check the new size and rewrite the tensors for it.

Only tensors named in the family's entry are resampled, once, in float32. Everything is checked before anything changes.
"""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitft.architectures.config import classifier_class, pair_of, table_size
from vitft.architectures.families import FAMILIES, family_of, vision_config
from vitft.architectures.family import Family, Size, Table
from vitft.architectures.timm_models import WRAPPER, misfits
from vitft.architectures.weights import find_key
from vitft.errors import ModelError, one_line
from vitft.recipe.choices import ResizeMethod
from vitft.recipe.sizes import MOST_PIXELS, show_size
from vitft.resolution.patch import resize_patch_kernel
from vitft.resolution.tables import method_for, resample

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Buffers computed from the size. Old versions of transformers saved them for every family.
_DERIVED = re.compile(r"(.*\.)?(position_ids|relative_position_index|relative_coords_table)")


@dataclass(frozen=True)
class Target:
    """The sizes wanted for a checkpoint; None keeps its own.

    Attributes:
        image_size: (height, width) in pixels.
        patch_size: side of a patch in pixels.
        window_size: side of an attention window in patches (Swin).
        method: how position tables are resampled.
    """

    image_size: Size | None = None
    patch_size: int | None = None
    window_size: int | None = None
    method: ResizeMethod = "bicubic"


@dataclass(frozen=True)
class Change:
    """A rewritten tensor: its name in the file, what it is, both sizes as text, and the method."""

    name: str
    kind: str
    old: str
    new: str
    method: str


@dataclass
class Retargeting:
    """What changed in a checkpoint for a new size.

    Attributes:
        family: transformers' ``model_type``.
        old, new: image sizes.
        settings: keys of the (vision) configuration that changed, as (before, after).
        changes: tensors that were rewritten.
        fixed: table entries without a position (class tokens, for example), which did not change.
        known: the family's entry, None if it has none.
    """

    family: str
    old: Size
    new: Size
    settings: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    fixed: int = 0
    known: Family | None = field(default=None, repr=False)

    def lines(self) -> list[str]:
        """Return sentences for the user, one for all tables of a kind."""
        if not self:
            return []
        lines = []
        if self.old != self.new:
            lines = [f"image size {show_size(self.new)} instead of the checkpoint's {show_size(self.old)}"]
        for key, (old, new) in self.settings.items():
            if key != "image_size":
                lines.append(f"{key} {new} instead of {old}")
        kinds = dict.fromkeys((each.kind, each.old, each.new, each.method) for each in self.changes)
        for kind, old, new, method in kinds:
            names = [c.name for c in self.changes if (c.kind, c.old, c.new, c.method) == (kind, old, new, method)]
            what = names[0] if len(names) == 1 else f"{len(names)} tables such as {names[0]}"
            lines.append(f"{kind} {old} -> {new} ({method}): {what}")
        if self.fixed and any(each.kind == "positions" for each in self.changes):
            lines.append(f"the positions of {self.fixed} special token{'s' * (self.fixed > 1)} are unchanged")
        return lines

    def record(self) -> dict[str, Any]:
        """Return the changes as plain values for JSON."""
        return {
            "family": self.family,
            "image_size": {"before": list(self.old), "after": list(self.new)},
            "settings": {key: {"before": old, "after": new} for key, (old, new) in self.settings.items()},
            "tensors": [vars(change) for change in self.changes],
            "fixed_tokens": self.fixed,
        }

    def __bool__(self) -> bool:
        return self.old != self.new or bool(self.settings)


# --- which size --------------------------------------------------------------------------------------------


def retarget_config(
    config: PreTrainedConfig, own: Size, target: Target, named: str
) -> tuple[PreTrainedConfig, Retargeting]:
    """Return a copy of the configuration at another size, and what changed in it.

    Args:
        config: the checkpoint's configuration.
        own: the checkpoint's image size.
        target: the size wanted.
        named: the checkpoint as the user typed it.

    Raises:
        ModelError: if the family cannot have that size, or vitft does not know the family.
    """
    size = target.image_size or own
    family = family_of(config)
    done = Retargeting(config.model_type, own, size, known=family)
    new = copy.deepcopy(config)
    vision = vision_config(new)
    wanted: dict[str, Any] = {"patch_size": target.patch_size, "window_size": target.window_size}
    stored = getattr(vision, "image_size", None)
    is_bound = own != size or not (family and family.any_size)  # else config.image_size is ignored
    if stored is not None and target.image_size and pair_of(stored) != size and is_bound:
        wanted["image_size"] = size[0] if isinstance(stored, int) and size[0] == size[1] else list(size)
    if family and family.has_window_networks and own != size:
        wanted["pretrained_window_sizes"] = _pretrained_windows(vision, own, size)
    for key, value in wanted.items():
        if value is not None and getattr(vision, key, None) != value:
            done.settings[key] = (getattr(vision, key, None), value)
    if done:
        family = _check_kind(config, done, target, named)
        for key, (_, value) in done.settings.items():
            setattr(vision, key, value)
        if not family.any_size:
            _check_divisible(size, family, vision, "patch_size" in done.settings)
        if config.model_type == WRAPPER:
            _check_architecture(config, new, size)
    return new, done


def _check_architecture(old: PreTrainedConfig, new: PreTrainedConfig, size: Size) -> None:
    """Reject a size that changes the shape of a timm model's other tensors too."""
    if changed := misfits(old, new):
        raise ModelError(
            f"an image size of {show_size(size)} does not suit timm's {old.architecture}: {changed[0]} depends on it "
            "in an unknown way",
            hint="a multiple of its own size, which may work",
        )


def _pretrained_windows(config: PreTrainedConfig, old: Size, new: Size) -> list[int] | None:
    """Return SwinV2's pretraining window of each stage, or None if the new size does not change the windows.

    A window is at most as large as its stage's grid. The bias network's coordinates are divided by the pretraining
    window, or by the current one if none is stored (arXiv:2111.09883, section 3.3).
    """
    grids = [[min(size) // config.patch_size >> stage for stage in range(len(config.depths))] for size in (old, new)]
    before, after = ([min(config.window_size, side) for side in each] for each in grids)
    written = list(config.pretrained_window_sizes)
    if before == after:
        return None
    own = [given or (side if side > 1 else 0) for given, side in zip(written, before, strict=False)]
    return own + written[len(own) :]  # stored for stages that a small model lacks


def _check_kind(config: PreTrainedConfig, done: Retargeting, target: Target, named: str) -> Family:
    """Return the family's entry; raise a ModelError for a change that the family cannot have."""
    family, size = done.known, show_size(done.new)
    if family is None:
        raise ModelError(
            f"{named} is a {config.model_type!r} model, and vitft does not know how to change its size",
            allowed=f"its own {show_size(done.old)}, or a checkpoint of {', '.join(sorted(FAMILIES))}",
            hint="leave the image size out",
        )
    if family.fixed:
        raise ModelError(
            f"{named} is timm's {config.architecture}, whose image size cannot change: {family.fixed}",
            allowed=f"its own {show_size(done.old)}",
            hint="leave the image size out",
        )
    _check_sides(done.new)
    if "patch_size" in done.settings and not family.patch:
        raise ModelError(
            f"the patch size of a {config.model_type} model cannot be changed",
            allowed=f"checkpoints of {', '.join(sorted(k for k, v in FAMILIES.items() if v.patch))}",
            hint="leave the patch size out",
        )
    if "window_size" in done.settings and not family.has_windows:
        raise ModelError(
            f"the window size of a {config.model_type} model cannot change: it has no table of windows to resample",
            allowed=f"checkpoints of {', '.join(sorted(k for k, v in FAMILIES.items() if v.has_windows))}",
            hint="leave the window size out",
        )
    if target.method == "geometric" and all(table.entries == "places" for table in family.tables):
        raise ModelError(
            f"the method geometric is for tables of offsets, and a {config.model_type} model has none",
            allowed="bicubic, bicubic-plain, bilinear or corners",
            hint="--method bicubic",
        )
    if done.new[0] != done.new[1] and family.square_only:
        raise ModelError(
            f"a {config.model_type} model cannot have images of {size}: {family.square_only}",
            allowed="square sizes, such as 224 or 384",
            hint=f"--image-size {max(done.new)}",
        )
    return family


def _check_sides(size: Size) -> None:
    if not all(0 < side <= MOST_PIXELS for side in size):
        raise ModelError(f"{show_size(size)} is not a valid image size", allowed=f"1 to {MOST_PIXELS} pixels a side")


def _check_divisible(size: Size, family: Family, config: PreTrainedConfig, has_new_patch: bool) -> None:
    """Reject an image size that is not divisible as the model needs, and list the nearest ones that are."""
    try:
        step = family.step(config)
    except (TypeError, ValueError, AttributeError, IndexError):
        step = 0
    if step < 1:
        raise ModelError("the model's config.json has no valid patch size", hint="fix its patch_size")
    if not any(side % step for side in size):
        return
    what = ", the patch size" if step == getattr(config, "patch_size", None) else ""
    wrong = f"an image size of {show_size(size)} is not divisible by {step}{what}"
    if has_new_patch:
        side = math.gcd(*size)
        fitting = [str(patch) for patch in range(4, 65) if side % patch == 0]
        raise ModelError(
            wrong,
            allowed=f"patch sizes for this image size: {', '.join(fitting)}",
            hint=f"--patch-size {min(fitting, key=lambda patch: abs(int(patch) - step), default='16')}",
        )
    below = (max(size[0] // step, 1) * step, max(size[1] // step, 1) * step)
    above = (-(-size[0] // step) * step, -(-size[1] // step) * step)
    near = [show_size(each) if size[0] != size[1] else str(each[0]) for each in dict.fromkeys((below, above))]
    raise ModelError(
        wrong,
        allowed=f"multiples of {step}; the nearest {'are' if len(near) > 1 else 'is'} {' and '.join(near)}",
        hint=f"--image-size {near[-1]}",
    )


# --- its tensors -------------------------------------------------------------------------------------------


def retarget_state(
    state: Mapping[str, Tensor],
    old: PreTrainedConfig,
    new: PreTrainedConfig,
    done: Retargeting,
    method: ResizeMethod,
    named: str,
) -> dict[str, Tensor]:
    """Return a checkpoint's tensors for another configuration, and add the changes to ``done``.

    Args:
        state: the tensors read from the file.
        old, new: its configuration before and after :func:`retarget_config`.
        done: what :func:`retarget_config` returned.
        method: how tables are resampled.
        named: the checkpoint as the user typed it.

    Raises:
        ModelError: if a table in the file does not fit the old configuration.
    """
    family = done.known
    if family is None or not done:
        return dict(state)
    rewritten = {key: tensor for key, tensor in state.items() if not _DERIVED.fullmatch(key)} | _derived(new, state)
    with torch.device("meta"):
        model = classifier_class(old)(old)
    for name, parameter in model.named_parameters():
        rewriting = _rewriting(family, name, old, new, done, method)
        key = find_key(model, name, state) if rewriting else None
        if rewriting is None or key is None:  # loading reports a tensor that the file lacks
            continue
        if state[key].shape != parameter.shape:
            raise ModelError(
                f"{named} does not fit its own config.json, so nothing was resized: {key} is "
                f"{tuple(state[key].shape)} in the file, but the config says {tuple(parameter.shape)}",
                hint="fix its config.json (image_size, patch_size)",
            )
        if not torch.isfinite(state[key]).all():
            raise ModelError(f"{key} of {named} has values that are not finite", hint="use an undamaged checkpoint")
        rewritten[key], change = rewriting.apply(state[key], key)
        done.changes.append(change)
    return rewritten


def _derived(config: PreTrainedConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the file's derived buffers at the new size, as far as the model still saves them."""
    from accelerate import init_empty_weights

    if not any(_DERIVED.fullmatch(key) for key in state):
        return {}
    with init_empty_weights(include_buffers=False):
        model = classifier_class(config)(config)
    saved = model.state_dict()
    made = {find_key(model, name, state): b for name, b in model.named_buffers() if name in saved}
    return {key: buffer for key, buffer in made.items() if key and _DERIVED.fullmatch(key)}


@dataclass(frozen=True)
class _Rewriting:
    """How to rewrite one tensor: a table for a new grid, or a patch kernel for a new side."""

    table: Table | None
    old: Size
    new: Size
    method: ResizeMethod

    def apply(self, tensor: Tensor, key: str) -> tuple[Tensor, Change]:
        before, after = show_size(self.old), show_size(self.new)
        if self.table is None:
            made = resize_patch_kernel(tensor, self.new[0])
            return made, Change(key, "patch kernel", before, after, "pseudo-inverse")
        kind = "positions" if self.table.entries == "places" else "relative positions"
        made = resample(self.table, tensor, self.old, self.new, self.method)
        return made, Change(key, kind, before, after, method_for(self.table, self.method))


def _rewriting(
    family: Family, name: str, old: PreTrainedConfig, new: PreTrainedConfig, done: Retargeting, method: ResizeMethod
) -> _Rewriting | None:
    """Return how to rewrite a parameter, None if it stays the same."""
    for table in family.tables:
        before, after = (
            table.grid_of(name, vision_config(config), table_size(config) or size)
            for config, size in ((old, done.old), (new, done.new))
        )
        if before and after and before != after:
            if table.entries == "places":
                done.fixed = max(done.fixed, table.fixed)
            return _Rewriting(table, before, after, method)
    if family.patch and "patch_size" in done.settings and re.fullmatch(family.patch, name):
        before, after = done.settings["patch_size"]
        return _Rewriting(None, (before, before), (after, after), method)
    return None


def check_runs(model: nn.Module, size: Size, config: PreTrainedConfig) -> None:
    """Run a model on one image to test a changed size.

    Raises:
        ModelError: if the model does not run.
    """
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size, device=next(model.parameters()).device))
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        hint, family = "a multiple of 32, which usually works", family_of(config)
        if family and family.has_windows:
            least = config.patch_size * config.window_size << (len(config.depths) - 1)
            hint = f"--image-size {least} or more, or a smaller --window-size than {config.window_size}"
        raise ModelError(
            f"an image size of {show_size(size)} does not suit this {config.model_type} model: {one_line(error)}",
            hint=hint,
        ) from error
    finally:
        model.train(was_training)

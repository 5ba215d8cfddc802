"""Load a checkpoint into a classifier: for training, with a head for the dataset's classes, or as it is.

Only the head and the parameters in the recipe's ``model.allow_new`` may be newly initialised. Everything else must
come from the checkpoint; otherwise loading stops and lists what is missing.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vitft.architectures.blocks import head_modules, is_within
from vitft.architectures.config import class_names, classifier_class, drop_path_off, set_classes, table_size, was_for
from vitft.architectures.dinov3 import timm_state
from vitft.architectures.families import family_of
from vitft.architectures.timm_models import PREFIX, WRAPPER
from vitft.architectures.weights import read_weights, spelled_in_file
from vitft.errors import ModelError, one_line
from vitft.model import gate
from vitft.model.classifier import Classifier
from vitft.model.fitting import fit_processor, for_one_size, resize_processor
from vitft.model.head import keep_head
from vitft.model.locate import locate
from vitft.model.opening import Opened, open_checkpoint
from vitft.model.origin import read_origin
from vitft.quantities import count_text
from vitft.recipe.choices import ResizeMode
from vitft.recipe.keys import ModelRecipe
from vitft.recipe.sizes import show_size
from vitft.resolution.encoding import choose_architecture, encode_positions
from vitft.resolution.retarget import Retargeting, Target, check_runs, retarget_config, retarget_state

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
    from transformers.image_processing_utils import BaseImageProcessor


def load_for_training(
    recipe: ModelRecipe, classes: Sequence[str], resize_mode: ResizeMode, *, seed: int = 0
) -> Classifier:
    """Load a checkpoint for training, with a zero-initialised head or, for classes it already knows, its own.

    Args:
        recipe: which checkpoint, and what may change in it.
        classes: names of the dataset's classes, in order.
        resize_mode: how an image fills the model's rectangle.
        seed: for the weights if ``model.init`` is random.

    Raises:
        ModelError: if the checkpoint is not an image classifier or encoder, cannot be read safely, lacks
            weights, or cannot have the size in the recipe.
    """
    named = recipe.checkpoint
    folder, revision = locate(named, recipe.revision)
    opened = open_checkpoint(folder, named)
    gate.require_colour(opened.config, named)
    notes = opened.notes
    # Read first: building a model could already use far too much memory if config.json is wrong about its size.
    state, note = read_weights_for(opened.config, folder, named) if recipe.init != "random" else ({}, None)
    notes += [note] if note else []
    old_problem, was = opened.config.problem_type, opened.config.model_type
    old_classes = [] if was_for(old_problem) else class_names(opened.config)
    set_classes(opened.config, classes)
    drop_path_off(opened.config, notes)
    opened.config = choose_architecture(opened.config, recipe.position.kind, recipe.init, named)
    target = Target(recipe.image_size, recipe.patch_size, recipe.window_size, recipe.resize_method)
    config, retargeting = retarget_config(opened.config, opened.image_size, target, named)
    processor = _fitted(opened, retargeting.new, resize_mode)
    _note_own_resampling(opened, config, retargeting)

    classifier = classifier_class(config)
    head = _head_parameters(classifier, config)
    if recipe.init == "random":
        model = _random(classifier, config, seed, notes, named)
    else:
        state = retarget_state(with_prefix(state, config), opened.config, config, retargeting, target.method, named)
        model = _load_backbone(classifier, config, state, head, recipe, notes)
    loaded = Classifier(named, model, processor, retargeting, head, has_head=False, revision=revision, notes=notes)
    loaded.origin = read_origin(folder, named, is_on_hub=revision is not None)
    if retargeting:
        check_runs(model, loaded.image_size, config)
    notes += retargeting.lines()
    if kind := recipe.position.kind:
        notes.append(encode_positions(model, kind, loaded.image_size, is_new=recipe.init == "random", was=was))
    _zero(model, head)
    if recipe.init != "random":
        notes += gate.check_values(model.eval(), loaded.image_size, named)
    loaded.kept_classes, kept = keep_head(recipe.head, model, state, head, old_classes, classes, named)
    loaded.has_head = loaded.kept_classes > 0
    new = f"new head: {', '.join(head)} for {len(classes)} classes, zero-initialised{was_for(old_problem)}"
    notes.append(kept or new)
    return loaded


def _fitted(opened: Opened, size: tuple[int, int], resize_mode: ResizeMode) -> BaseImageProcessor:
    """Return the checkpoint's image processor at another size; add a note if its class changed."""
    processor = fit_processor(opened.processor, size, resize_mode)
    own, other = type(opened.processor), type(processor)
    if own is not other:
        opened.notes.append(f"{own.__name__} cannot {resize_mode}; {other.__name__} is saved instead")
    return processor


def _note_own_resampling(opened: Opened, config: PreTrainedConfig, done: Retargeting) -> None:
    """Note that transformers resamples the positions in every forward pass, if the table has another size."""
    table, size = table_size(config), done.new
    if table and table != size and done.known and done.known.resamples_itself:
        opened.notes.append(
            f"runs at {show_size(size)}, the size of its image processor; its positions are for "
            f"{show_size(table)} and are resampled in every forward pass (--image-size {size[0]} does it once)"
        )


def _random(
    classifier: type[PreTrainedModel], config: PreTrainedConfig, seed: int, notes: list[str], named: str
) -> PreTrainedModel:
    """Return a model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the only place where weights come from torch's generator
        model = classifier(config)
    notes.append(f"all weights are random: with model.init: random, only the architecture comes from {named}")
    return model


def load_finished(folder: Path, named: str, target: Target | None = None, *, needs_head: bool = True) -> Classifier:
    """Load a fine-tuned model as it is, or at another size, in evaluation mode.

    Args:
        folder: with config.json, weights and image processor.
        named: the checkpoint as the user typed it.
        target: the size wanted; by default its own.
        needs_head: whether an encoder without a head is an error; if not, it gets a head of zeros.

    Raises:
        ModelError: if it is not a classifier, lacks weights, or cannot have that size.
    """
    target = target or Target()
    opened = open_checkpoint(folder, named)
    gate.require_colour(opened.config, named)
    config, retargeting = retarget_config(opened.config, opened.image_size, target, named)
    state, _ = read_weights_for(opened.config, folder, named)
    state = with_prefix(state, config)
    state = retarget_state(state, opened.config, config, retargeting, target.method, named)
    classifier = classifier_class(config, as_saved=True)
    model, info = _from_state(classifier, config, state, named)
    head = _head_parameters(classifier, config)
    new = head if info["missing_keys"] and not needs_head else ()
    missing = [name for name in info["missing_keys"] if name.split(".")[0] not in {each.split(".")[0] for each in new}]
    if missing:
        raise ModelError(
            f"{named} lacks weights of its own architecture: {_spelled(model, missing)}",
            hint=f"vitft finetune --model {named} --dataset ... to fine-tune it first",
        )
    _zero(model, new)
    notes = gate.check_values(model.eval(), retargeting.new, named) if needs_head else []
    processor = opened.processor
    if retargeting:
        check_runs(model, retargeting.new, config)
        processor, note = resize_processor(processor, retargeting.old, retargeting.new)
        notes += [*retargeting.lines(), *([note] if note else [])]
    processor, note = for_one_size(processor, retargeting.new)
    notes += [note] if note else []
    loaded = Classifier(named, model.eval(), processor, retargeting, head, has_head=not new, notes=notes)
    loaded.folder = folder
    return loaded


def check_loads(config: PreTrainedConfig, state: dict[str, Tensor], named: str, size: tuple[int, int]) -> None:
    """Check that a model loads and runs at a size; only its head may be missing.

    Raises:
        ModelError: if it lacks other weights, or does not run.
    """
    classifier = classifier_class(config, as_saved=True)
    model, info = _from_state(classifier, config, state, named)
    heads = head_modules(_head_parameters(classifier, config))
    missing = [name for name in info["missing_keys"] if not is_within(name, heads)]
    if missing:
        raise ModelError(
            f"{named} lacks weights of its own architecture: {_spelled(model, missing)}",
            hint="use a complete checkpoint",
        )
    family = family_of(config)
    if family is None or not family.patch:  # a plain ViT surely runs if its tables fit
        check_runs(model, size, config)


# --- weights -----------------------------------------------------------------------------------------------


def _head_parameters(classifier: type[PreTrainedModel], config: PreTrainedConfig) -> tuple[str, ...]:
    """Return the parameters that depend on the number of classes, found by comparing models with K and K + 1."""
    shapes = []
    for extra in (0, 1):
        sized = copy.deepcopy(config)
        sized.num_labels = config.num_labels + extra
        try:
            with torch.device("meta"):
                shapes.append({name: p.shape for name, p in classifier(sized).named_parameters()})
        except ImportError as error:
            raise gate.needs_package(config, error) from error
        except Exception as error:  # each family fails on wrong values in its own way
            raise ModelError(
                f"no {config.model_type} model can be built from this config.json: {one_line(error)}"
            ) from error
    return tuple(name for name, shape in shapes[0].items() if shapes[1][name] != shape)


def read_weights_for(config: PreTrainedConfig, folder: Path, named: str) -> tuple[dict[str, Tensor], str | None]:
    """Read a checkpoint's tensors and check that there are about as many as its configuration describes."""
    state, note = read_weights(folder, named)
    if config.model_type == WRAPPER:
        state = timm_state(state)
    gate.check_amount(config, state, named)
    return state, note


def with_prefix(state: dict[str, Tensor], config: PreTrainedConfig) -> dict[str, Tensor]:
    """Add the model's prefix to tensor names saved without it: a vision tower alone, or a timm model."""
    if config.model_type == WRAPPER and not any(key.startswith(PREFIX) for key in state):
        return {PREFIX + key: tensor for key, tensor in state.items()}
    if hasattr(config, "vision_config") and not any(key.startswith("vision_model.") for key in state):
        return {f"vision_model.{key}": tensor for key, tensor in state.items()}
    return state


def _load_backbone(
    classifier: type[PreTrainedModel],
    config: PreTrainedConfig,
    state: dict[str, Tensor],
    head: tuple[str, ...],
    recipe: ModelRecipe,
    notes: list[str],
) -> PreTrainedModel:
    """Load everything but the head, and check that nothing else is new."""
    halves = {str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()} - {"float32"}
    if halves:
        notes.append(f"weights stored as {', '.join(sorted(halves))} are trained in float32")
    backbone = {key: tensor for key, tensor in state.items() if key not in head}
    model, info = _from_state(classifier, config, backbone, recipe.checkpoint)

    heads = head_modules(head)
    new = [name for name in info["missing_keys"] if not is_within(name, heads)]
    refused = [name for name in new if not _is_allowed(name, recipe.allow_new)]
    if refused:
        raise ModelError(
            f"{recipe.checkpoint} lacks weights that would be newly initialised: {_spelled(model, refused)}",
            allowed="a checkpoint with all weights of its backbone; only the head may be new",
            hint=f"use a complete checkpoint, or --set 'model.allow_new=[{', '.join(sorted(refused)[:3])}]'",
        )
    if new:
        notes.append(f"newly initialised, as model.allow_new permits: {_some(new)}")
    _check_surplus(model, info["unexpected_keys"], recipe.checkpoint, notes)
    kept = sum(p.numel() for name, p in model.named_parameters() if name not in info["missing_keys"])
    notes.append(f"{count_text(kept)} parameters were kept from {recipe.checkpoint}")
    return model


def _from_state(
    classifier: type[PreTrainedModel], config: PreTrainedConfig, state: dict[str, Tensor], named: str
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return a float32 model with the tensors of ``state``, and transformers' loading report."""
    try:
        model, info = classifier.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, dtype=torch.float32
        )
    except ImportError as error:
        raise gate.needs_package(config, error) from error
    except Exception as error:  # each family fails on wrong values in its own way
        found = _some(gate.misfits(config, state)) or one_line(error)
        raise ModelError(f"{named} does not fit its own config.json: {found}", hint="fix its config.json") from error
    return model, info


def _is_allowed(name: str, rules: Sequence[str]) -> bool:
    return any(name == rule or (rule.endswith("*") and name.startswith(rule[:-1])) for rule in rules)


def _spelled(model: PreTrainedModel, names: Iterable[str]) -> str:
    """List parameters by their name in the file, and in memory too where transformers renamed them.

    Only the first few are looked up: each takes a millisecond, and a wrong file can lack thousands.
    """
    first, rest = sorted(names)[:_SOME], sorted(names)[_SOME:]
    both = [(spelled_in_file(model, name), name) for name in first]
    return _some([name if in_file == name else f"{in_file} (in memory {name})" for in_file, name in both] + rest)


def _check_surplus(model: PreTrainedModel, unexpected: Iterable[str], named: str, notes: list[str]) -> None:
    """Reject a checkpoint with more layers or modules than its config says; note weights of other kinds."""
    kinds = {re.sub(r"\d+", "#", name) for name in model.state_dict()}
    surplus = [key for key in unexpected if re.sub(r"\d+", "#", key) in kinds]
    if surplus:
        raise ModelError(
            f"{named} holds weights that its config.json does not describe: {_spelled(model, surplus)}",
            hint="fix its config.json (number of layers, kinds of module)",
        )
    if unexpected:
        parts = sorted({".".join(key.split(".")[:2]) for key in unexpected})
        notes.append(f"weights in the checkpoint that a classifier does not use: {_some(parts)}")


def _zero(model: nn.Module, head: tuple[str, ...]) -> None:
    """Set the head to zero (ViT, arXiv:2010.11929, appendix B.1.1)."""
    with torch.no_grad():
        for name in head:
            model.get_parameter(name).zero_()


_SOME = 5  # names in a message


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SOME} more" if len(names) > _SOME else ""
    return ", ".join(sorted(names)[:_SOME]) + more

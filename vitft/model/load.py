"""A pretrained checkpoint with a new head, and a report of what was kept and what is new.

Only the head, and what the recipe's ``model.allow_new`` names, may be newly initialised. Everything else must
come from the checkpoint, or loading stops and lists what did not.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitft.builtin import checkpoint_path
from vitft.errors import ModelError
from vitft.model import families
from vitft.model.processor import Fit, fit_processor, load_processor
from vitft.model.weights import read_weights, weight_files
from vitft.names import explain_hub_error, looks_like_path
from vitft.recipe import ModelRecipe

MICRO = "builtin:vit-micro"


@dataclass
class Pretrained:
    """A model ready to be trained.

    Attributes:
        model: in float32 on the CPU, with a zero-initialised head for the dataset's classes.
        processor: the image processor at the trained size.
        id, revision: what the user named, and the commit it stands for (None for local ones).
        image_size: (height, width) in pixels.
        head: names of the parameters whose shape depends on the classes.
        notes: what is new, what was left, what was decided.
    """

    model: Any
    processor: Any
    id: str
    revision: str | None
    image_size: tuple[int, int]
    head: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def load_for_training(recipe: ModelRecipe, classes: Sequence[str], fit: Fit, *, seed: int = 0) -> Pretrained:
    """Load a checkpoint and give it a new head.

    Args:
        recipe: which checkpoint, and from what it may differ.
        classes: names of the dataset's classes, by number.
        fit: how an image fills the model's rectangle.
        seed: of the weights where ``model.init`` is random.

    Raises:
        ModelError: if it is no image classifier's or encoder's checkpoint, cannot be read safely, misses
            weights, or has another size than the recipe asks for.
    """
    folder, revision = locate(recipe.checkpoint, recipe.revision)
    config = read_config(folder, recipe.checkpoint)
    own_processor, note = load_processor(folder)
    notes = [note] if note else []
    own_size = image_size_of(config, None if note else own_processor)
    _set_classes(config, classes)
    _drop_path_off(config, notes)
    image_size = _settle_image_size(config, own_size, recipe, notes)
    processor = fit_processor(own_processor, image_size, fit)
    if type(processor) is not type(own_processor):
        notes.append(f"{type(own_processor).__name__} cannot {fit}: saved with {type(processor).__name__} instead")

    classifier = _classifier_class(config)
    head = _head_parameters(classifier, config)
    if recipe.init == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the one place where torch's generator makes weights
            model = classifier(config)
        notes.append(f"all weights are random: model.init: random takes only the architecture of {recipe.checkpoint}")
    else:
        state, note = read_weights(folder, recipe.checkpoint)
        notes += [note] if note else []
        model = _load_backbone(classifier, config, state, head, recipe, notes)
    if image_size != own_size:
        _check_runs(model, image_size)
    _zero(model, head)
    notes.append(f"new head: {', '.join(head)} for {len(classes)} classes, zero-initialised")
    return Pretrained(model, processor, recipe.checkpoint, revision, image_size, head, notes)


def load_finished(folder: Path, named: str) -> tuple[Any, Any]:
    """Load a fine-tuned model as it is; return (model in evaluation mode, processor).

    Args:
        folder: with config.json, weights and image processor.
        named: how the user called it.

    Raises:
        ModelError: if it is no classifier, or any of its weights is not there.
    """
    config = read_config(folder, named)
    state, _ = read_weights(folder, named)
    model, info = _from_state(_classifier_class(config, as_saved=True), config, state, named)
    if info["missing_keys"]:
        raise ModelError(
            f"{named} lacks weights of its own architecture: {_some(_spelled(model, info['missing_keys']))}",
            hint=f"fine-tune it first: vitft finetune --model {named} --dataset ...",
        )
    processor, _ = load_processor(folder)
    return model.eval(), processor


# --- finding -----------------------------------------------------------------------------------------------


def locate(checkpoint: str, revision: str | None = None) -> tuple[Path, str | None]:
    """Return the local folder of a checkpoint, downloading what is needed of a Hub one, and its commit.

    Raises:
        ModelError: if there is no such built-in, folder or Hub model.
    """
    if checkpoint == MICRO:
        return checkpoint_path(), None
    if checkpoint.startswith("builtin:"):
        raise ModelError(f"there is no {checkpoint}", allowed=MICRO, hint=f"--model {MICRO}")
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
            return folder / "model", None  # a run directory stands for its model
        return folder, None
    if folder.is_file() or looks_like_path(checkpoint):
        what = "is a file" if folder.is_file() else "does not exist"
        raise ModelError(f"the model {checkpoint} {what}", allowed="a folder with config.json, or a Hub id OWNER/NAME")
    return _download(checkpoint, revision)


def _download(repo: str, revision: str | None) -> tuple[Path, str | None]:
    """Return the cached folder of a Hub checkpoint, with only the files that are read of it."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        try:
            info = HfApi().model_info(repo, revision=revision, timeout=30)
        except Exception as error:  # the Hub client's errors share no ancestor but Exception
            if getattr(error, "response", None) is not None:
                raise  # the Hub has answered; only without an answer does the cache stand in
            folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
            return folder, folder.name
        weights = weight_files((sibling.rfilename for sibling in info.siblings or []), repo)
        wanted = ["config.json", "preprocessor_config.json", "processor_config.json", *weights]
        return Path(snapshot_download(repo, revision=info.sha, allow_patterns=wanted)), info.sha
    except ModelError:
        raise
    except Exception as error:
        raise explain_hub_error(error, repo, kind="model", revision=revision) from error


# --- configuration -----------------------------------------------------------------------------------------


def read_config(folder: Path, named: str) -> Any:
    """Read config.json and make sure that transformers has an image-classification class for it.

    Raises:
        ModelError: if it is missing, broken, or of a family that cannot classify images here.
    """
    from transformers import AutoConfig, AutoModelForImageClassification

    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            f"{named} has no config.json, so it is no transformers checkpoint", hint="--model FOLDER or OWNER/NAME"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values.pop("auto_map", None)  # code of its own is not run, nor is the user asked whether it may
        family = values.pop("model_type", None)
        if not family:
            raise ValueError("it names no model_type")
        config = AutoConfig.for_model(family, **values)
    except Exception as error:  # what each family's configuration makes of wrong values is its own affair
        raise ModelError(f"the config.json of {named} cannot be used: {_one_line(error)}") from error

    config = _as_classifier(config)
    if family in families.UNSUPPORTED or type(config) not in AutoModelForImageClassification._model_mapping:
        reason = families.UNSUPPORTED.get(family, "transformers has no image-classification class for it")
        raise ModelError(
            f"{named} is a {family!r} model: {reason}",
            allowed=f"a checkpoint of a vision encoder: {', '.join(sorted(families.FAMILIES))}",
        )
    return config


def _as_classifier(config: Any) -> Any:
    """Return the configuration of the classifier that computes what an encoder without one computes."""
    from transformers import AutoConfig

    if config.model_type == "vit_mae":
        # MAE's encoder is a ViT: same modules, same names; its fixed position table is a tensor of the file.
        shared = AutoConfig.for_model("vit").to_dict().keys() - {"model_type", "transformers_version"}
        kept = {key: value for key, value in config.to_dict().items() if key in shared}
        return AutoConfig.for_model("vit", **kept)
    if config.model_type in families.TOWERS:
        return AutoConfig.for_model(families.TOWERS[config.model_type], vision_config=config.to_dict())
    return config


def _classifier_class(config: Any, *, as_saved: bool = False) -> Any:
    """Return the family's class. Where it has several (DeiT, LeViT), the plain one, or the one that was saved."""
    from transformers import AutoModelForImageClassification

    found = AutoModelForImageClassification._model_mapping[type(config)]
    several = found if isinstance(found, tuple) else (found,)
    saved = [each for each in several if each.__name__ in (config.architectures or ())]
    return saved[0] if saved and as_saved else several[0]


def _set_classes(config: Any, classes: Sequence[str]) -> None:
    config.num_labels = len(classes)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    config.problem_type = "single_label_classification"


def _drop_path_off(config: Any, notes: list[str]) -> None:
    """Switch off the family's own drop path, which draws from a global generator; ours follows the recipe."""
    vision = _vision(config)
    rate = getattr(vision, "drop_path_rate", None) or 0.0
    rates = list(rate) if isinstance(rate, list | tuple) else [rate]
    if any(rates):
        vision.drop_path_rate = [0.0] * len(rates) if isinstance(rate, list | tuple) else 0.0
        notes.append(f"drop path follows model.drop_path, not the checkpoint's drop_path_rate of {rate}")


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


# --- size --------------------------------------------------------------------------------------------------


def image_size_of(config: Any, processor: Any = None) -> tuple[int, int]:
    """Return the (height, width) of a model's input in pixels.

    The configuration says it, or the image processor for families that run at any size; 224 if neither does.
    """
    sizes = [_pair(getattr(_vision(config), "image_size", None)), _processed_size(processor)]
    if _runs_at_any_size(config):
        sizes.reverse()
    return next((size for size in sizes if size), (224, 224))


def _processed_size(processor: Any) -> tuple[int, int] | None:
    """Return the (height, width) that an image processor makes, None if it does not say."""
    for switch, name in (("do_center_crop", "crop_size"), ("do_pad", "pad_size"), ("do_resize", "size")):
        size = getattr(processor, name, None)
        if getattr(processor, switch, None) and size:
            size = dict(size)
            return _pair([size["height"], size["width"]] if size.get("height") else size.get("shortest_edge"))
    return None


def _pair(size: Any) -> tuple[int, int] | None:
    if isinstance(size, list | tuple) and len(size) >= 2:
        return int(size[-2]), int(size[-1])
    return (int(size), int(size)) if isinstance(size, int) else None


def _runs_at_any_size(config: Any) -> bool:
    family = families.family_of(config)
    return family is not None and family.any_size


def _settle_image_size(config: Any, own: tuple[int, int], recipe: ModelRecipe, notes: list[str]) -> tuple[int, int]:
    """Return the size to train at, and write it into ``config``; another than its own may need tables rewritten."""
    size = (recipe.image_size, recipe.image_size) if recipe.image_size else own
    if size != own and not _runs_at_any_size(config):
        _check_divisible(config, size[0])
        if recipe.init == "pretrained":
            raise ModelError(
                f"{recipe.checkpoint} was trained at {own[0]}x{own[1]}; its tables do not fit {size[0]}x{size[1]}",
                allowed=f"model.image_size: {own[0]} (changing a checkpoint's resolution is not in this version)",
                hint="leave model.image_size out",
            )
    vision = _vision(config)
    stored = getattr(vision, "image_size", None)
    if stored is not None and _pair(stored) != size:
        vision.image_size = size[0] if isinstance(stored, int) else list(size)
    if size != own:
        notes.append(f"image size {size[0]}x{size[1]} instead of the checkpoint's {own[0]}x{own[1]}")
    return size


def _check_divisible(config: Any, wanted: int) -> None:
    patch = _smallest_step(_vision(config))
    if wanted % patch:
        below = wanted // patch * patch
        near = " or ".join(str(size) for size in (below, below + patch) if size)
        raise ModelError(
            f"model.image_size: {wanted} is not divisible by the patch size {patch}",
            allowed=f"multiples of {patch}",
            hint=f"--set model.image_size={near}",
        )


def _smallest_step(config: Any) -> int:
    """Return what must divide an image's side: a patch's, or of a cell of the last stage's grid (PVT)."""
    patch, strides = getattr(config, "patch_size", None), getattr(config, "patch_sizes", None)
    return patch if isinstance(patch, int) else math.prod(strides or [1])


def _check_runs(model: Any, size: tuple[int, int]) -> None:
    """Try a changed size on one image."""
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size))
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        raise ModelError(
            f"model.image_size: {size[0]} does not suit a {model.config.model_type} model: {_one_line(error)}",
            hint="a multiple of 32 usually does",
        ) from error


# --- weights -----------------------------------------------------------------------------------------------


def _head_parameters(classifier: Any, config: Any) -> tuple[str, ...]:
    """Return the parameters that depend on the number of classes: two models of other sizes differ in them."""
    shapes = []
    for extra in (0, 1):
        sized = copy.deepcopy(config)
        sized.num_labels = config.num_labels + extra
        try:
            with torch.device("meta"):
                shapes.append({name: p.shape for name, p in classifier(sized).named_parameters()})
        except ImportError as error:
            raise _needs_package(config, error) from error
        except Exception as error:  # what each family makes of wrong values is its own affair
            raise ModelError(
                f"no {config.model_type} model can be built from this config.json: {_one_line(error)}"
            ) from error
    return tuple(name for name, shape in shapes[0].items() if shapes[1][name] != shape)


def _load_backbone(
    classifier: Any,
    config: Any,
    state: dict[str, Tensor],
    head: tuple[str, ...],
    recipe: ModelRecipe,
    notes: list[str],
) -> Any:
    """Load all but the head, and make sure that nothing else is new."""
    halves = {str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()} - {"float32"}
    if halves:
        notes.append(f"weights stored as {', '.join(sorted(halves))} are trained in float32")
    if hasattr(config, "vision_config") and not any(key.startswith("vision_model.") for key in state):
        state = {f"vision_model.{key}": tensor for key, tensor in state.items()}  # a tower saved alone
    backbone = {key: tensor for key, tensor in state.items() if key not in head}
    model, info = _from_state(classifier, config, backbone, recipe.checkpoint)

    heads = {name.split(".")[0] for name in head}
    new = [name for name in info["missing_keys"] if name.split(".")[0] not in heads]
    refused = [name for name in new if not _is_allowed(name, recipe.allow_new)]
    if refused:
        raise ModelError(
            f"{recipe.checkpoint} lacks weights that would be newly initialised: {_some(_spelled(model, refused))}",
            allowed="a checkpoint with every weight of its backbone; only the head may be new",
            hint=f"use a complete checkpoint, or --set 'model.allow_new=[{', '.join(sorted(refused)[:3])}]'",
        )
    if new:
        notes.append(f"newly initialised, as model.allow_new says: {_some(new)}")
    _check_surplus(model, info["unexpected_keys"], recipe.checkpoint, notes)
    kept = sum(p.numel() for name, p in model.named_parameters() if name not in info["missing_keys"])
    notes.append(f"{kept / 1e6:.2f} M parameters were kept from {recipe.checkpoint}")
    return model


def _from_state(classifier: Any, config: Any, state: dict[str, Tensor], named: str) -> tuple[Any, Any]:
    """Return a model in float32 with the tensors of ``state``, and transformers' report of what fitted."""
    try:
        model, info = classifier.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, dtype=torch.float32
        )
    except ImportError as error:
        raise _needs_package(config, error) from error
    except (RuntimeError, ValueError) as error:
        misfits = _some(_misfits(classifier, config, state)) or _one_line(error)
        raise ModelError(f"{named} does not fit its own config.json: {misfits}", hint="mend its config.json") from error
    return model, info


def _misfits(classifier: Any, config: Any, state: dict[str, Tensor]) -> list[str]:
    """Describe the tensors whose shape is not the one that the configuration asks for."""
    with torch.device("meta"):
        model = classifier(config)
    prefix = f"{model.base_model_prefix}."
    found = []
    for name, wanted in model.state_dict().items():
        spellings = {name, _in_file(model, name)}
        spellings |= {each.removeprefix(prefix) for each in spellings}
        found += [
            f"{key} is {tuple(state[key].shape)} in the file and {tuple(wanted.shape)} by the config"
            for key in spellings & state.keys()
            if state[key].shape != wanted.shape
        ]
    return found


def _needs_package(config: Any, error: ImportError) -> ModelError:
    return ModelError(f"a {config.model_type} model needs a package that is not here: {_one_line(error)}")


def _is_allowed(name: str, rules: Sequence[str]) -> bool:
    return any(name == rule or (rule.endswith("*") and name.startswith(rule[:-1])) for rule in rules)


def _spelled(model: Any, names: Iterable[str]) -> list[str]:
    """Name parameters as the file spells them, and as they are called in memory where transformers renamed them."""
    both = [(_in_file(model, name), name) for name in sorted(names)]
    return [name if in_file == name else f"{in_file} (in memory {name})" for in_file, name in both]


def _in_file(model: Any, name: str) -> str:
    """Return how a saved file spells a parameter's name."""
    from transformers.core_model_loading import revert_weight_conversion

    try:
        (in_file,) = revert_weight_conversion(model, {name: torch.empty(0)})
    except Exception:  # a tensor that is merged from several of the file cannot be named alone
        return name
    return str(in_file)


def _check_surplus(model: Any, unexpected: Iterable[str], named: str, notes: list[str]) -> None:
    """Refuse a checkpoint with more of the model's own parts than its config says; note parts of other kinds."""
    kinds = {re.sub(r"\d+", "#", name) for name in model.state_dict()}
    surplus = [key for key in unexpected if re.sub(r"\d+", "#", key) in kinds]
    if surplus:
        raise ModelError(
            f"{named} holds weights for which its config.json has no place: {_some(_spelled(model, surplus))}",
            hint="mend its config.json (number of layers, kinds of module)",
        )
    if unexpected:
        parts = sorted({".".join(key.split(".")[:2]) for key in unexpected})
        notes.append(f"weights of the checkpoint that a classifier does not use: {_some(parts)}")


def _zero(model: nn.Module, head: tuple[str, ...]) -> None:
    """Zero the layer that makes the logits (ViT, arXiv:2010.11929, appendix B.1.1)."""
    with torch.no_grad():
        for name in head:
            model.get_parameter(name).zero_()


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more

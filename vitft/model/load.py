"""A pretrained checkpoint with a new head, and a report of what was kept and what is new.

Only the head, and what the recipe's ``model.allow_new`` names, may be newly initialised. Everything else must
come from the checkpoint, or loading stops and lists what did not.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from vitft.builtin import checkpoint_path
from vitft.errors import ModelError
from vitft.model import families
from vitft.model.processor import Fit, fit_processor, load_processor
from vitft.names import explain_hub_error
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
        head: names of the head's parameters.
        notes: what is new, what was left, what was decided.
    """

    model: Any
    processor: Any
    id: str
    revision: str | None
    image_size: tuple[int, int]
    head: tuple[str, ...]
    notes: list[str] = field(default_factory=list)


def load_for_training(recipe: ModelRecipe, classes: Sequence[str], fit: Fit) -> Pretrained:
    """Load a checkpoint and give it a new head.

    Raises:
        ModelError: if it is no image classifier's or encoder's checkpoint, cannot be read safely, misses
            weights, or has another size than the recipe asks for.
    """
    folder, revision = locate(recipe.checkpoint, recipe.revision)
    config = read_config(folder, recipe.checkpoint)
    notes: list[str] = []
    _set_classes(config, classes)
    image_size = _image_size(config, recipe, notes)
    classifier = _classifier_class(config)
    head = _head_parameters(classifier, config)
    if recipe.init == "random":
        torch.manual_seed(0)  # the one place where torch's generator makes weights; the seed is fixed, not the run's
        model = classifier(config)
        notes.append(f"all weights are random: model.init: random takes only the architecture of {recipe.checkpoint}")
    else:
        state, reading_note = read_weights(folder, recipe.checkpoint)
        notes += [reading_note] if reading_note else []
        model = _load_backbone(classifier, config, state, head, recipe, notes)
    _zero_last_layer(model, head)
    notes.append(f"new head: {', '.join(head)} for {len(classes)} classes, zero-initialised")
    base_processor, note = load_processor(folder)
    notes += [note] if note else []
    processor = fit_processor(base_processor, image_size, fit)
    return Pretrained(model, processor, recipe.checkpoint, revision, image_size, head, notes)


def load_finished(folder: Path, named: str) -> tuple[Any, Any]:
    """Load a fine-tuned model as it is: every weight must be there. Returns (model, processor)."""
    config = read_config(folder, named)
    classifier = _classifier_class(config)
    state, _ = read_weights(folder, named)
    model, info = classifier.from_pretrained(
        None, config=config, state_dict=state, output_loading_info=True, dtype=torch.float32
    )
    problems = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    if problems:
        raise ModelError(
            f"{named} lacks weights of its own architecture: {_some(problems)}",
            hint=f"fine-tune it first: vitft finetune --model {named} --dataset ...",
        )
    processor, _ = load_processor(folder)
    return model.eval(), processor


# --- finding and reading -----------------------------------------------------------------------------------


def locate(checkpoint: str, revision: str | None = None) -> tuple[Path, str | None]:
    """Return the local folder of a checkpoint, downloading what is needed of a Hub one, and its commit."""
    if checkpoint == MICRO:
        return checkpoint_path(), None
    if checkpoint.startswith("builtin:"):
        raise ModelError(f"there is no {checkpoint}", allowed=MICRO, hint=f"--model {MICRO}")
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
            return folder / "model", None  # a run directory stands for its model
        return folder, None
    if folder.is_file() or checkpoint.startswith((".", "/", "~")):
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
        names = [sibling.rfilename for sibling in info.siblings or [] if "/" not in sibling.rfilename]
        weights = [name for name in names if name.endswith(".safetensors")] or [n for n in names if n.endswith(".bin")]
        wanted = [name for name in names if name.endswith(".json")] + weights
        return Path(snapshot_download(repo, revision=info.sha, allow_patterns=wanted)), info.sha
    except Exception as error:
        raise explain_hub_error(error, repo, kind="model", revision=revision) from error


def read_config(folder: Path, named: str) -> Any:
    """Read config.json and make sure that transformers has an image-classification class for it."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{named} has no config.json, so it is no transformers checkpoint",
            hint="--model FOLDER or OWNER/NAME",
        )
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, KeyError, OSError) as error:
        raise ModelError(f"the config.json of {named} cannot be used: {' '.join(str(error).split())[:300]}") from error
    return _as_classifier_config(config, named)


def read_weights(folder: Path, named: str) -> tuple[dict[str, Tensor], str | None]:
    """Read all tensors of a checkpoint without running code from it.

    Returns:
        The state dict, and a note if it came from a ``.bin`` file.
    """
    names = sorted(folder.glob("*.safetensors"))
    try:
        if names:
            state: dict[str, Tensor] = {}
            for path in _of_index(folder, "model.safetensors", names):
                state.update(load_file(path))
            return state, None
        names = sorted(folder.glob("*.bin"))
        if not names:
            raise ModelError(
                f"{named} has no weights",
                allowed="model.safetensors, pytorch_model.bin, or their sharded forms",
                hint="--set model.init=random trains its architecture from random weights",
            )
        state = {}
        for path in _of_index(folder, "pytorch_model.bin", names):
            state.update(torch.load(path, map_location="cpu", weights_only=True))
    except SafetensorError as error:
        raise ModelError(f"the weights of {named} are damaged: {error}", hint="download or copy them again") from error
    except (RuntimeError, EOFError, OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"the weights of {named} cannot be read: {' '.join(str(error).split())[:300]}") from error
    except Exception as error:
        # pickle.UnpicklingError, and whatever a hostile pickle provokes, without importing pickle for its name.
        raise ModelError(
            f"the weights of {named} are a pickle that wants to run code; vitft does not let it",
            allowed="safetensors, or a .bin that holds tensors only",
            hint="ask its author for model.safetensors",
        ) from error
    return (
        state,
        f"weights were read from {', '.join(path.name for path in names)} (tensors only, no code run)",
    )


def _of_index(folder: Path, single: str, found: list[Path]) -> list[Path]:
    """Return the files that make up the checkpoint when a folder holds several."""
    if (folder / single).is_file():
        return [folder / single]
    stem, suffix = single.split(".", 1)
    shards = [path for path in found if re.fullmatch(rf"{stem}-\d+-of-\d+\.{suffix}", path.name)]
    if shards:
        expected = int(re.split(r"-of-|\.", shards[0].name)[1])
        if len(shards) != expected:
            raise ModelError(
                f"{folder} holds {len(shards)} of {expected} shards of its weights",
                hint="copy the others too",
            )
        return shards
    return found[:1]


# --- configuration -----------------------------------------------------------------------------------------


def _as_classifier_config(config: Any, named: str) -> Any:
    from transformers import AutoModelForImageClassification, ViTConfig

    if config.model_type == "vit_mae":
        # The encoder of MAE is a ViT: same modules, same names; its fixed position table is a tensor of the file.
        shared = {key: value for key, value in config.to_dict().items() if key in ViTConfig().to_dict()}
        return ViTConfig(**{**shared, "model_type": "vit", "architectures": ["ViTForImageClassification"]})
    if type(config) not in AutoModelForImageClassification._model_mapping:
        reason = families.NOT_CLASSIFIERS.get(
            config.model_type, "transformers has no image-classification class for it"
        )
        raise ModelError(
            f"{named} is a {config.model_type!r} model: {reason}",
            allowed="any checkpoint of a vision encoder: " + ", ".join(sorted(families.FAMILIES)) + ", ...",
        )
    return config


def _classifier_class(config: Any) -> Any:
    """Return the family's class; the plain one where it has a distilled one too (DeiT, LeViT)."""
    from transformers import AutoModelForImageClassification

    found = AutoModelForImageClassification._model_mapping[type(config)]
    return found[0] if isinstance(found, tuple) else found


def _set_classes(config: Any, classes: Sequence[str]) -> None:
    config.num_labels = len(classes)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: number for number, name in enumerate(classes)}
    config.problem_type = "single_label_classification"


def _vision(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def image_size_of(config: Any, processor: Any = None) -> tuple[int, int]:
    """Return the (height, width) that a configuration says; a family without one has it in the processor only."""
    size = getattr(_vision(config), "image_size", None)
    if size is None and processor is not None:
        made = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
        size = (made["height"], made["width"]) if made.get("height") else made.get("shortest_edge")
    height, width = (size, size) if isinstance(size, int) else tuple(size or (224, 224))[-2:]
    return int(height), int(width)


def patch_size_of(config: Any) -> int | None:
    """Return the side of a patch, None where the family has no single one."""
    patch = getattr(_vision(config), "patch_size", None)
    return patch if isinstance(patch, int) else None


def _image_size(config: Any, recipe: ModelRecipe, notes: list[str]) -> tuple[int, int]:
    """Settle the size of the model's input; changing a pretrained one needs its tables rewritten."""
    own = image_size_of(config)
    wanted = recipe.image_size
    if wanted is None or (wanted, wanted) == own:
        return own
    patch = patch_size_of(config)
    if patch and wanted % patch:
        below = wanted // patch * patch
        near = " or ".join(str(size) for size in (below, below + patch) if size)
        raise ModelError(
            f"model.image_size: {wanted} is not divisible by the patch size {patch}",
            allowed=f"multiples of {patch}",
            hint=f"model.image_size: {near}",
        )
    vision = _vision(config)
    convolutional = getattr(vision, "image_size", None) is None
    if recipe.init == "pretrained" and not convolutional:
        raise ModelError(
            f"{recipe.checkpoint} was trained at {own[0]}x{own[1]}; its position table does not fit {wanted}x{wanted}",
            allowed=f"model.image_size: {own[0]} (changing a checkpoint's resolution is not in this version)",
            hint="leave model.image_size out",
        )
    if not convolutional:
        vision.image_size = wanted
    notes.append(f"image size {wanted} instead of the checkpoint's {own[0]}")
    return wanted, wanted


# --- weights -----------------------------------------------------------------------------------------------


def _head_parameters(classifier: Any, config: Any) -> tuple[str, ...]:
    """Return the parameters that depend on the number of classes: two models of other sizes differ in them."""
    with torch.device("meta"):
        shapes = []
        for extra in (0, 1):
            sized = copy.deepcopy(config)
            sized.num_labels = len(config.id2label) + extra
            shapes.append({name: tuple(p.shape) for name, p in classifier(sized).named_parameters()})
    return tuple(name for name, shape in shapes[0].items() if shapes[1][name] != shape)


def _load_backbone(
    classifier: Any,
    config: Any,
    state: dict[str, Tensor],
    head: tuple[str, ...],
    recipe: ModelRecipe,
    notes: list[str],
) -> Any:
    modules = {name.split(".")[0] for name in head} | {
        "cls_classifier",
        "distillation_classifier",
        "classifier",
    }
    left = [key for key in state if key.split(".")[0] in modules]
    halves = sorted(
        {str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()} - {"float32"}
    )
    if halves:
        notes.append(f"weights stored as {', '.join(halves)} are trained in float32")
    backbone = {key: tensor for key, tensor in state.items() if key not in set(left)}
    try:
        model, info = classifier.from_pretrained(
            None, config=config, state_dict=backbone, output_loading_info=True, dtype=torch.float32
        )
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{recipe.checkpoint} does not fit its own config.json: {str(error).strip()[:600]}") from error
    _check_loaded(model, info, modules, recipe, notes)
    return model


def _check_loaded(model: Any, info: Any, head_modules: set[str], recipe: ModelRecipe, notes: list[str]) -> None:
    def allowed(name: str) -> bool:
        return name.split(".")[0] in head_modules or any(
            name == rule or (rule.endswith("*") and name.startswith(rule[:-1])) for rule in recipe.allow_new
        )

    missing = sorted(name for name in info["missing_keys"] if not allowed(name))
    mismatched = sorted(
        f"{key}: {tuple(a)} in the file, {tuple(b)} in the model" for key, a, b in info["mismatched_keys"]
    )
    if missing or mismatched:
        raise ModelError(
            f"{recipe.checkpoint} lacks weights that would be newly initialised: {_some([*missing, *mismatched])}",
            allowed="a checkpoint with every weight of its backbone; only the head may be new",
            hint="use a complete checkpoint, or name them: "
            f"--set 'model.allow_new=[{', '.join(missing[:3]) or '...'}]'",
        )
    new = sorted(name for name in info["missing_keys"] if allowed(name) and name.split(".")[0] not in head_modules)
    if new:
        notes.append(f"newly initialised, as model.allow_new says: {_some(new)}")
    kinds = {re.sub(r"\d+", "#", name) for name in model.state_dict()}
    surplus = [key for key in info["unexpected_keys"] if re.sub(r"\d+", "#", key) in kinds]
    if surplus:
        raise ModelError(
            f"{recipe.checkpoint} holds weights for which its config.json has no place: {_some(sorted(surplus))}",
            hint="mend its config.json (number of layers, classes of module)",
        )
    if info["unexpected_keys"]:
        prefixes = sorted({".".join(key.split(".")[:2]) for key in info["unexpected_keys"]})
        notes.append(f"weights of the checkpoint that a classifier does not use: {_some(prefixes)}")


def _zero_last_layer(model: nn.Module, head: tuple[str, ...]) -> None:
    """Zero the layer that makes the logits (ViT, arXiv:2010.11929, appendix B.1.1)."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in head:
            parameters[name].zero_()


def _some(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

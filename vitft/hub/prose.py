"""Write the sentences of the model card: how the model was trained, and on which images."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vitft.outside import printable
from vitft.quantities import count_text, duration_text, speed_text
from vitft.recipe.recipe import Recipe


def as_text(value: object) -> str:
    """Escape a value so that Markdown shows it as it is, also in a table."""
    text = html.escape(printable(" ".join(str(value).split())), quote=False)
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)


def hardware_text(environment: Mapping[str, Any]) -> str:
    """Return the GPUs or CPU cores of a run."""
    gpus = environment.get("gpus") or []
    return f"{len(gpus)} x {gpus[0]}" if gpus else f"{environment.get('cpu_count', '?')} CPU cores"


def training_text(facts: Mapping[str, Any]) -> str:
    """Return a paragraph on training: where it started, what was trained, for how long, and which weights were kept."""
    recipe: Recipe = facts["recipe"]
    results = facts["results"]
    model, num_classes = facts["environment"].get("model", {}), len(facts["classes"])
    sentences = [_start(facts, model, num_classes), _trained(recipe.model.train, model)]
    if recipe.train.head_first:
        sentences.append("The head was first fitted to features of the training images.")
    if results.get("train"):
        sentences += [_features(results["train"]), _balance(recipe)]
        sentences += [_length(results["train"], facts["environment"]), _weights(str(results.get("weights")), recipe)]
    return " ".join(filter(None, sentences))


def data_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield facts about the images that readers should know, one per line."""
    recipe: Recipe = facts["recipe"]
    dataset = facts["dataset"]
    rows, names = dataset.get("rows", {}), dataset.get("splits", {})
    verbs = {"train": "trained", "validation": "validated", "test": "tested"}
    parts = [f"{verbs[split]} on {_images(count)}" for split, count in rows.items() if split in verbs]
    if parts:
        yield f"The model was {', '.join(parts[:-1])}{' and ' if parts[1:] else ''}{parts[-1]}."
    if "validation" in rows and names.get("train") and names.get("validation") == names["train"]:
        name = as_text(names["train"])
        yield (
            f"The validation images were set aside from the split {name}, in proportion to the classes "
            f"(seed {recipe.train.seed}), because the dataset has no validation split."
        )
    if recipe.data.max_train_samples is not None:
        yield f"Training used only {_images(rows.get('train'))} (`data.max_train_samples`)."
    columns = facts["columns"]
    labels = as_text(columns["labels"]) if columns.get("labels") else ""
    if columns.get("images"):
        yield f"Columns: images in {as_text(columns['images'])}{f', labels in {labels}' if labels else ''}."
    elif labels:
        yield f"Labels: {labels}."
    if dataset.get("notes") or facts["environment"].get("model", {}).get("notes"):
        yield "`environment.json` lists every choice that was made while reading the data and the base model."


def _images(count: int | None) -> str:
    if count is None:
        return "a stream of images"
    return f"{count:,} image{'s' * (count != 1)}"


def _start(facts: Mapping[str, Any], model: Mapping[str, Any], num_classes: int) -> str:
    base = as_text(facts["base_name"])
    if facts["is_scratch"]:
        return f"All weights started at random values; only the architecture is that of {base}."
    if "kept_classes" not in model:
        return ""
    kept = model["kept_classes"]
    if not kept:
        return f"The head was new and started at zero; all other weights come from {base}."
    if kept == num_classes:
        return f"All weights come from {base}, which already knew these classes."
    return f"The weights come from {base}. Its head knew {kept} of the classes, and the rest of the head was new."


_BALANCE = {
    "weights": "rare classes weighed more in the loss, in proportion to 1 / their number of images",
    "sqrt-weights": "rare classes weighed more in the loss, in proportion to 1 / the root of their number of images",
    "sampling": "all classes were shown equally often",
    "sqrt-sampling": "classes were shown in proportion to the root of their number of images",
    "logit-adjustment": "the loss added the logarithm of each class's share to its logit (arXiv:2007.07314)",
}


def _balance(recipe: Recipe) -> str:
    how = _BALANCE.get(recipe.train.imbalance)
    return f"The training classes differ in size, so {how}." if how else ""


_TRAINED = {
    "attention": "The head and the attention of every block were trained",
    "norms-and-biases": "The head, all normalisation layers and all biases were trained",
    "all-but-embedding": "Everything but the patch embedding, positions and tokens was trained",
    "lora": "The head and LoRA adapters were trained, which are merged into the weights",
    "dora": "The head and DoRA adapters were trained, which are merged into the weights",
}


def _trained(what: str, model: Mapping[str, Any]) -> str:
    if "trained_parameters" not in model:
        return ""
    trained, total = model["trained_parameters"], model["parameters"]
    count = f"{count_text(trained)} of {count_text(total)} parameters"
    if what == "head":
        return f"Only the head was trained: {count}."
    if what.startswith("last:"):
        return f"The head and the last {what.removeprefix('last:')} blocks were trained: {count}."
    if what in _TRAINED:
        return f"{_TRAINED[what]}: {count}."
    return f"All {count_text(total)} parameters were trained." if trained == total else f"{count} were trained."


def _features(train: Mapping[str, Any]) -> str:
    if not train.get("features"):
        return ""
    return f"It learnt from features that the frozen backbone computed once from {as_text(train['features'])}."


def _length(train: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    steps = f"Training took {train['steps']:,} steps"
    if train.get("batch_size"):
        steps += f" of {train['batch_size']:,} images"
    if train.get("images"):
        passes = train["samples"] / train["images"]
        steps += f", {'once' if passes == 1 else f'{passes:.3g} times'} over {train['images']:,} images"
    time = f"{duration_text(train['seconds'])} on {as_text(hardware_text(environment))}"
    return f"{steps}, and {time} ({speed_text(train['images_per_second'])} images per second)."


def _weights(which: str, recipe: Recipe) -> str:
    kind = "moving averages as" if recipe.optim.ema_decay else "those"
    best = re.fullmatch(r"best \(step (\d+)\)", which)
    place = f"step {best[1]}, which scored best on the validation images" if best else "the last step"
    return f"The weights are {kind} of {place}."

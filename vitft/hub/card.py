"""Write the model card, the README.md of a run's model, from the files of the run, with nothing left to edit."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from vitft.errors import ModelError
from vitft.files import at_home
from vitft.hub.bundle import CONFUSION, FIGURES, local_inputs, read_environment, shortener, without_paths
from vitft.hub.prose import as_text, data_lines, training_text
from vitft.names import last_part, slug
from vitft.recipe.recipe import Recipe
from vitft.run import Run
from vitft.scoring.calibration_file import read_calibration
from vitft.scoring.evidence import wilson
from vitft.scoring.per_class import class_scores, worst_first

_SHOWN_CLASSES, _WORST_CLASSES = 50, 10
_SPLITS = ("test", "validation")


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        text: the whole README.md.
        headline: the model and its best score in one line.
        notes: what the card lacks, and how to add it.
    """

    text: str
    headline: str
    notes: tuple[str, ...] = ()


def write_card(folder: Path, model: Path, repo: str | None = None, license: str | None = None) -> Card:
    """Return the model card of a run.

    Args:
        folder: the run directory, finished or not.
        model: the run's transformers folder.
        repo: ``OWNER/NAME`` on the Hub; None for a model that stays local.
        license: as the Hub spells it; by default the base model's.
    """
    facts = _facts(folder, model, repo, license)
    metadata = _metadata(facts)
    notes = []
    if "license" not in metadata:
        notes.append(
            f"licence: none is known for {facts['base_name']}, so the card names none; set one with "
            "--set hub.license=apache-2.0 (or another), or: vitft push RUN --license apache-2.0"
        )
    return Card(_render(metadata, facts), _headline(facts), tuple(notes))


def minimal_card(repo: str) -> str:
    """Return a card that any Hub accepts, for a model whose own card could not be written."""
    lines = ["---", "library_name: transformers", "pipeline_tag: image-classification", "tags:", "- vitft", "---", ""]
    return "\n".join([*lines, f"# {repo.split('/')[-1]}", "", "An image classifier, fine-tuned with vitft.", ""])


# --- facts of the run --------------------------------------------------------------------------------------


def _facts(folder: Path, model: Path, repo: str | None, license: str | None) -> dict[str, Any]:
    """Collect the facts for the card from the files of the run."""
    recipe = Recipe.load(folder / "recipe.yaml")
    environment = read_environment(folder)
    local = local_inputs(recipe, environment)
    shorten = shortener(folder)
    config = _read_json(model / "config.json")
    results = Run(folder).results() or {}
    events = Run(folder).events()
    progress = [event for event in events if event["event"] == "validation"]
    processor = _read_json(model / "preprocessor_config.json")
    base = environment.get("model", {})
    dataset = environment.get("dataset", {})
    return {
        "name": (repo or folder.resolve().name).split("/")[-1],
        "model_name": repo or "path/to/this/folder",
        "recipe": recipe,
        "environment": environment,
        "results": results,
        "progress": progress[-1] if progress and not results else None,
        "family": config.get("model_type", "image classifier"),
        "parameters": _count_parameters(model),
        "image_size": _size_of(results, config, processor),
        "classes": [label for _, label in sorted(config.get("id2label", {}).items(), key=lambda item: int(item[0]))],
        "base_name": _shown(recipe.model.checkpoint, is_path="model.checkpoint" in local),
        "base_is_local": "model.checkpoint" in local or recipe.model.checkpoint.startswith("builtin:"),
        "is_scratch": recipe.model.init == "random",
        "base": None if recipe.model.init == "random" else base.get("base"),
        "base_revision": base.get("revision"),
        "license": _licence(license, recipe, base),
        "dataset": dataset,
        "dataset_name": _dataset_name(recipe, dataset, is_path="data.dataset" in local),
        "dataset_is_local": "data.dataset" in local or str(recipe.data.dataset).startswith("builtin:"),
        "changes": list(_changes(recipe, local)),
        "columns": _columns(recipe, dataset),
        "calibration": _calibration(model),
        "has_confusion": (model / CONFUSION).is_file(),
        # Shortened before Markdown escapes turn ``my_photos`` into ``my\\_photos``, which no longer looks like a path.
        "unscored": {name: shorten(reason) for name, reason in results.get("unscored", {}).items()},
        "figures_at": "figures" if repo else "../figures",  # on the Hub the model is in the top folder
        "figures": sorted(p.name for p in (folder / "figures").glob("*") if p.suffix in FIGURES),
        "is_local": bool(local),
        "scores": [_score_row(name, results[name], dataset) for name in _SPLITS if name in results],
    }


def _calibration(model: Path) -> dict[str, Any] | None:
    """Return what ``calibration.json`` says of a model; None without one, or with one that is damaged."""
    try:
        found = read_calibration(model)
        if found is None:
            return None
        return {
            "temperature": float(found["temperature"]),
            "fitted_on": {key: found["fitted_on"][key] for key in ("split", "count")},
            "scored_on": {key: found["scored_on"][key] for key in ("dataset", "split", "count")},
            **{when: {name: float(found[when][name]) for name in ("nll", "ece")} for when in ("before", "after")},
        }
    except (ModelError, KeyError, TypeError, ValueError):  # edited by hand; the card can do without it
        return None


def _columns(recipe: Recipe, dataset: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of images and labels, as far as they are known."""
    found = {
        "images": dataset.get("image_column") or recipe.data.image_column,
        "labels": dataset.get("label_column") or recipe.data.label_column or dataset.get("labels_from"),
    }
    return {what: name for what, name in found.items() if name}


def _licence(said: str | None, recipe: Recipe, base: Mapping[str, Any]) -> dict[str, str]:
    """Return the licence as metadata: the given one, or else the base model's; random weights inherit none."""
    if said:
        return {"license": said}
    return {} if recipe.model.init == "random" else dict(base.get("license") or {})


def _metadata(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of the card, without nulls and without links to local datasets.

    Raises:
        ValueError: from huggingface_hub, if it does not accept the metadata.
    """
    from huggingface_hub import EvalResult, ModelCardData

    dataset, is_local_dataset = facts["dataset"], facts["dataset_is_local"]
    config = facts["recipe"].data.config
    results = []
    for row in facts["scores"]:
        place: dict[str, Any] = {
            "task_type": "image-classification",
            "task_name": "Image classification",
            "dataset_type": "imagefolder" if is_local_dataset else facts["dataset_name"],
            "dataset_name": facts["dataset_name"],
            "dataset_split": row["source_split"],
        }
        if config:
            place["dataset_config"] = config
        if dataset.get("revision") and not is_local_dataset:
            place["dataset_revision"] = dataset["revision"]
        results += [
            EvalResult(metric_type=kind, metric_name=name + row["which"], metric_value=row[key], **place)
            for kind, name, key in _METRICS
            if row.get(key) is not None
        ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-classification",
        base_model=facts["base"],
        base_model_relation="finetune" if facts["base"] else None,
        datasets=None if is_local_dataset else [facts["dataset_name"]],
        metrics=["accuracy"],
        tags=["vision", "image-classification", facts["family"], "vitft"],
        model_name=facts["name"],
        eval_results=results or None,
        **facts["license"],
    )
    if not results:
        data.model_name = None
    metadata: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    return {key: value for key, value in metadata.items() if value is not None}


_METRICS = (
    ("accuracy", "Top-1 accuracy", "top1"),
    ("top_5_accuracy", "Top-5 accuracy", "top5"),
    ("f1", "Macro F1", "macro_f1"),
)


def _score_row(split: str, scores: Mapping[str, Any], dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of a split, with the dataset's own name of the split that its images come from."""
    low, high = wilson(scores["top1"], scores["count"])
    names = dataset.get("splits", {})
    source = names.get(split) or split
    which = f" (images set aside from {source})" if source == names.get("train") else ""
    keys = ("top1", "top5", "macro_f1", "nll", "count")
    row = {"split": split, "source_split": source, "which": which, "low": low, "high": high}
    return row | {key: scores.get(key) for key in keys}


def _headline(facts: Mapping[str, Any]) -> str:
    how = "trained from random weights" if facts["is_scratch"] else "fine-tuned"
    subject = f"{facts['base_name']} {how} on {facts['dataset_name']}"
    if not facts["scores"]:
        return subject
    first = facts["scores"][0]
    return f"{subject}, {first['split']} top-1 {100 * first['top1']:.2f} % of {first['count']:,}"


def _count_parameters(model: Path) -> int:
    """Count the parameters, from the headers of the weight files."""
    total = 0
    for path in model.glob("model*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for side in tensor["shape"]:
                    size *= side
                total += size
    return total


def _size_of(results: Mapping[str, Any], config: Mapping[str, Any], processor: Mapping[str, Any]) -> str:
    """Return the model's input size as height x width."""
    resized = (results.get("resize") or {}).get("image_size")
    size = resized["after"] if resized else processor.get("crop_size") or processor.get("size")
    size = size or config.get("image_size")
    if isinstance(size, dict):
        size = [size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge"))]
    height, width = size if isinstance(size, list | tuple) else (size, size)
    return f"{height} x {width}"


def _dataset_name(recipe: Recipe, dataset: Mapping[str, Any], *, is_path: bool) -> str:
    named = str(recipe.data.dataset)
    if named.startswith("builtin:"):
        return named.removeprefix("builtin:")
    return slug(named) if is_path else str(dataset.get("id", named))


def _shown(named: str, *, is_path: bool) -> str:
    return last_part(str(at_home(named).resolve())) if is_path else named


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# --- the page ----------------------------------------------------------------------------------------------


def _render(metadata: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    import jinja2
    import yaml

    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters |= {"text": as_text, "percent": lambda value: f"{100 * value:.2f} %", "shell": shlex.join}
    template = environment.from_string(resources.files("vitft.hub").joinpath("card.md.jinja").read_text("utf-8"))
    header = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True, width=1000)
    body = template.render(
        **facts,
        shown_classes=facts["classes"][:_SHOWN_CLASSES],
        class_table=_class_table(facts),
        resize_lines=list(_resize_lines(facts["results"])),
        training=training_text(facts),
        data_lines=list(data_lines(facts)),
        link=_link(facts),
    )
    return f"---\n{header}---\n\n{body}"


def _class_table(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the scores of each class on the test split, or else on validation; of many classes only the worst."""
    results = facts["results"]
    split = next((name for name in _SPLITS if results.get(name, {}).get("per_class", {}).get("class")), None)
    if split is None:
        return None
    rows = class_scores(results[split]["per_class"])
    is_whole = len(rows) <= _SHOWN_CLASSES
    return {"split": split, "is_whole": is_whole, "rows": rows if is_whole else worst_first(rows)[:_WORST_CLASSES]}


def _link(facts: Mapping[str, Any]) -> Callable[[str], str]:
    """Return a function that links names of Hub models and datasets, and leaves local names as they are."""

    def link(kind: str) -> str:
        name = facts["base_name"] if kind == "model" else facts["dataset_name"]
        if facts["base_is_local" if kind == "model" else "dataset_is_local"]:
            return as_text(name)
        return f"[{as_text(name)}](https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{name})"

    return link


def _changes(recipe: Recipe, local: Set[str]) -> Iterator[tuple[str, str]]:
    """Yield the keys and values of a recipe that differ from the defaults."""
    defaults = Recipe().flat()
    for key, value in recipe.flat().items():
        if value != defaults[key] and not key.startswith(("hub.", "run.")):
            if key in local:
                value = _shown(str(value), is_path=True)
            if key == "model.candidates":
                value = without_paths(recipe.model.candidates)
            yield key, json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value


def _resize_lines(results: Mapping[str, Any]) -> Iterator[str]:
    resize = results.get("resize")
    if not resize:
        return
    before, after = (" x ".join(map(str, resize["image_size"][when])) for when in ("before", "after"))
    yield f"from {before} to {after} pixels (height x width)"
    for tensor in resize["tensors"]:
        yield f"`{tensor['name']}`: {tensor['kind']} {tensor['old']} to {tensor['new']}, {tensor['method']}"

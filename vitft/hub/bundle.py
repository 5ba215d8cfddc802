"""Collect the files of a run to push, without traces of the machine and user that made it."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

from vitft.errors import HubError
from vitft.files import at_home, exists
from vitft.names import looks_like_path
from vitft.recipe.keys import HubRecipe
from vitft.recipe.recipe import Recipe
from vitft.run import Run

Bundle = dict[str, Path | bytes]
"""Files by their path in the repository, each as a local path or as content."""

MODEL = re.compile(
    r"model[\w.\-]*\.safetensors(?:\.index\.json)?|(?:config|preprocessor_config|processor_config)\.json"
    r"|calibration\.json|confusion\.png|recipe\.yaml|results\.json|environment\.json|README\.md|figures/.+"
    r"|adapter/(?:adapter_config|preprocessor_config)\.json|adapter/adapter_model\.safetensors"
)
"""Paths in a repository that belong to a model."""
TRAINING = re.compile(r"training/.+")
"""Paths in a repository that belong to a checkpoint."""

CONFUSION = "confusion.png"
"""The figure of a model's confusions, beside its card."""
FIGURES = (".png", ".svg")
"""The figures of a run that are pushed."""
_TEXT = (".json", ".jsonl", ".yaml", ".md", ".svg", ".csv")
_PART = r"[^\s\"'`:;,()\[\]{}<>|/\\]"
_ABSOLUTE = re.compile(rf"(?<![\w:/.~<@>])(?:(?:~[/\\]|[A-Za-z]:\\)(?:{_PART}+[/\\])*|/(?:{_PART}+/)+){_PART}*")
_CHUNK = 1 << 24


def collect(folder: Path, model: Path, card: str) -> Bundle:
    """Collect the files of a run to push.

    Args:
        folder: of the run.
        model: the transformers folder, whose files go to the top level.
        card: the model card, which has no local paths.
    """
    shorten = shortener(folder)
    bundle: Bundle = {
        path.name: path
        for path in sorted(model.iterdir())
        if path.suffix in (".json", ".safetensors") or path.name == CONFUSION
    }
    bundle["README.md"] = card.encode()
    bundle["recipe.yaml"] = _public_recipe(folder).dump().encode()
    if (folder / "results.json").is_file():
        bundle["results.json"] = _shortened_json((folder / "results.json").read_text(encoding="utf-8"), shorten)
    if read_environment(folder):
        bundle["environment.json"] = _public_environment(folder, shorten)
    for path in sorted((folder / "adapter").glob("*")):
        content = path if path.suffix != ".json" else _shortened_json(path.read_text(encoding="utf-8"), shorten)
        bundle[f"adapter/{path.name}"] = content
    for path in sorted((folder / "figures").glob("*")):
        if path.suffix in FIGURES:
            bundle[f"figures/{path.name}"] = path
    return bundle


def collect_training(folder: Path, checkpoint: Path) -> Bundle:
    """Collect a resumable checkpoint as a run directory below ``training/``.

    ``hf download REPO --include 'training/*' --local-dir X`` and ``vitft finetune --resume X/training`` resume it.
    """
    shorten = shortener(folder)
    place = f"training/checkpoints/{checkpoint.name}"
    bundle: Bundle = {f"{place}/{path.name}": path for path in sorted(checkpoint.iterdir())}
    state = _shortened_json((checkpoint / "state.json").read_text(encoding="utf-8"), shorten)
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    manifest["state.json"] = {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}  # as checkpoint.py
    bundle[f"{place}/state.json"] = state
    bundle[f"{place}/manifest.json"] = json.dumps(manifest, indent=2).encode()
    bundle["training/recipe.yaml"] = _public_recipe(folder).dump().encode()
    bundle["training/environment.json"] = _public_environment(folder, shorten)
    metrics = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    bundle["training/metrics.jsonl"] = shorten(metrics).encode()
    return bundle


def shortener(folder: Path) -> Callable[[str], str]:
    """Return a function that shortens local paths in a text to their last part.

    Paths below the run's own dataset, checkpoint or output folder keep what follows the last part of these, so that
    names stay distinct.
    """
    recipe = Recipe.load(folder / "recipe.yaml")
    environment = read_environment(folder)
    inputs = local_inputs(recipe, environment)
    roots = {str(folder), str(folder.resolve())}
    local = [str(recipe.flat()[key]) for key in inputs]
    others = (recipe.run.output_dir, *recipe.run.metrics, *recipe.model.candidates)
    local += [name for name in others if is_local(name)]
    if "data.dataset" in inputs and "id" in environment.get("dataset", {}):
        local.append(environment["dataset"]["id"])  # absolute, from wherever training ran
    for named in local:
        path = at_home(named)
        roots |= {named.rstrip("/"), str(path), str(path.absolute()), str(path.resolve())}
    roots = {root for root in roots if len(Path(root).parts) > 1}
    known = "|".join(re.escape(root) for root in sorted(roots, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w/.~-])(?:{known})(?![\w.-])") if known else None

    def shorten(text: str) -> str:
        if pattern is not None:
            text = pattern.sub(lambda match: Path(match[0]).name, text)
        return _ABSOLUTE.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)

    return shorten


def is_local(name: str) -> bool:
    """Return whether the name of a dataset, model or metric is a path on this machine."""
    return not name.startswith("builtin:") and (looks_like_path(name) or exists(at_home(name)))


def without_paths(names: Iterable[str]) -> tuple[str, ...]:
    """Return names with those that are paths cut to their last part."""
    return tuple(Path(name).name if is_local(name) else name for name in names)


def local_inputs(recipe: Recipe, environment: Mapping[str, Any]) -> set[str]:
    """Return which of ``data.dataset`` and ``model.checkpoint`` are paths on the machine that trained.

    The run recorded this, because ``data/photos`` looks like a Hub id from any other folder.

    Args:
        recipe: of the run.
        environment: the content of its ``environment.json``.
    """
    dataset, model = environment.get("dataset", {}), environment.get("model", {})
    found = set()
    named = str(recipe.data.dataset)
    if not dataset.get("revision") and (Path(dataset.get("id", "")).is_absolute() or is_local(named)):
        found.add("data.dataset")
    named = recipe.model.checkpoint
    is_on_hub = model["revision"] is not None if "revision" in model else not is_local(named)
    if not is_on_hub and not named.startswith("builtin:"):
        found.add("model.checkpoint")
    return found


def read_environment(folder: Path) -> dict[str, Any]:
    """Return the content of a run's ``environment.json``; empty if it is missing or broken."""
    return Run(folder).read_json("environment.json") or {}


def check_secrets(bundle: Mapping[str, Path | bytes], token: str | None) -> None:
    """Check every file for the token, this user's home folder and this machine's name.

    Raises:
        HubError: naming the first file that contains one of them.
    """
    words = _private_words()
    for name, content in bundle.items():
        if token and any(token.encode() in chunk for chunk in _chunks(content, len(token))):
            raise HubError(f"{name} contains your Hub token, so nothing is pushed", hint="remove it from that file")
        text = _readable(name, content)
        for what, pattern in words.items():
            if match := pattern.search(text):
                raise HubError(
                    f"{name} contains {what} ({match[0]!r}), so nothing is pushed",
                    hint="remove it from that file in the run directory, then: vitft push RUN",
                )


def _private_words() -> dict[str, re.Pattern[str]]:
    words = {}
    home = str(Path.home())
    if len(home) > 1:
        words["the path of your home folder"] = re.compile(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])")
    host = socket.gethostname().partition(".")[0]
    if len(host) > 3 and host not in ("localhost", getpass.getuser()):
        # A plain word (main, node, tulip) is in many texts that do not mean this machine.
        before = "(?<=@)" if host.isalpha() else r"(?<![\w.-])"
        words["the name of this machine"] = re.compile(rf"{before}{re.escape(host)}(?![\w-])")
    return words


def _readable(name: str, content: Path | bytes) -> str:
    """Return the text of a file; for a safetensors file its header, for a picture nothing."""
    if name.endswith(".safetensors"):
        assert isinstance(content, Path)
        with content.open("rb") as file:
            return file.read(int.from_bytes(file.read(8), "little")).decode(errors="replace")
    if not name.endswith(_TEXT):
        return ""
    data = content.read_bytes() if isinstance(content, Path) else content
    return data.decode(errors="replace")


def _chunks(content: Path | bytes, overlap: int) -> Iterator[bytes]:
    """Yield the bytes of a file in pieces that overlap."""
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        tail = b""
        while piece := file.read(_CHUNK):
            yield tail + piece
            tail = piece[-overlap:]


def _public_recipe(folder: Path) -> Recipe:
    """Return the run's recipe for others to use: without local paths and without its ``hub`` section."""
    recipe = Recipe.load(folder / "recipe.yaml")
    local = local_inputs(recipe, read_environment(folder))
    data, model, run = recipe.data, recipe.model, recipe.run
    if data.dataset and "data.dataset" in local:
        data = data.model_copy(update={"dataset": at_home(data.dataset).resolve().name})
    if "model.checkpoint" in local:
        model = model.model_copy(update={"checkpoint": at_home(model.checkpoint).resolve().name})
    model = model.model_copy(update={"candidates": without_paths(model.candidates)})
    run = run.model_copy(update={"output_dir": "runs", "metrics": without_paths(run.metrics)})
    return recipe.model_copy(update={"data": data, "model": model, "run": run, "hub": HubRecipe()})


def _public_environment(folder: Path, shorten: Callable[[str], str]) -> bytes:
    """Return ``environment.json`` with shortened paths, in its command line too."""
    environment = read_environment(folder)
    recipe = Recipe.load(folder / "recipe.yaml")
    local = local_inputs(recipe, environment)
    on_hub = {recipe.flat()[key] for key in {"data.dataset", "model.checkpoint"} - local} | {recipe.hub.repo}
    if "command" in environment:
        environment["command"] = [_short_argument(each, on_hub) for each in environment["command"]]
    return _shortened_json(json.dumps(environment), shorten)


def _short_argument(argument: str, on_hub: Set[object]) -> str:
    """Cut the path in a word of a command line (``VALUE``, ``--flag=VALUE`` or ``key=VALUE``) to its last part."""
    before, value = re.fullmatch(r"((?:--)?[\w.-]+=)?(.*)", argument, re.DOTALL).groups("")  # type: ignore[union-attr]
    return before + (value if value in on_hub else _last_part(value))


def _shortened_json(text: str, shorten: Callable[[str], str]) -> bytes:
    """Return a JSON text with every string and key shortened, except for class names (``/m/01g317``)."""
    content = json.loads(text)
    classes = set(content.get("classes", ()))

    def walk(value: Any) -> Any:
        if isinstance(value, str) and value in classes:
            return value
        if isinstance(value, str):
            return _last_part(value) if _is_path(value) else shorten(value)
        if isinstance(value, list):
            return [walk(each) for each in value]
        if isinstance(value, dict):
            return {key if key in classes else shorten(key): walk(each) for key, each in value.items()}
        return value

    return (json.dumps(walk(content), indent=2, ensure_ascii=False) + "\n").encode()


def _is_path(text: str) -> bool:
    """Return whether a whole string, such as an argument of the command line, is a local path."""
    return text.startswith(("./", "../", "~/", "/")) and "\n" not in text


def _last_part(text: str) -> str:
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1]

"""Tell what a name stands for: a Hub id, an old dataset name, a local path, or something built in.

Also turn failed requests to the Hub, for datasets and models, into errors that say what to type next.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vitft.errors import DataError, ModelError, VitftError, did_you_mean
from vitft.files import at_home, is_file, is_folder
from vitft.retry import chain, is_passing, kinds_of, patiently

BUILTIN_DATASETS = ("builtin:digits",)

# Names from before datasets had owners. The Hub redirects them; this is for when it cannot be reached.
_OWNED = {
    "beans": "AI-Lab-Makerere/beans",
    "cats_vs_dogs": "microsoft/cats_vs_dogs",
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "food101": "ethz/food101",
    "imagenet-1k": "ILSVRC/imagenet-1k",
    "mnist": "ylecun/mnist",
    "oxford-iiit-pet": "timm/oxford-iiit-pet",
    "svhn": "ufldl-stanford/svhn",
}
_HUB_ID = re.compile(r"(?=.{1,96}$)(?:[A-Za-z0-9][\w.\-]*/)?[A-Za-z0-9][\w.\-]*")
_FILE_SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".tar", ".zip")


_PLACEHOLDER = re.compile(r"LABEL_(\d+)")


@dataclass(frozen=True)
class DatasetName:
    """The kind of a dataset's name, and the text to open it with (an absolute path for folders and files)."""

    kind: Literal["builtin", "folder", "file", "hub"]
    text: str


@dataclass(frozen=True)
class HubDataset:
    """A dataset on the Hub: its full id, the commit if the Hub was reached, and why the id differs from the name."""

    id: str
    revision: str | None
    note: str | None
    unreachable: Exception | None = None


def classify_dataset(text: str) -> DatasetName:
    """Tell whether a dataset's name means something built in, a local folder or file, or a Hub id.

    Local files win over the Hub, as in `datasets`.

    Raises:
        DataError: if it is an unknown built-in, a missing path, or not a possible Hub id.
    """
    if text.startswith("builtin:"):
        if text not in BUILTIN_DATASETS:
            raise DataError(f"{text!r} is not built in", allowed=", ".join(BUILTIN_DATASETS))
        return DatasetName("builtin", text)
    path = at_home(text)
    if text and is_folder(path):
        return DatasetName("folder", str(path.resolve()))
    if text and is_file(path):
        return DatasetName("file", str(path.resolve()))
    if looks_like_path(text) or text.endswith(_FILE_SUFFIXES):
        raise DataError(f"there is no folder or file {text!r}", hint=_nearby(path))
    if not _HUB_ID.fullmatch(text):
        raise DataError(
            f"{text!r} is not a folder, a file or a valid Hub id",
            allowed="a path, a Hub id such as uoft-cs/cifar100, or builtin:digits",
        )
    return DatasetName("hub", text)


def placeholder(number: int) -> str:
    """Return the name that transformers gives to an unnamed class."""
    return f"LABEL_{number}"


def is_placeholder(name: str) -> bool:
    """Whether a class name is only a :func:`placeholder`."""
    return _PLACEHOLDER.fullmatch(name) is not None


def looks_like_path(text: str) -> bool:
    """Return whether a name can only be a local path, not a Hub id."""
    return text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1 or text.endswith("/")


def slug(text: str) -> str:
    """Return the last part of an id or path as a short lower-case name that is safe in file names."""
    last = re.split(r"[/\\:]", text.rstrip("/\\"))[-1]
    for suffix in _FILE_SUFFIXES:
        last = last.removesuffix(suffix)
    return re.sub(r"[^a-z0-9._]+", "-", last.lower()).strip("-._")[:60] or "unnamed"


def find_dataset_on_hub(name: str, revision: str | None = None) -> HubDataset:
    """Ask the Hub for a dataset's full id and commit; offline, look old names up in a short table.

    Raises:
        VitftError: if there is no such dataset or revision, or access is denied.
    """
    from huggingface_hub import HfApi, is_offline_mode

    if is_offline_mode():
        return _without_hub(name, None)
    try:
        info = patiently(lambda: HfApi().dataset_info(name, revision=revision, timeout=30), waits=(1.0, 2.0))
    except Exception as error:  # the Hub client's errors have no common base class
        if kinds_of(error) & _UNREACHABLE or is_passing(error):
            return _without_hub(name, error)
        raise explain_hub_error(error, name, kind="dataset", revision=revision) from error
    note = f"dataset: {name} is {info.id} on the Hub" if info.id != name else None
    return HubDataset(info.id, info.sha, note)


def explain_hub_error(
    error: BaseException, name: str, *, kind: Literal["dataset", "model"], revision: str | None = None
) -> VitftError:
    """Turn a failure of the Hub, `datasets` or `transformers` into an error that a user can act on.

    Args:
        error: the exception; its causes are read too.
        name: the requested id.
        kind: whether the id is of a dataset or a model.
        revision: the requested revision.

    Returns:
        A DataError or ModelError to raise ``from error``.
    """
    kinds = kinds_of(error)
    text = " ".join(str(link) for link in chain(error))
    page = f"{endpoint()}/{'datasets/' if kind == 'dataset' else ''}{name}"
    local = f"a folder (./FOLDER), or builtin:{'digits' if kind == 'dataset' else 'vit-micro'}"
    allowed: str | None = None
    if "GatedRepoError" in kinds or "is a gated" in text:
        wrong = f"the {kind} {name!r} is gated: its owner grants access on request"
        hint = f"ask for access at {page}, then: hf auth login"
    elif "RevisionNotFoundError" in kinds or "Invalid rev id" in text:
        wrong = f"the {kind} {name!r} has no revision {revision!r}"
        allowed, hint = "a branch, a tag or a full commit hash", f"--{kind}-revision main"
    elif "RepositoryNotFoundError" in kinds or "doesn't exist on the Hub" in text:
        wrong = f"there is no {kind} {name!r} on the Hub, or it is private and you are not logged in"
        guess = did_you_mean(name, _OWNED) if kind == "dataset" else None
        hint = f"--dataset {_OWNED[guess]}, or: hf auth login" if guess else f"hf auth login, or {local}"
    elif is_offline():
        wrong = f"the {kind} {name!r} is not in this machine's cache, and HF_HUB_OFFLINE forbids downloads"
        hint = f"unset HF_HUB_OFFLINE, or {local}"
    elif "scripts are no longer supported" in text:
        wrong = f"the dataset {name!r} is a loading script, which `datasets` no longer runs"
        hint = "use the Hub's Parquet conversion: --dataset-revision refs/convert/parquet"
    elif kinds & _UNREACHABLE:
        wrong = f"cannot reach {endpoint()} for the {kind} {name!r}, and it is not in this machine's cache"
        hint = f"check the network (and HF_ENDPOINT), or {local}"
    elif kinds & {"EntryNotFoundError", "DataFilesNotFoundError", "EmptyDatasetError"}:
        wrong, hint = (
            f"the {kind} {name!r} is missing a required file: {_first_line(error)}",
            f"see {page}",
        )
    else:
        wrong, hint = f"cannot open the {kind} {name!r}: {_first_line(error)}", f"see {page}, or {local}"
    return (DataError if kind == "dataset" else ModelError)(wrong, allowed=allowed, hint=hint)


def last_part(path: str) -> str:
    """Return the last part of a path; the model in a run's folder is called by the run."""
    parts = [part for part in re.split(r"[/\\]", path) if part]
    return parts[-2] if parts[-1:] == ["model"] and len(parts) > 1 else parts[-1] if parts else path


def is_offline() -> bool:
    """Return whether the Hub is switched off by the environment."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def endpoint() -> str:
    """Return the address of the Hub in use."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


_UNREACHABLE = {
    "ConnectError", "ConnectionError", "LocalEntryNotFoundError", "NetworkError", "OfflineModeIsEnabled",
    "ProxyError", "TimeoutException", "TransportError",
}  # fmt: skip


def _without_hub(name: str, error: Exception | None) -> HubDataset:
    full = _OWNED.get(name, name)
    note = f"dataset: {name} was read as {full}, because the Hub could not be reached" if full != name else None
    return HubDataset(full, None, note, error)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _nearby(path: Path) -> str | None:
    """Return a hint for a missing path: the entry with the most similar name."""
    parent = path.parent
    if not is_folder(parent):
        return f"{parent} does not exist either"
    guess = did_you_mean(path.name, (entry.name for entry in parent.iterdir()))
    return f"did you mean {parent / guess}?" if guess else None

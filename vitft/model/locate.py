"""Find a checkpoint: in the package, in a folder, or on the Hub."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from vitft.architectures.weights import weight_files
from vitft.builtin import checkpoint_path
from vitft.errors import ModelError
from vitft.files import at_home, is_file, is_folder
from vitft.names import explain_hub_error, looks_like_path
from vitft.retry import is_passing, patiently, status_of
from vitft.run import Run, runs_like, suitable_runs

MICRO = "builtin:vit-micro"


def locate(checkpoint: str, revision: str | None = None) -> tuple[Path, str | None]:
    """Return a checkpoint's local folder, downloading it from the Hub if needed, and its Hub commit.

    Raises:
        ModelError: if there is no such built-in model, folder or Hub model.
    """
    if checkpoint == MICRO:
        return checkpoint_path(), None
    if checkpoint.startswith("builtin:"):
        raise ModelError(f"there is no {checkpoint}", allowed=MICRO, hint=f"--model {MICRO}")
    folder = at_home(checkpoint)
    if is_folder(folder):
        if not (folder / "config.json").is_file() and (folder / "model" / "config.json").is_file():
            return folder / "model", None  # a run directory stands for its model
        if not (folder / "config.json").is_file() and (folder / "recipe.yaml").is_file():
            run = Run(folder)
            raise ModelError(f"the run {checkpoint} is not finished, so it has no model yet", hint=run.resume_command)
        return folder, None
    near = Path("runs") / checkpoint
    if is_file(near / "recipe.yaml"):
        raise ModelError(f"there is no model {checkpoint}, but a run of that name", hint=f"{near} in its place")
    runs, guess = runs_like(checkpoint)
    if runs and ("/" in checkpoint or guess):  # a mistyped run must not be looked up on the Hub
        allowed, guess = suitable_runs(checkpoint, lambda run: run.is_scored)
        raise ModelError(
            f"there is no run {checkpoint}",
            allowed=allowed,
            hint=f"{guess}, if you mean that" if guess else "vitft runs",
        )
    if is_file(folder) or looks_like_path(checkpoint):
        what = "is a file" if is_file(folder) else "does not exist"
        raise ModelError(f"the model {checkpoint} {what}", allowed="a folder with config.json, or a Hub id OWNER/NAME")
    return _download(checkpoint, revision)


def _download(repo: str, revision: str | None) -> tuple[Path, str | None]:
    """Download the files that vitft reads from a Hub checkpoint; return their cached folder and the commit."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        try:
            info = patiently(lambda: HfApi().model_info(repo, revision=revision, timeout=30))
        except Exception as error:  # the Hub client's errors share no ancestor but Exception
            if status_of(error) and not is_passing(error):
                raise  # the Hub answered; the cache is used only when it does not
            folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
            return folder, folder.name
        weights = weight_files((sibling.rfilename for sibling in info.siblings or []), repo)
        wanted = [
            "config.json",
            "preprocessor_config.json",
            "processor_config.json",
            "calibration.json",
            "README.md",
            *weights,
        ]

        def download() -> Path:
            return Path(snapshot_download(repo, revision=info.sha, allow_patterns=wanted))

        has_all = all(_is_cached(repo, info.sha, name) for name in weights)
        folder = patiently(download)
        if not has_all and _remove_damaged(folder, weights):
            folder = patiently(download)
            if damaged := _remove_damaged(folder, weights):
                raise ModelError(
                    f"{damaged[0]} of {repo} was damaged in two downloads: its SHA-256 differs from the Hub's",
                    hint="check the network (a proxy?), then run the same command again",
                )
        return folder, info.sha
    except ModelError:
        raise
    except Exception as error:  # as above; names.py tells them apart
        raise explain_hub_error(error, repo, kind="model", revision=revision) from error


def _is_cached(repo: str, commit: str | None, name: str) -> bool:
    """Whether a file of a Hub model is in this machine's cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, name, revision=commit), str)


def _remove_damaged(folder: Path, names: list[str]) -> list[str]:
    """Remove files from the cache that differ from the Hub's, and return their names.

    The Hub client checks only sizes. The cache names a large file by its SHA-256, which is checked here.
    """
    damaged = []
    for name in names:
        blob = (folder / name).resolve()
        if re.fullmatch("[0-9a-f]{64}", blob.name):
            with blob.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != blob.name:
                    damaged.append(name)
                    (folder / name).unlink()
                    blob.unlink(missing_ok=True)
    return damaged

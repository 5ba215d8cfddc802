"""Where a checkpoint is: in the package, in a folder, or on the Hub."""

from __future__ import annotations

from pathlib import Path

from vitft.builtin import checkpoint_path
from vitft.errors import ModelError
from vitft.model.weights import weight_files
from vitft.names import explain_hub_error, looks_like_path

MICRO = "builtin:vit-micro"


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
    except Exception as error:  # the same; names.py tells them apart
        raise explain_hub_error(error, repo, kind="model", revision=revision) from error

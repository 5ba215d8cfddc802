"""The flags that set recipe keys, for commands and messages; nothing heavy is imported here.

A flag has the type, choices, default and meaning of its key, from ``vitft.recipe.fields``.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple


class Flag(NamedTuple):
    """A flag that sets a recipe key."""

    name: str
    key: str
    metavar: str | None = None
    """The name of its value in the help; None for a switch, and for choices, which are listed."""
    help: str = ""
    """Its help text, if the key's meaning does not suit a flag."""
    unit: str = ""
    """The unit to add, for a flag that takes a bare number."""
    sets: str = ""
    """The value that a switch sets, if its key takes words."""

    @property
    def parameter(self) -> str:
        """Its name as a Python argument."""
        return self.name.removeprefix("--").replace("-", "_")

    def value(self, given: object) -> object:
        """Return the key's value for a value given to the flag."""
        if self.sets:
            return self.sets
        if not self.unit:
            return given
        return f"{Decimal(f'{given:.15g}'):f} {self.unit}"  # not 1e-05


FLAGS = {
    flag.name: flag
    for flag in (
        Flag("--dataset", "data.dataset", "DATASET"),
        Flag("--dataset-revision", "data.revision", "REVISION"),
        Flag("--streaming", "data.streaming"),
        Flag("--max-train-samples", "data.max_train_samples", "N"),
        Flag("--bad-images", "data.bad_images"),
        Flag("--model", "model.checkpoint", "MODEL"),
        Flag("--model-revision", "model.revision", "REVISION"),
        Flag("--image-size", "model.image_size", "SIZE"),
        Flag("--method", "model.resize_method", help="How position tables are resampled to another size."),
        Flag("--train", "model.train", "PART"),
        Flag("--adapter", "model.adapter"),
        Flag("--epochs", "train.duration", "N", "Passes over the training images.", unit="epochs"),
        Flag("--batch-size", "train.batch_size", "N"),
        Flag("--lr", "optim.lr", "RATE"),
        Flag("--seed", "train.seed", "N"),
        Flag("--precision", "train.precision"),
        Flag("--device", "train.device", "DEVICE"),
        Flag("--fsdp", "train.sharding", help="Divide the model over the processes (FSDP2).", sets="fsdp"),
        Flag("--deterministic", "train.deterministic"),
        Flag("--profile", "train.profile"),
        Flag("--name", "run.name", "NAME"),
        Flag("--output-dir", "run.output_dir", "FOLDER"),
        Flag("--track", "run.track", "TRACKER"),
        Flag("--metrics", "run.metrics", "METRIC"),
        Flag("--push-to-hub", "hub.push"),
        Flag("--hub-repo", "hub.repo", "REPO"),
        Flag("--private", "hub.private"),
        Flag("--hub-revision", "hub.revision", "BRANCH"),
        Flag("--hub-every", "hub.every"),
        Flag("--create-pr", "hub.create_pr"),
        Flag("--license", "hub.license", "NAME"),
        Flag("--force", "hub.force"),
    )
}

OF_PUSH = ("--private", "--hub-revision", "--create-pr", "--license", "--force")
"""The flags of ``vitft push``, which a hint to publish a run later must repeat."""

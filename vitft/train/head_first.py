"""Fit the head alone before the training, so that it does not pull good features apart at first (LP-FT).

A new head is zero or random, and its first large gradients distort what the backbone has learnt (Kumar et al.,
arXiv:2202.10054). Here the head is first fitted to the features of the plain training images, to the optimum of the
run's own loss with a penalty: multinomial logistic regression, if the head is linear. The penalty is the strongest
after which weaker ones do not lower the validation loss.

The fitted head is kept in the run, so that a run that is resumed before its first checkpoint starts from the same bits.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from vitft.data.images import ImageSource, ImageSplit
from vitft.disk import write_whole
from vitft.errors import ModelError, TrainError
from vitft.features.backbone import Backbone
from vitft.features.views import PlainView
from vitft.model.classifier import Classifier
from vitft.model.head_input import head_input
from vitft.processes.signals import StopRequest
from vitft.processes.turns import on_main_process
from vitft.recipe.recipe import Recipe
from vitft.run import Run
from vitft.train import checkpoint
from vitft.train.imbalance import EVEN, ClassBalance
from vitft.train.on_features import OnFeatures, read_features
from vitft.train.stopping import StopRequests
from vitft.views.mixing import soft_targets

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
_MOST_STEPS = 2000  # of L-BFGS; far more than a convex problem of this size takes
_VALUES = 2**24  # of features that are looked at together


@dataclass(frozen=True)
class Rows:
    """Features with labels.

    Attributes:
        features: float32 (N, ...) on the CPU.
        labels: int64 (N,).
    """

    features: Tensor
    labels: Tensor

    def parts(self, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows in parts: float64 features, labels."""
        size = max(1, _VALUES // max(1, math.prod(self.features.shape[1:])))
        for features, labels in zip(torch.split(self.features, size), torch.split(self.labels, size), strict=True):
            yield features.to(device, torch.float64), labels.to(device)


class Fitted(NamedTuple):
    """A head fitted to features.

    Attributes:
        state: its tensors by name, float32 on the CPU.
        said: what was chosen and how good it is, for the user.
    """

    state: dict[str, Tensor]
    said: str


def check_head_first(recipe: Recipe, source: ImageSource, classifier: Classifier) -> list[str]:
    """Return a sentence on what happens before the first step; none if the recipe does not fit the head first.

    Raises:
        ModelError: if the model's head cannot be trained alone.
        TrainError: if the dataset is a stream.
    """
    if not recipe.train.head_first:
        return []
    hint = "--set train.head_first=false"
    if not isinstance(source.train, ImageSplit) or not isinstance(source.validation, ImageSplit):
        raise TrainError("train.head_first: a stream is read only once, and its features would be kept", hint=hint)
    try:
        head_input(classifier.model, classifier.head, classifier.image_size)
    except ModelError as error:
        raise ModelError(f"train.head_first: {error.wrong}, so it cannot be fitted alone", hint=hint) from error
    return [f"head first: fitted to features of {len(source.train):,} plain images, before the first step"]


def fit_head_first(
    run: Run, backbone: Backbone, source: ImageSource, smoothing: float, balance: ClassBalance, stop: StopRequests
) -> None:
    """Put a fitted head into the model: from the run if it has one, else computed now and kept there.

    A run that has a checkpoint is left alone, because that has the head as it is by now.

    Args:
        run: its directory.
        backbone: the model, and how its features are computed.
        source: with the images to train and to validate on.
        smoothing: label smoothing.
        balance: of the classes in the loss.
        stop: requests to stop.

    Raises:
        DataError, StopRequest: as :meth:`vitft.features.backbone.Backbone.compute`.
        TrainError: if the head cannot be written.
    """
    accelerator = backbone.accelerator
    if on_main_process(lambda: checkpoint.newest(run.checkpoints), accelerator) is not None:
        return
    path = run.checkpoints / "head.safetensors"
    head = backbone.classifier.model.get_submodule(backbone.read.module)
    fitted = on_main_process(lambda: _stored(path, source.fingerprint), accelerator)
    if fitted is None:
        on_features = read_features(backbone, source, PlainView(), stop)
        fitted = on_main_process(
            lambda: _fit(head, on_features, smoothing, balance, accelerator.device, stop.request), accelerator
        )
        if reason := stop.agreed():
            run.say("  stopped before the head was fitted; a resumed run fits it again")
            raise StopRequest(reason)
        on_main_process(lambda: _store(path, fitted, source.fingerprint, run), accelerator)
    head.load_state_dict(fitted.state)
    run.note(fitted.said)


def _fit(
    head: nn.Module,
    on: OnFeatures,
    smoothing: float,
    balance: ClassBalance,
    device: torch.device,
    stopped: Callable[[], str],
) -> Fitted:
    assert on.validation is not None and on.validation_split is not None
    train, validation = (
        _good_rows(features.values[0], split, features.skipped)
        for features, split in ((on.train, on.train_split), (on.validation, on.validation_split))
    )
    return fit_head(head, train, validation, smoothing, balance, device, stopped)


def _good_rows(values: Tensor, split: ImageSplit, skipped: Any) -> Rows:
    """Return the features and labels of the images that could be decoded."""
    labels = torch.from_numpy(split.labels)
    if not skipped:
        return Rows(values, labels)
    good = torch.tensor([row for row in range(len(split)) if row not in skipped], dtype=torch.int64)
    return Rows(values[good], labels[good])


# --- the optimum -------------------------------------------------------------------------------------------


def fit_head(
    head: nn.Module,
    train: Rows,
    validation: Rows,
    smoothing: float = 0.0,
    balance: ClassBalance = EVEN,
    device: torch.device | str = "cpu",
    stopped: Callable[[], str] = lambda: "",
) -> Fitted:
    """Fit a copy of a head to features, with the best of :data:`PENALTIES` by the loss on validation.

    Args:
        head: from features to logits.
        train, validation: the features to fit to, and those to choose the penalty by.
        smoothing: label smoothing, on training only.
        balance: of the classes in the loss, on training only.
        device: where to compute, in float64; a device without float64 is replaced by the CPU.
        stopped: returns why to stop, empty to continue; what is returned after a stop is not fitted.
    """
    place = torch.device(device if torch.device(device).type == "cuda" else "cpu")
    fitted = copy.deepcopy(head).to(place, torch.float64).eval().requires_grad_(True)
    best: tuple[float, float, float, dict[str, Tensor]] | None = None
    for penalty in PENALTIES:
        _minimise(fitted, train, penalty, smoothing, balance, stopped)
        nll, top1 = _scores(fitted, validation, place)
        if stopped() or (best is not None and nll >= best[0]):
            break
        best = (nll, top1, penalty, {name: t.detach().float().cpu() for name, t in fitted.state_dict().items()})
    if best is None:
        return Fitted({}, "")
    nll, top1, penalty, state = best
    return Fitted(state, f"head first: penalty {penalty:g}, validation top-1 {top1:.4f}, nll {nll:.4f}")


def _minimise(
    head: nn.Module,
    rows: Rows,
    penalty: float,
    smoothing: float,
    balance: ClassBalance,
    stopped: Callable[[], str],
) -> None:
    """Move a head to the minimum of loss + penalty / 2 * (sum of squares of its matrices), from where it is."""
    parameters = list(head.parameters())
    device = parameters[0].device

    def objective(values: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, np.ndarray[Any, Any]]:
        """Return what is minimised, and its gradient, at the head's parameters as one vector."""
        vector_to_parameters(torch.from_numpy(values.copy()).to(device), parameters)
        head.zero_grad(set_to_none=True)
        total = penalty / 2 * sum((p.square().sum() for p in parameters if p.ndim > 1), torch.zeros((), device=device))
        torch.autograd.backward(total)
        loss = float(total.detach())
        for features, labels in rows.parts(device):
            logits: Tensor = head(features)
            targets = soft_targets(labels, logits.shape[1], smoothing).to(torch.float64)
            part = balance.loss(logits, targets) / len(rows.labels)
            torch.autograd.backward(part)
            loss += float(part.detach())
        gradient = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        return loss, gradient.cpu().numpy()

    def watch(_: object) -> None:
        if stopped():
            raise StopIteration

    start = parameters_to_vector(parameters).detach().cpu().numpy()
    options = {"maxiter": _MOST_STEPS, "maxfun": 2 * _MOST_STEPS, "maxcor": 20, "ftol": 1e-14, "gtol": 1e-8}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options, callback=watch)
    with torch.no_grad():
        vector_to_parameters(torch.from_numpy(found.x).to(device), parameters)


@torch.no_grad()
def _scores(head: nn.Module, rows: Rows, device: torch.device) -> tuple[float, float]:
    """Return mean loss and top-1 accuracy."""
    nll = hits = 0.0
    for features, labels in rows.parts(device):
        logits = head(features)
        nll += float(F.cross_entropy(logits, labels, reduction="sum"))
        hits += int((logits.argmax(1) == labels).sum())
    return nll / max(1, len(rows.labels)), hits / max(1, len(rows.labels))


# --- kept in the run ---------------------------------------------------------------------------------------


def _store(path: Path, fitted: Fitted, fingerprint: str, run: Run) -> None:
    about = json.dumps({"said": fitted.said, "fingerprint": fingerprint})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save({name: t.contiguous() for name, t in fitted.state.items()}, metadata={"about": about}))
    except (OSError, SafetensorError) as error:
        raise TrainError(f"cannot write {path}: {error}", hint=f"make room, then: {run.resume_command}") from error


def _stored(path: Path, fingerprint: str) -> Fitted | None:
    """Return the head that the run keeps; None if there is none, or it is damaged or of other data."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return Fitted(state, str(about["said"])) if about.get("fingerprint") == fingerprint else None

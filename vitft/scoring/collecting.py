"""Keep what a classifier says of each image while it is evaluated, and bring it together from all processes.

Shapes: B batch, K classes.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from vitft.scoring.predictions import BEST, Predictions

if TYPE_CHECKING:
    from accelerate import Accelerator


class Collector:
    """The predictions of this process so far.

    Args:
        num_classes: K.
        temperature: what the logits are divided by before they become probabilities.
    """

    def __init__(self, num_classes: int, temperature: float = 1.0) -> None:
        self.temperature = temperature
        self.num_best = min(BEST, num_classes)
        none = torch.empty(0, dtype=torch.int64)
        self._parts = [_of_batch(torch.empty(0, num_classes, dtype=torch.float64), none, none, self.num_best)]

    def add(self, logits: Tensor, labels: Tensor, sample_indices: Tensor) -> None:
        """Keep a batch.

        Args:
            logits: float (B, K).
            labels: int64 (B,).
            sample_indices: numbers of the rows in their split, int64 (B,).
        """
        # In float64, in which different float32 logits stay different: no prediction changes.
        logits = logits.detach().cpu().double() / self.temperature
        self._parts.append(_of_batch(logits, labels, sample_indices, self.num_best))

    def gathered(self, accelerator: Accelerator) -> Predictions:
        """Return the predictions of all processes, in the order of the dataset."""
        own = Predictions.joined(self._parts)
        return Predictions.joined(gather_object([own])) if accelerator.num_processes > 1 else own


def _of_batch(logits: Tensor, labels: Tensor, sample_indices: Tensor, num_best: int) -> Predictions:
    labels = labels.cpu()
    log_probs = logits.log_softmax(1)
    probs = log_probs.exp()
    best = most_probable(logits, num_best)
    p_best = probs.gather(1, best)
    p_label = probs.gather(1, labels[:, None])[:, 0]
    arrays = {
        "row": sample_indices.cpu(),
        "label": labels,
        "predicted": best[:, 0],
        "p_label": p_label,
        "p_predicted": p_best[:, 0],
        "nll": -log_probs.gather(1, labels[:, None])[:, 0],
        "brier": probs.square().sum(1) - 2 * p_label + 1,
        "entropy": torch.special.entr(probs).sum(1),
        "best": best,
        "p_best": p_best,
    }
    types = {"row": np.int64, "label": np.int32, "predicted": np.int32, "best": np.int32}
    return Predictions(
        **{
            each.name: arrays[each.name].numpy().astype(types.get(each.name, np.float32))
            for each in fields(Predictions)
        }
    )


def most_probable(logits: Tensor, count: int) -> Tensor:
    """Return the ids of the highest logits (B, K) in falling order, int64 (B, count).

    Of equal logits the first comes first, as argmax takes it in the scores. ``topk`` does not promise that, so rows in
    which it matters are sorted.
    """
    top = logits.topk(min(count + 1, logits.shape[1]), dim=1)
    best = top.indices[:, :count]
    has_ties = (top.values[:, 1:] == top.values[:, :-1]).any(1)
    best[has_ties] = logits[has_ties].sort(stable=True, dim=1, descending=True).indices[:, :count]
    return best

"""Fit the temperature that calibrates a classifier's probabilities.

Temperature scaling is Guo et al., arXiv:1706.04599, section 4.2. Dividing the logits by a temperature T changes no
prediction, only how sure it is. The best T minimises the negative log-likelihood (NLL) on images that the model did not
train on.

Shapes: B batch, K classes, G grid points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from vitft.errors import DataError, ModelError

BOUNDS = (0.01, 100.0)
"""Lowest and highest temperature."""
_NUM_POINTS = 33  # the temperature is then right to five digits


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: what to divide the logits by.
        count: number of images that it was fitted on.
        at_bound: ``lower`` or ``upper`` if the NLL has no minimum between :data:`BOUNDS`; the value is then the bound.
    """

    value: float
    count: int
    at_bound: Literal["lower", "upper"] | None = None


class TemperatureFit:
    """Fits a temperature from sums over batches, without keeping logits.

    The NLL is convex in beta = 1 / T. At each point of a fixed grid of betas, it and its first two derivatives are
    summed in float64, so neither batches nor processes change the result beyond rounding.

    Args:
        device: the logits' device. MPS has no float64, so its logits are summed on the CPU.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        self.device = torch.device("cpu") if device.type == "mps" else device
        lowest, highest = BOUNDS
        self.betas = np.geomspace(1 / highest, 1 / lowest, _NUM_POINTS)
        # (G, 3) sums of NLL, slope and curvature, then the count: one buffer, so that one reduction sums it.
        self._sums = torch.zeros(3 * _NUM_POINTS + 1, dtype=torch.float64, device=self.device)

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Sum a batch.

        Args:
            logits: float, (B, K).
            labels: int64 in [0, K), (B,).
        """
        logits, labels = logits.detach().to(self.device).double(), labels.to(self.device)
        margins = logits - logits.gather(1, labels[:, None])  # above the label's own logit
        highest = margins.amax(1, keepdim=True)
        for point, beta in enumerate(self.betas.tolist()):
            weights = (beta * (margins - highest)).exp_()
            total = weights.sum(1)
            nll = beta * highest[:, 0] + total.log()
            slope = (weights * margins).sum(1) / total
            curvature = (weights * (margins - slope[:, None]).square()).sum(1) / total
            self._sums[3 * point : 3 * point + 3] += torch.stack((nll.sum(), slope.sum(), curvature.sum()))
        self._sums[-1] += len(labels)

    def reduce(self, accelerator: Any = None) -> TemperatureFit:
        """Return the sums over all processes."""
        total = TemperatureFit(self.device)
        total._sums.copy_(self._sums)
        if accelerator is not None and accelerator.num_processes > 1:
            torch.distributed.all_reduce(total._sums)
        return total

    def solve(self) -> Temperature:
        """Return the temperature with the lowest NLL.

        If the NLL is the same at every temperature, as for logits that are all equal, it is 1.

        Raises:
            DataError: if no batch was summed.
            ModelError: if a logit was not finite.
        """
        count = int(self._sums[-1])
        if count == 0:
            raise DataError("there is nothing to fit a temperature on: the split has no usable images")
        sums = (self._sums[:-1].cpu().numpy() / count).reshape(_NUM_POINTS, 3)
        slopes = sums[:, 1]
        if not np.isfinite(sums).all():
            raise ModelError(
                "the model's output is not finite (NaN or infinity), so no temperature can be fitted",
                hint="an undamaged checkpoint, or --precision fp32 if the checkpoint is fine",
            )
        if not slopes.any():
            return Temperature(1.0, count)
        if slopes[-1] <= 0:  # still falling at the highest beta, which is the lowest temperature
            return Temperature(BOUNDS[0], count, "lower")
        if slopes[0] >= 0:
            return Temperature(BOUNDS[1], count, "upper")
        right = int((slopes >= 0).argmax())
        return Temperature(_minimum(self.betas[right - 1 : right + 1], sums[right - 1 : right + 1]), count)


def _minimum(betas: np.ndarray, values: np.ndarray) -> float:
    """Return the temperature of the minimum between two grid points.

    The quintic in log(beta) with the same values and derivatives at both ends stands for the NLL there.

    Args:
        betas: of the two points, (2,).
        values: NLL, slope and curvature at each, by beta, (2, 3).
    """
    from scipy.interpolate import BPoly
    from scipy.optimize import brentq

    ends = np.log(betas)
    nll, slope, curvature = values.T
    derivatives = np.stack((nll, betas * slope, betas * slope + betas**2 * curvature), 1)  # by log(beta)
    rise = BPoly.from_derivatives(ends, derivatives).derivative()
    if rise(ends[1]) <= 0:  # the minimum is the right point itself
        return float(1 / betas[1])
    return float(np.exp(-brentq(rise, *ends, xtol=1e-12)))

"""Compute the principal components of the first layer's filters.

Legend: D filters, C channels, P side of a patch in pixels, M components.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

COUNT = 28
"""Number of components in the ViT paper (figure 7, left)."""


@dataclass(frozen=True)
class Filters:
    """Principal components of filters.

    Attributes:
        components: float64 (M, C, P, P), of length 1; the sign of each is arbitrary.
        explained: share of the filters' variance that each explains, (M,).
        smoothness: correlation of neighbouring pixels within each component, (M,); 0 for noise, near 1 if smooth.
        count: number of filters, D.
        name: name of the convolution.
    """

    components: Tensor
    explained: Tensor
    smoothness: Tensor
    count: int
    name: str


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Return (name, module) of the first convolution over three channels, None if there is none."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1:
            return name, module
    return None


def principal_filters(
    kernel: Tensor, count: int = COUNT, *, centred: bool = True, name: str = "", bgr: bool = False
) -> Filters:
    """Return the principal components of filters (ViT, arXiv:2010.11929, figure 7, left).

    The D filters are the samples, and their C * P * P values the features. The paper does not say whether the mean
    filter is subtracted; here it is.

    Args:
        kernel: convolution weight, shape (D, C, P, P).
        count: largest number of components.
        centred: whether the mean filter is subtracted.
        name: name of the convolution.
        bgr: whether the channels are blue, green, red.
    """
    if bgr:
        kernel = kernel.flip(1)
    samples = kernel.detach().double().cpu().flatten(1)
    if centred:
        samples = samples - samples.mean(0)
    _, lengths, components = torch.linalg.svd(samples, full_matrices=False)
    components = components[:count].unflatten(1, kernel.shape[1:])
    explained = lengths**2 / (lengths**2).sum().clamp_min(torch.finfo(torch.float64).tiny)
    return Filters(components, explained[:count], smoothness(components), len(kernel), name)


def smoothness(pictures: Tensor) -> Tensor:
    """Return the correlation of horizontal and vertical neighbours within each picture, (M, C, P, P) -> (M,)."""
    pictures = pictures - pictures.mean((-2, -1), keepdim=True)
    pairs = [(pictures[..., 1:, :], pictures[..., :-1, :]), (pictures[..., 1:], pictures[..., :-1])]
    products = sum((a * b).sum((1, 2, 3)) for a, b in pairs)
    powers = sum(((a**2).sum((1, 2, 3)) * (b**2).sum((1, 2, 3))).sqrt() for a, b in pairs)
    correlation: Tensor = torch.as_tensor(products) / torch.as_tensor(powers).clamp_min(1e-12)
    return correlation

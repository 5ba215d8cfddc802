"""Soft targets, mixup and CutMix.

The images in slots 2j and 2j + 1 of a step are a pair and are mixed with each other; an odd last image stays
unmixed. Steps are only split at even slots, so the split does not change the mix.

Legend: B batch, P = B // 2 pairs, C channels, H W pixels, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from scipy.special import betaincinv
from torch import Tensor


class Mixture(NamedTuple):
    """How each pair is mixed."""

    lam: Tensor
    """Fraction of an image and its target that stays in its slot; the rest is the partner's. float32, (P,)."""
    is_cut: Tensor
    """Whether a rectangle of the partner is pasted in (CutMix) instead of blending the two (mixup). bool, (P,)."""
    rectangle: Tensor
    """Top, bottom, left and right of that rectangle in pixels, half-open. int64, (P, 4)."""


def soft_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Return label-smoothed targets: smoothing / K for every class, plus 1 - smoothing for the label.

    This is the convention of torch and timm (Szegedy et al., arXiv:1512.00567, section 7).

    Args:
        labels: int64, shape (B,).
        num_classes: K.
        smoothing: fraction of each target that is spread over all classes, including the label.

    Returns:
        float32, shape (B, K).
    """
    targets = torch.full((len(labels), num_classes), smoothing / num_classes, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + smoothing / num_classes)


def draw_mixture(
    draws: Tensor,
    image_size: tuple[int, int],
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    probability: float,
) -> Mixture:
    """Decide how each pair is mixed: mixup (arXiv:1710.09412), CutMix (arXiv:1905.04899) or not at all.

    lam is drawn from Beta(alpha, alpha) by applying its inverse distribution function to a uniform number.
    CutMix's rectangle has sides of sqrt(1 - lam) times the image's and a uniform centre. It is clipped at the
    border, and its lam is then recomputed from the pixels. If both alphas are above 0, each gets half of the pairs.

    Args:
        draws: uniform in [0, 1), shape (P, 5): whether to mix, which kind, lam, row and column of the centre.
            Best on the CPU, where the inverse is computed.
        image_size: height and width in pixels.
        mixup_alpha: 0 leaves mixup out.
        cutmix_alpha: 0 leaves CutMix out.
        probability: the chance that a pair is mixed.
    """
    assert mixup_alpha > 0 or cutmix_alpha > 0
    whether, which, quantile, *centre = draws.cpu().to(torch.float64).unbind(1)
    is_cut = which < (0.5 if mixup_alpha and cutmix_alpha else float(cutmix_alpha > 0))
    # Below 1e-6, lam is 0 or 1 in all but one pair in a million, and the inverse soon becomes NaN.
    alpha = torch.where(is_cut, cutmix_alpha, mixup_alpha).to(torch.float64).clamp(min=1e-6).numpy()
    lam = torch.as_tensor(betaincinv(alpha, alpha, quantile.numpy()))
    lam = torch.where(whether < probability, lam, 1.0)

    bounds = []
    for place, length in zip(centre, image_size, strict=True):
        middle, half = place * length, (1 - lam).sqrt() * length / 2
        bounds += [torch.round(middle - half).clamp(min=0), torch.round(middle + half).clamp(max=length)]
    top, bottom, left, right = bounds
    exact = 1 - (bottom - top) * (right - left) / (image_size[0] * image_size[1])
    return Mixture(torch.where(is_cut, exact, lam).to(torch.float32), is_cut, torch.stack(bounds, 1).to(torch.int64))


def mix(pixel_values: Tensor, targets: Tensor, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Mix the images and targets of each pair: each keeps lam of itself and takes 1 - lam of its partner.

    Args:
        pixel_values: shape (B, C, H, W); the first is in an even slot of the step.
        targets: shape (B, K).
        mixture: how the P pairs are mixed, on any device.

    Returns:
        New tensors of the same shapes.
    """
    lam, is_cut, rectangle = (part.to(pixel_values.device, non_blocking=True) for part in mixture)
    height, width = pixel_values.shape[-2:]
    rows = torch.arange(height, device=lam.device)
    columns = torch.arange(width, device=lam.device)
    top, bottom, left, right = rectangle[:, :, None].unbind(1)
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    outside = ~(in_rows[:, :, None] & in_columns[:, None, :])  # (P, H, W)
    own = torch.where(is_cut[:, None, None], outside.to(lam.dtype), lam[:, None, None])
    return _blend(pixel_values, own[:, None, None]), _blend(targets, lam[:, None, None])


def _blend(values: Tensor, own: Tensor) -> Tensor:
    """Return own * values + (1 - own) * partner's values; ``own`` broadcasts to (P, 2, ...)."""
    even = len(values) // 2 * 2
    pairs = values[:even].view(even // 2, 2, *values.shape[1:])
    mixed = torch.lerp(pairs.flip(1), pairs, own).flatten(0, 1)
    return mixed if even == len(values) else torch.cat((mixed, values[even:]))

"""Resize a patch embedding so that resized patches give about the same tokens as before."""

from __future__ import annotations

import torch
from torch import Tensor

from vitft.recipe.choices import ResizeMethod
from vitft.resolution.tables import axis_weights


def resize_patch_kernel(kernel: Tensor, size: int, method: ResizeMethod = "bilinear") -> Tensor:
    """Resize a patch embedding by pseudo-inverse (FlexiViT, arXiv:2212.08013, equation 4).

    With B the matrix that resizes an image patch, the new kernel w' = (B^T)^+ w gives resized patches the tokens
    closest to the old ones, and the same tokens when patches grow. B and its pseudo-inverse are separable.

    Args:
        kernel: convolution weight, shape (D, C, p, p).
        size: side of the new patch in pixels.
        method: how patches are resized: ``bilinear`` as in the paper, or ``bicubic`` as in timm.

    Returns:
        Shape (D, C, size, size), in the dtype of ``kernel``, computed in float64.
    """
    if kernel.shape[-2:] == (size, size):
        return kernel
    down, across = (
        torch.linalg.pinv(axis_weights(side, size, method).T).to(kernel.device) for side in kernel.shape[-2:]
    )
    resized: Tensor = down @ kernel.double() @ across.T
    return resized.to(kernel.dtype)

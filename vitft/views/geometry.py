"""Choose the box of each image that becomes its view.

Staging may have squashed an image; originals[i] = (height, width) is its true shape. A box (top, left, height, width)
is in fractions of the image: (0, 0, 1, 1) is the whole image at any staged size.

Legend: B batch, H W view.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vitft.recipe.choices import ResizeMode

_PADDING = 4  # pixels that a simple crop may shift the image by, at any size (DeiT-III)
# A pixel belongs to a box that covers more than this fraction of it, so that slivers from rounding do not count.
SLIVER = 1e-3


class Window(NamedTuple):
    """Which pixels of a resized box a view shows."""

    lengths: Tensor
    """Height and width that the box is resized to, (B, 2)."""
    rows: Tensor
    """The row of the resized box that each row of the view shows, (B, H)."""
    columns: Tensor
    """The column of the resized box that each column of the view shows, (B, W)."""


def random_boxes(
    draws: Tensor,
    originals: Tensor,
    image_size: tuple[int, int],
    *,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    resize_mode: ResizeMode,
) -> Tensor:
    """Draw the box of a random resized crop for each image (Szegedy et al., arXiv:1409.4842).

    First the shape: width / height of the box in true pixels, relative to the view's, is log-uniform in
    ``ratio``. Then the area: a fraction of the frame, uniform over the part of ``scale`` that fits the frame
    at this shape, or the largest area that fits if none of ``scale`` does. Then the position, uniform. This
    closed form needs no redraws and never distorts the drawn shape. The frame is the image; for ``pad`` it is
    the smallest rectangle of the view's shape around the image, which lies at its top left, as in
    transformers' image processors. A ``scale`` of (1, 1) gives :func:`whole_boxes`, whatever the ratio.

    Args:
        draws: uniform in [0, 1), shape (B, 4): area, shape, top, left.
        originals: height and width of the images before staging, shape (B, 2).
        image_size: height and width of the view.
        scale: smallest and largest area, as fractions of the frame.
        ratio: smallest and largest shape (width / height).
        resize_mode: how an image fills the view.

    Returns:
        float32, shape (B, 4).
    """
    if scale == (1.0, 1.0):
        return whole_boxes(originals, image_size, resize_mode)
    frames = _frames(originals, image_size, resize_mode)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shapes = image_size[1] / image_size[0] * torch.exp(low + (high - low) * draws[:, 1])
    largest = _largest_area(shapes, frames)
    smallest = largest.clamp(max=scale[0])
    areas = smallest + (largest.clamp(max=scale[1]) - smallest) * draws[:, 0]
    return _place(areas, shapes, draws[:, 2:], frames, originals)


def simple_crops(
    draws: Tensor, originals: Tensor, image_size: tuple[int, int], resize_mode: ResizeMode
) -> tuple[Tensor, Window]:
    """Draw a simple random crop for each image (DeiT-III, arXiv:2204.07118, section 3).

    The frame of :func:`random_boxes` is resized, keeping its shape, to the smallest size that covers the view, and
    padded by 4 mirrored pixels; the view is a part of it, whole pixels apart from the others, each as likely.

    Args:
        draws: uniform in [0, 1), shape (B, 2): top, left.
        originals, image_size, resize_mode: as in :func:`random_boxes`.

    Returns:
        The frames as boxes (B, 4), and the window of each view.
    """
    frames = _frames(originals, image_size, resize_mode)
    size = torch.tensor(image_size, device=frames.device, dtype=torch.float32)
    scales = (size / frames).amax(1, keepdim=True)
    lengths = torch.maximum(torch.floor(frames * scales + SLIVER), size)
    starts = torch.floor(draws * (lengths + 2 * _PADDING - size + 1)) - _PADDING
    rows, columns = (
        _mirrored(start[:, None] + torch.arange(length, device=frames.device), limit[:, None] - 1)
        for start, length, limit in zip(starts.unbind(1), image_size, lengths.unbind(1), strict=True)
    )
    zoom = frames / originals
    return torch.cat((torch.zeros_like(zoom), zoom), 1), Window(lengths, rows, columns)


def _mirrored(places: Tensor, last: Tensor) -> Tensor:
    """Return places beyond 0 or ``last`` mirrored at them."""
    return torch.minimum((last - (last - places.abs()).abs()).clamp(min=0), last)


def whole_boxes(originals: Tensor, image_size: tuple[int, int], resize_mode: ResizeMode) -> Tensor:
    """Return the boxes for evaluation: the whole image (squash), the largest centre crop, or the letterbox (pad)."""
    frames = _frames(originals, image_size, resize_mode)
    if resize_mode == "squash":
        shapes = frames[:, 1] / frames[:, 0]
    else:
        shapes = torch.full_like(frames[:, 0], image_size[1] / image_size[0])
    return _place(_largest_area(shapes, frames), shapes, torch.full_like(frames, 0.5), frames, originals)


def _frames(originals: Tensor, image_size: tuple[int, int], resize_mode: ResizeMode) -> Tensor:
    """Return height and width, in true pixels, of the frame that each box lies in, shape (B, 2)."""
    originals = originals.to(torch.float32)
    if resize_mode != "pad":
        return originals
    shape = image_size[1] / image_size[0]
    height, width = originals.unbind(1)
    return torch.stack((torch.maximum(height, width / shape), torch.maximum(width, height * shape)), 1)


def _largest_area(shapes: Tensor, frames: Tensor) -> Tensor:
    """Return the fraction of each frame that the largest rectangle of a shape (width / height) fills, (B,)."""
    relative = shapes * frames[:, 0] / frames[:, 1]
    return torch.minimum(relative, 1 / relative)


def _place(areas: Tensor, shapes: Tensor, positions: Tensor, frames: Tensor, originals: Tensor) -> Tensor:
    """Return boxes in fractions of the image, from areas and positions (0 is top or left, 1 is bottom or right)."""
    relative = shapes * frames[:, 0] / frames[:, 1]
    extents = torch.stack(((areas / relative).sqrt(), (areas * relative).sqrt()), 1).clamp(max=1)
    zoom = frames / originals  # the frame in fractions of the image, which lies at its top left
    return torch.cat(((1 - extents) * positions * zoom, extents * zoom), 1)

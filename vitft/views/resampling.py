"""Cut a box out of each image, resize it, mirror and turn it.

A batch is a canvas (B, C, S_h, S_w) of staged images; image i fills the top left sizes[i] = (h, w) pixels, the rest is
unused. Boxes are those of :mod:`vitft.views.geometry`, in fractions of an image.

Legend: B batch, C channels, S_h S_w canvas, H W view, T pixels that an output pixel is made of.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vitft.views.geometry import SLIVER, Window
from vitft.views.pixel_values import Normalisation

_AT_ONCE = 2**19  # values for each thread, few enough for its cache: two images of 258 pixels, or many small ones


def resample(
    images: Tensor,
    sizes: Tensor,
    boxes: Tensor,
    flips: Tensor,
    image_size: tuple[int, int],
    normalise: Normalisation,
    *,
    vertical_flips: Tensor | None = None,
    window: Window | None = None,
) -> Tensor:
    """Crop a box from each image, resize it to ``image_size`` and mirror it where ``flips`` is true.

    The result equals cropping the pixels that the box touches and resizing them with an antialiased triangle
    kernel: torch's ``interpolate(mode="bilinear", antialias=True)`` for boxes of whole staged pixels,
    Pillow's ``resize(box=...)`` for fractional ones. The part of a box outside the image is 0. The kernel is
    separable: first rows, then columns. In float32 even under autocast; with TF32 switched on, an error of 0.2 / 255
    remains.

    On a CPU each output row is the sum of the few rows that it is made of, which takes a third of the time of the two
    matrix products that an accelerator does best. The two agree within rounding, 1e-4 of a grey level.

    Args:
        images: canvas, uint8 or float, shape (B, C, S_h, S_w).
        sizes: height and width of the images in the canvas, shape (B, 2).
        boxes: shape (B, 4).
        flips: bool, shape (B,).
        image_size: height and width of the view.
        normalise: how pixels become pixel values; what lies outside an image is 0 afterwards.
        vertical_flips: bool, shape (B,): which to turn upside down; none by default.
        window: what the views show of the resized boxes; by default all of them.

    Returns:
        float32, normalised, shape (B, C, H, W).
    """
    by = by_sums if images.device.type == "cpu" else by_products
    return by(images, *axes(sizes, boxes, flips, image_size, vertical_flips, window), normalise)


def turn(pixel_values: Tensor, quarters: Tensor) -> Tensor:
    """Turn each image anticlockwise by a number of quarters, 0 to 3, shape (B,); images are square (B, C, H, H)."""
    assert pixel_values.shape[-2] == pixel_values.shape[-1]
    quarters = quarters[:, None, None, None]
    turned = torch.where(quarters % 2 == 1, pixel_values.mT, pixel_values)
    turned = torch.where((quarters == 1) | (quarters == 2), turned.flip(2), turned)
    return torch.where(quarters >= 2, turned.flip(3), turned)


class Axis(NamedTuple):
    """How one axis of each image is resampled.

    The box is cut into equal parts, and each output is centred on one. A pixel at distance d from the centre
    weighs 1 - d / reach, where reach is the length of a part, at least one pixel. The weights of all pixels that the
    box touches, including those outside the image, sum to 1.

    Attributes:
        centres: of the outputs, as pixel indices, shape (B, H).
        reach: of the kernel in pixels, shape (B, 1).
        total: the sum of the weights before they are divided by it, shape (B, H).
        first, last: the pixels that the box touches, shape (B, 1).
        sizes: of the images, shape (B, 1).
    """

    centres: Tensor
    reach: Tensor
    total: Tensor
    first: Tensor
    last: Tensor
    sizes: Tensor

    def weights(self, pixels: Tensor) -> Tensor:
        """Return the weights of pixels, given as indices of shape (B or 1, H or 1, T): shape (B, H, T)."""
        inside = (pixels >= self.first[..., None]) & (pixels <= self.last[..., None]) & (pixels >= 0)
        inside &= pixels < self.sizes[..., None]
        weights = pixels - self.centres[..., None]  # in place from here on, as this may be large
        weights = weights.abs_().mul_((-1 / (self.reach * self.total))[..., None]).add_((1 / self.total)[..., None])
        return weights.clamp_(min=0).mul_(inside)


def axes(
    sizes: Tensor,
    boxes: Tensor,
    flips: Tensor,
    image_size: tuple[int, int],
    vertical_flips: Tensor | None = None,
    window: Window | None = None,
) -> tuple[Axis, Axis]:
    """Return how rows and columns are resampled; arguments as for :func:`resample`."""
    down, across = (torch.arange(length, device=boxes.device, dtype=torch.float32)[None] for length in image_size)
    lengths: tuple[int | Tensor, int | Tensor] = image_size
    if window is not None:
        down, across = window.rows, window.columns
        lengths = window.lengths[:, :1], window.lengths[:, 1:]
    if vertical_flips is not None:
        down = torch.where(vertical_flips[:, None], down.flip(1), down)
    across = torch.where(flips[:, None], across.flip(1), across)
    rows = _axis(boxes[:, 0], boxes[:, 2], sizes[:, 0], down, lengths[0])
    return rows, _axis(boxes[:, 1], boxes[:, 3], sizes[:, 1], across, lengths[1])


def by_products(images: Tensor, rows: Axis, columns: Axis, normalise: Normalisation) -> Tensor:
    """Resample by a matrix for each axis of each image."""
    num_images, channels, canvas_height, canvas_width = images.shape
    row_weights = rows.weights(torch.arange(canvas_height, device=images.device, dtype=torch.float32)[None, None])
    column_weights = columns.weights(torch.arange(canvas_width, device=images.device, dtype=torch.float32)[None, None])
    with torch.autocast(images.device.type, enabled=False):
        narrow = normalise(images).flatten(1, 2) @ column_weights.mT  # (B, C * S_h, W)
        return row_weights[:, None] @ narrow.view(num_images, channels, canvas_height, -1)


def by_sums(images: Tensor, rows: Axis, columns: Axis, normalise: Normalisation) -> Tensor:
    """Resample by sums of a few rows, then of a few columns, a part of the batch at a time.

    Normalising costs nothing here: the weights of rows include its scale, and its mean is taken off while columns are
    turned into rows.
    """
    num_images, channels, canvas_height, canvas_width = images.shape
    at_once = max(1, torch.get_num_threads() * _AT_ONCE // (channels * canvas_height * canvas_width))
    scale, mean = normalise.scale_and_mean()
    of_rows = _terms(rows, canvas_height, scale, at_once)
    of_columns = _terms(columns, canvas_width, torch.ones(channels), at_once)
    taken_off = mean[:, None] * of_rows.weights.sum(3)  # (B, C, H); less where a box leaves its image
    views = torch.empty(*taken_off.shape, columns.centres.shape[1])
    for start in range(0, num_images, at_once):
        part = slice(start, start + at_once)
        scaled = _sums(images[part].float(), of_rows, part)  # (b, C, H, S_w)
        turned = torch.empty(*scaled.shape[:2], canvas_width, scaled.shape[2])
        torch.sub(scaled.mT, taken_off[part, :, None], out=turned)
        views[part] = _sums(turned, of_columns, part).mT  # from (b, C, W, H)
    return views.flip(1) if normalise.is_bgr else views


class _Terms(NamedTuple):
    """The rows that each output row is the sum of.

    Attributes:
        rows: their places in ``images.flatten(0, 2)``, int32, shape (B, C, H, T).
        weights: shape (B, C, H, T).
    """

    rows: Tensor
    weights: Tensor


def _terms(axis: Axis, canvas: int, scale: Tensor, at_once: int) -> _Terms:
    """Return all pixels within reach along an axis, and others of weight 0.

    Args:
        axis: how it is resampled.
        canvas: its length.
        scale: a factor of the weights for each channel, shape (C,).
        at_once: into how many images at once the places point.
    """
    num_terms = min(canvas, int(2 * axis.reach.max()) + 1) if len(axis.reach) else 1
    lowest = torch.ceil(axis.centres - axis.reach).maximum(axis.first).clamp(min=0)
    pixels = lowest[..., None] + torch.arange(num_terms)  # (B, H, T)
    planes = torch.arange(len(pixels))[:, None] % at_once * len(scale) + torch.arange(len(scale))  # (B, C)
    rows = canvas * planes[..., None, None] + pixels.clamp(max=canvas - 1)[:, None]
    return _Terms(rows.to(torch.int32), axis.weights(pixels)[:, None] * scale[:, None, None])


def _sums(images: Tensor, terms: _Terms, part: slice) -> Tensor:
    """Return weighted sums of rows of some images: (b, C, S, L) -> (b, C, H, L)."""
    weights = terms.weights[part]
    # An "embedding bag" is torch's fastest way to add a few rows, others for each sum.
    sums = F.embedding_bag(
        terms.rows[part].flatten(0, 2), images.flatten(0, 2), per_sample_weights=weights.flatten(0, 2), mode="sum"
    )
    return sums.view(*weights.shape[:3], images.shape[3])


def _axis(starts: Tensor, extents: Tensor, sizes: Tensor, parts: Tensor, num_parts: int | Tensor) -> Axis:
    """Return how one axis of each image is resampled.

    Args:
        starts, extents: of the boxes, shape (B,).
        sizes: of the images, shape (B,).
        parts: the part of the box that each output is centred on, shape (B or 1, out).
        num_parts: into which the box is cut, one number or shape (B, 1).
    """
    starts, extents = (starts * sizes)[:, None], (extents * sizes)[:, None]  # in staged pixels, (B, 1)
    first = torch.floor(starts + SLIVER)
    last = torch.maximum(torch.ceil(starts + extents - SLIVER) - 1, first)
    centres = starts + (parts + 0.5) * (extents / num_parts) - 0.5  # (B, out), as pixel indices
    reach = (extents / num_parts).clamp(min=1)

    def sum_of_weights(begin: Tensor, end: Tensor) -> Tensor:
        # On one side of the centre the weights fall linearly, so their sum is the number of pixels times the mean.
        return (end - begin + 1).clamp(min=0) * (1 - ((begin + end) / 2 - centres).abs() / reach)

    middle = torch.floor(centres)
    total = sum_of_weights(torch.maximum(torch.ceil(centres - reach), first), torch.minimum(middle, last))
    total += sum_of_weights(torch.maximum(middle + 1, first), torch.minimum(torch.floor(centres + reach), last))
    return Axis(centres, reach, total, first, last, sizes[:, None])

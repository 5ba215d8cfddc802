"""Random operations on tone and shape: which ones each image gets, in which order, and their performance on a batch.

What an image gets is drawn on the CPU, where its sample index is, so that no draw waits for a device. A batch is then
worked on slot by slot: of the first operation of all images, those that got the same one are done together, and all
that warp are done in one sampling; then the second, and so on. Each image keeps its own order.

Legend: B batch, n slots, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from scipy.special import ndtri
from torch import Tensor

from vitft.data import order
from vitft.recipe.keys import AugmentRecipe
from vitft.views import focus, tone, warp

# Each takes levels (B, 3, H, W) and a number for each image (B,), and returns levels.
ON_LEVELS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": lambda levels, _: tone.autocontrast(levels),
    "equalize": lambda levels, _: tone.equalize(levels),
    "invert": lambda levels, _: tone.invert(levels),
    "grayscale": lambda levels, _: tone.grayscale(levels),
    "posterize": tone.posterize,
    "solarize": tone.solarize,
    "solarize-add": tone.solarize_add,
    "saturation": tone.saturation,
    "contrast": tone.contrast,
    "brightness": tone.brightness,
    "sharpness": focus.sharpness,
    "blur": focus.gaussian_blur,
}
# Each takes a number for each image (B,) and the size of the view, and returns matrices (B, 2, 3).
WARPS: Mapping[str, Callable[[Tensor, tuple[int, int]], Tensor]] = {
    "rotate": warp.rotate,
    "shear-x": warp.shear_x,
    "shear-y": warp.shear_y,
    "translate-x": warp.translate_x,
    "translate-y": warp.translate_y,
}
_WITHOUT_VALUE = ("autocontrast", "equalize", "invert", "grayscale")
NAMES = ("identity", *ON_LEVELS, *WARPS)
"""The operations, in the order of their numbers."""


class Drawn(NamedTuple):
    """What the images of a batch get, in this order."""

    operations: Tensor
    """Their places in :data:`NAMES`, int64, (B, n), on the CPU."""
    values: Tensor
    """What each is given: a factor, a threshold, an angle; float32, (B, n), on the CPU."""


def draw_operations(augment: AugmentRecipe, seed: int, sample_indices: Tensor) -> Drawn:
    """Draw what each image gets from the recipe: its policy, then colour jitter, grey, blur and solarise.

    Args:
        augment: the recipe's section.
        seed: the run's seed.
        sample_indices: int64, shape (B,), on the CPU.
    """

    def draw(stream: str, k: int) -> Tensor:
        return order.uniform(seed, stream, sample_indices, k)

    drawn = [_constant(torch.empty(len(sample_indices), 0), "identity", 0.0)]
    match augment.policy:
        case "3-augment":
            drawn.append(three_augment(draw("policy", 2)))
        case "randaugment":
            draws = draw("policy", 4 * augment.policy_ops).view(len(sample_indices), augment.policy_ops, 4)
            strength = augment.policy_magnitude, augment.policy_noise
            drawn.append(randaugment(draws, *strength, probability=augment.policy_probability))
        case "trivialaugment":
            drawn.append(trivialaugment(draw("policy", 3)))
    if augment.color_jitter:
        drawn.append(color_jitter(draw("color-jitter", 6), augment.color_jitter))
    if augment.grayscale:
        draws = draw("grayscale", 1)
        drawn.append(_by_chance(_constant(draws, "grayscale", 0.0), draws, augment.grayscale))
    if augment.blur:
        draws = draw("blur", 2)
        drawn.append(_by_chance(blur(draws[:, 1:]), draws[:, :1], augment.blur))
    if augment.solarize:
        draws = draw("solarize", 1)
        drawn.append(_by_chance(_constant(draws, "solarize", 128.0), draws, augment.solarize))
    return Drawn(torch.cat([each.operations for each in drawn], 1), torch.cat([each.values for each in drawn], 1))


def perform(levels: Tensor, drawn: Drawn, fill: Tensor) -> Tensor:
    """Do what was drawn.

    Args:
        levels: whole numbers from 0 to 255, float32, shape (B, 3, H, W); not kept.
        drawn: for the B images.
        fill: the colour where a warped view shows nothing of the image, shape (3,).

    Returns:
        Levels of the same shape.
    """
    for operations, values in zip(drawn.operations.unbind(1), drawn.values.unbind(1), strict=True):
        warped = torch.zeros(0, dtype=torch.int64)
        matrices = torch.empty(0, 2, 3)
        for number in sorted(set(operations.tolist())):
            name, rows = NAMES[number], (operations == number).nonzero()[:, 0]
            if name in ON_LEVELS:
                levels = _replaced(levels, rows, ON_LEVELS[name], values[rows])
            elif name in WARPS:
                warped = torch.cat((warped, rows))
                matrices = torch.cat((matrices, WARPS[name](values[rows], (levels.shape[2], levels.shape[3]))))
        if len(warped):
            levels = _replaced(levels, warped, partial(warp.warp, fill=fill), matrices)
    return levels


def in_words(drawn: Drawn) -> list[list[str]]:
    """Return what each image gets: the names of its operations, with the values of those that have one."""
    return [
        [
            NAMES[number] if NAMES[number] in _WITHOUT_VALUE else f"{NAMES[number]} {value:.3g}"
            for number, value in zip(numbers, values, strict=True)
            if number
        ]
        for numbers, values in zip(drawn.operations.tolist(), drawn.values.tolist(), strict=True)
    ]


def _replaced(levels: Tensor, rows: Tensor, change: Callable[[Tensor, Tensor], Tensor], values: Tensor) -> Tensor:
    """Change some images, in place; ``rows`` and ``values`` come from the CPU."""
    rows, values = (each.to(levels.device, non_blocking=True) for each in (rows, values))
    return levels.index_copy_(0, rows, change(levels[rows], values))


# --- the policies ------------------------------------------------------------------------------------------

_Strength = Mapping[str, Callable[[Tensor, Tensor], Tensor]]
"""Operation -> its value, from a strength in [0, 1] and a sign, 1 or -1; tensors of one shape."""


def _nothing(strength: Tensor, sign: Tensor) -> Tensor:
    return torch.zeros_like(strength)


def _factor(strength: Tensor, sign: Tensor, *, reach: float) -> Tensor:
    return 1 + reach * strength * sign


_RANDAUGMENT: _Strength = {
    "autocontrast": _nothing,
    "equalize": _nothing,
    "invert": _nothing,
    "rotate": lambda strength, sign: 30 * strength * sign,
    "posterize": lambda strength, sign: (4 - torch.floor(4 * strength)).clamp(min=1),  # 0 bits would be black
    "solarize": lambda strength, sign: 256 - torch.floor(256 * strength),
    "solarize-add": lambda strength, sign: torch.floor(110 * strength),
    "saturation": partial(_factor, reach=0.9),
    "contrast": partial(_factor, reach=0.9),
    "brightness": partial(_factor, reach=0.9),
    "sharpness": partial(_factor, reach=0.9),
    "shear-x": lambda strength, sign: 0.3 * strength * sign,
    "shear-y": lambda strength, sign: 0.3 * strength * sign,
    "translate-x": lambda strength, sign: 0.45 * strength * sign,
    "translate-y": lambda strength, sign: 0.45 * strength * sign,
}

_TRIVIALAUGMENT: _Strength = {
    "identity": _nothing,
    "autocontrast": _nothing,
    "equalize": _nothing,
    "rotate": lambda strength, sign: 135 * strength * sign,
    "posterize": lambda strength, sign: 8 - torch.round(6 * strength),
    "solarize": lambda strength, sign: 255 * (1 - strength),
    "saturation": partial(_factor, reach=0.99),
    "contrast": partial(_factor, reach=0.99),
    "brightness": partial(_factor, reach=0.99),
    "sharpness": partial(_factor, reach=0.99),
    "shear-x": lambda strength, sign: 0.99 * strength * sign,
    "shear-y": lambda strength, sign: 0.99 * strength * sign,
    "translate-x": lambda strength, sign: 32 / 224 * strength * sign,  # the paper's 32 pixels, at any size
    "translate-y": lambda strength, sign: 32 / 224 * strength * sign,
}
_TRIVIAL_LEVELS = 31


def three_augment(draws: Tensor) -> Drawn:
    """Draw grey, solarise or blur, each as likely: 3-Augment without its colour jitter (DeiT-III, arXiv:2204.07118).

    Args:
        draws: uniform in [0, 1), shape (B, 2): which, and the radius of a blur.
    """
    which = draws[:, :1]
    choices = (_constant(which, "grayscale", 0.0), _constant(which, "solarize", 128.0), blur(draws[:, 1:]))
    which = (len(choices) * which).long()
    return Drawn(
        torch.cat([each.operations for each in choices], 1).gather(1, which),
        torch.cat([each.values for each in choices], 1).gather(1, which),
    )


def randaugment(draws: Tensor, magnitude: float, noise: float, *, probability: float) -> Drawn:
    """Draw operations of one magnitude (RandAugment, arXiv:1909.13719).

    The operations and their strengths are those of timm's ``rand-m9-mstd0.5-inc1``, which DeiT, BEiT, MAE and FT-CLIP
    use: the paper's without identity, with inversion and an addition below the threshold of solarising.

    Args:
        draws: uniform in [0, 1), shape (B, n, 4): which operation, whether, the sign, the magnitude's noise.
        magnitude: 0 to 10.
        noise: standard deviation of the magnitude; what it becomes is kept within 0 and 10.
        probability: the chance that an operation is done.
    """
    which, whether, sign, quantile = draws.unbind(-1)
    normal = torch.as_tensor(ndtri(quantile.double().numpy() + 2.0**-25), dtype=torch.float32)  # 0 has no quantile
    strengths = (magnitude + noise * normal).clamp(0, 10) / 10
    return _by_chance(_chosen(_RANDAUGMENT, which, strengths, sign), whether, probability)


def trivialaugment(draws: Tensor) -> Drawn:
    """Draw one operation of a random strength (TrivialAugment, arXiv:2103.10158, its wide space).

    Args:
        draws: uniform in [0, 1), shape (B, 3): which operation, the strength, the sign.
    """
    which, strength, sign = (each[:, None] for each in draws.unbind(1))
    return _chosen(_TRIVIALAUGMENT, which, torch.floor(_TRIVIAL_LEVELS * strength) / (_TRIVIAL_LEVELS - 1), sign)


def color_jitter(draws: Tensor, reach: float) -> Drawn:
    """Draw brightness, contrast and saturation, in random order, by factors uniform in 1 - reach to 1 + reach.

    Args:
        draws: uniform in [0, 1), shape (B, 6): the three factors, and three numbers whose order is that of the three.
        reach: at most 1.
    """
    places = draws[:, 3:].argsort(dim=1, stable=True)
    numbers = torch.tensor([NAMES.index(name) for name in ("brightness", "contrast", "saturation")])
    factors = 1 + reach * (2 * draws[:, :3] - 1)
    return Drawn(numbers[places], factors.gather(1, places))


def blur(draws: Tensor) -> Drawn:
    """Draw a blur with a radius of 0.1 to 2 pixels, as 3-Augment does, from one uniform number, shape (B, 1)."""
    return Drawn(_constant(draws, "blur", 0.0).operations, 0.1 + 1.9 * draws)


def _constant(draws: Tensor, name: str, value: float) -> Drawn:
    """Return one operation and value in the shape of ``draws``."""
    return Drawn(torch.full_like(draws, NAMES.index(name), dtype=torch.int64), torch.full_like(draws, value))


def _chosen(table: _Strength, which: Tensor, strengths: Tensor, signs: Tensor) -> Drawn:
    """Return an operation of a table, each as likely, and its value; all arguments have one shape."""
    places = (len(table) * which).long()
    signs = torch.where(signs < 0.5, -1.0, 1.0)
    values = torch.stack([value(strengths, signs) for value in table.values()], -1)
    numbers = torch.tensor([NAMES.index(name) for name in table])
    return Drawn(numbers[places], values.gather(-1, places[..., None])[..., 0])


def _by_chance(drawn: Drawn, draws: Tensor, probability: float) -> Drawn:
    """Leave operations out where ``draws`` are not below a probability."""
    return Drawn(torch.where(draws < probability, drawn.operations, 0), drawn.values)

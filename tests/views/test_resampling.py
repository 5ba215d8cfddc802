import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from vitft.data.order import uniform
from vitft.views.geometry import random_boxes, simple_crops, whole_boxes
from vitft.views.pixel_values import Normalisation
from vitft.views.resampling import axes, by_products, resample, turn

MEAN_ERROR, MAX_ERROR = 0.05, 1.0  # of 255
AS_THEY_ARE = Normalisation((0.0,) * 3, (1 / 255,) * 3)


def noise(height, width, seed=0):
    """Pixels without any smoothness: the hardest case for a resampling kernel."""
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def canvas_of(images):
    """Lay images into a canvas whose unused part is white, so that any use of it shows."""
    canvas = torch.full((len(images), 3, *(max(i.shape[k] for i in images) for k in (1, 2))), 255, dtype=torch.uint8)
    for place, image in zip(canvas, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return canvas, torch.tensor([image.shape[1:] for image in images])


def in_units(box, image):
    """Return (top, left, height, width) in pixels of a staged image as units of that image."""
    height, width = image.shape[1:]
    return [box[0] / height, box[1] / width, box[2] / height, box[3] / width]


def resample_one(image, box, out, flip=False):
    """A view as it is made on a CPU, checked against how an accelerator makes it."""
    boxes = torch.tensor([in_units(box, image)], dtype=torch.float32)
    sizes, flips = torch.tensor([image.shape[1:]]), torch.tensor([flip])
    view = resample(image[None], sizes, boxes, flips, out, AS_THEY_ARE)[0]
    on_accelerator = by_products(image[None], *axes(sizes, boxes, flips, out), AS_THEY_ARE)[0]
    assert (view - on_accelerator).abs().max() < 1e-3
    return view


def torch_crop(image, box, out):
    top, left, height, width = box
    crop = image[:, top : top + height, left : left + width].float()
    return F.interpolate(crop[None], out, mode="bilinear", antialias=True, align_corners=False)[0]


def pillow_crop(image, box, out):
    """Cut out the pixels that the box touches, then let Pillow resize the fractional box within these."""
    top, left, height, width = box
    rows = math.floor(top), math.ceil(top + height)
    columns = math.floor(left), math.ceil(left + width)
    within = (left - columns[0], top - rows[0], left + width - columns[0], top + height - rows[0])
    channels = []
    for channel in image[:, rows[0] : rows[1], columns[0] : columns[1]].float().numpy():
        resized = Image.fromarray(channel).resize(out[::-1], Image.Resampling.BILINEAR, box=within)
        channels.append(torch.from_numpy(np.array(resized)))
    return torch.stack(channels)


def assert_same_pixels(got, expected):
    assert got.shape == expected.shape
    error = (got - expected).abs()
    assert error.mean() < MEAN_ERROR
    assert error.max() < MAX_ERROR


WHOLE_PIXEL_BOXES = {
    "all, shrunk": (0, 0, 97, 61),
    "inside, shrunk": (11, 7, 70, 50),
    "inside, enlarged": (40, 20, 13, 9),
    "top left corner": (0, 0, 30, 45),
    "bottom right corner": (67, 16, 30, 45),
    "rows shrunk, columns enlarged": (1, 30, 95, 6),
    "one pixel": (50, 50, 1, 1),
    "one row": (96, 0, 1, 61),
}
OUTS = [(24, 24), (32, 16), (7, 40)]


@pytest.mark.parametrize("out", OUTS, ids=str)
@pytest.mark.parametrize("box", WHOLE_PIXEL_BOXES.values(), ids=WHOLE_PIXEL_BOXES.keys())
def test_whole_pixel_boxes_equal_torch_crop_and_resize(box, out):
    image = noise(97, 61)
    assert_same_pixels(resample_one(image, box, out), torch_crop(image, box, out))


@pytest.mark.parametrize("out", OUTS, ids=str)
@pytest.mark.parametrize(
    "box",
    [
        (10.3, 7.8, 70.45, 40.1),
        (0.0, 0.0, 50.5, 33.3),
        (0.25, 0.75, 96.5, 60.2),
        (46.6, 20.2, 50.4, 40.8),
        (40.4, 20.7, 3.3, 2.2),
        (30.2, 12.6, 0.5, 0.2),
    ],
    ids=str,
)
def test_fractional_boxes_equal_pillow(box, out):
    image = noise(97, 61)
    assert_same_pixels(resample_one(image, box, out), pillow_crop(image, box, out))


@pytest.mark.parametrize("extent", [(50.5, 33.3), (20.2, 59.6), (7.7, 5.1)], ids=str)
def test_fractional_extents_equal_torch_at_that_scale(extent):
    image, out = noise(97, 61), (24, 16)
    touched = image[None, :, : math.ceil(extent[0]), : math.ceil(extent[1])].float()
    scales = [o / e for o, e in zip(out, extent, strict=True)]
    expected = torch.ops.aten._upsample_bilinear2d_aa(touched, out, False, *scales)[0]
    assert_same_pixels(resample_one(image, (0, 0, *extent), out), expected)


def test_random_boxes_of_a_staged_batch_equal_pillow():
    images = [noise(257, 257, 0), noise(257, 180, 1), noise(40, 257, 2), noise(33, 20, 3)]
    canvas, sizes = canvas_of(images)
    draws = uniform(0, "crop", torch.arange(4), 4)
    boxes = random_boxes(draws, sizes, (64, 64), scale=(0.2, 1.0), ratio=(0.75, 4 / 3), resize_mode="squash")
    got = resample(canvas, sizes, boxes, torch.zeros(4, dtype=torch.bool), (64, 64), AS_THEY_ARE)
    for image, box, size, view in zip(images, boxes.double(), sizes, got, strict=True):
        pixels = (box * torch.cat((size, size))).tolist()
        assert_same_pixels(view, pillow_crop(image, pixels, (64, 64)))


def test_an_image_gives_the_same_view_whatever_else_is_in_the_batch():
    images = [noise(50, 40, 0), noise(128, 90, 1), noise(7, 128, 2)]
    canvas, sizes = canvas_of(images)
    boxes, flips = torch.tensor([[0.1, 0.2, 0.8, 0.7]] * 3), torch.tensor([True, False, True])
    together = resample(canvas, sizes, boxes, flips, (32, 32), AS_THEY_ARE)
    for index, image in enumerate(images):
        part = slice(index, index + 1)
        alone = resample(image[None], sizes[part], boxes[part], flips[part], (32, 32), AS_THEY_ARE)[0]
        assert (together[index] - alone).abs().max() < 1e-3


def test_flip_mirrors_columns():
    image, box = noise(97, 61), (10.3, 7.8, 70.45, 40.1)
    mirrored = resample_one(image, box, (24, 18), flip=True)
    assert (mirrored - resample_one(image, box, (24, 18)).flip(-1)).abs().max() < 1e-3


def test_what_lies_outside_the_image_is_black():
    image = noise(40, 20)
    for box, padding in {(0, -10, 40, 40): (10, 10, 0, 0), (-7, 3, 60, 30): (0, 13, 7, 13)}.items():
        letterboxed = F.pad(image, padding)
        moved = (box[0] + padding[2], box[1] + padding[0], *box[2:])
        assert_same_pixels(resample_one(image, box, (16, 16)), torch_crop(letterboxed, moved, (16, 16)))


def test_the_unused_canvas_is_not_seen_through_a_letterbox():
    canvas, sizes = canvas_of([noise(40, 20), noise(20, 40)])
    boxes, flips = whole_boxes(sizes, (16, 16), "pad"), torch.zeros(2, dtype=torch.bool)
    views = resample(canvas, sizes, boxes, flips, (16, 16), AS_THEY_ARE)
    for view, (height, width), image in zip(views, sizes.tolist(), canvas, strict=True):
        letterboxed = F.pad(image[:, :height, :width], (0, 40 - width, 0, 40 - height))
        assert_same_pixels(view, torch_crop(letterboxed, (0, 0, 40, 40), (16, 16)))


def test_extreme_letterbox_keeps_its_brightness():
    image = torch.full((1, 3, 3, 257), 200, dtype=torch.uint8)
    originals = torch.tensor([[3, 4000]])
    boxes = whole_boxes(originals, (224, 224), "pad")
    view = resample(image, torch.tensor([[3, 257]]), boxes, torch.zeros(1, dtype=torch.bool), (224, 224), AS_THEY_ARE)
    assert 0.5 < view.mean().item() / (200 * 3 / 4000) < 2.1  # less than a row of the view, at its edge
    assert not view[..., 10:, :].any()


def test_one_pixel_fills_the_view():
    view = resample_one(torch.tensor([[[10]], [[90]], [[200]]], dtype=torch.uint8), (0, 0, 1, 1), (8, 8))
    assert torch.allclose(view, torch.tensor([10.0, 90.0, 200.0])[:, None, None].expand(3, 8, 8), atol=1e-3)


def test_autocast_does_not_coarsen_pixels():
    image = noise(97, 61)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        view = resample_one(image, (11, 7, 70, 50), (24, 24))
    assert_same_pixels(view, torch_crop(image, (11, 7, 70, 50), (24, 24)))


@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_a_simple_crop_is_resize_mirrored_padding_and_a_crop_of_whole_pixels(fit):
    """DeiT-III: Resize(shorter side), RandomCrop(padding=4, padding_mode="reflect"), here by Pillow and numpy."""
    images = [noise(60, 90), noise(48, 30, 1), noise(40, 40, 2)]
    canvas, sizes = canvas_of(images)
    draws = torch.tensor([[0.0, 0.0], [0.999, 0.999], [0.45, 0.2]])
    boxes, window = simple_crops(draws, sizes, (24, 24), fit)
    flips = torch.tensor([False, True, False])
    got = resample(canvas, sizes, boxes, flips, (24, 24), AS_THEY_ARE, window=window)
    on_accelerator = by_products(canvas, *axes(sizes, boxes, flips, (24, 24), window=window), AS_THEY_ARE)
    assert (got - on_accelerator).abs().max() < 1e-3
    for number, image in enumerate(images):
        if fit == "pad":
            side = max(image.shape[1:])
            image = F.pad(image, (0, side - image.shape[2], 0, side - image.shape[1]))
        scale = 24 / min(image.shape[1:])
        height, width = (int(side * scale + 1e-6) for side in image.shape[1:])
        top, left = ((draws[number] * torch.tensor([height + 9 - 24, width + 9 - 24])).floor().long()).tolist()
        resized = [
            np.array(Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR))
            for channel in image.float().numpy()
        ]
        padded = np.pad(np.stack(resized), ((0, 0), (4, 4), (4, 4)), mode="reflect")
        expected = torch.from_numpy(padded[:, top : top + 24, left : left + 24].copy())
        assert_same_pixels(got[number], expected.flip(2) if flips[number] else expected)


def test_vertical_flips_turn_the_drawn_images_upside_down():
    image = noise(30, 20)
    images, sizes = canvas_of([image, image])
    boxes, flips = torch.tensor([[0.1, 0.2, 0.7, 0.6]] * 2), torch.tensor([True, True])
    flipped = resample(images, sizes, boxes, flips, (16, 12), AS_THEY_ARE, vertical_flips=torch.tensor([False, True]))
    torch.testing.assert_close(flipped[1], flipped[0].flip(1), atol=1e-4, rtol=0)


def test_quarter_turns_are_those_of_torch():
    images = torch.stack([noise(5, 5, seed) for seed in range(4)])
    turned = turn(images, torch.tensor([0, 1, 2, 3]))
    for number in range(4):
        assert torch.equal(turned[number], torch.rot90(images[number], number, (1, 2)))

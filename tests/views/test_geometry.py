import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from vitft.data.order import uniform
from vitft.views.geometry import random_boxes, simple_crops, whole_boxes

ORIGINALS = torch.tensor([[200, 300], [300, 200], [64, 64], [100, 1000]])  # height, width


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ("squash", [[0, 0, 1, 1]] * 4),
        ("crop", [[0, 1 / 6, 1, 2 / 3], [1 / 6, 0, 2 / 3, 1], [0, 0, 1, 1], [0, 0.45, 1, 0.1]]),
        ("pad", [[0, 0, 1.5, 1], [0, 0, 1, 1.5], [0, 0, 1, 1], [0, 0, 10, 1]]),
    ],
)
def test_a_whole_scale_gives_what_evaluation_sees(fit, expected):
    draws = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    boxes = random_boxes(draws, ORIGINALS, (224, 224), scale=(1, 1), ratio=(0.75, 4 / 3), resize_mode=fit)
    assert torch.allclose(boxes, torch.tensor(expected, dtype=torch.float32), atol=1e-6)
    assert torch.equal(boxes, whole_boxes(ORIGINALS, (224, 224), fit))


@pytest.mark.parametrize(
    ("fit", "expected"),
    [("crop", [0.125, 0, 0.75, 1]), ("pad", [0, 0, 1, 4 / 3])],
)
def test_whole_boxes_have_the_shape_of_a_view_that_is_not_square(fit, expected):
    boxes = whole_boxes(torch.tensor([[200, 300]]), (100, 200), fit)
    assert torch.allclose(boxes, torch.tensor([expected]), atol=1e-6)


def random_case(fit, image_size, original, n=4000):
    draws = uniform(0, "crop", torch.arange(n), 4)
    originals = torch.tensor([original]).expand(n, 2)
    return random_boxes(draws, originals, image_size, scale=(0.4, 1.0), ratio=(0.75, 4 / 3), resize_mode=fit)


@pytest.mark.parametrize("image_size", [(224, 224), (96, 192)], ids=str)
@pytest.mark.parametrize("original", [(200, 300), (64, 64), (100, 1000)], ids=str)
@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_random_boxes_lie_in_the_image_and_keep_shapes_true(fit, original, image_size):
    top, left, height, width = random_case(fit, image_size, original).unbind(1)
    assert min(top.min(), left.min()) >= -1e-6
    assert max((top + height).max(), (left + width).max()) <= 1 + 1e-6
    distortion = (width * original[1]) / (height * original[0]) / (image_size[1] / image_size[0])
    assert distortion.min() >= 0.75 - 1e-4
    assert distortion.max() <= 4 / 3 + 1e-4
    assert distortion.log().mean().abs() < 0.02  # log-uniform, so neither wide nor tall ones win
    assert distortion.log().std().item() == pytest.approx(math.log(16 / 9) / 12**0.5, rel=0.03)


def test_random_boxes_of_pad_lie_in_the_letterbox_and_use_all_of_it():
    top, left, height, width = random_case("pad", (224, 224), (200, 300)).unbind(1)
    assert top.min() >= -1e-6
    assert (top + height).max() <= 1.5 + 1e-6
    assert left.min() >= -1e-6
    assert (left + width).max() <= 1 + 1e-6
    assert top.min() < 0.01
    assert (top + height).max() > 1.49


def test_areas_span_the_scale_and_places_the_leeway():
    _, left, height, width = random_case("squash", (224, 224), (64, 64)).unbind(1)
    areas = height * width
    assert 0.4 - 1e-4 <= areas.min() < 0.41
    assert 0.98 < areas.max() <= 1 + 1e-4
    place = left / (1 - width).clamp(min=1e-3)
    roomy = 1 - width > 0.05
    assert place[roomy].mean().item() == pytest.approx(0.5, abs=0.02)
    assert place[roomy].std().item() == pytest.approx(12**-0.5, rel=0.05)


def test_areas_agree_with_drawing_again_until_the_box_fits():
    generator = np.random.default_rng(0)
    areas = generator.uniform(0.4, 1, 40000)
    ratios = np.exp(generator.uniform(math.log(0.75), math.log(4 / 3), 40000))
    fits = areas * np.maximum(ratios, 1 / ratios) <= 1
    _, _, height, width = random_case("squash", (224, 224), (64, 64)).unbind(1)
    assert (height * width).mean().item() == pytest.approx(areas[fits].mean(), abs=0.02)


def test_a_panorama_gives_its_largest_boxes_from_everywhere():
    _, left, height, width = random_case("squash", (224, 224), (100, 1000)).unbind(1)
    assert width.max() <= 4 / 3 / 10 + 1e-6
    assert (height >= 1 - 1e-6).all()  # 40 % of the area never fits in a true shape: as tall as the image
    assert left.min() < 0.01
    assert (left + width).max() > 0.99


def test_simple_crops_reach_every_place_alike():
    n = 4000
    _, window = simple_crops(
        uniform(0, "c", torch.arange(n), 2), torch.tensor([[32, 40]]).expand(n, 2), (32, 32), "crop"
    )
    counts = torch.unique(window.columns[:, 10], return_counts=True)[1]
    assert len(counts) == 8 + 8 + 1
    assert chisquare(counts.numpy()).pvalue > 1e-4

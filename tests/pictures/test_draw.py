"""Mosaics, overlays and captions."""

import numpy as np
import pytest
import torch
from PIL import Image

from vitft.pictures.draw import caption, lit, mosaic, save, usual_range
from vitft.svg import canvas


def test_a_mosaic_keeps_every_tile_in_its_place():
    tiles = torch.arange(24.0).reshape(2, 3, 2, 2)
    laid = mosaic(tiles)
    assert laid.shape == (5, 8)
    assert laid[0].tolist()[:2] == [0, 1]
    assert laid[3:, 6:].tolist() == [[20, 21], [22, 23]]
    assert np.isnan(laid[2]).all()
    assert np.isnan(laid[:, [2, 5]]).all()


def test_an_overlay_is_bright_where_the_map_is_high():
    weights = torch.zeros(4, 4)
    weights[0] = 1
    photo = lit(torch.full((3, 32, 32), 200, dtype=torch.uint8), weights)
    assert photo[0, 0, 0] > 5 * photo[-1, -1, 0]
    assert photo.max() <= 1


def test_a_flat_map_and_a_sink_leave_the_rest_to_be_seen():
    low, high = usual_range(torch.ones(4, 4))
    assert low == high
    weights = torch.rand(14, 14, generator=torch.Generator().manual_seed(0))
    weights[0, 0] = 1000
    assert usual_range(weights)[1] < 1.01


@pytest.mark.parametrize("words", [3, 60])
def test_no_line_of_a_caption_is_clipped(words, tmp_path):
    """Its margin at the right stays white, however long the text."""
    figure = canvas(5, 4)
    figure.subplots().plot([0, 1])
    caption(figure, "A title $of a model_with_odd$ names " * (words // 10 + 1), ["some words " * words])
    save(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as drawn:
        pixels = np.asarray(drawn.convert("L"))
    assert (pixels[:, -2:] > 250).all()
    assert (pixels[-2:] > 250).all()

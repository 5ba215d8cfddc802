"""Figures: every kind, of one model and of two, with its words."""

import re

import numpy as np
import pytest
from PIL import Image

from vitft.pictures.figures import draw
from vitft.pictures.look import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_with_model_and_images_named(kind, seen, tmp_path):
    text = draw(kind, [("", seen)], tmp_path / "figure.png").caption
    with Image.open(tmp_path / "figure.png") as figure:
        assert min(figure.size) > 200
        assert np.asarray(figure.convert("L")).std() > 5
    assert "a-vit (vit at 32x32)" in text
    assert kind in ("filters", "positions") or re.search(r"Images: \d+ of nowhere", text)
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["filters", "positions", "distance", "rollout"])
def test_before_and_after_stand_side_by_side(kind, seen, tmp_path):
    draw(kind, [("before", seen), ("after", seen)], tmp_path / "figure.svg")
    text = (tmp_path / "figure.svg").read_text()
    assert "before" in text
    assert "after" in text


def test_the_same_picture_is_the_same_svg(seen, tmp_path):
    for name in ("a.svg", "b.svg"):
        draw("entropy", [("", seen)], tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()

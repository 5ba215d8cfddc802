"""Figures: where they go, what stands in them, and the intervals that they show."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from vitft.errors import UsageError
from vitft.report.size_plot import _interval, check_figure_path, draw_size_sweep


def row(size, top1=0.8, count=500, speed=100.0):
    return {"image_size": list(size), "top1": top1, "count": count, "images_per_second": speed}


ROWS = [
    row((160, 160), 0.71, speed=410.5),
    row((192, 192), 0.78, speed=300.25),
    row((224, 224), 0.82, speed=220.75),
    row((224, 320), 0.83, speed=150.0),
    row((384, 384), 0.80, speed=80.125),
]


def drawn(path, rows=ROWS, own=(224, 224), **options):
    draw_size_sweep(rows, own, path, **options)
    return path


def texts(path):
    """What can be read and searched for in an SVG, in its order."""
    return [found.text for found in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


# --- where they go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.svg", "a.pdf", "a.PNG", "a.b.png"])
def test_a_free_path_is_taken_as_it_is(tmp_path, name):
    assert check_figure_path(tmp_path / name) == tmp_path / name
    assert not list(tmp_path.iterdir())


def test_a_path_that_is_taken_counts_up(tmp_path):
    path = tmp_path / "sizes.png"
    for name in ("sizes.png", "sizes-2.png", "sizes-3.png"):
        found = check_figure_path(path)
        assert found == tmp_path / name
        found.touch()
    assert check_figure_path(tmp_path / "sizes.svg") == tmp_path / "sizes.svg"


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.txt", ".png"])
def test_another_format_is_refused_with_those_that_are_possible(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be written as") as caught:
        check_figure_path(tmp_path / name)
    assert caught.value.exit_code == 2
    assert f"as {name}\n  allowed: .png, .svg, .pdf" in str(caught.value)


def test_a_missing_folder_is_refused_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(UsageError, match="does not exist") as caught:
        check_figure_path(tmp_path / "new" / "a.png")
    assert f"try: mkdir -p {tmp_path / 'new'}" in str(caught.value)


def test_a_name_alone_goes_to_the_folder_where_the_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a.png").touch()
    assert check_figure_path(Path("a.png")) == Path("a-2.png")


# --- what stands in them -----------------------------------------------------------------------------------


def test_the_png_is_of_a_size_for_screens_and_not_empty(tmp_path):
    with Image.open(drawn(tmp_path / "a.png", title="a model on a dataset")) as image:
        assert image.format == "PNG"
        assert 800 <= image.width <= 2000
        assert 450 <= image.height <= 1500
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0x1F, 0x5F, 0xA8), (0xB3, 0x5C, 0x00)):  # accuracy, speed
        assert (pixels == colour).all(1).sum() > 500
    assert (pixels == 255).all(1).mean() > 0.5


def test_the_svg_says_what_its_axes_show(tmp_path):
    found = texts(drawn(tmp_path / "a.svg", title="a model on a dataset"))
    for text in (
        "top-1 accuracy in %, with 95 % interval",
        "image size in pixels (height x width)",
        "images per second",
        "a model on a dataset",
        "the checkpoint's own size",
    ):
        assert text in found


def test_sizes_stand_in_the_order_of_their_pixels(tmp_path):
    found = texts(drawn(tmp_path / "a.svg", [ROWS[index] for index in (3, 0, 4, 2, 1)]))
    assert [text for text in found if text[0].isdigit() and "x" in text] == [
        "160x160", "192x192", "224x224", "224x320", "384x384",
    ]  # fmt: skip


def test_a_checkpoints_size_that_was_not_tried_is_not_marked(tmp_path):
    assert "the checkpoint's own size" not in texts(drawn(tmp_path / "a.svg", own=(256, 256)))
    assert "the checkpoint's own size" not in texts(drawn(tmp_path / "b.svg", [ROWS[3]], own=(320, 224)))


@pytest.mark.parametrize(("top1", "count"), [(0.0, 3), (0.0, 12), (1.0, 10), (1.0, 19), (1.0, 1)])
def test_none_or_all_right_can_be_drawn(tmp_path, top1, count):
    drawn(tmp_path / "a.png", [row((224, 224), top1, count)])
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image.convert("L")).std() > 0, "an empty page"


@pytest.mark.parametrize("title", ["runs/a_b", "runs/$a_$b", "100 % {x}"])
def test_the_title_is_plain_text(tmp_path, title):
    assert title in texts(drawn(tmp_path / "a.svg", title=title))


def test_drawing_leaves_the_rows_alone(tmp_path):
    rows = [ROWS[2], ROWS[0]]
    copies = [dict(each) for each in rows]
    drawn(tmp_path / "a.png", rows)
    assert rows == copies


# --- intervals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0, 1)],
)
def test_the_interval_has_wilsons_values(right, count, low, high):
    row = {"top1": right / max(count, 1), "count": count}
    assert _interval(row) == pytest.approx((low, high), abs=5e-5)

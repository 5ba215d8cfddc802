"""What is drawn: every kind, of one model and of two, with its words; mosaics, overlays, the page."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from model import zoo
from PIL import Image

from vitft.architectures import families
from vitft.errors import UsageError
from vitft.pictures import captions
from vitft.pictures.draw import canvas, caption, lit, mosaic, save, usual_range
from vitft.pictures.figures import draw
from vitft.pictures.look import KINDS, Photo, check_kinds, drawable, look
from vitft.pictures.numbers import plain, write_distances
from vitft.pictures.page import Picture, write_page

SIZE = (32, 32)


def subject(family="vit", **changes):
    model = zoo.classifier(zoo.config(family, **changes)).eval()
    return zoo.loaded(model, zoo.processor(family), SIZE, f"a-{family}")


def photos(count, name="p"):
    pixels = torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
    return [Photo(f"{name}{number}", each, "a class") for number, each in enumerate(pixels)]


@pytest.fixture(scope="module")
def seen():
    found = look(subject(), list(KINDS), photos(5), show=2, pool=photos(7, "q"))
    found.images = "of nowhere"
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_with_model_and_images_named(kind, seen, tmp_path):
    text = draw(kind, [("", seen)], tmp_path / "figure.png")
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


def test_what_was_seen_has_the_numbers_asked_for(seen):
    assert seen.num_images == 5
    assert len(seen.layers) == 3
    assert len(seen.shown) == 2
    first = seen.shown[0]
    assert first.rollout.shape == first.rollout_plain.shape == first.relevance.shape == (4, 4)
    assert first.heads.shape == (2, 4, 4)
    assert first.received.shape == (3, 4, 4)
    assert first.colours.shape == (4, 4, 3)
    assert [len(each.neighbours) for each in seen.shown] == [5, 5]
    assert seen.compared == 7
    assert sum(value for _, value in first.predictions) <= 1


def test_means_are_over_all_images_whatever_is_shown(seen):
    others = look(subject(), ["distance"], photos(5), show=5)
    for one, other in zip(seen.layers, others.layers, strict=True):
        assert one.distance_dropped == pytest.approx(other.distance_dropped, rel=1e-5)


def test_a_model_without_class_token_reads_the_mean_and_says_so():
    found = look(subject("siglip"), ["rollout"], photos(1))
    assert found.reads == "mean"
    assert "mean over the patches' tokens" in captions.lines("rollout", [("", found)])[0]


def test_without_a_head_nothing_is_predicted():
    found = look(replace(subject(), has_head=False), ["rollout", "relevance"], photos(1))
    assert found.shown[0].predictions == []
    assert "no trained head" in found.reasons["relevance"]


def test_a_convolutional_model_has_filters_and_a_reason_for_the_rest(tmp_path):
    found = look(subject("resnet"), ["filters", "positions", "distance", "rollout", "tokens"], photos(1))
    assert found.filters is not None
    assert set(found.reasons) == {"positions", "distance", "rollout"}
    assert "convolutions" in found.reasons["distance"]
    assert drawable(zoo.config("resnet")) == ["filters", "tokens", "neighbours"]
    assert draw("rollout", [("", found)], tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("family", ["swin", "hiera", "pvt", "mobilevit"])
def test_where_rollout_is_not_defined_the_reason_is_given(family):
    assert set(drawable(zoo.config(family))).isdisjoint({"rollout", "relevance"})
    assert "distance" in drawable(zoo.config(family))


def test_an_unknown_family_is_drawn_by_what_is_seen_of_it(monkeypatch):
    monkeypatch.delitem(families.FAMILIES, "vit")
    monkeypatch.delitem(families.FAMILIES, "resnet")
    known = look(subject(), ["rollout", "tokens"], photos(2), show=2)
    assert known.shown[0].colours is not None and known.shown[0].rollout is not None and not known.reasons
    without = look(subject("resnet"), ["distance", "rollout", "tokens"], photos(2), show=2)
    assert {kind: reason.startswith("no attention") for kind, reason in without.reasons.items()} == {
        "distance": True, "rollout": True,
    }  # fmt: skip
    assert without.shown[0].colours is not None


def test_no_images_is_a_reason():
    found = look(subject(), ["filters", "rollout"])
    assert found.reasons == {"rollout": "there are no images"}


def test_unknown_kinds_are_listed_with_what_there_is():
    with pytest.raises(UsageError, match="rolout") as raised:
        check_kinds(["filters", "rolout"])
    assert "sinks: attention on" in raised.value.allowed
    assert raised.value.hint == "--only rollout"


def test_kinds_come_in_their_order():
    assert check_kinds(["rollout", "filters"]) == ["filters", "rollout"]


# --- numbers -----------------------------------------------------------------------------------------------


def test_numbers_are_plain_and_complete(seen, tmp_path):
    values = plain(seen)
    assert len(values["layers"]) == 3
    assert np.array(values["positions"][0]["values"]).shape == (4, 4, 4, 4)
    assert np.array(values["shown"][0]["rollout"]).sum() == pytest.approx(float(seen.shown[0].rollout.sum()), rel=1e-5)
    write_distances(seen, tmp_path / "distance.csv")
    header, *rows = (tmp_path / "distance.csv").read_text().splitlines()
    assert header.startswith("layer,block,head,distance_dropped_px")
    assert len(rows) == 6
    assert float(rows[0].split(",")[3]) == pytest.approx(seen.layers[0].distance_dropped[0], rel=1e-5)


# --- drawing -----------------------------------------------------------------------------------------------


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


# --- the page ----------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(seen, tmp_path):
    draw("entropy", [("", seen)], tmp_path / "entropy.png")
    picture = Picture("entropy", "A <title>", tmp_path / "entropy.png", "text & more")
    write_page(tmp_path / "index.html", "Inside <x>", {"model": "m<1>", "empty": ""}, [picture], {"heads": "why"})
    page = (tmp_path / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert "A &lt;title&gt;" in page
    assert "Inside &lt;x&gt;" in page
    assert "why" in page
    assert "empty" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)

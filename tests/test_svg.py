"""Figures for pages: colours that follow the reader, text that stays text, ids of their own."""

import re
import xml.etree.ElementTree as ET

import pytest

from vitft.svg import INK, SERIES, address, canvas, inline_svg, page_svg, palette

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "-->]]>", "#222222", "$x^2$", "蒲公英", "ورد"]


def figure_of(names):
    figure = canvas(4, 3, layout=None)
    axes = figure.add_subplot()
    axes.plot(range(len(names)), color=SERIES[0])
    for place, name in enumerate(names):
        axes.text(place, place, name, color=INK, parse_math=False)
    return figure


@pytest.mark.parametrize("draw", [page_svg, lambda figure: inline_svg(figure, "a figure")], ids=["page", "inline"])
def test_every_name_is_plain_text(draw):
    root = ET.fromstring(draw(figure_of(HOSTILE)))
    texts = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")]
    assert set(HOSTILE) <= set(texts)
    assert not [each for each in root.iter() if each.tag.lower().endswith(("script", "img"))]


def test_colours_have_a_value_in_light_and_in_dark():
    svg = inline_svg(figure_of(["a"]), "curve")
    used = set(re.findall(r"var\((--c\d+)\)", svg))
    light, dark = palette().split("@media")
    assert used and all(f"{name}:" in light and f"{name}:" in dark for name in used)
    assert not re.search(r"fill: ?#fff", svg)  # no background of its own


def test_a_title_cannot_leave_its_attribute():
    root = ET.fromstring(inline_svg(figure_of(["a"]), '"><b>'))
    assert root.get("aria-label") == '"><b>'
    assert not [each for each in root.iter() if each.tag.endswith("}b") or each.tag == "b"]


def test_two_figures_on_a_page_share_no_id():
    ids = [set(re.findall(r' id="([^"]+)"', inline_svg(figure_of(["a"]), title))) for title in ("one", "other")]
    assert ids[0] and not ids[0] & ids[1]


def test_the_same_figure_gives_the_same_text():
    assert inline_svg(figure_of(["a"]), "one") == inline_svg(figure_of(["a"]), "one")


def test_an_address_holds_the_whole_picture():
    assert address(b"abc", "image/png") == "data:image/png;base64,YWJj"

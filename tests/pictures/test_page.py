"""One page that needs nothing else."""

import re
from xml.etree import ElementTree

from vitft.pictures.figures import Drawn, draw
from vitft.pictures.page import write_page


def test_the_page_needs_nothing_else(tmp_path):
    picture = Drawn("entropy", "A <title>", "text & more", "<svg/>", 7.0)
    write_page(tmp_path / "index.html", "Inside <x>", {"model": "m<1>", "empty": ""}, [picture], {"heads": "why"})
    page = (tmp_path / "index.html").read_text()
    assert "data:image/svg+xml;base64,PHN2Zy8+" in page and 'width="672"' in page
    assert "A &lt;title&gt;" in page
    assert "text &amp; more" in page
    assert "Inside &lt;x&gt;" in page
    assert "why" in page
    assert "empty" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_a_figure_on_a_page_has_neither_title_nor_background_and_follows_the_dark_mode(seen, tmp_path):
    drawn = draw("entropy", [("", seen)], tmp_path / "entropy.svg", for_page=True)
    whole = (tmp_path / "entropy.svg").read_text()
    assert drawn.title in whole and drawn.title not in drawn.svg
    assert "#ffffff" not in drawn.svg.lower()
    style = ElementTree.fromstring(drawn.svg).find("{http://www.w3.org/2000/svg}style").text
    assert "prefers-color-scheme:dark" in style and "text{fill:var(" in style
    colours = set(re.findall(r"#[0-9a-f]{6}", drawn.svg.replace(style, "")))
    assert "#000000" not in colours and "#222222" not in colours  # black on a dark page

"""One page that needs nothing else."""

import re

from vitft.pictures.figures import draw
from vitft.pictures.page import Picture, write_page


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

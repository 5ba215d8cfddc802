"""All pictures of a model on one page, which needs no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vitft.pictures.figures import Drawn
from vitft.svg import address


def write_page(
    path: Path, title: str, facts: Mapping[str, Any], pictures: Sequence[Drawn], reasons: Mapping[str, str]
) -> None:
    """Write the page.

    Args:
        path: of the file.
        title: its heading.
        facts: what stands under the heading, by name.
        pictures: in their order.
        reasons: why a kind of picture is not there.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    environment.filters["address"] = lambda svg: address(svg.encode(), "image/svg+xml")
    template = environment.get_template("page.html.j2")
    path.write_text(
        template.render(title=title, facts=facts, pictures=pictures, reasons=reasons) + "\n", encoding="utf-8"
    )

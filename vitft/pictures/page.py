"""All pictures of a model on one page, which needs no other file and no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TYPES = {".png": "image/png", ".svg": "image/svg+xml"}


@dataclass(frozen=True)
class Picture:
    """A figure on a page.

    Attributes:
        kind: what it is of; its heading and anchor.
        title: what it shows, in a few words.
        path: of the file.
        text: what it shows, of which model, on which images, by which definition.
    """

    kind: str
    title: str
    path: Path
    text: str

    @property
    def source(self) -> str:
        """The file itself as an address."""
        content = base64.b64encode(self.path.read_bytes()).decode("ascii")
        return f"data:{_TYPES[self.path.suffix]};base64,{content}"


def write_page(
    path: Path, title: str, facts: Mapping[str, Any], pictures: Sequence[Picture], reasons: Mapping[str, str]
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
    template = environment.get_template("page.html.j2")
    path.write_text(
        template.render(title=title, facts=facts, pictures=pictures, reasons=reasons) + "\n", encoding="utf-8"
    )

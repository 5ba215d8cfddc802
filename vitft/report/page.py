"""A run or an evaluation as one page, which needs no other file and no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitft.disk import write_whole
from vitft.outside import shown
from vitft.report.record import Record
from vitft.report.sections import sections_of
from vitft.report.words import brief, percent
from vitft.svg import palette

if TYPE_CHECKING:
    from jinja2 import Environment

MARK = '<meta name="generator" content="vitft report">'
"""Stands near the beginning of every page, so that we know which files are ours."""


def run_page(record: Record) -> str:
    """Return the page of a run or of an evaluation."""
    return render(
        "run.html.j2", {**sections_of(record), "name": record.name, "kind": record.kind, "split": record.split}
    )


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Return a page: of a template of this folder, with style sheet and script in it.

    Every text is escaped, and freed of control characters and secrets; only what the template calls
    ``safe`` is taken as it is: our own SVG, and pictures as base64.
    """
    folder = resources.files("vitft.report")
    style = palette() + folder.joinpath("page.css").read_text("utf-8")
    script = folder.joinpath("page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()  # no other script may run
    page = _environment().get_template(template).render(**facts, mark=MARK, style=style, script=script, digest=digest)
    return page + "\n"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    def plain(value: Any) -> Any:
        return shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value

    environment = Environment(
        loader=PackageLoader("vitft", "report"),
        autoescape=True,
        finalize=plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "brief": brief}
    return environment


def write_page(path: Path, page: str) -> None:
    """Write a page, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    write_whole(path, page.encode("utf-8", "backslashreplace"))


def is_ours(path: Path) -> bool:
    """Whether a file is a page that vitft wrote."""
    try:
        with path.open("rb") as file:
            return MARK.encode() in file.read(2000)
    except OSError:
        return False

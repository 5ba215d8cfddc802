"""A hook of mkdocs: pages of the repository that docs/ links to become pages of the site.

In the repository `../SECURITY.md` leads to the file; the site has only docs/, so the file is added there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(\.\./((?:[\w.-]+/)*[\w.-]+\.md)(#[\w-]+)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are linked to."""
    docs = Path(config.docs_dir)
    linked = {name for page in docs.glob("*.md") for name, _ in LINK.findall(page.read_text(encoding="utf-8"))}
    for name in sorted(linked):
        text = (ROOT / name).read_text(encoding="utf-8")
        page = File.generated(config, _place(name), content=_without_links(text), inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(page)
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links out of docs/ to the pages that were added."""
    return LINK.sub(lambda found: f"]({_place(found[1])}{found[2] or ''})", markdown)


def _place(name: str) -> str:
    return "repository/" + name.lstrip(".").replace("/", "-").lower()


def _without_links(text: str) -> str:
    """Leave the text of relative links and pictures, whose targets are not on the site."""
    return re.sub(r"!?\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)

"""What notebooks show of results."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


class ShownAsText:
    """A result that a notebook shows as a terminal would."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def html_table(frame: DataFrame) -> str:
    """Return a table for a notebook; a long one is cut in the middle, as pandas does."""
    return str(frame.to_html(index=False, max_rows=60, na_rep="", float_format="{:.4f}".format))

"""Figures as SVG for a page: without a background, in colours that follow the reader's light or dark mode.

No pyplot: it would choose a window system, and keep every figure.
"""

from __future__ import annotations

import base64
import html
import io
import re
import warnings
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, SOFT, LINE = "#222222", "#777777", "#e5e5e5"
SERIES = ("#1f5fa8", "#b35c00", "#2b7d3c", "#8e3fa3", "#a8324a", "#0f7c83", "#6b5b00", "#5b5bd6")
"""Colours of curves, told apart by the colour-blind as far as eight can be."""
_DARK = {
    INK: "#e6e6e6", "#000000": "#e6e6e6", SOFT: "#a6a6a6", LINE: "#3a3a3a", "#440154": "#c79be8",
    "#31688e": "#79b4e0", "#5a7fa8": "#79a5d6", "#8a8a00": "#cfcf4a",
    "#1f5fa8": "#7db5f0", "#b35c00": "#f2a65a", "#2b7d3c": "#7fcf8f", "#8e3fa3": "#d79be8", "#a8324a": "#f08ba0",
    "#0f7c83": "#6fd3da", "#6b5b00": "#d6c65a", "#5b5bd6": "#aeaeff",
}  # fmt: skip
"""What a colour of a figure becomes on a dark page."""
_NAMES = {colour: f"--c{number}" for number, colour in enumerate(_DARK)}


def canvas(
    width: float, height: float, *, dpi: int = 110, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """Return an empty figure of a size in inches, whose parts make room for each other unless ``layout`` is None."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def page_svg(figure: Figure) -> str:
    """Return a figure as a whole SVG document, which knows light and dark mode by itself."""
    start, svg, rest = _drawn(figure, "vitft").partition("<svg ")
    head, close, body = rest.partition(">")
    style = f"<style>{palette()}text{{fill:var({_NAMES[INK]})}}</style>"  # black text has no colour of its own
    return f"{start}{svg}{head}{close}{style}{_themed(body)}"


def inline_svg(figure: Figure, title: str) -> str:
    """Return a figure as an element to stand in a page that has :func:`palette` in its style sheet.

    Args:
        figure: to draw.
        title: what a screen reader says of it; also keeps the ids of several figures apart.
    """
    _, _, rest = _drawn(figure, title).partition("<svg ")
    head, _, body = rest.partition(">")
    box = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"<style [^>]*>\*\{[^<]*</style>", "", body)
    body = re.sub(r' id="[a-zA-Z0-9.]+(?:_[a-zA-Z0-9]+)*_\d+"', "", body)  # of groups, that nothing refers to
    body = re.sub(r"\n\s*", "\n", body)
    width = round(96 * figure.get_figwidth())
    return (
        f'<svg role="img" aria-label="{html.escape(title)}" style="max-width:{width}px" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" {box[0] if box else ""}>{_themed(body)}'
    )


def palette() -> str:
    """Return the rules that give the colours of figures their values; on paper they are the light ones."""
    light = ";".join(f"{_NAMES[colour]}:{colour}" for colour in _DARK)
    dark = ";".join(f"{_NAMES[colour]}:{other}" for colour, other in _DARK.items())
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def series_colour(number: int) -> str:
    """Return the colour of a curve as the style sheet of a page takes it."""
    return f"var({_NAMES[SERIES[number % len(SERIES)]]})"


def address(content: bytes, kind: str) -> str:
    """Return a picture as an address that holds all of it.

    Args:
        content: of its file.
        kind: its MIME type, such as ``image/png``.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _drawn(figure: Figure, salt: str) -> str:
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's fonts have it
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue()


def _themed(body: str) -> str:
    """Replace colours by their variables, in tags only: a class may be called ``#222222``."""
    colours = re.compile("|".join(_DARK))
    return re.sub(
        r"<[^>]*>",
        lambda tag: colours.sub(lambda colour: f"var({_NAMES[colour[0]]})", tag[0]) if "#" in tag[0] else tag[0],
        body,
    )

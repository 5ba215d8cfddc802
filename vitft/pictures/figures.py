"""Draw the figures for a look inside one model, or several side by side: one figure per kind of picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vitft.pictures import captions
from vitft.pictures.attention import SINK, Layer
from vitft.pictures.captions import Looks
from vitft.pictures.draw import Tile, caption, lit, photo_of, save, shortened, show_mosaic, show_tiles
from vitft.pictures.filters import Filters
from vitft.pictures.look import Look, Shown
from vitft.pictures.positions import Positions
from vitft.svg import canvas, page_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_HEADS = 12


@dataclass(frozen=True)
class Drawn:
    """A figure for a page, which shows its title and caption beside it.

    Attributes:
        kind: one of :data:`vitft.pictures.look.KINDS`.
        title: what the figure shows, in a few words.
        caption: the same in full: of which model, on which images, by which definition.
        svg: the figure alone; empty if no page is made.
        width: in inches; at this width its text has the size it was drawn at.
    """

    kind: str
    title: str
    caption: str
    svg: str
    width: float


def draw(kind: str, looks: Looks, path: Path, *, for_page: bool = False) -> Drawn | None:
    """Draw one kind of picture into a file, with its title and caption; return None if there is nothing to draw.

    Args:
        kind: one of :data:`vitft.pictures.look.KINDS`.
        looks: one, or several side by side.
        path: file to write; its suffix gives the format.
        for_page: whether to return the figure for a page as well.
    """
    figure = _DRAWERS[kind](looks)
    if figure is None:
        return None
    title, below = captions.title(kind, looks), captions.lines(kind, looks)
    drawn = Drawn(kind, title, " ".join(below), page_svg(figure) if for_page else "", figure.get_figwidth())
    caption(figure, title, below)
    save(figure, path)
    return drawn


# --- filters and positions ---------------------------------------------------------------------------------


def _draw_filters(looks: Looks) -> Figure | None:
    found = [(label, seen.filters) for label, seen in looks if seen.filters]
    if not found:
        return None
    figure = canvas(10 if len(found) == 1 else 5.4 * len(found), 4.9 if len(found) == 1 else 4.6)
    parts: Any = figure.subplots(1, 2, width_ratios=[1.5, 1]) if len(found) == 1 else figure.subplots(1, len(found))
    for axes, (label, filters) in zip(parts, found, strict=False):
        _show_filters(axes, filters)
        axes.set_title(label, fontsize=9, parse_math=False)
    if len(found) == 1:
        _, filters = found[0]
        numbers, percent = range(1, len(filters.explained) + 1), 100 * filters.explained
        parts[1].bar(numbers, percent.tolist(), color="#5a7fa8")
        parts[1].plot(numbers, percent.cumsum(0).tolist(), color="black", marker=".", label="cumulative")
        parts[1].set(xlabel="component", ylabel="explained variance (%)", ylim=(0, None))
        parts[1].legend(frameon=False, fontsize=8)
    return figure


def _show_filters(axes: Axes, filters: Filters) -> None:
    tiles = filters.components
    low, high = tiles.amin((1, 2, 3), keepdim=True), tiles.amax((1, 2, 3), keepdim=True)
    tiles = ((tiles - low) / (high - low).clamp_min(1e-12)).movedim(1, -1)
    places = torch.full((28, *tiles.shape[1:]), torch.nan, dtype=torch.float64)
    places[: len(tiles)] = tiles
    show_mosaic(axes, places.reshape(4, 7, *tiles.shape[1:]), rows=[1, 8, 15, 22], columns=[""] * 7)


def _draw_positions(looks: Looks) -> Figure | None:
    found = [(label, seen.positions) for label, seen in looks if seen.positions]
    if not found:
        return None
    tables = [(label, each) for label, positions in found for each in positions if each.kind == "similarity"]
    biases = [(label, [each for each in positions if each.kind == "bias"]) for label, positions in found]
    biases = [(label, each) for label, each in biases if each]
    count = len(tables) + len(biases)
    most_layers = max((len(each) for _, each in biases), default=0)
    side = 6.4 if count == 1 else 4.9
    figure = canvas(side * min(count, 4) + 0.9, max(side, 0.62 * most_layers) + 0.9)
    parts: Any = figure.subplots(1, count, squeeze=False)[0]
    several = len({each.name for _, each in tables}) > 1
    for axes, (label, positions) in zip(parts, tables, strict=False):
        drawn = _show_similarity(axes, positions)
        title = label + (f"\n{positions.name}" if several else "")
        axes.set_title(f"{title}\n{_rows_and_columns(positions)}".strip(), fontsize=8.5, parse_math=False)
        figure.colorbar(drawn, ax=axes, shrink=0.7, label="cosine similarity", pad=0.02)
    for axes, (label, layers) in zip(parts[len(tables) :], biases, strict=True):
        drawn = _show_biases(axes, layers)
        axes.set_title(label, fontsize=8.5, parse_math=False)
        figure.colorbar(drawn, ax=axes, shrink=0.7, label="attention bias", pad=0.02)
    return figure


def _rows_and_columns(positions: Positions) -> str:
    return f"row and column terms explain {100 * positions.row_column:.1f} % of the variance"


def _show_similarity(axes: Axes, positions: Positions) -> Any:
    axes.set(xlabel="patch column", ylabel="patch row")
    rows, columns = ([place + 1 for place in places] for places in (positions.rows, positions.columns))
    return show_mosaic(axes, positions.values, rows=rows, columns=columns, vmin=-1, vmax=1)


def _show_biases(axes: Axes, layers: Sequence[Positions]) -> Any:
    """Draw a row of tiles per layer and a column per head; smaller windows are centred."""
    heads = min(_MOST_HEADS, max(len(each.values) for each in layers))
    height, width = (max(each.values.shape[axis] for each in layers) for axis in (1, 2))
    tiles = torch.full((len(layers), heads, height, width), torch.nan)
    for row, each in zip(tiles, layers, strict=True):
        bias = each.values[:heads]
        top, left = ((height - bias.shape[1]) // 2, (width - bias.shape[2]) // 2) if each.signed else (0, 0)
        row[: len(bias), top : top + bias.shape[1], left : left + bias.shape[2]] = bias
    known = tiles[~tiles.isnan()]
    low, high = (float(each) for each in torch.quantile(known[:1_000_000], torch.tensor([0.02, 0.98])))
    axes.set(xlabel="head", ylabel="layer with a bias table")
    return show_mosaic(
        axes, tiles, rows=range(1, len(layers) + 1), columns=range(1, heads + 1), vmin=low, vmax=max(high, low + 1e-6)
    )


# --- by layer ----------------------------------------------------------------------------------------------


def _draw_distance(looks: Looks) -> Figure | None:
    found = [(label, seen) for label, seen in looks if seen.layers]
    if not found:
        return None
    ways = [("class token dropped", "distance_dropped"), ("renormalised over patches", "distance_renormalised")]
    if len(found) > 1 or not found[0][1].special:
        ways = ways[1:]
    panels = [(label, seen, way, name) for label, seen in found for way, name in ways]
    figure, parts = _panels(len(panels))
    for axes, (label, seen, way, name) in zip(parts, panels, strict=True):
        _show_heads(axes, [getattr(layer, name) for layer in seen.layers], [x.uniform_distance for x in seen.layers])
        title = [label, way if seen.special else ""]
        axes.set_title(", ".join(filter(None, title)), fontsize=9, parse_math=False)
    parts[0].set_ylabel("mean attention distance (pixels)")
    return figure


def _draw_entropy(looks: Looks) -> Figure | None:
    found = [(label, seen) for label, seen in looks if seen.layers]
    if not found:
        return None
    figure, parts = _panels(len(found))
    for axes, (label, seen) in zip(parts, found, strict=True):
        _show_heads(axes, [layer.entropy for layer in seen.layers], [x.uniform_entropy for x in seen.layers])
        axes.set_title(label, fontsize=9, parse_math=False)
    parts[0].set_ylabel("attention entropy (nats)")
    return figure


def _panels(count: int) -> tuple[Figure, Any]:
    figure = canvas(7 if count == 1 else 5 * count, 4.4)
    return figure, figure.subplots(1, count, sharey=True, squeeze=False)[0]


def _show_heads(axes: Axes, values: Sequence[Sequence[float]], uniform: Sequence[float]) -> None:
    """Draw a dot per head over its layer, the mean of each layer, and the value for uniform attention."""
    numbers = range(1, len(values) + 1)
    dots = [(number, value) for number, heads in zip(numbers, values, strict=True) for value in heads]
    across, up = zip(*dots, strict=True)
    axes.scatter(across, up, s=20, color="#31688e", alpha=0.75, label="one head", zorder=3)
    means = [sum(heads) / len(heads) for heads in values]
    axes.plot(numbers, means, color="#777777", lw=1, label="mean of the heads")
    axes.plot(numbers, uniform, color="black", ls="--", lw=1, label="uniform attention")
    axes.set_xlabel("layer, from input to output")
    axes.set_ylim(0, None)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, fontsize=7.5)
    axes.grid(axis="y", color="#e5e5e5")


def _draw_sinks(looks: Looks) -> Figure | None:
    found = [(label, seen) for label, seen in looks if seen.layers and _shares(seen)]
    if not found:
        return None
    _, seen = found[0]
    photos = [each for each in seen.shown if each.received is not None][:3] if len(found) == 1 else []
    if not photos:
        figure, parts = _panels(len(found))
        for axes, (label, one) in zip(parts, found, strict=True):
            _show_shares(axes, one)
            axes.set_title(label, fontsize=9, parse_math=False)
        parts[0].set_ylabel("share of the patches' attention (%)")
        return figure
    figure = canvas(10, 5.2)
    halves: Any = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    left, right = halves
    axes = left.subplots()
    _show_shares(axes, seen)
    axes.set_ylabel("share of the patches' attention (%)")
    layer = _layer_of_sinks(seen.layers)
    rows = []
    for each in photos:
        assert each.received is not None
        received, norms = each.received[layer], each.norms
        tiles = [Tile(_picture(each)), Tile(received, f"up to {received.max():.1f} x uniform", whole_range=True)]
        lengths = None if norms is None else Tile(norms, f"{norms.min():.3g} to {norms.max():.3g}", whole_range=True)
        rows.append([*tiles, lengths])
    show_tiles(right, rows, ["", f"attention received\nin layer {layer + 1}", "norm of the\nlast token"])
    return figure


def _shares(seen: Look) -> dict[str, list[float]]:
    """Return the share of attention on each group of tokens, by layer, averaged over heads, in per cent."""
    shares: dict[str, list[float]] = {}
    for place, name in enumerate(seen.special):
        group = shares.setdefault(name.split()[0], [0.0] * len(seen.layers))
        for number, layer in enumerate(seen.layers):
            heads = [head[place] for head in layer.on_special if place < len(head)]  # empty before the token is added
            group[number] += 100 * sum(heads) / len(heads) if heads else float("nan")
    if all(layer.on_sinks is not None for layer in seen.layers):
        shares["sink"] = [100 * (layer.on_sinks or 0.0) for layer in seen.layers]
    return shares


_SHARE_STYLES = {
    "class": ("class token", "#440154", "o", "-"),
    "distillation": ("distillation token", "#31688e", "s", "--"),
    "register": ("all registers", "#2a9d7f", "^", "-."),
    "sink": (f"sinks: patches with more than {SINK:.0f} x the uniform share", "#8a8a00", "D", ":"),
}


def _show_shares(axes: Axes, seen: Look) -> None:
    for name, values in _shares(seen).items():
        label, colour, marker, line = _SHARE_STYLES[name]
        numbers = range(1, len(values) + 1)
        axes.plot(numbers, values, label=label, color=colour, marker=marker, ls=line, ms=4)
    axes.set_xlabel("layer, from input to output")
    axes.set_ylim(0, None)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, fontsize=7.5, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    axes.grid(axis="y", color="#e5e5e5")


def _layer_of_sinks(layers: Sequence[Layer]) -> int:
    return max(range(len(layers)), key=lambda number: layers[number].on_sinks or 0.0)


# --- by image ----------------------------------------------------------------------------------------------


def _draw_images(
    looks: Looks, titles: Callable[[Look], list[str]], tiles: Callable[[Shown], list[Tile | None]], lines: int = 1
) -> Figure | None:
    """Draw a row per image: the photo, then its tiles for each model."""
    found = [(label, seen) for label, seen in looks if seen.shown and any(any(tiles(each)) for each in seen.shown)]
    if not found:
        return None
    names = [f"{label}\n{name}".strip() for label, seen in found for name in titles(seen)]
    rows = []
    for number, first in enumerate(found[0][1].shown):
        cells: list[Tile | None] = [Tile(_picture(first), _told(found[-1][1].shown[number]))]
        for _, seen in found:
            cells += tiles(seen.shown[number]) if number < len(seen.shown) else []
        rows.append(cells)
    width = 1.75 if len(names) < 8 else 1.05
    height, across = first.photo.pixels.shape[-2:]
    figure = canvas(max(5.0, width * (len(names) + 1) + 0.2), (width * height / across + 0.36) * len(rows) + 1.15)
    show_tiles(figure, rows, ["", *names], below_lines=max(2, lines))
    return figure


def _picture(shown: Shown) -> Tensor:
    return photo_of(shown.photo.pixels)


def _lit(shown: Shown, weights: Tensor) -> Tensor:
    return lit(shown.photo.pixels, weights)


def _told(shown: Shown) -> str:
    """Return a photo's label: its class or name, and the model's prediction."""
    what = shown.photo.label or shown.photo.name
    taken = [f"{shortened(name, 22)} {value:.2f}" for name, value in shown.predictions[:1]]
    return "\n".join([what, *(f"→ {each}" for each in taken)])


def _draw_rollout(looks: Looks) -> Figure | None:
    def tiles(shown: Shown) -> list[Tile | None]:
        if shown.rollout is None or shown.rollout_plain is None:
            return []
        least, most = float(shown.rollout.min()), float(shown.rollout.max())
        overlay = Tile(_lit(shown, shown.rollout))
        if len(looks) > 1:
            return [overlay]
        map_tile = Tile(shown.rollout, f"{100 * least:.2g} to {100 * most:.2g} % per patch")
        return [map_tile, overlay, Tile(_lit(shown, shown.rollout_plain))]

    titles = ["with residual", "on the photo", "without residual"] if len(looks) == 1 else [""]
    return _draw_images(looks, lambda _: titles, tiles)


def _draw_heads(looks: Looks) -> Figure | None:
    def tiles(shown: Shown) -> list[Tile | None]:
        return [] if shown.heads is None else [Tile(head) for head in shown.heads[:_MOST_HEADS]]

    def titles(seen: Look) -> list[str]:
        return [f"head {number}" for number in range(1, max(len(tiles(each)) for each in seen.shown) + 1)]

    return _draw_images(looks, titles, tiles)


def _draw_relevance(looks: Looks) -> Figure | None:
    def tiles(shown: Shown) -> list[Tile | None]:
        if shown.relevance is None:
            return []
        return [Tile(shown.relevance, f"for {shown.relevant_class}"), Tile(_lit(shown, shown.relevance))]

    return _draw_images(looks, lambda _: ["relevance", "on the photo"], tiles)


def _draw_tokens(looks: Looks) -> Figure | None:
    def tiles(shown: Shown) -> list[Tile | None]:
        return [] if shown.colours is None else [Tile(shown.colours)]

    return _draw_images(looks, lambda _: ["last tokens"], tiles)


def _draw_neighbours(looks: Looks) -> Figure | None:
    def tiles(shown: Shown) -> list[Tile | None]:
        return [
            Tile(photo_of(photo.pixels), f"{photo.label or photo.name}\n{similarity:.3f}")
            for similarity, photo in shown.neighbours
        ]

    def titles(seen: Look) -> list[str]:
        return [f"neighbour {number}" for number in range(1, max(len(each.neighbours) for each in seen.shown) + 1)]

    return _draw_images(looks, titles, tiles, lines=2)


_DRAWERS: dict[str, Callable[[Looks], Figure | None]] = {
    "filters": _draw_filters,
    "positions": _draw_positions,
    "distance": _draw_distance,
    "entropy": _draw_entropy,
    "sinks": _draw_sinks,
    "rollout": _draw_rollout,
    "heads": _draw_heads,
    "relevance": _draw_relevance,
    "tokens": _draw_tokens,
    "neighbours": _draw_neighbours,
}

"""Turn a look into plain values for JSON, and attention distances into CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from vitft.pictures.look import Look, Shown
from vitft.pictures.positions import Positions

_DIGITS = 7  # significant digits, enough for float32


def plain(seen: Look) -> dict[str, Any]:
    """Return a look as plain values; maps become nested lists, rows first."""
    values: dict[str, Any] = {
        "model": seen.named,
        "family": seen.family,
        "image_size": list(seen.image_size),
        "special_tokens": list(seen.special),
        "head_reads": seen.reads,
        "attention_read_by": seen.how or None,
        "images": {"count": seen.num_images, "source": seen.images},
        "not_drawn": seen.reasons,
    }
    if seen.filters:
        values["filters"] = {
            "layer": seen.filters.name,
            "count": seen.filters.count,
            "explained_variance": _list(seen.filters.explained),
            "smoothness": _list(seen.filters.smoothness),
            "components": _list(seen.filters.components),
        }
    if seen.positions:
        values["positions"] = [_positions(each) for each in seen.positions]
    if seen.layers:
        values["layers"] = [_rounded(vars(layer)) for layer in seen.layers]
    if seen.shown:
        values["shown"] = [_shown(each) for each in seen.shown]
    return values


def write_distances(seen: Look, path: Path) -> None:
    """Write mean attention distances as CSV, one line per head."""
    names = ["layer", "block", "head", "distance_dropped_px", "distance_renormalised_px", "uniform_px", "entropy_nats"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for number, layer in enumerate(seen.layers, start=1):
            heads = zip(layer.distance_dropped, layer.distance_renormalised, layer.entropy, strict=True)
            for head, (dropped, renormalised, entropy) in enumerate(heads, start=1):
                row = [dropped, renormalised, layer.uniform_distance, entropy]
                writer.writerow([number, layer.block, head, *(f"{each:.{_DIGITS}g}" for each in row)])


def _positions(positions: Positions) -> dict[str, Any]:
    return {
        "table": positions.name,
        "kind": positions.kind,
        "grid": list(positions.grid),
        "rows": list(positions.rows),
        "columns": list(positions.columns),
        "row_and_column_share": positions.row_column,
        "values": _list(positions.values),
    }


def _shown(shown: Shown) -> dict[str, Any]:
    maps = {
        name: _list(tensor)
        for name in ("rollout", "rollout_plain", "heads", "received", "norms", "relevance")
        if (tensor := getattr(shown, name)) is not None
    }
    return {
        "image": shown.photo.name,
        "label": shown.photo.label,
        "predictions": [{"label": name, "score": score} for name, score in shown.predictions],
        "relevance_for": shown.relevant_class or None,
        "neighbours": [
            {"image": photo.name, "label": photo.label, "similarity": similarity}
            for similarity, photo in shown.neighbours
        ],
        **maps,
    }


def _list(tensor: Tensor) -> Any:
    return _rounded(tensor.tolist())


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(each) for each in value]
    return value

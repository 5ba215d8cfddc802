"""What a figure shows, in words: of which model, on which images, by which definition, and what the paper saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitft.outside import printable
from vitft.pictures.look import KINDS, Look
from vitft.recipe.sizes import show_size

Looks = Sequence[tuple[str, Look]]
"""(label, what was seen) of one model, or of several to be compared side by side."""

PAPER = {
    "filters": "The ViT paper (Fig. 7 left, L/32) saw components like a plausible basis of the fine structure "
    "within a patch.",
    "positions": "The ViT paper (Fig. 7 centre) saw nearer patches with more similar positions, and a structure of "
    "rows and columns.",
    "distance": "The ViT paper (Fig. 7 right) saw heads that attend to most of the image in the lowest layers beside "
    "heads that stay local, and growing distances with depth.",
    "rollout": "The ViT paper (Figs. 6 and 14) saw attention on what matters for the class.",
}
"""What the paper shows, to stand beside what is seen."""


def title(kind: str, looks: Looks) -> str:
    """Return what a figure is called."""
    text = KINDS[kind]
    if kind == "positions":
        of_tables = any(each.kind == "similarity" for _, seen in looks for each in seen.positions)
        of_biases = any(each.kind == "bias" for _, seen in looks for each in seen.positions)
        text = " and ".join(["similarity of positions"] * of_tables + ["biases of attention by offset"] * of_biases)
    return f"{text[:1].upper()}{text[1:]}"


def lines(kind: str, looks: Looks) -> list[str]:
    """Return what stands below a figure: what it shows of whom, and what the paper saw."""
    return [f"{_definition(kind, looks)} {_whose(kind, looks)}", *([PAPER[kind]] if kind in PAPER else [])]


def _definition(kind: str, looks: Looks) -> str:
    """Say what is shown and how it is defined."""
    seen = looks[-1][1]
    output = "class token" if seen.reads == "class" and seen.special else "mean over the patches' tokens"
    match kind:
        case "filters":
            assert seen.filters is not None
            what = seen.filters
            return (
                f"First {len(what.components)} principal components of the {what.count} filters of {what.name} "
                f"(mean subtracted, each tile scaled alone, sign arbitrary); they explain "
                f"{100 * float(what.explained.sum()):.0f} %, and neighbouring pixels of the first seven correlate by "
                f"{float(what.smoothness[:7].mean()):.2f}."
            )
        case "positions":
            where = (
                "offset from query (middle)" if all(each.signed for each in seen.positions) else "distance from query"
            )
            words = {
                "similarity": "Cosine similarity of the position of each patch (a tile) with all patches (its pixels).",
                "bias": f"What is added to the logits of attention, by the {where} to key.",
            }
            return " ".join(words[each] for each in sorted({each.kind for each in seen.positions}, reverse=True))
        case "distance":
            return (
                "Distance in pixels between query and key patches, weighted by attention, mean over queries and "
                f"images{_class_words(seen, len(looks))}."
            )
        case "entropy":
            return "Entropy of the attention of patches over all tokens, mean over queries and images."
        case "sinks":
            return "Where the attention of patches goes, mean over heads, queries and images."
        case "rollout":
            plain = "; without: as the ViT paper says it" if len(looks) == 1 else ""
            return (
                f"Product of all layers' attention (mean over heads), row of the {output}; with residual: half "
                f"attention, half identity (Abnar and Zuidema){plain}; scaled from the 3rd to the 97th percentile."
            )
        case "heads":
            return (
                f"Attention of the {output} in the last layer that is global, by head, each map scaled from its 3rd "
                "to its 97th percentile."
            )
        case "relevance":
            return (
                f"Gradient-weighted relevance of patches for the named class (Chefer et al. 2021), row of the {output}."
            )
        case "tokens":
            return (
                f"First three principal components of the patches' last tokens, each of length 1, over all these "
                f"images, as red, green, blue; they explain {100 * seen.explained:.0f} %."
            )
        case _:
            return f"Nearest of {seen.compared:,} training images by cosine similarity of what the head reads."


def _class_words(seen: Look, num_looks: int) -> str:
    if not seen.special:
        return ""
    if num_looks > 1:
        return "; special tokens' rows left out, their columns taken out and the rest renormalised"
    return "; special tokens' rows left out, their columns dropped (rows then sum to less than 1) or renormalised away"


def short_name(named: str) -> str:
    """Leave the folders out that lead to a model."""
    path = Path(named)
    return printable(f"…/{path.name}" if path.is_absolute() else named)


def _whose(kind: str, looks: Looks) -> str:
    """Name the model and the images."""
    seen = looks[-1][1]
    sizes = " and ".join(dict.fromkeys(show_size(each.image_size) for _, each in looks))
    models = " and ".join(dict.fromkeys(short_name(each.named) for _, each in looks))
    model = f"{models} ({seen.family} at {sizes})"
    if kind in ("filters", "positions"):
        return f"Model: {model}."
    if kind in ("distance", "entropy", "sinks"):
        return f"Model: {model}. Images: {seen.num_images:,} {seen.images}."
    return f"Model: {model}. Images: {len(seen.shown)} {seen.images}."

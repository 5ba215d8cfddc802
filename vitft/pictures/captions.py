"""Write the title and caption of a figure: what it shows, for which model and images, and what the paper found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vitft.outside import printable
from vitft.pictures.look import KINDS, Look
from vitft.recipe.sizes import show_size

Looks = Sequence[tuple[str, Look]]
"""(label, look) of one model, or of several side by side."""

PAPER = {
    "filters": "In the ViT paper (Fig. 7 left, L/32), the components look like a basis for the fine structure of a "
    "patch.",
    "positions": "In the ViT paper (Fig. 7 centre), closer patches have more similar positions, with a visible "
    "structure of rows and columns.",
    "distance": "In the ViT paper (Fig. 7 right), some heads in the lowest layers attend to most of the image while "
    "others stay local, and distances grow with depth.",
    "rollout": "In the ViT paper (Figs. 6 and 14), attention falls on the regions that matter for the class.",
}
"""What the ViT paper found, to compare with."""


def title(kind: str, looks: Looks) -> str:
    """Return a figure's title."""
    text = KINDS[kind]
    if kind == "positions":
        of_tables = any(each.kind == "similarity" for _, seen in looks for each in seen.positions)
        of_biases = any(each.kind == "bias" for _, seen in looks for each in seen.positions)
        text = " and ".join(["similarity of positions"] * of_tables + ["attention bias by offset"] * of_biases)
    return f"{text[:1].upper()}{text[1:]}"


def lines(kind: str, looks: Looks) -> list[str]:
    """Return a figure's caption: what it shows for which model, and what the paper found."""
    return [f"{_definition(kind, looks)} {_whose(kind, looks)}", *([PAPER[kind]] if kind in PAPER else [])]


def _definition(kind: str, looks: Looks) -> str:
    """Say what a figure shows and how it is defined."""
    seen = looks[-1][1]
    output = "class token" if seen.reads == "class" and seen.special else "mean of the patch tokens"
    match kind:
        case "filters":
            assert seen.filters is not None
            what = seen.filters
            return (
                f"First {len(what.components)} principal components of the {what.count} filters of {what.name} "
                f"(mean subtracted, each tile scaled separately, sign arbitrary). They explain "
                f"{100 * float(what.explained.sum()):.0f} % of the variance; neighbouring pixels of the first seven "
                f"have a correlation of {float(what.smoothness[:7].mean()):.2f}."
            )
        case "positions":
            where = (
                "offset from query (centre)" if all(each.signed for each in seen.positions) else "distance from query"
            )
            words = {
                "similarity": "Cosine similarity of each patch's position (a tile) with all others (its pixels).",
                "bias": f"Bias added to the attention logits, by {where} to key.",
            }
            return " ".join(words[each] for each in sorted({each.kind for each in seen.positions}, reverse=True))
        case "distance":
            return (
                "Distance in pixels between query and key patches, weighted by attention and averaged over queries and "
                f"images{_class_words(seen, len(looks))}."
            )
        case "entropy":
            return "Entropy of the patches' attention over all tokens, averaged over queries and images."
        case "sinks":
            return "Where the patches' attention goes, averaged over heads, queries and images."
        case "rollout":
            plain = "; without residual: as in the ViT paper" if len(looks) == 1 else ""
            return (
                f"Product of all layers' attention (mean over heads), row of the {output}; with residual: half "
                f"attention, half identity (Abnar and Zuidema){plain}. Scaled from the 3rd to the 97th percentile."
            )
        case "heads":
            return (
                f"Attention of the {output} in the last global layer, by head, each map scaled from its 3rd to its "
                "97th percentile."
            )
        case "relevance":
            return (
                f"Gradient-weighted relevance of patches for the named class (Chefer et al. 2021), row of the {output}."
            )
        case "tokens":
            return (
                f"First three principal components of the last patch tokens, normalised to length 1, over all these "
                f"images, as red, green and blue. They explain {100 * seen.explained:.0f} % of the variance."
            )
        case _:
            return f"Nearest of {seen.compared:,} training images, by cosine similarity of the features the head reads."


def _class_words(seen: Look, num_looks: int) -> str:
    if not seen.special:
        return ""
    if num_looks > 1:
        return "; rows of special tokens are left out, their columns dropped and the rest renormalised"
    return "; rows of special tokens are left out, their columns dropped (rows then sum to less than 1) or renormalised"


def short_name(named: str) -> str:
    """Return a model's name without the folders of an absolute path."""
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

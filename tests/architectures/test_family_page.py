"""The page of families says what vitft does with each class of transformers.

``VITFT_UPDATE=1 pytest tests/architectures/test_family_page.py`` regenerates its table.
"""

import os
import re
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from vitft.architectures.families import FAMILIES, UNSUPPORTED
from vitft.architectures.timm_models import WRAPPER

PAGE = Path(__file__).resolve().parents[2] / "docs" / "families.md"
ELSEWHERE = {
    WRAPPER: ("with the extra `timm`", "depends on the architecture", "whatever attention is found"),
    "dinat": ("with the package natten, untested", "no: an unknown family", "whatever attention is found"),
}


def said_of(name):
    """Return whether a family trains, what another size changes, and which pictures of attention it has."""
    if name in UNSUPPORTED:
        return f"no: {UNSUPPORTED[name]}", "", ""
    if name not in FAMILIES:
        return ELSEWHERE.get(name, ("by rule, untested", "no: an unknown family", "whatever attention is found"))
    family, tokens = FAMILIES[name], FAMILIES[name].tokens
    kinds = " and ".join(dict.fromkeys(table.entries.replace("places", "positions") for table in family.tables))
    size = f"tables of {kinds} resampled" if kinds else "only the image processor"
    if family.has_windows:
        size += "; `--window-size`"
    if family.square_only:
        size += f"; squares only: {family.square_only}"
    drawn = "distance, entropy, sinks, rollout, relevance"
    if tokens.no_attention:
        drawn = f"none: {tokens.no_attention}"
    elif tokens.no_rollout:
        drawn = f"distance, entropy; no rollout: {tokens.no_rollout}"
    return "yes", size, drawn


def table():
    names = sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)
    num_known = sum(name in FAMILIES for name in names)
    yield f"In transformers {transformers.__version__} there are {len(names)}; {num_known} of them train, each tested."
    yield ""
    yield "| family | trains | another size | pictures of attention |"
    yield "|---|---|---|---|"
    for name in names:
        yield f"| {name} | {' | '.join(said_of(name))} |"


def test_the_page_is_what_the_program_does():
    made = "\n".join(table()) + "\n"
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition("In transformers ")
    if os.environ.get("VITFT_UPDATE"):
        PAGE.write_text(head + made, encoding="utf-8")
    elif (version := re.match(r"\S+", rest)[0]) != transformers.__version__:
        pytest.skip(f"the page is of transformers {version}")
    else:
        assert "In transformers " + rest == made


def test_every_family_that_is_known_is_one_of_transformers():
    assert FAMILIES.keys() <= MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.keys()

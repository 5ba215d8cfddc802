"""Pictures of positions, against the reference and tables whose structure is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model import zoo

from vitft.architectures.config import image_size_of
from vitft.architectures.families import FAMILIES
from vitft.pictures.positions import (
    MOST_TILES,
    position_similarity,
    positions_of,
    rotary_similarity,
    row_column_share,
)

CASES = {
    name: torch.from_numpy(array)
    for name, array in np.load(Path(__file__).with_name("inspect_cases.npz"), allow_pickle=False).items()
}


def test_similarity_is_the_references():
    found = position_similarity(CASES["pos_5x7"], (5, 7))
    torch.testing.assert_close(found, CASES["pos_cos_5x7"], atol=1e-6, rtol=0)


def test_chosen_tiles_are_those_of_the_whole():
    some = position_similarity(CASES["pos_5x7"], (5, 7), (0, 3), (1, 4, 6))
    torch.testing.assert_close(some, CASES["pos_cos_5x7"][[0, 3]][:, [1, 4, 6]], atol=1e-12, rtol=0)


def test_a_table_of_row_and_column_terms_shows_just_that():
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.randn(5, 1, 8, generator=generator), torch.randn(1, 7, 8, generator=generator)
    assert row_column_share(rows + columns) == pytest.approx(1)
    product = rows * columns
    assert row_column_share(product - product.mean(0) - product.mean(1, keepdim=True)) < 0.5


def test_places_of_one_row_are_alike_in_a_table_of_rows_alone():
    rows = torch.eye(4)[:, None].expand(4, 3, 4).reshape(12, 4)
    tile = position_similarity(rows, (4, 3))[2, 1]
    assert tile[2].tolist() == [1, 1, 1]
    assert tile[0].tolist() == [0, 0, 0]


def test_noise_has_the_row_and_column_share_of_chance():
    noise = torch.randn(14, 14, 200, generator=torch.Generator().manual_seed(0))
    assert row_column_share(noise) == pytest.approx(26 / 195, abs=0.02)  # degrees of freedom of the terms


def test_rotary_similarity_depends_on_the_offset_alone():
    frequencies = torch.tensor([1.0, 0.1])
    angles = torch.arange(5.0)[:, None] * frequencies
    found = rotary_similarity(angles.cos(), angles.sin())
    offsets = torch.arange(5.0)
    expected = (torch.cos(offsets[:, None] * frequencies)).mean(1).double()
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[3, 1], found[2, 0])


def test_a_rotary_model_shows_what_its_rotation_does():
    """transformers' DINOv3, which has no classification class: the similarity is that of its own rotated vectors."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel
    from transformers.models.dinov3_vit.modeling_dinov3_vit import apply_rotary_pos_emb

    settings = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = DINOv3ViTModel(DINOv3ViTConfig(**settings, image_size=64, patch_size=16)).eval()
    [found] = positions_of(model, (64, 64))
    assert found.grid == (4, 4)
    ones = torch.ones(1, 1, 16, 16)
    turned = apply_rotary_pos_emb(ones, ones, *model.rope_embeddings(torch.zeros(1, 3, 64, 64)))[0][0, 0].double()
    expected = (turned @ turned.T / (turned.norm(dim=-1)[:, None] * turned.norm(dim=-1))).reshape(4, 4, 4, 4)
    torch.testing.assert_close(found.values, expected, atol=1e-6, rtol=0)


def pictures(family, **changes):
    """Of a model whose parameters are noise: the tables of some families begin as zeros."""
    config = zoo.config(family, **changes)
    model = zoo.classifier(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return positions_of(model, image_size_of(config))


@pytest.mark.parametrize("family", [name for name, entry in FAMILIES.items() if entry.tables])
def test_every_family_with_a_table_has_pictures(family):
    found = pictures(family)
    assert found
    for each in found:
        if each.kind == "similarity":
            assert each.values.shape == (len(each.rows), len(each.columns), *each.grid)
            assert each.values[0, 0, 0, 0] == pytest.approx(1)
        else:
            sides = each.grid if not each.signed else tuple(2 * side - 1 for side in each.grid)
            assert tuple(each.values.shape[1:]) == sides


def test_fixed_tokens_are_left_out():
    model = zoo.classifier(zoo.config("vit"))
    with torch.no_grad():
        model.vit.embeddings.position_embeddings[0, 0] = 1e6
    [found] = positions_of(model, (32, 32))
    assert found.values.shape == (4, 4, 4, 4)
    assert found.name == "embeddings.position_embeddings"


def test_swinv2s_network_is_asked():
    found = pictures("swinv2")
    assert len(found) == 3
    assert all(each.kind == "bias" and each.values.shape[1:] == (7, 7) for each in found)
    assert all((each.values >= 0).all() and (each.values <= 16).all() for each in found)


def test_of_a_large_grid_every_so_many_th_place_is_shown():
    [found] = pictures("vit", image_size=256)
    assert found.grid == (32, 32)
    assert found.rows == tuple(range(0, 32, 3))
    assert len(found.rows) <= MOST_TILES
    assert found.values.shape == (11, 11, 32, 32)


@pytest.mark.parametrize("family", ["convnext", "cvt", "mobilevit"])
def test_families_without_tables_have_no_pictures(family):
    assert pictures(family) == []

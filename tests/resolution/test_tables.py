"""Resampled position tables, against other people's numbers and against what must hold of any table.

posembed_cases.npz holds tables before and after, named SOURCE__OLD_to_NEW__pPREFIX: places with 2 of the width's
entries, offsets with 2 heads and BEiT's 3 extra rows. They were made with timm 1.0.31, torch 2.13.0 and scipy 1.17.1
under numpy 2.4.6, none of which was vitft's own code.
"""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from vitft.recipe.choices import ResizeMethod
from vitft.resolution.tables import (
    axis_weights,
    resample_distance_table,
    resample_relative_table,
    resample_table,
)

CASES = dict(np.load(Path(__file__).with_name("posembed_cases.npz"), allow_pickle=False))
METHODS = get_args(ResizeMethod)
OF_PLACES = [method for method in METHODS if method != "geometric"]
INTERPOLATING = [method for method in METHODS if method != "bicubic"]  # also when the table shrinks

# reference: method
PLACES = {
    "timm_bicubic_aa": "bicubic",
    "timm_bicubic_noaa": "bicubic-plain",
    "hf_bicubic_noaa_f32": "bicubic-plain",
    "torch_bilinear_noaa": "bilinear",
    "torch_bilinear_aligncorners": "corners",
    "scipy_zoom_order1": "corners",
}
OFFSETS = {
    "rel_timm_simple_bicubic": "bicubic-plain",
    "rel_hf_bilinear": "bilinear",
    "rel_timm_geometric_linear": "geometric",
}


def cases(references):
    """The names in the file that a reference of ours made."""
    return [name for name in CASES if name.split("__")[0] in references and "_to_" in name]


def grids(name):
    """(old, new) as a name tells them."""
    a, b, c, d = map(int, re.search(r"(\d+)x(\d+)_to_(\d+)x(\d+)", name).groups())
    return (a, b), (c, d)


def noise(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=dtype)


def num_offsets(grid):
    return (2 * grid[0] - 1) * (2 * grid[1] - 1)


def resampled(kind, table, old, new, method="bicubic", fixed=0):
    """One of the three functions, all with places, offsets or distances along the first axis."""
    if kind == "places":
        return resample_table(table, old, new, prefix=fixed, method=method)
    if kind == "offsets":
        return resample_relative_table(table, old, new, extra=fixed, method=method)
    return resample_distance_table(table.T, old, new, method=method).T


def length(kind, grid, fixed=0):
    return (num_offsets(grid) if kind == "offsets" else grid[0] * grid[1]) + fixed


KINDS_AND_METHODS = [
    (kind, method)
    for kind in ("places", "offsets", "distances")
    for method in (OF_PLACES if kind == "places" else METHODS)
]


# --- other people's numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", cases(PLACES))
def test_a_table_of_places_is_resampled_as_the_reference_does(name):
    old, new = grids(name)
    prefix = int(name[-1])
    places = CASES[f"input__{old[0]}x{old[1]}__p0"]
    tokens = 100 + np.arange(prefix)[:, None] + np.arange(places.shape[1]) / 10
    table = torch.from_numpy(np.concatenate([tokens.astype(np.float32), places]))
    found = resample_table(table, old, new, prefix=prefix, method=PLACES[name.split("__")[0]])
    np.testing.assert_allclose(found.numpy(), CASES[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", cases(OFFSETS))
def test_a_table_of_offsets_is_resampled_as_the_reference_does(name):
    old, new = grids(name)
    table = torch.from_numpy(CASES["rel_input__win14x14"])
    found = resample_relative_table(table, old, new, extra=3, method=OFFSETS[name.split("__")[0]])
    np.testing.assert_allclose(found.numpy(), CASES[name], rtol=0, atol=1e-5)


def test_the_references_cover_every_method_growth_shrinkage_and_every_count_of_prefix_tokens():
    names = [*cases(PLACES), *cases(OFFSETS)]
    assert {(PLACES | OFFSETS)[name.split("__")[0]] for name in names} == set(METHODS)
    assert {int(name[-1]) for name in cases(["timm_bicubic_aa"])} == {0, 1, 2, 5}
    for reference in (*PLACES, *OFFSETS):
        sizes = [grids(name) for name in cases([reference])]
        assert any(new > old for old, new in sizes)
        assert any(new < old for old, new in sizes)


# --- what stays --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "method"), KINDS_AND_METHODS)
def test_the_same_grid_leaves_every_bit(kind, method):
    fixed = 0 if kind == "distances" else 3
    table = noise(length(kind, (3, 5), fixed), 4, dtype=torch.float64)
    assert torch.equal(resampled(kind, table, (3, 5), (3, 5), method, fixed), table)


@pytest.mark.parametrize("method", OF_PLACES)
def test_prefix_rows_keep_every_bit_where_the_grid_changes(method):
    table = noise(2 + 12, 4, dtype=torch.float64) / 3  # more digits than float32 holds
    for new in ((6, 8), (2, 3), (5, 2)):
        found = resample_table(table, (3, 4), new, prefix=2, method=method)
        assert found.shape == (2 + new[0] * new[1], 4)
        assert torch.equal(found[:2], table[:2])


@pytest.mark.parametrize("method", METHODS)
def test_extra_rows_of_offsets_keep_every_bit_where_the_grid_changes(method):
    table = noise(35 + 3, 4, dtype=torch.float64) / 3
    for new in ((6, 8), (2, 3), (5, 2)):
        found = resample_relative_table(table, (3, 4), new, extra=3, method=method)
        assert found.shape == (num_offsets(new) + 3, 4)
        assert torch.equal(found[-3:], table[-3:])


def test_axes_before_the_rows_are_kept_and_do_not_mix():
    table = noise(2, 3, 1 + 12, 4)
    found = resample_table(table, (3, 4), (6, 5), prefix=1)
    assert found.shape == (2, 3, 1 + 30, 4)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(found[i, j], resample_table(table[i, j], (3, 4), (6, 5), prefix=1), atol=1e-6)


@pytest.mark.parametrize(("kind", "method"), KINDS_AND_METHODS)
def test_a_constant_table_stays_constant(kind, method):
    for old, new in (((3, 5), (6, 4)), ((6, 4), (3, 5)), ((4, 4), (9, 9))):
        found = resampled(kind, torch.full((length(kind, old), 2), 0.7), old, new, method)
        assert found.shape == (length(kind, new), 2)
        assert torch.allclose(found, torch.tensor(0.7), atol=1e-6)


# --- rows and columns --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "method"), KINDS_AND_METHODS)
def test_a_transposed_table_gives_the_transposed_result(kind, method):
    def transposed(table, grid):
        rows, columns = (2 * side - 1 for side in grid) if kind == "offsets" else grid
        return table.reshape(rows, columns, -1).transpose(0, 1).reshape(len(table), -1)

    old, new = (3, 5), (7, 4)
    table = noise(length(kind, old), 2)
    found = resampled(kind, table, old, new, method)
    other = resampled(kind, transposed(table, old), old[::-1], new[::-1], method)
    assert torch.allclose(other, transposed(found, new), atol=1e-5)
    assert not torch.allclose(other, found, atol=1e-2)


# --- one axis ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("old", "new"), [(1, 1), (1, 7), (7, 1), (7, 15), (15, 7), (13, 13), (27, 47), (27, 5), (3, 101), (14, 24), (24, 9)]
)
def test_the_weights_of_a_new_place_sum_to_1(old, new, method):
    if method == "geometric" and not old % 2 == new % 2 == 1:
        pytest.skip("offsets are odd in number")
    weights = axis_weights(old, new, method)
    assert weights.shape == (new, old)
    assert weights.dtype == torch.float64
    assert torch.allclose(weights.sum(1), torch.ones(new, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("old", "new"), [(7, 15), (15, 7), (27, 19), (5, 1), (1, 5)])
def test_the_weights_are_the_same_from_either_end(old, new, method):
    weights = axis_weights(old, new, method)
    assert torch.allclose(weights, weights.flip(0, 1), atol=1e-12)


def test_corners_puts_the_outermost_places_on_each_other():
    for old, new in ((14, 24), (24, 14), (5, 2)):
        weights = axis_weights(old, new, "corners")
        assert weights[0, 0] == 1
        assert weights[-1, -1] == pytest.approx(1)


# --- numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["places", "offsets", "distances"])
def test_half_precision_is_computed_in_float32_and_rounded_once(kind, dtype):
    table = noise(length(kind, (4, 6)), 8).to(dtype)
    found = resampled(kind, table, (4, 6), (7, 9))
    assert found.dtype == dtype
    assert torch.equal(found, resampled(kind, table.float(), (4, 6), (7, 9)).to(dtype))


@pytest.mark.parametrize("kind", ["places", "offsets", "distances"])
def test_autocast_does_not_lower_the_precision(kind):
    table = noise(length(kind, (4, 6)), 8)
    expected = resampled(kind, table, (4, 6), (7, 9))
    with torch.autocast("cpu", torch.bfloat16):
        found = resampled(kind, table, (4, 6), (7, 9))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("kind", "method"), KINDS_AND_METHODS)
def test_the_gradient_is_the_transposed_map(kind, method):
    fixed = 0 if kind == "distances" else 2
    rows = length(kind, (3, 4), fixed)
    matrix = resampled(kind, torch.eye(rows), (3, 4), (5, 3), method, fixed)  # what each row alone becomes
    table = noise(rows, 2).requires_grad_()
    found = resampled(kind, table, (3, 4), (5, 3), method, fixed)
    assert torch.allclose(found, matrix @ table, atol=1e-5)
    direction = noise(*found.shape)
    (found * direction).sum().backward()
    assert torch.allclose(table.grad, matrix.T @ direction, atol=1e-5)


# --- LeViT's distances -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("old", "new"), [((4, 4), (8, 8)), ((3, 5), (6, 4)), ((7, 7), (4, 4))])
def test_distances_are_resampled_as_the_offsets_that_they_stand_for(old, new, method):
    table = noise(3, old[0] * old[1])
    offsets = torch.stack([
        table[:, abs(dy) * old[1] + abs(dx)]
        for dy in range(1 - old[0], old[0])
        for dx in range(1 - old[1], old[1])
    ])  # fmt: skip
    signed = resample_relative_table(offsets, old, new, method=method)
    found = resample_distance_table(table, old, new, method=method)
    assert found.shape == (3, new[0] * new[1])
    for dy in range(1 - new[0], new[0]):
        for dx in range(1 - new[1], new[1]):
            row = (dy + new[0] - 1) * (2 * new[1] - 1) + dx + new[1] - 1
            assert torch.allclose(found[:, abs(dy) * new[1] + abs(dx)], signed[row], atol=1e-5)


@pytest.mark.parametrize(
    ("method", "old", "new"),
    [(method, (4, 4), (8, 8)) for method in METHODS]
    + [(method, (3, 5), (6, 9)) for method in METHODS]
    + [(method, (8, 8), (4, 4)) for method in INTERPOLATING],
)
def test_the_distance_0_keeps_its_bias(method, old, new):
    table = noise(3, old[0] * old[1])
    found = resample_distance_table(table, old, new, method=method)
    assert torch.allclose(found[:, 0], table[:, 0], atol=1e-6)


def test_an_antialiased_table_that_shrinks_blends_the_distance_0_with_its_neighbours():
    table = torch.zeros(1, 64)
    table[0, 0] = 1
    assert resample_distance_table(table, (8, 8), (4, 4))[0, 0] < 0.5


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [(8, 8), (4, 4)])
def test_a_table_of_another_grid_is_refused_with_both_counts(new):
    with pytest.raises(ValueError, match=r"has 17 entries, not the 18 of 2 \+ 4x4"):
        resample_table(torch.zeros(17, 3), (4, 4), new, prefix=2)
    with pytest.raises(ValueError, match=r"has 49 entries, not the 52 of the offsets of 4x4 \+ 3"):
        resample_relative_table(torch.zeros(49, 3), (4, 4), new, extra=3)
    with pytest.raises(ValueError, match="has 15 entries, not the 16 of 4x4"):
        resample_distance_table(torch.zeros(3, 15), (4, 4), new)


def test_geometric_is_refused_for_places():
    with pytest.raises(ValueError, match="geometric is for tables of offsets, not of positions"):
        resample_table(torch.zeros(16, 3), (4, 4), (8, 8), method="geometric")

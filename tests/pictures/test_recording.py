"""Reading attention: nothing changes, every family with attention gives it, the others say why not."""

import gc
import weakref

import pytest
import torch
from model import zoo

from vitft.architectures.blocks import blocks
from vitft.architectures.config import table_size
from vitft.architectures.families import FAMILIES, tokens_of, vision_config
from vitft.pictures.attention import Rollout, Summary, attention_distance
from vitft.pictures.recording import recording
from vitft.pictures.token_places import fill_grid, places_of

WITH_ATTENTION = [family for family in zoo.CONFIGS if not FAMILIES[family].tokens.no_attention]
LEVIT = {"image_size": 128}  # 8x8, 4x4 and 2x2 tokens


def made(family, images=2, **changes):
    config = zoo.config(family, **(LEVIT if family == "levit" else {}), **changes)
    model = zoo.classifier(config).eval()
    size = (table_size(config) if FAMILIES[family].tables else None) or (64, 64)
    return model, torch.randn(images, 3, *size, generator=torch.Generator().manual_seed(4))


def test_every_family_has_an_entry():
    assert all(family.tokens is not None for family in FAMILIES.values())


@pytest.mark.parametrize("family", WITH_ATTENTION)
def test_logits_are_the_same_bits_while_and_after_recording(family):
    model, pixels = made(family)
    with torch.no_grad():
        before = model(pixels).logits
        with recording(model, lambda seen: None):
            during = model(pixels).logits
        after = model(pixels).logits
    assert torch.equal(before, during)
    assert torch.equal(before, after)


@pytest.mark.parametrize("family", WITH_ATTENTION)
def test_attention_is_a_distribution_over_keys_and_each_layer_comes_once(family):
    model, pixels = made(family)
    seen = []
    with torch.no_grad(), recording(model, lambda each: seen.append((each.index, each.probs.clone(), each.places))):
        model(pixels)
        model(pixels)
    assert [index for index, *_ in seen] == [*range(len(seen) // 2)] * 2
    for _, probs, places in seen:
        assert probs.shape[0] == 2
        torch.testing.assert_close(probs.sum(-1), torch.ones(probs.shape[:-1]), atol=1e-5, rtol=0)
        assert places.prefix + places.queries.shape[1] == probs.shape[-2]
        assert places.prefix + places.keys.shape[1] == probs.shape[-1]
        assert places.queries.shape[0] in (1, probs.shape[1])


@pytest.mark.parametrize("family", WITH_ATTENTION)
def test_every_family_gives_distances_between_0_and_the_diagonal(family):
    model, pixels = made(family)
    summary = Summary()
    with torch.no_grad(), recording(model, summary):
        model(pixels)
    assert summary.layers
    diagonal = (pixels.shape[-2] ** 2 + pixels.shape[-1] ** 2) ** 0.5
    for layer in summary.layers:
        assert 0 <= layer.uniform_distance <= diagonal
        assert all(0 <= each <= diagonal for each in layer.distance_renormalised)
        assert all(0 <= a <= b + 1e-4 for a, b in zip(layer.distance_dropped, layer.distance_renormalised, strict=True))


@pytest.mark.parametrize("family", [name for name in WITH_ATTENTION if not FAMILIES[name].tokens.no_rollout])
def test_rollout_of_every_family_without_a_reason_sums_to_1(family):
    model, pixels = made(family)
    tokens = tokens_of(model.config)
    rollout = Rollout(tokens.reads(vision_config(model.config)))
    with torch.no_grad(), recording(model, rollout):
        model(pixels)
    for matrix in (rollout.with_residual, rollout.without_residual):
        torch.testing.assert_close(
            matrix.sum(-1), torch.ones(matrix.shape[:-1], dtype=torch.float64), atol=1e-6, rtol=0
        )
    rows, columns = rollout.places.grid
    assert rollout.maps(residual=True).shape == (2, rows, columns)


def test_the_layers_that_are_read_are_those_of_transformers():
    model, pixels = made("vit")
    seen = []
    with torch.no_grad():
        with recording(model, lambda each: seen.append(each.probs[:, 0].clone())) as how:
            model(pixels)
        model.set_attn_implementation("eager")
        eager = model(pixels, output_attentions=True).attentions
    assert "AttentionInterface" in how
    for ours, theirs in zip(seen, eager, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["vit", "swin", "hiera", "data2vec-vision", "clip"])
def test_within_the_graph_outputs_agree_up_to_rounding_and_depend_on_what_was_read(family):
    model, pixels = made(family)
    plain, kept = model(pixels).logits, []
    with recording(model, lambda each: kept.append(each.probs), in_graph=True):
        logits = model(pixels).logits
    torch.testing.assert_close(logits, plain, atol=1e-4, rtol=1e-4)
    assert len(torch.autograd.grad(logits.sum(), kept)) == len(kept)


def test_an_error_in_between_leaves_the_model_as_it_was():
    model, pixels = made("vit")
    with torch.no_grad():
        before = model(pixels).logits
        with pytest.raises(RuntimeError, match="a taker"), recording(model, fail):
            model(pixels)
        assert model.config._attn_implementation == "sdpa"
        assert torch.equal(model(pixels).logits, before)


def fail(_):
    raise RuntimeError("a taker failed")


def test_a_models_own_head_that_attends_is_not_counted_as_a_layer():
    """SigLIP pools by attention outside its blocks."""
    model, pixels = made("siglip")
    seen = []
    with torch.no_grad(), recording(model, lambda each: seen.append(each.block)):
        model(pixels)
    assert seen == [name for name, _ in blocks(model)]


@pytest.mark.parametrize("family", ["vit", "swin"])
def test_no_layers_attention_outlives_the_next(family):
    """So that memory does not grow with layers or images."""
    model, pixels = made(family)
    references, alive = [], []

    def take(seen):
        gc.collect()
        alive.append(sum(reference() is not None for reference in references))
        references.append(weakref.ref(seen.probs.untyped_storage()))  # which a view, too, keeps alive

    with torch.no_grad(), recording(model, take, Summary(), Rollout("class", multiply=family == "vit")):
        model(pixels)
    assert alive == [0, 0, 0]


# --- where tokens stand ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "image_size", "grid"),
    [(196, (224, 224), (14, 14)), (12, (96, 128), (3, 4)), (197, (224, 224), None), (24, (64, 96), (4, 6)),
     (1, (32, 32), (1, 1)), (0, (32, 32), None), (50, (224, 224), None), (576, (192, 768), (12, 48))],
)  # fmt: skip
def test_a_grid_has_the_shape_of_the_image(count, image_size, grid):
    assert fill_grid(count, image_size) == grid


def test_places_are_the_centres_of_patches():
    model, _ = made("vit")
    places = places_of(model, 0, "vit.layers.0", (1, 1, 2, 17, 17), (32, 32))
    assert places.prefix == 1
    assert places.keys[0, 0].tolist() == [4.0, 4.0]
    assert places.keys[0, 5].tolist() == [12.0, 12.0]


def test_a_grid_that_is_not_square_has_rows_and_columns():
    model, _ = made("vit")
    places = places_of(model, 0, "vit.layers.0", (1, 1, 2, 9, 9), (16, 32))
    assert places.grid == (2, 4)


def test_registers_stand_before_the_patches():
    model, pixels = made("dinov2_with_registers")
    summary = Summary()
    with torch.no_grad(), recording(model, summary):
        model(pixels)
    names = tokens_of(model.config).special(model.config)
    assert names == ("class", "register 1", "register 2", "register 3", "register 4")
    assert {len(head) for layer in summary.layers for head in layer.on_special} == {5}


def test_windows_grow_with_the_stage():
    model, _ = made("swin")
    first, second = (
        places_of(model, 0, f"swin.encoder.layers.{stage}.blocks.0", (2, 4, 1, 16, 16), (32, 32)) for stage in (0, 1)
    )
    assert first.distances.max() == pytest.approx(4 * 3 * 2**0.5)
    assert second.distances.max() == pytest.approx(8 * 3 * 2**0.5)


def test_pooled_keys_stand_in_the_middle_of_what_they_pool():
    model, pixels = made("pvt")
    places_by_layer = []
    with torch.no_grad(), recording(model, lambda each: places_by_layer.append(each.places)):
        model(pixels)
    assert places_by_layer[0].queries.shape == (1, 256, 2)
    assert places_by_layer[0].keys[0].tolist() == [[16, 16], [16, 48], [48, 16], [48, 48]]
    assert places_by_layer[-1].prefix == 1


def test_hieras_places_go_the_way_of_its_tokens():
    """Where every token of the first stage carries its place, the last stage holds the mean place of what it pools."""
    model, pixels = made("hiera")
    places_by_layer = []
    with torch.no_grad(), recording(model, lambda each: places_by_layer.append(each.places)):
        model(pixels)
    last = places_by_layer[-1].keys[0]
    side = round(len(last) ** 0.5)
    centres = (torch.arange(side, dtype=torch.float64) + 0.5) * 64 / side
    expected = torch.stack(torch.meshgrid(centres, centres, indexing="ij"), -1).reshape(-1, 2)
    torch.testing.assert_close(last, expected)


def test_a_window_of_hiera_is_a_square_of_the_image():
    model, _ = made("hiera")
    places = places_of(model, 0, "", (1, 1, 1, 1, 1), (64, 64))
    extent = places.keys.amax(1) - places.keys.amin(1)
    assert (extent[:, 0] == extent[:, 1]).all()
    assert extent.unique().numel() == 1


def test_an_unknown_familys_class_token_is_found_and_said():
    model, _ = made("vit")
    model.config.model_type = "a-new-one"
    tokens = tokens_of(model.config)
    assert "unknown" in tokens.note
    places = places_of(model, 0, "layer.0", (1, 1, 2, 17, 17), (32, 32))
    assert places.prefix == 1
    with pytest.raises(ValueError, match="do not fill a grid"):
        places_of(model, 0, "layer.0", (1, 1, 2, 23, 23), (32, 32))


def test_uniform_attention_has_the_uniform_distance_in_windows():
    model, pixels = made("hiera")
    checked = []

    def check(seen):
        uniform = torch.full_like(seen.probs, 1 / seen.probs.shape[-1])
        distance = attention_distance(uniform, seen.places.distances, prefix=seen.places.prefix)
        mean = seen.places.distances.mean().float()
        torch.testing.assert_close(distance, mean.expand_as(distance), rtol=1e-4, atol=1e-3)
        checked.append(seen.index)

    with torch.no_grad(), recording(model, check):
        model(pixels)
    assert checked == list(range(len(checked))) and checked

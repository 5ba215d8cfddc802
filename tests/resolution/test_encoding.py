"""Other position encodings: the tables that they make, what of them learns, and that plain transformers loads them.

encoding_cases.npz holds tables that numpy made in float64 from the published definitions, none of it vitft's own code.
"""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from model import zoo
from transformers import AutoModelForImageClassification

from vitft.architectures.blocks import plain_name
from vitft.errors import ModelError
from vitft.model.load import load_finished, load_for_training
from vitft.model.trainable import choose_trainable, freeze_unused
from vitft.recipe.keys import ModelRecipe
from vitft.resolution.encoding import (
    factored_table,
    find_table,
    sincos_table,
    with_written_positions,
    write_out_positions,
)
from vitft.resolution.multisize import MultiSize
from vitft.resolution.retarget import Target
from vitft.train.averages import AveragedWeights
from vitft.train.optim import parameter_groups

CASES = dict(np.load(Path(__file__).with_name("encoding_cases.npz"), allow_pickle=False))

WITH_ONE_TABLE = [
    "vit", "vit_msn", "ijepa", "deit", "dinov2", "dinov2_with_registers", "clip", "metaclip_2", "siglip", "hiera",
]  # fmt: skip
WITHOUT = ["beit", "data2vec-vision", "swin", "swinv2", "donut-swin", "pvt", "levit", "convnext", "segformer"]
RELATIVE = ["beit", "data2vec-vision", "swin", "donut-swin", "levit"]


@pytest.fixture
def folder(tmp_path):
    return lambda family="vit", **changes: zoo.save(
        zoo.classifier(zoo.config(family, **changes)), tmp_path / family, family
    )


def loaded(folder, kind, init="pretrained", **changes):
    recipe = ModelRecipe(checkpoint=str(folder), init=init, position={"kind": kind}, **changes)
    return load_for_training(recipe, ["ant", "bee", "cat"], "squash")


def table_of(model):
    """(entries before the places, places as rows x columns x width) of what the model computes with."""
    name, grid, fixed = find_table(model, (32, 32))
    where, _, attribute = name.rpartition(".")
    table = getattr(model.get_submodule(where), attribute).detach()
    flat = table.reshape(-1, table.shape[-1])
    return flat[:fixed], flat[fixed:].unflatten(0, grid)


def images_of(model, count=2):
    config = getattr(model.config, "vision_config", model.config)
    side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def note_of(pretrained):
    [note] = [note for note in pretrained.notes if note.startswith("positions: ")]
    return note


# --- the tables --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["14x14", "4x6"])
@pytest.mark.parametrize("of", ["mae", "bigvision"])
def test_fixed_waves_are_those_of_mae_and_of_big_vision(grid, of):
    expected = CASES[f"sincos2d_{of}__{grid}_d16_f64"]
    table = sincos_table(tuple(map(int, grid.split("x"))), 16, inclusive=of == "bigvision")
    assert np.abs(table.numpy() - expected).max() < 1e-6


def test_a_factored_table_is_the_column_then_the_row():
    rows, columns, expected = (torch.from_numpy(CASES[f"pe2d_{name}"]) for name in ("Y", "X", "4x6"))
    assert torch.equal(factored_table(rows, columns), expected)


def test_names_of_factors_are_those_of_their_table():
    factor = "vit.embeddings.parametrizations.position_embeddings.original1"
    assert plain_name(factor) == "vit.embeddings.position_embeddings"
    assert plain_name("vit.layers.0.mlp.fc1.weight") == "vit.layers.0.mlp.fc1.weight"


# --- every kind, on every family that can ------------------------------------------------------------------


@pytest.mark.parametrize("init", ["pretrained", "random"])
@pytest.mark.parametrize("kind", ["learned-1d", "learned-2d", "sincos-2d", "none"])
@pytest.mark.parametrize("family", WITH_ONE_TABLE)
def test_what_is_saved_is_an_ordinary_table_that_computes_the_same(folder, tmp_path, family, kind, init):
    shape = zoo.classifier(zoo.config(family)).state_dict().keys()
    pretrained = loaded(folder(family), kind, init)
    model = pretrained.model.eval()
    torch.nn.init.normal_(model.get_parameter(pretrained.head[0]))
    images = images_of(model)
    with torch.no_grad():
        logits = model(images).logits
        write_out_positions(model)
        assert torch.equal(model(images).logits, logits)
    assert model.state_dict().keys() == shape
    model.save_pretrained(tmp_path / "saved")
    again, report = AutoModelForImageClassification.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    with torch.no_grad():
        assert torch.allclose(again.eval()(images).logits, logits, atol=1e-6)


@pytest.mark.parametrize("family", WITH_ONE_TABLE)
def test_a_fixed_table_does_not_learn_and_a_factored_one_by_its_factors(folder, family):
    plain = sum(p.numel() for p in loaded(folder(family), "learned-1d").model.parameters() if p.requires_grad)
    for kind in ("none", "sincos-2d", "learned-2d"):
        model = loaded(folder(family), kind).model
        before, places = table_of(model)
        height, width, channels = places.shape
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        factors = (height + width) * channels // 2 + before.numel() if kind == "learned-2d" else 0
        assert plain - learning == before.numel() + places.numel() - factors, kind
        unused = freeze_unused(model, tuple(images_of(model).shape[-2:]))
        assert not [name for name in unused if "position" in name]


@pytest.mark.parametrize("family", ["vit", "deit", "clip", "ijepa"])
def test_the_values_of_each_kind(folder, family):
    given = folder(family)
    before, places = table_of(loaded(given, None).model)
    height, width, channels = places.shape
    kept = {kind: table_of(loaded(given, kind).model) for kind in ("learned-1d", "learned-2d", "sincos-2d", "none")}
    for kind, (first, _) in kept.items():
        assert torch.equal(first, before), kind
    assert torch.equal(kept["learned-1d"][1], places)
    assert torch.equal(kept["sincos-2d"][1].flatten(0, 1), sincos_table((height, width), channels))
    assert not kept["none"][1].any()
    half = channels // 2  # the nearest: what is left over has mean 0 along either axis
    over = places - kept["learned-2d"][1]
    assert torch.allclose(over[..., :half].mean(0), torch.zeros(width, half), atol=1e-7)
    assert torch.allclose(over[..., half:].mean(1), torch.zeros(height, half), atol=1e-7)


@pytest.mark.parametrize("kind", ["sincos-2d", "none"])
def test_a_new_fixed_table_is_zero_where_it_stands_for_no_place(folder, kind):
    before, _ = table_of(loaded(folder("deit"), kind, "random").model)
    assert before.shape[0] == 2 and not before.any()


def test_a_new_factored_table_has_the_usual_size_of_entries_and_depends_on_the_seed(folder):
    given = folder(hidden_size=64, intermediate_size=64)
    recipe = ModelRecipe(checkpoint=given, init="random", position={"kind": "learned-2d"})
    tables = [table_of(load_for_training(recipe, ["a", "b"], "squash", seed=seed).model)[1] for seed in (0, 0, 1)]
    assert torch.equal(tables[0], tables[1]) and not torch.equal(tables[0], tables[2])
    assert 0.017 < tables[0].std() < 0.023


def test_a_table_of_row_and_column_terms_survives_being_factored(folder, tmp_path):
    model = AutoModelForImageClassification.from_pretrained(folder())
    with torch.no_grad():
        places = factored_table(torch.randn(4, 8), torch.randn(4, 8))
        model.vit.embeddings.position_embeddings[0, 1:] = places
    model.save_pretrained(tmp_path / "vit")
    pretrained = loaded(tmp_path / "vit", "learned-2d")
    assert torch.allclose(table_of(pretrained.model)[1].flatten(0, 1), places, atol=1e-6)
    assert "which keep 100 %" in note_of(pretrained)


def test_a_token_bag_sees_no_order_and_the_others_do(folder):
    """Patches in another order are all the same to a model without positions."""
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    for kind in ("none", "sincos-2d", "learned-2d", "relative"):
        pretrained = loaded(folder(), kind, "random" if kind == "relative" else "pretrained")
        model = pretrained.model.eval()
        torch.nn.init.normal_(model.get_parameter(pretrained.head[0]))
        for name, parameter in model.named_parameters():
            if "relative" in name:
                torch.nn.init.normal_(parameter)
        images = images_of(model)
        patches = images.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)[:, :, order].unflatten(2, (4, 4))
        shuffled = patches.permute(0, 1, 2, 4, 3, 5).reshape(images.shape)
        with torch.no_grad():
            same = torch.allclose(model(images).logits, model(shuffled).logits, atol=1e-5)
        assert same == (kind == "none"), kind


def test_another_size_comes_first_and_the_table_is_of_it(folder):
    pretrained = loaded(folder(), "sincos-2d", image_size=(48, 64))
    _, places = table_of(pretrained.model)
    assert torch.equal(places.flatten(0, 1), sincos_table((6, 8), 16))
    assert "6x8 grid" in note_of(pretrained)
    assert table_of(loaded(folder("vit"), "learned-2d", image_size=(48, 64)).model)[1].shape == (6, 8, 16)


@pytest.mark.parametrize(
    ("kind", "init", "says"),
    [
        ("learned-1d", "pretrained", "4x4 grid: the table of the checkpoint is trained further"),
        ("learned-1d", "random", "4x4 grid: a new table"),
        ("learned-2d", "pretrained", "one per column, which keep"),
        ("learned-2d", "random", "one vector per row and one per column (vit.embeddings"),
        ("sincos-2d", "pretrained", "a table of fixed waves instead of the checkpoint's, not trained"),
        ("none", "pretrained", "a table of zeros instead of the checkpoint's, not trained"),
        ("none", "random", "a table of zeros, not trained"),
        ("relative", "random", "one bias per offset: a BEiT of the same size is trained"),
    ],
)
def test_what_was_done_is_said(folder, kind, init, says):
    note = note_of(loaded(folder(), kind, init))
    assert note.startswith(f"positions: {kind}, ") and says in note, note


def test_without_a_kind_nothing_is_said_or_changed(folder):
    pretrained = loaded(folder(), None)
    assert not [note for note in pretrained.notes if note.startswith("positions: ")]
    own = AutoModelForImageClassification.from_pretrained(folder()).state_dict()
    state = pretrained.model.state_dict()
    assert all(torch.equal(state[name], own[name]) for name in own if "classifier" not in name)


# --- relative ----------------------------------------------------------------------------------------------


def test_a_random_vit_with_relative_positions_is_a_beit_of_the_same_shape(folder, tmp_path):
    pretrained = loaded(folder(), "relative", "random")
    config = pretrained.model.config
    assert config.model_type == "beit"
    assert {key: getattr(config, key) for key in zoo.PLAIN} == zoo.PLAIN
    assert config.id2label == {0: "ant", 1: "bee", 2: "cat"}
    names = dict(pretrained.model.named_parameters())
    assert sum("relative_position_bias_table" in name for name in names) == 3
    assert not [name for name in names if "position_embeddings" in name or "lambda" in name]
    pretrained.model.save_pretrained(tmp_path / "saved")
    load_finished(tmp_path / "saved", "mine")


@pytest.mark.parametrize("family", RELATIVE)
def test_families_with_relative_positions_keep_them(folder, family):
    pretrained = loaded(folder(family), "relative")
    assert pretrained.model.config.model_type == family
    assert note_of(pretrained) == "positions: relative, one bias per offset: the checkpoint's own"


def test_a_random_beit_has_relative_positions_alone(folder):
    model = loaded(folder("beit", use_relative_position_bias=False), "relative", "random").model
    assert model.beit.embeddings.position_embeddings is None
    assert any("relative_position_bias_table" in name for name, _ in model.named_parameters())


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", WITHOUT)
def test_families_without_one_table_are_refused_with_those_that_can(folder, family):
    with pytest.raises(ModelError, match=f"a single table of positions, and a {family} model has none") as error:
        loaded(folder(family), "sincos-2d")
    assert "allowed: checkpoints of clip, deit, dinov2, dinov2_with_registers, hiera," in str(error.value)


@pytest.mark.parametrize("family", ["vit", "swinv2", "convnext"])
def test_relative_positions_are_refused_where_there_are_none(folder, family):
    with pytest.raises(ModelError, match=f"no relative positions for a {family} model") as error:
        loaded(folder(family), "relative")
    assert "beit, data2vec-vision, donut-swin, levit, swin" in str(error.value)
    assert ("model.init=random" if family == "vit" else "--model microsoft/beit") in error.value.hint


def test_a_beit_that_was_trained_without_them_is_refused(folder):
    with pytest.raises(ModelError, match="was trained without relative positions"):
        loaded(folder("beit", use_relative_position_bias=False), "relative")


def test_a_vit_that_is_not_square_becomes_no_beit(folder):
    with pytest.raises(ModelError, match="scrambles"):
        loaded(folder(image_size=[32, 16]), "relative", "random")


@pytest.mark.parametrize(("kind", "by"), [("learned-2d", 2), ("sincos-2d", 4)])
def test_a_width_that_cannot_be_shared_out_is_refused(folder, kind, by):
    odd = folder(hidden_size=by // 2 * 9, num_attention_heads=1)
    with pytest.raises(ModelError, match=f"a width that is divisible by {by}"):
        loaded(odd, kind)


# --- in training -------------------------------------------------------------------------------------------


def trained(model, head, images, steps=3):
    """The model after a few steps of AdamW with averaged weights in its place."""
    from vitft.recipe.keys import OptimRecipe
    from vitft.train.optim import make_optimizer

    recipe = OptimRecipe(lr=0.01, layer_decay=0.9)
    optimizer = make_optimizer(parameter_groups(model, recipe, head), recipe, fused=False)
    averaged = AveragedWeights(model, 0.5)
    for step in range(steps):
        model(images).logits.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        averaged.update(step + 1)
    return averaged


@pytest.mark.parametrize("kind", ["learned-2d", "sincos-2d", "none"])
def test_a_table_stays_of_its_kind_while_it_is_trained_and_averaged(folder, kind):
    pretrained = loaded(folder(), kind)
    model = pretrained.model
    torch.nn.init.normal_(model.get_parameter(pretrained.head[0]))
    start = table_of(model)[1]
    averaged = trained(model, pretrained.head, images_of(model))
    for place in ("live", "averaged"):
        if place == "averaged":
            averaged._exchange()
        places = table_of(model)[1]
        assert torch.equal(places[..., :8], places[:1, :, :8].expand(4, -1, -1))
        assert torch.equal(places[..., 8:], places[:, :1, 8:].expand(-1, 4, -1))
        assert torch.equal(places, start) == (kind != "learned-2d")


def test_factors_are_embeddings_without_weight_decay(folder):
    from vitft.recipe.keys import OptimRecipe

    pretrained = loaded(folder(), "learned-2d")
    groups = parameter_groups(pretrained.model, OptimRecipe(layer_decay=0.5), pretrained.head)
    of = {name: group for group in groups for name in group["names"]}
    factors = [of[name] for name in of if "position_embeddings" in name]
    assert len(factors) == 3
    assert all(group["weight_decay"] == 0 and group["lr_scale"] == 0.5**4 for group in factors)


def test_a_frozen_factored_table_is_saved_as_a_parameter(folder):
    pretrained = loaded(folder(), "learned-2d")
    choose_trainable(pretrained.model, "head", pretrained.head)
    write_out_positions(pretrained.model)
    assert "vit.embeddings.position_embeddings" in dict(pretrained.model.named_parameters())


@pytest.mark.parametrize("kind", ["learned-2d", "sincos-2d", "none"])
def test_other_sizes_resample_the_table_of_any_kind(folder, tmp_path, kind):
    pretrained = loaded(folder(), kind)
    model = pretrained.model
    torch.nn.init.normal_(model.get_parameter(pretrained.head[0]))
    several = MultiSize(model, (32, 32), [(16, 24), (32, 32)], "bicubic").eval()
    images = torch.randn(2, 3, 16, 24)
    logits = several(images).logits
    logits.square().sum().backward()
    learning = {name: p.grad for name, p in several.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in learning.values())
    assert sum("position_embeddings" in name for name in learning) == (3 if kind == "learned-2d" else 0)
    plain = copy.deepcopy(model)
    write_out_positions(plain)
    plain.save_pretrained(tmp_path / "saved")
    shutil.copy(tmp_path / "vit" / "preprocessor_config.json", tmp_path / "saved")
    expected = load_finished(tmp_path / "saved", "mine", Target((16, 24))).model
    with torch.no_grad():
        assert torch.allclose(expected(images).logits, logits, atol=1e-5)


def test_a_model_that_goes_on_learning_is_written_with_ordinary_tables(folder):
    model = loaded(folder(), "learned-2d").model.eval()
    copied = with_written_positions(model)
    assert copied.state_dict().keys() == zoo.classifier(zoo.config("vit")).state_dict().keys()
    images = images_of(model)
    with torch.no_grad():
        assert torch.equal(copied.eval()(images).logits, model(images).logits)
    assert any("parametrizations" in name for name, _ in model.named_parameters())
    plain = loaded(folder(), "learned-1d").model
    assert with_written_positions(plain) is plain

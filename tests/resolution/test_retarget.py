"""Every family at another size: what is written loads in plain transformers and computes what it did in memory."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from model import zoo
from resolution.checkpoints import SQUARE, WITH_TABLES, checkpoint
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    CLIPModel,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTModel,
    pipeline,
)
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from vitft import tasks
from vitft.architectures.config import image_size_of
from vitft.architectures.families import FAMILIES, vision_config
from vitft.errors import ModelError
from vitft.model.load import load_finished, load_for_training
from vitft.model.pixels import ImageProcess
from vitft.model.processor import made_size
from vitft.recipe.keys import ModelRecipe
from vitft.resolution.retarget import Target
from vitft.resolution.tables import resample_table

SQUARE_ONLY = {
    "clip",
    "metaclip_2",
    "siglip",
    "dinov2",
    "dinov2_with_registers",
    "beit",
    "data2vec-vision",
    "pvt",
    "levit",
}


def tables(model):
    """Name and parameter of every position table."""
    family = FAMILIES[model.config.model_type]
    config = vision_config(model.config)
    size = image_size_of(model.config)
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if any(table.grid_of(name, config, size) for table in family.tables)
    ]


def larger(family, *, square=True):
    side = SQUARE.get(family, 48)
    return (side, side) if square else (side, side + 32)


def plain(folder):
    """The model as plain transformers loads it, which must find every tensor and no other."""
    model, info = AutoModelForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    return model.eval()


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_resized_checkpoint_is_a_plain_one(family, square, tmp_path):
    _, folder = checkpoint(family, tmp_path)
    size = larger(family, square=square)
    if not square and family in SQUARE_ONLY:
        with pytest.raises(ModelError, match=r"one number|wrong order"):
            tasks.resize(folder, tmp_path / "out", image_size=size)
        assert not (tmp_path / "out").exists()
        return
    result = tasks.resize(folder, tmp_path / "out", image_size=size)
    model = plain(tmp_path / "out")
    assert image_size_of(model.config, made_size(AutoImageProcessor.from_pretrained(tmp_path / "out"))) == size
    torch.manual_seed(0)
    images = torch.randn(2, 3, *size)
    in_memory = load_finished(tmp_path / family, "mine", Target(size)).model
    with torch.no_grad():
        expected, logits = in_memory(images).logits, model(images).logits
    assert logits.std() > 1e-4 or family not in WITH_TABLES, "a model that says the same of all images proves nothing"
    assert torch.allclose(logits, expected, atol=1e-5)
    answer = pipeline("image-classification", model=model, image_processor=str(tmp_path / "out"), device="cpu")(
        zoo.photo(70, 90)
    )
    assert sum(each["score"] for each in answer) == pytest.approx(1, abs=1e-4)
    assert bool(result.record["tensors"]) == (family in WITH_TABLES)
    record = json.loads((tmp_path / "out" / "resize.json").read_text())
    assert record["image_size"]["after"] == list(size) and record["method"] == "bicubic"


NATIVE = {
    "vit": "bicubic-plain", "vit_msn": "bicubic-plain", "deit": "bicubic-plain", "ijepa": "bicubic-plain",
    "clip": "bicubic-plain", "metaclip_2": "bicubic-plain", "siglip": "bicubic-plain", "hiera": "bicubic-plain",
    "dinov2": "bicubic-plain", "dinov2_with_registers": "bicubic", "data2vec-vision": "bilinear",
}  # fmt: skip


@pytest.mark.parametrize("shape", ["larger", "smaller", "rectangle"])
@pytest.mark.parametrize("family", NATIVE)
def test_where_transformers_interpolates_at_run_time_it_finds_the_same(family, shape, tmp_path):
    """Its own way of resampling, done once: the logits are those of its run-time flag."""
    if shape == "rectangle" and family in SQUARE_ONLY:
        pytest.skip("the family takes squares only")
    model, folder = checkpoint(family, tmp_path)
    size = {"larger": larger(family), "smaller": (32, 32) if family == "hiera" else (16, 16)}.get(
        shape, larger(family, square=False)
    )
    tasks.resize(folder, tmp_path / "out", image_size=size, method=NATIVE[family])
    torch.manual_seed(0)
    images = torch.randn(2, 3, *size)
    flag = {} if "dinov2" in family else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        expected = model(images, **flag).logits
        assert torch.allclose(plain(tmp_path / "out")(images).logits, expected, atol=1e-5)
        other = tasks.resize(folder, tmp_path / "other", image_size=size, method="corners")
        assert not torch.allclose(plain(other.folder)(images).logits, expected, atol=1e-5)


def test_beit_without_absolute_positions_agrees_with_its_run_time_interpolation(tmp_path):
    model, folder = checkpoint("beit", tmp_path, use_absolute_position_embeddings=False)
    tasks.resize(folder, tmp_path / "out", image_size=(48, 48), method="bilinear")
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images, interpolate_pos_encoding=True).logits
        assert torch.allclose(plain(tmp_path / "out")(images).logits, expected, atol=1e-5)


def test_shared_tables_of_beit_are_resampled_too(tmp_path):
    _, folder = checkpoint("beit", tmp_path, use_relative_position_bias=False, use_shared_relative_position_bias=True)
    result = tasks.resize(folder, tmp_path / "out", image_size=(48, 48), method="geometric")
    methods = {each["kind"]: each["method"] for each in result.record["tensors"]}
    assert methods == {"positions": "bicubic", "relative positions": "geometric"}
    assert dict(tables(plain(tmp_path / "out")))["beit.shared_position_bias.relative_position_bias_table"].shape[0] == (
        11 * 11 + 3
    )


@pytest.mark.parametrize("family", sorted(WITH_TABLES))
def test_there_and_back_only_smooth_tables_survive_and_fixed_tokens_always_do(family, tmp_path):
    model, folder = checkpoint(family, tmp_path)
    size = larger(family)
    tasks.resize(folder, tmp_path / "large", image_size=size, method="corners")
    tasks.resize(tmp_path / "large", tmp_path / "back", image_size=image_size_of(model.config), method="corners")
    before, after = dict(tables(model)), dict(tables(plain(tmp_path / "back")))
    assert before.keys() == after.keys() and before
    for name, table in before.items():
        assert table.shape == after[name].shape
        assert torch.isfinite(after[name]).all()
    config, entry = vision_config(model.config), FAMILIES[family]
    for name, table in before.items():
        rule = next(rule for rule in entry.tables if rule.grid_of(name, config, (32, 32)))
        if rule.fixed:
            place = slice(None, rule.fixed) if rule.entries == "places" else slice(-rule.fixed, None)
            axis = -2
            untouched = table.transpose(0, axis)[place], after[name].transpose(0, axis)[place]
            assert torch.equal(*untouched)


def test_the_grid_of_every_pvt_stage_is_its_own(tmp_path):
    model, folder = checkpoint("pvt", tmp_path)
    done = tasks.resize(folder, tmp_path / "out", image_size=(96, 96)).record["tensors"]
    assert [(each["old"], each["new"]) for each in done] == [
        ("16x16", "24x24"), ("8x8", "12x12"), ("4x4", "6x6"), ("2x2", "3x3")
    ]  # fmt: skip
    new = dict(tables(plain(tmp_path / "out")))
    for stage, prefix in enumerate((0, 0, 0, 1)):
        name = f"pvt.encoder.patch_embeddings.{stage}.position_embeddings"
        side = 16 >> stage
        expected = resample_table(dict(tables(model))[name], (side, side), (side * 3 // 2,) * 2, prefix=prefix)
        assert torch.equal(new[name], expected)


def test_the_window_of_a_swin_changes_with_its_tables(tmp_path):
    _, folder = checkpoint("swin", tmp_path)
    result = tasks.resize(folder, tmp_path / "out", image_size=(96, 96), window_size=6)
    assert {(each["old"], each["new"]) for each in result.record["tensors"]} == {("4x4", "6x6")}
    model = plain(tmp_path / "out")
    assert model.config.window_size == 6
    assert model(torch.zeros(1, 3, 96, 96)).logits.shape == (1, 5)
    with pytest.raises(ModelError, match="no table of windows"):
        tasks.resize(checkpoint("vit", tmp_path)[1], tmp_path / "no", window_size=6)


# --- patches -----------------------------------------------------------------------------------------------

PATCHES = sorted(family for family, entry in FAMILIES.items() if entry.patch)


@pytest.mark.parametrize("family", PATCHES)
def test_larger_patches_of_an_enlarged_image_give_the_same_answer(family, tmp_path):
    """Twice the patch on twice the image: the tokens, and with them the logits, are the old ones (FlexiViT)."""
    model, folder = checkpoint(family, tmp_path)
    tasks.resize(folder, tmp_path / "out", image_size=(64, 64), patch_size=16)
    resized = plain(tmp_path / "out")
    assert vision_config(resized.config).patch_size == 16
    torch.manual_seed(0)
    images = torch.randn(2, 3, 4, 8, 4, 8)
    patches = images.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, 8, 8)
    enlarged = torch.nn.functional.interpolate(patches, size=(16, 16), mode="bilinear")
    enlarged = enlarged.reshape(2, 4, 4, 3, 16, 16).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(resized(enlarged).logits, model(images.reshape(2, 3, 32, 32)).logits, atol=1e-4)


def test_a_patch_alone_changes_the_grid_of_positions(tmp_path):
    _, folder = checkpoint("vit", tmp_path)
    record = tasks.resize(folder, tmp_path / "out", patch_size=16).record
    assert {each["kind"]: (each["old"], each["new"]) for each in record["tensors"]} == {
        "positions": ("4x4", "2x2"), "patch kernel": ("8x8", "16x16"),
    }  # fmt: skip
    assert plain(tmp_path / "out")(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 5)


def test_patches_that_overlap_are_not_resized(tmp_path):
    _, folder = checkpoint("hiera", tmp_path)
    with pytest.raises(ModelError, match="cannot be changed"):
        tasks.resize(folder, tmp_path / "out", patch_size=16)


# --- the file ----------------------------------------------------------------------------------------------


def test_everything_that_does_not_change_stays_as_it_was_stored(tmp_path):
    torch.manual_seed(0)
    CLIPModel(zoo.config("clip")).half().save_pretrained(tmp_path / "clip")
    zoo.processor("clip").save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "vocab.json").write_text("{}")
    result = tasks.resize(tmp_path / "clip", tmp_path / "out", image_size=(48, 48))
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("clip", "out"))
    assert {key for key in old if old[key].shape != new[key].shape} == {
        "vision_model.embeddings.position_embedding.weight"
    }
    assert old.keys() - new.keys() <= {"vision_model.embeddings.position_ids", "text_model.embeddings.position_ids"}
    assert all(old[key].dtype == new[key].dtype for key in new)
    assert any(key.startswith("text_model.") for key in new)
    settings = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("clip", "out")]
    assert settings[1]["vision_config"].pop("image_size") == 48
    settings[0]["vision_config"].pop("image_size")
    assert settings[0] == settings[1]
    assert any("vocab.json" in line for line in result.lines), "what is left behind is named"
    CLIPModel.from_pretrained(tmp_path / "out")


def test_an_encoder_without_a_head_and_a_tower_alone_can_be_resized(tmp_path):
    torch.manual_seed(0)
    ViTModel(zoo.config("vit")).save_pretrained(tmp_path / "vit")
    tasks.resize(tmp_path / "vit", tmp_path / "out", image_size=(48, 48))
    assert ViTModel.from_pretrained(tmp_path / "out").embeddings.position_embeddings.shape == (1, 37, 16)

    from transformers import CLIPVisionModel

    tower = CLIPVisionModel(zoo.config("clip").vision_config)
    tower.save_pretrained(tmp_path / "tower")
    tasks.resize(tmp_path / "tower", tmp_path / "tower48", image_size=(48, 48))
    _, info = CLIPVisionModel.from_pretrained(tmp_path / "tower48", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]


def test_a_fine_tuned_model_starts_from_the_resampled_tables(tmp_path):
    model, folder = checkpoint("vit", tmp_path)
    recipe = ModelRecipe(checkpoint=folder, image_size="48x64", resize_method="bicubic-plain")
    loaded = load_for_training(recipe, ["a", "b"], "squash")
    assert loaded.image_size == (48, 64)
    before = model.vit.embeddings.position_embeddings
    expected = resample_table(before, (4, 4), (6, 8), prefix=1, method="bicubic-plain")
    assert torch.equal(loaded.model.vit.embeddings.position_embeddings, expected)
    assert loaded.model.config.image_size == [48, 64]
    assert any("4x4 -> 6x8 (bicubic-plain)" in note for note in loaded.notes)
    made = loaded.processor(zoo.photo(30, 40))["pixel_values"][0]
    assert np.asarray(made).shape == (3, 48, 64)


# --- families with a will of their own ---------------------------------------------------------------------


def test_a_dinov2_runs_at_the_size_of_its_processor_and_keeps_its_larger_table(tmp_path):
    """As released: a table of 518 pixels, and a processor that cuts out 224."""
    model, _ = checkpoint("dinov2", tmp_path)
    folder = zoo.save(model, tmp_path / "cut", "dinov2", size=24)
    processor = AutoImageProcessor.from_pretrained(folder)
    processor.crop_size, processor.do_center_crop = {"height": 16, "width": 16}, True
    processor.save_pretrained(folder)
    loaded = load_for_training(ModelRecipe(checkpoint=folder), ["a", "b"], "squash")
    assert loaded.image_size == (16, 16) and loaded.model.config.image_size == 32
    assert any("runs at 16x16" in note and "positions are for 32x32" in note for note in loaded.notes)
    finished = load_finished(tmp_path / "cut", "mine")
    assert finished.retargeting.new == (16, 16)
    assert ImageProcess(finished.processor, (16, 16))(zoo.photo(40, 30)).shape == (3, 16, 16)

    once = load_for_training(ModelRecipe(checkpoint=folder, image_size=16), ["a", "b"], "squash")
    assert once.model.config.image_size == 16
    assert once.model.dinov2.embeddings.position_embeddings.shape == (1, 5, 16)
    larger = tasks.resize(folder, tmp_path / "out", image_size=(48, 48))
    assert [(each["old"], each["new"]) for each in larger.record["tensors"]] == [("4x4", "6x6")]


def test_the_coordinates_of_a_swinv2_stay_those_of_its_windows(tmp_path):
    """At 16 pixels the last stage's window shrinks from 4 to 2: an offset of one patch must still mean as much."""
    _, folder = checkpoint("swinv2", tmp_path)
    coordinates = "swinv2.encoder.layers.1.blocks.0.attention.self.relative_coords_table"
    before = dict(plain(folder).named_buffers())[coordinates]
    result = tasks.resize(folder, tmp_path / "out", image_size=(16, 16))
    after = dict(plain(tmp_path / "out").named_buffers())[coordinates]
    assert before.shape == (1, 7, 7, 2) and after.shape == (1, 3, 3, 2)
    assert torch.allclose(after, before[:, 2:5, 2:5])
    assert result.record["settings"]["pretrained_window_sizes"] == {"before": [0, 0, 0, 0], "after": [4, 4, 0, 0]}


def test_an_old_clip_that_has_its_settings_twice_loads_at_the_new_size(tmp_path):
    _, folder = checkpoint("clip", tmp_path)
    path = tmp_path / "clip" / "config.json"
    values = json.loads(path.read_text())
    values["vision_config_dict"] = values.pop("vision_config")
    path.write_text(json.dumps(values))
    tasks.resize(folder, tmp_path / "out", image_size=(48, 48))
    assert plain(tmp_path / "out").config.vision_config.image_size == 48


def test_a_masked_autoencoder_becomes_a_vit_that_loads(tmp_path):
    sizes = {key: value for key, value in zoo.PLAIN.items() if key != "num_labels"}
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    ViTMAEForPreTraining(ViTMAEConfig(**sizes, **decoder)).save_pretrained(tmp_path / "mae")
    result = tasks.resize(tmp_path / "mae", tmp_path / "out", image_size=(48, 48))
    assert any("without the decoder" in line for line in result.lines)
    encoder, info = ViTModel.from_pretrained(tmp_path / "out", output_loading_info=True, add_pooling_layer=False)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert encoder.embeddings.position_embeddings.shape == (1, 37, 16)
    assert load_for_training(ModelRecipe(checkpoint=str(tmp_path / "out")), ["a", "b"], "squash").image_size == (48, 48)


def test_a_config_that_binds_nothing_is_no_change(tmp_path):
    folder = zoo.save(zoo.classifier(zoo.config("convnext")), tmp_path / "convnext", "convnext", size=96)
    assert not load_finished(tmp_path / "convnext", "mine").retargeting
    with pytest.raises(ModelError, match="already has this size: 96x96"):
        tasks.resize(folder, tmp_path / "out", image_size=(96, 96))


def test_what_a_processor_cannot_do_in_its_own_way_is_said(tmp_path):
    _, folder = checkpoint("hiera", tmp_path)
    result = tasks.resize(folder, tmp_path / "out", image_size=(96, 128))
    assert any("images are squashed to 96x128" in line for line in result.lines)
    wide = np.zeros((60, 120, 3), np.uint8)
    wide[:, :10] = 255  # a stripe that a crop of the middle would lose
    made = AutoImageProcessor.from_pretrained(tmp_path / "out")(wide, return_tensors="np")["pixel_values"]
    assert made.shape == (1, 3, 96, 128) and made[..., 2].min() > made[..., 60].max()


# --- what is refused ---------------------------------------------------------------------------------------


def refusal(folder, out, **target):
    with pytest.raises(ModelError) as error:
        tasks.resize(folder, out, **target)
    assert not out.exists() and not list(out.parent.glob("*.partial"))
    return str(error.value)


def test_what_cannot_be_done_is_said_and_nothing_is_written(tmp_path):
    _, folder = checkpoint("vit", tmp_path)
    out = tmp_path / "out"
    message = refusal(folder, out, image_size=(44, 44))
    assert "not divisible by 8" in message and "40 and 48" in message and "--image-size 48" in message
    assert "40x48 and 48x56" in refusal(folder, out, image_size=(44, 50))
    assert "the nearest is 8" in refusal(folder, out, image_size=(5, 5))
    assert "1 to 4096" in refusal(folder, out, image_size=(0, 32))
    assert "1 to 4096" in refusal(folder, out, image_size=(10**6, 10**6))
    assert "already has this size" in refusal(folder, out, image_size=(32, 32))
    assert "tables of offsets" in refusal(folder, out, image_size=(48, 48), method="geometric")
    assert "no config.json" in refusal(tmp_path, out, image_size=(48, 48))
    assert "does not exist" in refusal(tmp_path / "none", out, image_size=(48, 48))
    out.mkdir()
    with pytest.raises(ModelError, match="already exists and will not be overwritten"):
        tasks.resize(folder, out, image_size=(48, 48))
    assert not list(out.iterdir())


def test_a_family_without_an_entry_names_those_with_one(tmp_path, monkeypatch):
    _, folder = checkpoint("vit", tmp_path)
    monkeypatch.delitem(FAMILIES, "vit")
    message = refusal(folder, tmp_path / "out", image_size=(48, 48))
    assert "does not know how to change its size" in message and "deit" in message and "levit" in message


def test_a_table_that_is_not_of_its_config_stops_everything(tmp_path):
    _, folder = checkpoint("vit", tmp_path)
    path = tmp_path / "vit" / "model.safetensors"
    state = load_file(path)
    state["vit.embeddings.position_embeddings"] = torch.zeros(1, 26, 16)
    save_file(state, path, metadata={"format": "pt"})
    message = refusal(folder, tmp_path / "out", image_size=(48, 48))
    assert "nothing was resized" in message and "(1, 26, 16)" in message and "(1, 17, 16)" in message


def test_a_grid_of_as_many_places_but_another_shape_is_resampled(tmp_path):
    """4x4 and 2x8 have 16 places each: only the grids tell them apart, never the number."""
    model, folder = checkpoint("vit", tmp_path)
    tasks.resize(folder, tmp_path / "out", image_size=(16, 64))
    table = plain(tmp_path / "out").vit.embeddings.position_embeddings
    before = model.vit.embeddings.position_embeddings
    assert table.shape == before.shape
    assert torch.equal(table, resample_table(before, (4, 4), (2, 8), prefix=1))
    assert not torch.allclose(table[:, 1:], before[:, 1:])


def test_a_swin_smaller_than_its_windows_is_a_clear_error_whose_advice_works(tmp_path):
    _, folder = checkpoint("swin", tmp_path)
    message = refusal(folder, tmp_path / "out", image_size=(28, 28), window_size=7)
    assert "does not suit" in message and "--image-size 56 or more" in message  # 2 stages, patches of 4
    tasks.resize(folder, tmp_path / "out", image_size=(56, 56), window_size=7)


def test_the_advice_for_a_patch_is_a_patch(tmp_path):
    _, folder = checkpoint("vit", tmp_path)
    message = refusal(folder, tmp_path / "out", patch_size=12)
    assert "for this image size: 4, 8, 16, 32" in message and "--patch-size 8" in message


def test_a_damaged_table_or_config_is_not_carried_over(tmp_path):
    _, folder = checkpoint("vit", tmp_path)
    path = tmp_path / "vit" / "model.safetensors"
    state = load_file(path)
    state["vit.embeddings.position_embeddings"][0, 3, 3] = float("nan")
    save_file(state, path, metadata={"format": "pt"})
    assert "not finite" in refusal(folder, tmp_path / "out", image_size=(48, 48))
    config = tmp_path / "vit" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"patch_size": 0}))
    assert "patch_size: 0" in refusal(folder, tmp_path / "out", image_size=(48, 48))


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    _, folder = checkpoint("vit", tmp_path)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.save_torch_state_dict", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tasks.resize(folder, tmp_path / "out", image_size=(48, 48))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vit"]


def test_a_place_where_nothing_can_be_written_is_found_at_once(tmp_path, monkeypatch):
    _, folder = checkpoint("vit", tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("vitft.model.rewrite.read_weights_for", lambda *_: pytest.fail("the weights were read"))
    assert "cannot write" in refusal(folder, tmp_path / "file" / "out", image_size=(48, 48))


# --- the real thing ----------------------------------------------------------------------------------------

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.real
@pytest.mark.parametrize("size", [(160, 160), (288, 288), (224, 320)])
def test_a_real_checkpoint_says_mostly_the_same_at_another_size(size, tmp_path):
    """Without training: a scrambled table would agree on hardly any photo."""
    folder = DATA / "vit-tiny-patch16-224"
    tasks.resize(folder, tmp_path / "out", image_size=size)
    photos = sorted((DATA / "flowers12" / "test").rglob("*.jpg"))[::10]
    own, resized = (
        pipeline("image-classification", model=str(where), device="cpu", top_k=1)([str(p) for p in photos])
        for where in (folder, tmp_path / "out")
    )
    agreement = np.mean([a[0]["label"] == b[0]["label"] for a, b in zip(own, resized, strict=True)])
    assert len(photos) == 24
    assert agreement >= 0.6

import json

import numpy as np
import pytest
import torch
import transformers
import zoo
from PIL import Image
from safetensors import SafetensorError
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils import is_torchvision_available

from vitft.architectures.config import image_size_of
from vitft.data.staging import BadImage
from vitft.errors import ModelError
from vitft.model.fitting import fit_processor, for_one_size
from vitft.model.pixels import ImageProcess, as_tensor, normalisation
from vitft.model.processor import load_processor, made_size

CLASSES = ["ViT", "DeiT", "Bit", "Beit", "CLIP", "Siglip", "ConvNext", "Pvt", "Levit", "Segformer", "PoolFormer",
           "MobileNetV1", "MobileNetV2", "EfficientNet", "TextNet", "Donut"]  # fmt: skip
FITS = ["squash", "crop", "pad"]


def processor_of(name, **settings):
    """A processor of the backend that AutoImageProcessor takes on this machine."""
    try:
        backend = "" if is_torchvision_available() else "Pil"
        return getattr(transformers, f"{name}ImageProcessor{backend}")(**settings)
    except ImportError as error:  # transformers 5.17 has Segformer's only with torchvision
        pytest.skip(str(error))


def normalised(processor, image, size):
    """What vitft feeds the model: staged by the processor, its values and channels changed by the formula."""
    return normalisation(processor)(ImageProcess(processor, size)(image)[None])[0]


def red_square(height, width):
    """White with a red square of a fifth of the short side in the middle."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    half = min(height, width) // 10
    pixels[height // 2 - half : height // 2 + half, width // 2 - half : width // 2 + half, 1:] = 0
    return Image.fromarray(pixels)


# --- fit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("fit", FITS)
def test_every_class_fits_as_asked_and_pipeline_sees_what_we_see(name, fit, tmp_path):
    size = (48, 48)
    fitted = fit_processor(processor_of(name), size, fit)
    fitted.save_pretrained(tmp_path)
    reloaded = AutoImageProcessor.from_pretrained(tmp_path)
    for image in (zoo.photo(60, 100), zoo.photo(90, 50, seed=1), zoo.photo(30, 20, seed=2)):
        ours = normalised(fitted, image, size)
        theirs = as_tensor(reloaded(image)["pixel_values"][0])
        # The border that transformers pads is exactly 0; ours is the nearest of 256 values.
        border = 0.5 / 255 / min(normalisation(fitted).std) if fit == "pad" else 0.0
        assert float((ours - theirs).abs().max()) <= border + 1e-5
        assert torch.equal(ImageProcess(reloaded, size)(image), ImageProcess(fitted, size)(image))


@pytest.mark.parametrize("name", ["ViT", "CLIP", "ConvNext", "EfficientNet", "MobileViT"])
def test_squash_and_crop_are_what_pillow_says(name):
    image, method = zoo.photo(60, 100), Image.Resampling.BICUBIC
    processor = processor_of(name, resample=method)
    expected = {
        "squash": np.asarray(image.resize((48, 48), method)),
        "crop": np.asarray(image.resize((80, 48), method))[:, 16:64],
    }
    for fit, pixels in expected.items():
        made = ImageProcess(fit_processor(processor, (48, 48), fit), (48, 48))(image).permute(1, 2, 0).numpy()
        # torchvision weighs pixels with fewer bits than Pillow.
        assert np.abs(made.astype(int) - pixels).max() <= 1 + is_torchvision_available()


def test_pad_keeps_the_shape_and_fills_bottom_and_right_with_the_mean_colour():
    fitted = fit_processor(processor_of("CLIP"), (40, 40), "pad")
    mean = normalisation(fitted).mean
    wide = ImageProcess(fitted, (40, 40))(red_square(50, 100))
    tall = ImageProcess(fitted, (40, 40))(red_square(100, 50))
    for made in (wide, tall.transpose(1, 2)):
        assert made[:, :20].float().mean() > 200
        assert made[:, 20:].unique(dim=1).shape[1] == 1
        assert made[:, 30, 30].tolist() == [round(255 * m) for m in mean]
    red = (wide[0] > 200) & (wide[1] < 60)
    rows, columns = red.nonzero().float().mean(0)
    assert (rows, columns) == (pytest.approx(9.5, abs=0.6), pytest.approx(19.5, abs=0.6))


@pytest.mark.parametrize("name", ["ViT", "CLIP", "ConvNext", "Bit"])
@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_sizes_need_not_be_square(name, fit):
    fitted = fit_processor(processor_of(name), (24, 48), fit)
    assert ImageProcess(fitted, (24, 48))(zoo.photo(50, 50)).shape == (3, 24, 48)


def test_crop_needs_a_square():
    with pytest.raises(ModelError, match="square"):
        fit_processor(processor_of("ViT"), (24, 48), "crop")


@pytest.mark.parametrize("size", [64, 384])
def test_convnext_crops_at_every_size_although_its_own_class_squashes_from_384_up(size):
    fitted = fit_processor(processor_of("ConvNext"), (size, size), "crop")
    made = ImageProcess(fitted, (size, size))(red_square(200, 400))
    red = ((made[0] > 200) & (made[1] < 60)).nonzero()
    height, width = (red.max(0).values - red.min(0).values + 1).tolist()
    assert abs(height - width) <= 2, "a square stays a square"


def test_what_another_class_must_express_keeps_interpolation_and_normalisation():
    own = processor_of("ConvNext", image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], resample=3)
    fitted = fit_processor(own, (32, 32), "squash")
    assert fitted.to_dict()["image_processor_type"] == "ViTImageProcessor"
    assert int(fitted.resample) == 3
    assert np.allclose(normalisation(fitted).mean, normalisation(own).mean)
    assert np.allclose(normalisation(fitted).std, normalisation(own).std)


def test_mobilevit_gives_bgr_in_its_own_class_and_is_refused_where_that_cannot():
    own = processor_of("MobileViT")
    assert normalisation(own).is_bgr and not normalisation(processor_of("ViT")).is_bgr
    image = Image.new("RGB", (40, 40), (255, 128, 0))
    fitted = fit_processor(own, (32, 32), "squash")
    assert ImageProcess(fitted, (32, 32))(image)[:, 5, 5].tolist() == [255, 128, 0]
    made = normalised(fitted, image, (32, 32))
    assert torch.allclose(made, as_tensor(fitted(image)["pixel_values"][0]), atol=1e-6)
    assert torch.allclose(made[:, 5, 5], torch.tensor([0, 128, 255]) / 255)
    with pytest.raises(ModelError, match="BGR"):
        fit_processor(own, (32, 32), "pad")


def test_the_given_processor_is_left_alone():
    own = processor_of("CLIP")
    before = own.to_dict()
    fit_processor(own, (32, 32), "pad")
    assert own.to_dict() == before


def test_tensors_of_the_torchvision_backend_are_taken_too():
    class Torch:
        image_mean, image_std, do_normalize, do_rescale, rescale_factor = [0.5] * 3, [0.5] * 3, True, True, 1 / 255

        def __init__(self, do_pad=False):
            self.do_pad = do_pad

        def __call__(self, image, **kwargs):
            assert kwargs.pop("do_pad", None) is (False if self.do_pad else None)
            assert kwargs == {"do_rescale": False, "do_normalize": False}
            return {"pixel_values": [torch.full((3, 8, 16), 7, dtype=torch.uint8)]}

    image = Image.new("RGB", (20, 10))
    made = ImageProcess(Torch(), (8, 16))(image)
    assert made.dtype == torch.uint8 and made.unique().tolist() == [7]
    padded = ImageProcess(Torch(do_pad=True), (16, 16))(image)
    assert padded[:, :8].unique().tolist() == [7] and padded[:, 8:].unique().tolist() == [128]
    with pytest.raises(ModelError, match=r"\(3, 8, 16\)"):
        ImageProcess(Torch(), (8, 8))(image)


# --- values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ViT", {}),
        ("ViT", {"do_normalize": False}),
        ("ViT", {"do_rescale": False}),
        ("ViT", {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.1, 0.9], "image_std": [1.0, 0.5, 2.0]}),
        ("CLIP", {}),
        ("EfficientNet", {}),
        ("EfficientNet", {"include_top": False}),
        ("EfficientNet", {"rescale_offset": True, "rescale_factor": 1 / 127.5, "do_normalize": False}),
        ("MobileViT", {}),
    ],
)
def test_normalisation_is_all_that_the_processor_does_to_values(name, settings):
    fitted = fit_processor(processor_of(name, **settings), (32, 32), "squash")
    image = zoo.photo(32, 32)
    theirs = as_tensor(fitted(image)["pixel_values"][0]).float()
    assert torch.allclose(normalised(fitted, image, (32, 32)), theirs, rtol=1e-5, atol=1e-4)


# --- images that a processor cannot make the model's size of -------------------------------------------------


def test_a_strip_that_would_be_enlarged_to_a_billion_pixels_is_a_bad_image():
    process = ImageProcess(processor_of("ConvNext", size={"shortest_edge": 224}), (224, 224))
    with pytest.raises(BadImage, match=r"it is 30,000 x 1, which .* 1,505,280,000 pixels"):
        process(Image.new("RGB", (30_000, 1)))
    assert process(Image.new("RGB", (900, 300))).shape == (3, 224, 224)
    assert ImageProcess(processor_of("ViT"), (224, 224))(Image.new("RGB", (30_000, 1))).shape == (3, 224, 224)


def test_a_processor_that_keeps_the_shape_of_images_squashes_them_with_a_note():
    own = processor_of("TextNet", size={"shortest_edge": 64})
    fitted, note = for_one_size(own, (64, 64))
    assert ImageProcess(fitted, (64, 64))(zoo.photo(60, 100)).shape == (3, 64, 64)
    assert "squashed to 64x64" in note
    for name in ("ViT", "CLIP", "ConvNext"):
        kept = processor_of(name)
        assert for_one_size(kept, (224, 224)) == (kept, None)


# --- reading and writing -----------------------------------------------------------------------------------


def test_a_checkpoint_without_a_processor_gets_vit_s_and_a_note(tmp_path):
    processor, note = load_processor(tmp_path)
    assert processor.to_dict()["image_processor_type"] == "ViTImageProcessor"
    assert "no preprocessor_config.json" in note


@pytest.mark.parametrize(
    "content",
    ["{not json", '{"image_processor_type": "NoSuchImageProcessor"}', "[1, 2]",
     '{"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": "mine.Mine"}}'],
)  # fmt: skip
def test_a_broken_processor_is_a_clear_error(content, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        load_processor(tmp_path)


@pytest.mark.parametrize("fit", FITS)
def test_the_size_is_read_back_for_families_whose_config_has_none(fit, tmp_path):
    config = zoo.config("resnet")
    fitted = fit_processor(processor_of("ConvNext"), (96, 96), fit)
    fitted.save_pretrained(tmp_path)
    assert image_size_of(config, made_size(load_processor(tmp_path)[0])) == (96, 96)
    assert image_size_of(config) == (224, 224)
    assert image_size_of(zoo.config("vit"), made_size(fitted)) == (32, 32)


def test_a_model_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    model, processor, folder = zoo.classifier(zoo.config("vit")), zoo.processor("vit"), tmp_path / "model"
    classifier = zoo.loaded(model, processor, (32, 32))
    for error in (OSError(28, "No space left on device"), SafetensorError("Error while serializing: No space left")):
        monkeypatch.setattr(type(processor), "save_pretrained", lambda *_, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(ModelError, match="No space left"):
            classifier.save(folder)
        assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    classifier.save(folder)
    classifier.save(folder)  # left by a run that was stopped after writing it
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {"config.json", "model.safetensors", "preprocessor_config.json"} == {p.name for p in folder.iterdir()}
    assert json.loads((folder / "config.json").read_text())["model_type"] == "vit"

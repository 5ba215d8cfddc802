"""One way from pixels to what a model takes: in training, in evaluation, in pictures, and in transformers.

No class of transformers both normalises and turns RGB into BGR, so that case is made by setting attributes. Its means
and deviations differ from channel to channel: with the channels in the wrong order, nothing would fit.
"""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from model import zoo
from PIL import Image

from vitft.data.batches import collate
from vitft.pictures.figures import draw
from vitft.pictures.look import Photo, look
from vitft.recipe.keys import AugmentRecipe
from vitft.scoring.evaluation import evaluate_split
from vitft.views.policy import policy

MEAN, STD = (0.1, 0.3, 0.8), (0.2, 0.5, 1.5)
SIZE = (64, 64)


def classifier_of(family, **attributes):
    processor = zoo.processor(family)
    processor.do_resize = processor.do_center_crop = False  # the photos have the model's size
    for name, value in attributes.items():
        setattr(processor, name, value)
    return zoo.loaded(zoo.model_of(family, image_size=64).eval(), processor, SIZE)


def normalised_bgr():
    made = classifier_of("mobilevit", do_normalize=True, image_mean=list(MEAN), image_std=list(STD))
    assert made.processor.do_flip_channel_order
    return made


@pytest.fixture
def images():
    """Two photos of the model's own size, uint8 (B, 3, H, W), of channels that differ."""
    photos = [np.asarray(zoo.photo(*SIZE, seed=seed)) for seed in (1, 2)]
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous()


def batch_of(images):
    count = len(images)
    return collate(list(images), [SIZE] * count, [0] * count, list(range(count)))


def in_training(classifier, images):
    still = AugmentRecipe(crop_scale=(1, 1), flip=0, label_smoothing=0)
    view = policy(
        still, resize_mode="squash", image_size=SIZE, normalise=classifier.pixel_values, num_classes=5, seed=0
    )
    return view(batch_of(images))[0]


def in_evaluation(classifier, images):
    with given_to(classifier) as seen:
        evaluate_split(classifier, [batch_of(images)], Accelerator(cpu=True))
    return seen.values


def in_pictures(classifier, images):
    with given_to(classifier) as seen:
        look(classifier, ["tokens"], [Photo("a photo", image, "") for image in images])
    return seen.values


class given_to:  # noqa: N801 - a context manager
    """Sees what a classifier's model is given."""

    def __init__(self, classifier):
        self.model, self.values = classifier.model, None

    def __enter__(self):
        self.hook = self.model.register_forward_pre_hook(lambda _, given: setattr(self, "values", given[0].clone()))
        return self

    def __exit__(self, *_):
        self.hook.remove()


@pytest.mark.parametrize("take", [in_training, in_evaluation, in_pictures])
def test_a_bgr_model_gets_blue_first_each_channel_by_its_own_mean_and_deviation(take, images):
    expected = torch.stack([(images[:, channel] / 255 - MEAN[channel]) / STD[channel] for channel in (2, 1, 0)], 1)
    assert torch.allclose(take(normalised_bgr(), images), expected, atol=1e-5)


@pytest.mark.parametrize("take", [in_training, in_evaluation, in_pictures])
@pytest.mark.parametrize(
    ("family", "attributes"),
    [("mobilevit", {}), ("vit", {"image_mean": list(MEAN), "image_std": list(STD)}), ("efficientnet", {})],
)
def test_pixel_values_are_those_of_transformers_own_processor(family, attributes, take, images):
    classifier = classifier_of(family, **attributes)
    photos = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    expected = torch.as_tensor(np.stack(classifier.processor(photos)["pixel_values"])).float()
    assert torch.allclose(take(classifier, images), expected, atol=1e-4)


def test_what_is_scored_is_what_the_processor_s_pixels_become(images):
    """The whole way of a file: its processor makes the pixels, which keep their channels until they are normalised."""
    classifier = normalised_bgr()
    photo = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    assert torch.equal(classifier.process(photo), images[0])


def test_pictures_of_a_bgr_model_show_the_photo_in_its_own_colours(tmp_path):
    red, orange = (torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, *SIZE) for colour in
                   ((250, 10, 10), (250, 130, 10)))  # fmt: skip
    photos = [Photo("red", red, ""), Photo("orange", orange, "")]
    seen = look(normalised_bgr(), ["neighbours"], photos[:1], pool=photos)
    draw("neighbours", [("", seen)], tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as figure:
        pixels = np.asarray(figure.convert("RGB")).astype(int)
    redder = pixels[..., 0] - pixels[..., 2]
    assert (redder > 200).sum() > 1000
    assert (redder < -50).sum() == 0

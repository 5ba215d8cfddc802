from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare

from vitft.data.order import uniform
from vitft.errors import RecipeError
from vitft.recipe.keys import AugmentRecipe
from vitft.views.erasing import erase
from vitft.views.pixel_values import Normalisation
from vitft.views.policy import policy

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STILL = {"crop_scale": (1, 1), "flip": 0, "label_smoothing": 0}


def batch_of(size, first=0, canvas=40):
    """A batch of staged images of differing sizes, cut from an endless order that starts at position 0."""
    images, sizes = torch.zeros(size, 3, canvas, canvas, dtype=torch.uint8), []
    for place, position in enumerate(range(first, first + size)):
        height, width = 40 - position % 3 * 5, 40 - position % 4 * 7
        generator = torch.Generator().manual_seed(position)
        images[place, :, :height, :width] = torch.randint(0, 256, (3, height, width), generator=generator)
        sizes.append((height, width))
    positions = torch.arange(first, first + size)
    sizes = torch.tensor(sizes)
    return SimpleNamespace(
        images=images, sizes=sizes, originals=3 * sizes, labels=positions % 5, sample_indices=positions
    )


def view_of(batch, *, fit="squash", image_size=(24, 24), seed=0, **augment):
    make = policy(
        AugmentRecipe(**augment),
        resize_mode=fit,
        image_size=image_size,
        normalise=Normalisation(MEAN, STD),
        num_classes=5,
        seed=seed,
    )
    return make(batch)


def test_without_any_randomness_a_view_is_the_resized_and_normalised_image():
    batch = batch_of(5)
    pixel_values, targets = view_of(batch, **STILL)
    assert pixel_values.dtype == targets.dtype == torch.float32
    for image, (height, width), got in zip(batch.images, batch.sizes.tolist(), pixel_values, strict=True):
        resized = F.interpolate(image[None, :, :height, :width].float(), (24, 24), mode="bilinear", antialias=True)[0]
        expected = (resized / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        assert torch.allclose(got, expected, atol=1e-4)
    assert torch.equal(targets, F.one_hot(batch.labels, 5).float())


@pytest.mark.parametrize("is_bgr", [False, True])
def test_pixel_values_of_uint8_are_what_the_formula_says_in_the_models_order_of_channels(is_bgr):
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(1, 3, 1, 3)
    got = Normalisation(MEAN, STD, is_bgr)(images)
    for channel in range(3):
        expected = [(value / 255 - MEAN[channel]) / STD[channel] for value in (0, 128, 255)]
        assert got[0, 2 - channel if is_bgr else channel, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_flip_mirrors_the_drawn_half():
    batch = batch_of(64)
    plain, _ = view_of(batch, **STILL)
    flipped, _ = view_of(batch, **STILL | {"flip": 0.5})
    expected = uniform(0, "flip", batch.sample_indices)[:, 0] < 0.5
    assert 16 < expected.sum() < 48
    assert torch.allclose(flipped, torch.where(expected[:, None, None, None], plain.flip(-1), plain), atol=1e-5)


EVERYTHING = {"erase": 0.5, "mixup_alpha": 0.2, "cutmix_alpha": 1.0, "mix_probability": 0.8}
OPERATIONS = {
    "vertical_flip": 0.5, "color_jitter": 0.4, "grayscale": 0.2, "blur": 0.3, "solarize": 0.2,
}  # fmt: skip


@pytest.mark.parametrize("crop", ["random-resized", "simple"])
@pytest.mark.parametrize("policy", ["3-augment", "randaugment", "trivialaugment"])
def test_random_operations_do_not_depend_on_how_a_step_is_cut(policy, crop):
    """So resuming and any number of processes give the same views; a level may round the other way."""
    keys = EVERYTHING | OPERATIONS | {"policy": policy, "crop": crop, "quarter_turns": True}
    whole, whole_targets = view_of(batch_of(24), **keys)
    for start, stop in ((0, 2), (2, 8), (8, 24)):
        part, targets = view_of(batch_of(stop - start, start), **keys)
        far = (part - whole[start:stop]).abs() > 0.5 / 255
        assert far.double().mean() < 1e-3
        assert torch.equal(targets, whole_targets[start:stop])


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_step_gives_the_same_views_however_it_is_cut(fit):
    whole, whole_targets = view_of(batch_of(13), fit=fit, image_size=(16, 24), **EVERYTHING)
    assert whole.shape == (13, 3, 16, 24)
    for start, stop in ((0, 2), (2, 8), (8, 13)):
        part, targets = view_of(batch_of(stop - start, start), fit=fit, image_size=(16, 24), **EVERYTHING)
        assert torch.allclose(part, whole[start:stop], atol=1e-4)
        assert torch.equal(targets, whole_targets[start:stop])


def test_views_depend_on_the_seed_and_the_position_only():
    batch = batch_of(8)
    assert torch.equal(view_of(batch, **EVERYTHING)[0], view_of(batch, **EVERYTHING)[0])
    assert not torch.allclose(view_of(batch, seed=1, **EVERYTHING)[0], view_of(batch, **EVERYTHING)[0])
    torch.manual_seed(5)  # the global generator has no part in it
    again = view_of(batch, **EVERYTHING)[0]
    torch.manual_seed(6)
    assert torch.equal(again, view_of(batch, **EVERYTHING)[0])


def test_one_operation_more_leaves_the_draws_of_the_others_as_they_were():
    batch = batch_of(32)
    plain, _ = view_of(batch)
    erased, _ = view_of(batch, erase=1.0)
    untouched = erased != 0
    assert 0.6 < untouched.double().mean() < 0.98
    assert torch.equal(erased[untouched], plain[untouched])


KEYS = {
    "crop": "simple", "vertical_flip": 1.0, "quarter_turns": True, "policy": "3-augment", "color_jitter": 0.4,
    "grayscale": 1.0, "blur": 1.0, "solarize": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_every_key_changes_the_views_of_its_own_images_only(key):
    """Images that an operation misses keep every bit."""
    batch = batch_of(64)
    plain, _ = view_of(batch)
    changed, _ = view_of(batch, **{key: KEYS[key]})
    differs = (plain != changed).flatten(1).any(1)
    assert differs.double().mean() > 0.7
    if key in ("vertical_flip", "grayscale", "blur", "solarize"):
        few = (plain != view_of(batch, **{key: 0.25})[0]).flatten(1).any(1)
        assert 6 < few.sum() < 28


@pytest.mark.parametrize(
    "change", [{"policy_ops": 3}, {"policy_magnitude": 2}, {"policy_noise": 0}, {"policy_probability": 1}]
)
def test_every_key_of_randaugment_changes_its_views(change):
    batch = batch_of(16)
    assert not torch.equal(view_of(batch, policy="randaugment")[0], view_of(batch, policy="randaugment", **change)[0])


def test_grey_views_are_grey_and_turned_upside_down_is_what_it_says():
    batch = batch_of(4)
    plain, _ = view_of(batch, **STILL)
    grey, _ = view_of(batch, **STILL, grayscale=1)
    levels = Normalisation(MEAN, STD).levels(grey)
    assert torch.equal(levels[:, 0], levels[:, 1]) and torch.equal(levels[:, 0], levels[:, 2])
    over, _ = view_of(batch, **STILL, vertical_flip=1)
    assert torch.allclose(over, plain.flip(2), atol=1e-5)
    turned, _ = view_of(batch_of(200), **STILL, quarter_turns=True)
    straight, _ = view_of(batch_of(200), **STILL)
    counts = [int(torch.isclose(turned, straight.rot90(k, (2, 3)), atol=1e-5).all((1, 2, 3)).sum()) for k in range(4)]
    assert sum(counts) == 200 and chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("is_bgr", [False, True])
def test_levels_are_the_images_that_pixel_values_were_made_of(is_bgr):
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16).clone()
    images[:, 0] = 255 - images[:, 0]
    normalise = Normalisation(MEAN, STD, is_bgr)
    assert torch.equal(normalise.levels(normalise(images)), images.float())
    assert torch.equal(normalise.levels(torch.zeros(1, 3, 1, 1))[0, :, 0, 0], normalise.fill)


def test_quarter_turns_of_a_view_that_is_not_square_are_refused():
    with pytest.raises(RecipeError, match=r"augment.quarter_turns: an image of 16x24 pixels has another shape"):
        view_of(batch_of(2), image_size=(16, 24), quarter_turns=True)


def test_targets_sum_to_1():
    _, targets = view_of(batch_of(33), **EVERYTHING)
    assert (targets.sum(1) - 1).abs().max() < 1e-6


def test_a_single_image_has_nobody_to_mix_with():
    alone, targets = view_of(batch_of(1), mixup_alpha=1.0)
    plain, plain_targets = view_of(batch_of(1))
    assert torch.equal(alone, plain)
    assert torch.equal(targets, plain_targets)


def test_pad_shows_all_of_the_image_above_a_bar_of_the_mean_colour():
    batch = batch_of(1)
    batch.images[:], batch.originals = 255, torch.tensor([[100, 400]])
    pixel_values, _ = view_of(batch, fit="pad", image_size=(32, 32), **STILL)
    brightness = (pixel_values[0, 0] * STD[0] + MEAN[0]).mean(1)
    expected = torch.full((32,), MEAN[0])
    expected[:8] = 1
    assert torch.allclose(brightness, expected, atol=0.15)  # the kernel softens the edge
    assert brightness.sum().item() == pytest.approx(8 + 24 * MEAN[0], abs=1e-3)


def test_the_same_crop_is_seen_at_every_stage_size():
    """A box is in units of the image, so a smooth image looks alike whichever size it was staged at."""
    scene = torch.linspace(0, 255, 160)[None, None, :].expand(3, 160, 160)
    views = []
    for size in ((160, 160), (80, 40)):
        staged = F.interpolate(scene[None], size, mode="bilinear", antialias=True).round().to(torch.uint8)
        batch = SimpleNamespace(
            images=staged,
            sizes=torch.tensor([size]),
            originals=torch.tensor([[300, 500]]),
            labels=torch.tensor([0]),
            sample_indices=torch.tensor([9]),
        )
        views.append(view_of(batch)[0])
    assert (views[0] - views[1]).abs().max() * max(STD) < 3 / 255


# --- erasing -----------------------------------------------------------------------------------------------


def erased_part(area, n=4000, size=(64, 32)):
    ones = torch.ones(n, 1, *size)
    return erase(ones, uniform(0, "erase", torch.arange(n), 5), probability=0.5, area=area)[:, 0] == 0


def test_erase_clears_one_rectangle_of_the_asked_area_in_the_asked_part_of_images():
    erased = erased_part((0.1, 0.3))
    counts = erased.sum((1, 2))
    hit = counts > 0
    assert hit.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert torch.equal(counts, erased.any(2).sum(1) * erased.any(1).sum(1))  # a rectangle
    parts = counts[hit] / (64 * 32)
    assert 0.09 < parts.min() < 0.11
    assert 0.28 < parts.max() < 0.33
    assert parts.mean().item() == pytest.approx(0.2, abs=0.01)


def test_erased_shapes_are_log_uniform_in_pixels():
    erased = erased_part((0.05, 0.05), size=(64, 64))
    erased = erased[erased.any(2).any(1)]
    ratios = (erased.any(2).sum(1) / erased.any(1).sum(1)).log()
    assert ratios.mean().abs() < 0.05
    assert ratios.std().item() == pytest.approx(2 * 1.204 / 12**0.5, rel=0.06)  # log(1 / 0.3) = 1.204
    assert ratios.abs().max() < 1.4


def test_erased_rectangles_reach_every_border():
    erased = erased_part((0.1, 0.3)).any(0)
    assert erased.all()


def test_a_very_large_erased_area_still_fits():
    erased = erased_part((1.0, 1.0))
    assert (erased.double().mean((1, 2))[erased.any(2).any(1)] == 1).all()

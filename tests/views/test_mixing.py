import pytest
import torch
from scipy.stats import beta, kstest

from vitft.data.order import uniform
from vitft.views.mixing import Mixture, draw_mixture, mix, soft_targets


def mixture_of(num_pairs, image_size=(32, 48), **options):
    options = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, "probability": 1.0} | options
    return draw_mixture(uniform(0, "mix", torch.arange(0, 2 * num_pairs, 2), 5), image_size, **options)


def batch_of(size, image_size=(32, 48), num_classes=7):
    """Images that are each one number, so that a mix shows how much of whom is where."""
    values = torch.arange(1.0, size + 1)[:, None, None, None].expand(size, 3, *image_size).contiguous()
    return values, soft_targets(torch.arange(size) % num_classes, num_classes, 0.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_soft_targets_give_torchs_smoothed_loss(smoothing):
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 4, 2])
    targets = soft_targets(labels, 5, smoothing)
    expected = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    assert torch.allclose(torch.nn.functional.cross_entropy(logits, targets), expected)
    assert torch.allclose(targets.sum(1), torch.ones(6))


def test_soft_targets_are_timms():
    targets = soft_targets(torch.tensor([1]), 4, 0.1)
    assert targets[0].tolist() == pytest.approx([0.025, 0.925, 0.025, 0.025])


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_lam_of_mixup_is_beta(alpha):
    lam = mixture_of(4000, mixup_alpha=alpha).lam
    assert kstest(lam.numpy(), beta(alpha, alpha).cdf).pvalue > 0.01


def test_mixup_blends_with_the_neighbour():
    images, targets = batch_of(6)
    mixture = mixture_of(3, mixup_alpha=0.8)
    mixed, mixed_targets = mix(images, targets, mixture)
    for slot in range(6):
        lam = mixture.lam[slot // 2]
        expected = lam * (slot + 1) + (1 - lam) * ((slot ^ 1) + 1)
        assert torch.allclose(mixed[slot], expected.expand(3, 32, 48), atol=1e-5)
        assert torch.allclose(mixed_targets[slot], lam * targets[slot] + (1 - lam) * targets[slot ^ 1], atol=1e-6)


def test_cutmix_puts_one_rectangle_of_the_partner_and_weighs_it_by_its_pixels():
    images, targets = batch_of(400)
    mixture = mixture_of(200, cutmix_alpha=1.0)
    mixed, mixed_targets = mix(images, targets, mixture)
    assert mixture.is_cut.all()
    for slot in range(400):
        foreign = mixed[slot, 0] == (slot ^ 1) + 1
        assert ((mixed[slot] == slot + 1) | foreign).all()
        rows, columns = foreign.any(1).sum(), foreign.any(0).sum()
        assert foreign.sum() == rows * columns  # a rectangle
        own = 1 - foreign.float().mean()
        expected = own * targets[slot] + (1 - own) * targets[slot ^ 1]
        assert torch.allclose(mixed_targets[slot], expected, atol=1e-6)


def test_the_area_that_cutmix_takes_follows_lam_where_no_border_cuts_it():
    draws = torch.tensor([[0.0, 0.0, quantile, 0.5, 0.5] for quantile in (0.04, 0.36, 0.75, 0.999)])
    mixture = draw_mixture(draws, (200, 200), mixup_alpha=0.0, cutmix_alpha=1.0, probability=1.0)
    assert mixture.lam.tolist() == pytest.approx([0.04, 0.36, 0.75, 0.999], abs=0.01)  # Beta(1, 1) is uniform


def test_cutmix_reaches_every_pixel_about_alike_often():
    images, targets = batch_of(8000, (8, 8))
    mixed, _ = mix(images, targets, mixture_of(4000, (8, 8), cutmix_alpha=1.0))
    taken = (mixed[:, 0] != images[:, 0]).double().mean(0)
    assert torch.allclose(taken, taken.flip(0), atol=0.03)
    assert torch.allclose(taken, taken.flip(1), atol=0.03)
    assert taken.min() > 0.15


def test_an_odd_last_image_stays_alone():
    images, targets = batch_of(5)
    mixed, mixed_targets = mix(images, targets, mixture_of(2, mixup_alpha=1.0))
    assert torch.equal(mixed[4], images[4])
    assert torch.equal(mixed_targets[4], targets[4])
    assert not torch.equal(mixed[3], images[3])


def test_probability_leaves_pairs_as_they_are():
    images, targets = batch_of(2000, (2, 2))
    for options in ({"mixup_alpha": 1.0}, {"cutmix_alpha": 1.0}):
        mixture = mixture_of(1000, (2, 2), probability=0.3, **options)
        untouched = mixture.lam == 1
        mixed, mixed_targets = mix(images, targets, mixture)
        slots = untouched.repeat_interleave(2)
        assert torch.equal(mixed[slots], images[slots])
        assert torch.equal(mixed_targets[slots], targets[slots])
        assert untouched.double().mean() >= 0.65  # CutMix may round to nothing besides
        if "mixup_alpha" in options:
            assert untouched.double().mean().item() == pytest.approx(0.7, abs=0.05)


def test_with_both_each_has_half_of_the_pairs_with_its_own_alpha():
    mixture = mixture_of(4000, (512, 512), mixup_alpha=0.2, cutmix_alpha=1.0)
    assert mixture.is_cut.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert kstest(mixture.lam[~mixture.is_cut].numpy(), beta(0.2, 0.2).cdf).pvalue > 0.01
    assert kstest(mixture.lam[mixture.is_cut].numpy(), beta(0.2, 0.2).cdf).pvalue < 1e-6


@pytest.mark.parametrize(
    "options", [{"mixup_alpha": 0.8}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}]
)
def test_mixed_targets_sum_to_1(options):
    targets = soft_targets(torch.arange(1001) % 100, 100, 0.1)
    _, mixed = mix(torch.zeros(1001, 1, 32, 48), targets, mixture_of(500, **options))
    assert (mixed.sum(1) - 1).abs().max() < 1e-5
    assert mixed.min() >= 0


def test_a_step_mixes_the_same_however_it_is_cut():
    images, targets = batch_of(11)
    whole = mixture_of(5, mixup_alpha=0.2, cutmix_alpha=1.0)
    mixed, mixed_targets = mix(images, targets, whole)
    draws = uniform(0, "mix", torch.arange(0, 10, 2), 5)
    for start, stop in ((0, 4), (4, 6), (6, 11)):
        pairs = slice(start // 2, stop // 2)
        part = draw_mixture(draws[pairs], (32, 48), mixup_alpha=0.2, cutmix_alpha=1.0, probability=1.0)
        part_mixed, part_targets = mix(images[start:stop], targets[start:stop], part)
        assert torch.equal(part_mixed, mixed[start:stop])
        assert torch.equal(part_targets, mixed_targets[start:stop])


def test_mixing_leaves_its_arguments_alone():
    images, targets = batch_of(4)
    copies = images.clone(), targets.clone()
    mix(
        images,
        targets,
        Mixture(torch.tensor([0.5, 0.2]), torch.tensor([False, False]), torch.zeros(2, 4).long()),
    )
    assert torch.equal(images, copies[0])
    assert torch.equal(targets, copies[1])

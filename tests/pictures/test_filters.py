"""Principal components of filters, against the reference and filters that are made of known ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from model import zoo

from vitft.pictures.filters import first_convolution, principal_filters, smoothness

CASES = dict(np.load(Path(__file__).with_name("inspect_cases.npz"), allow_pickle=False))


@pytest.mark.parametrize(("centred", "name"), [(True, "pca28_components"), (False, "pca28_components_uncentred")])
def test_components_are_the_references_up_to_sign(centred, name):
    found = principal_filters(torch.from_numpy(CASES["filters_oihw"]), centred=centred).components.numpy()
    expected = CASES[name]
    signs = np.sign((found * expected).sum((1, 2, 3), keepdims=True))
    np.testing.assert_allclose(found * signs, expected, atol=1e-6)


def test_explained_variance_is_the_references():
    found = principal_filters(torch.from_numpy(CASES["filters_oihw"])).explained
    np.testing.assert_allclose(found, CASES["pca_explained"][:28], atol=1e-6)


def test_filters_of_two_pictures_have_two_components():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(2, 3, 4, 4, generator=generator)
    kernel = torch.einsum("dn,nchw->dchw", torch.randn(40, 2, generator=generator), pictures)
    explained = principal_filters(kernel).explained
    assert float(explained[:2].sum()) == pytest.approx(1)
    assert float(explained[2:].max()) < 1e-10


def test_a_small_kernel_has_as_many_components_as_values():
    assert len(principal_filters(torch.randn(64, 3, 3, 3)).components) == 27


def test_a_wave_is_smooth_and_noise_is_not():
    wave = torch.sin(torch.linspace(0, 3, 16)).expand(1, 3, 16, 16)
    noise = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert float(smoothness(wave)) > 0.95
    assert abs(float(smoothness(noise))) < 0.1


def test_blue_green_red_becomes_red_green_blue():
    kernel = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    swapped = principal_filters(kernel.flip(1), bgr=True).components
    torch.testing.assert_close(swapped.abs(), principal_filters(kernel).components.abs())


@pytest.mark.parametrize("family", zoo.CONFIGS)
def test_every_family_has_a_first_convolution(family):
    found = first_convolution(zoo.classifier(zoo.config(family)))
    assert found is not None
    assert found[1].weight.shape[1] == 3

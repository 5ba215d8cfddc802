"""Patch kernels of another size; the references stand in posembed_cases.npz, made with numpy 2.4.6 and torch 2.13.0."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitft.resolution.patch import resize_patch_kernel

CASES = dict(np.load(Path(__file__).with_name("posembed_cases.npz"), allow_pickle=False))
REFERENCES = {"patch_pi_bilinear_noaa": "bilinear", "patch_pi_bicubic_aa": "bicubic"}
MODES = {
    "bilinear": {"mode": "bilinear"},
    "bicubic": {"mode": "bicubic", "antialias": True},
    "bicubic-plain": {"mode": "bicubic"},
    "corners": {"mode": "bilinear", "align_corners": True},
}


def noise(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("size", [32, 14, 12, 8])
@pytest.mark.parametrize("reference", REFERENCES)
def test_the_kernel_is_the_pseudo_inverse_of_the_whole_resize_times_the_old_one(reference, size):
    kernel = torch.from_numpy(CASES["patch_input__16x16"])
    found = resize_patch_kernel(kernel, size, REFERENCES[reference])
    expected = CASES[f"{reference}__16x16_to_{size}x{size}"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-5)


def test_the_papers_bilinear_is_the_default():
    kernel = noise(4, 3, 16, 16)
    assert torch.equal(resize_patch_kernel(kernel, 32), resize_patch_kernel(kernel, 32, "bilinear"))


@pytest.mark.parametrize("method", MODES)
@pytest.mark.parametrize(("old", "new"), [(16, 32), (8, 12), (7, 8), (4, 30)])
def test_a_patch_that_grew_keeps_its_token(old, new, method):
    kernel, patches = noise(5, 3, old, old), noise(6, 3, old, old, seed=2)
    larger = F.interpolate(patches.double(), size=(new, new), **MODES[method]).float()
    tokens = torch.einsum("dcyx,bcyx->bd", kernel, patches)
    found = torch.einsum("dcyx,bcyx->bd", resize_patch_kernel(kernel, new, method), larger)
    assert (found - tokens).abs().max() < 1e-4 * tokens.abs().max()


@pytest.mark.parametrize("method", MODES)
def test_the_old_kernel_is_the_larger_one_seen_through_the_resize(method):
    kernel = noise(5, 3, 16, 16, dtype=torch.float64)
    patch = torch.zeros(5, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    larger = F.interpolate(patch, size=(32, 32), **MODES[method])
    (larger * resize_patch_kernel(kernel, 32, method)).sum().backward()
    assert torch.allclose(patch.grad, kernel, rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", MODES)
def test_no_smaller_kernel_comes_closer(method):
    kernel = noise(2, 3, 12, 12, dtype=torch.float64)
    eye = torch.eye(144, dtype=torch.float64).reshape(144, 1, 12, 12)
    resize = F.interpolate(eye, size=(8, 8), **MODES[method]).flatten(1)  # (144, 64), the whole transposed resize
    best = torch.linalg.lstsq(resize, kernel.reshape(6, 144).T).solution.T.reshape(2, 3, 8, 8)
    assert torch.allclose(resize_patch_kernel(kernel, 8, method), best, rtol=0, atol=1e-9)


def test_sides_may_differ():
    kernel, patches = noise(5, 3, 8, 6), noise(4, 3, 8, 6, seed=2)
    larger = F.interpolate(patches, size=(16, 16), mode="bilinear")
    tokens = torch.einsum("dcyx,bcyx->bd", kernel, patches)
    found = torch.einsum("dcyx,bcyx->bd", resize_patch_kernel(kernel, 16), larger)
    assert torch.allclose(found, tokens, atol=1e-4)


def test_the_same_size_returns_the_same_tensor():
    kernel = noise(4, 3, 16, 16)
    assert resize_patch_kernel(kernel, 16) is kernel


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_is_kept_and_rounded_once(dtype):
    kernel = noise(4, 3, 16, 16).to(dtype)
    for size in (32, 12):
        found = resize_patch_kernel(kernel, size)
        assert found.dtype == dtype
        assert torch.equal(found, resize_patch_kernel(kernel.double(), size).to(dtype))

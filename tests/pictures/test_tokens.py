"""Tokens as colours, and nearest images, on tokens whose answer is known."""

import pytest
import torch
from model import zoo

from vitft.pictures.tokens import Nearest, colours_of, watching


def test_two_kinds_of_tokens_have_two_colours():
    tokens = torch.zeros(2, 4, 4, 8)
    tokens[..., :2, 0] = 1
    tokens[..., 2:, 1] = 3  # of another length, which must not matter
    colours, explained = colours_of(tokens)
    assert explained == pytest.approx(1)
    assert len({tuple(each) for each in colours.reshape(-1, 3).round(decimals=3).tolist()}) == 2
    assert colours.min() >= 0
    assert colours.max() <= 1


def test_a_token_many_times_longer_does_not_hide_the_others():
    tokens = torch.randn(1, 6, 6, 8, generator=torch.Generator().manual_seed(0))
    longer = tokens.clone()
    longer[0, 0, 0] *= 100
    torch.testing.assert_close(colours_of(tokens)[0], colours_of(longer)[0])


def test_the_nearest_is_found_whatever_batch_it_comes_in():
    features = torch.eye(3)
    nearest = Nearest(features, count=2)
    nearest.add(torch.tensor([[1.0, 0.2, 0], [0, 0, -1.0]]), ["a", "b"])
    nearest.add(torch.tensor([[2.0, 0, 0], [0, 1.0, 0.5]]), ["c", "d"])
    assert [[item for _, item in row] for row in nearest.found] == [["c", "a"], ["d", "a"], ["d", "a"]]
    assert nearest.found[0][0][0] == pytest.approx(1)
    assert nearest.passed == 4


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2", "clip", "swin", "resnet", "levit", "convnext"])
def test_features_make_the_logits(family):
    model = zoo.classifier(zoo.config(family)).eval()
    pixels = torch.randn(2, 3, 64, 64) if family in ("resnet", "convnext", "levit") else torch.randn(2, 3, 32, 32)
    head = "classifier" if hasattr(model, "classifier") else "fc"
    with torch.no_grad(), watching(model, head) as seen:
        logits = model(pixels).logits
    assert seen.features.shape[0] == 2
    again = model.get_submodule(head)(seen.features.reshape(2, -1, 1, 1) if family == "resnet" else seen.features)
    torch.testing.assert_close(again, logits, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("family", "prefix", "grid"),
    [("vit", 1, (4, 4)), ("siglip", 0, (4, 4)), ("swin", 0, (4, 4)), ("convnext", 0, (2, 2))],
)
def test_the_last_tokens_lie_on_their_grid(family, prefix, grid):
    model = zoo.classifier(zoo.config(family)).eval()
    size = 64 if family == "convnext" else 32
    with torch.no_grad(), watching(model, "classifier") as seen:
        model(torch.randn(2, 3, size, size))
    assert seen.grid(prefix, (size, size)).shape[:3] == (2, *grid)

"""A temperature folded into the last linear layer, whatever the family's head is made of."""

import json

import pytest
import torch
import zoo
from transformers import AutoModelForImageClassification

from vitft.errors import ModelError
from vitft.model.fold import check_fold, fold_temperature
from vitft.model.load import load_finished

# A plain head, one that reads two parts, one behind a norm, one of several modules, two heads.
FAMILIES = ["vit", "dinov2", "levit", "hgnet_v2", "swiftformer"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_copy_gives_the_logits_divided(family, tmp_path):
    model = zoo.model_of(family).eval()
    zoo.save(model, tmp_path / "own", family, size=zoo.images_for(model)[0].shape[-1])
    fold_temperature(tmp_path / "own", "own", 1.7, tmp_path / "out")
    copy = AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    images, _ = zoo.images_for(model)
    with torch.no_grad():
        torch.testing.assert_close(copy(images).logits, model(images).logits / 1.7, rtol=1e-5, atol=1e-6)


def test_a_half_precision_model_is_folded_in_float32(tmp_path):
    zoo.save(zoo.model_of().to(torch.bfloat16), tmp_path / "own", size=32)
    fold_temperature(tmp_path / "own", "own", 3.0, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


@pytest.fixture
def vit(tmp_path):
    zoo.save(zoo.model_of(), tmp_path / "own", size=32)
    return load_finished(tmp_path / "own", "own")


def test_a_head_that_is_no_linear_layer_is_refused(vit, tmp_path):
    vit.model.classifier = torch.nn.Conv2d(16, 5, 1)
    with pytest.raises(ModelError, match="does not end in a linear layer"):
        check_fold(vit, tmp_path / "out")


def test_nothing_is_overwritten(vit, tmp_path):
    with pytest.raises(ModelError, match="already exists"):
        check_fold(vit, tmp_path / "own")


def test_a_copy_whose_logits_are_other_ones_is_removed(vit, tmp_path, monkeypatch):
    class Scaled(torch.nn.Linear):
        def forward(self, features):
            return super().forward(features).tanh()

    head = vit.model.classifier
    vit.model.classifier = Scaled(head.in_features, head.out_features)
    vit.model.classifier.load_state_dict(head.state_dict())
    monkeypatch.setattr("vitft.model.fold.load_finished", lambda folder, named: vit)
    with pytest.raises(ModelError, match="does not divide its logits"):
        fold_temperature(tmp_path / "own", "own", 2.0, tmp_path / "out")
    assert not (tmp_path / "out").exists()

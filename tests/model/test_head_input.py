"""What a head or a block reads: of every family, the rest on its features gives the logits of the whole model."""

import pytest
import torch
import zoo
from torch import nn
from transformers import ViTForImageClassification

from vitft.errors import ModelError
from vitft.model.block_input import block_input
from vitft.model.head_input import HeadAlone, features_of, head_input
from vitft.model.load import _head_parameters
from vitft.model.trainable import choose_trainable

TWO_HEADS = {"swiftformer"}


@pytest.mark.parametrize("family", [family for family in zoo.CONFIGS if family not in TWO_HEADS])
def test_the_head_on_its_features_gives_the_logits_of_the_whole_model(family):
    model = zoo.model_of(family).eval()
    nn.init.normal_(model.get_parameter(_head_parameters(type(model), model.config)[-1]))  # some start at 0
    images, _ = zoo.images_for(model)
    read = head_input(model, _head_parameters(type(model), model.config), tuple(images.shape[-2:]))
    features = features_of(model, read.module, images)
    assert features.dtype == torch.float32 and features.shape == (len(images), *read.shape)
    with torch.no_grad():
        expected, logits = model(images).logits, HeadAlone(model, read.module)(features).logits
    assert expected.std() > 0
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


# Their blocks are in the middle of a stage, whose code counts on the number of images that it was given.
NOT_FROM_A_BLOCK = {"cvt", "mobilevit", "pvt", "pvt_v2"}


@pytest.mark.parametrize("family", zoo.CONFIGS)
def test_the_model_from_a_block_on_gives_logits_and_gradients_of_the_whole_model(family):
    model = zoo.model_of(family)
    head = _head_parameters(type(model), model.config)
    for name in head:
        nn.init.normal_(model.get_parameter(name))
    images, labels = zoo.images_for(model)
    size = tuple(images.shape[-2:])
    if family in NOT_FROM_A_BLOCK:
        with pytest.raises(ModelError, match=r"does not run from|does not read the output|need more than"):
            block_input(model, head, 2, size)
        return
    assert "forward" not in {key for module in model.modules() for key in vars(module)}
    read = block_input(model, head, 2, size)
    choose_trainable(model, "last:2", head)
    rest, model = read.rest(model), model.eval()
    found = {}
    for network, given in ((model, images), (rest, features_of(model, read.module, images))):
        model.zero_grad(set_to_none=True)
        logits = network(given).logits
        nn.functional.cross_entropy(logits, labels % logits.shape[1]).backward()
        found[network] = [logits, *(p.grad for p in model.parameters() if p.grad is not None)]
    assert len(found[model]) == len(found[rest]) > 3 and found[model][0].std() > 0
    for ours, theirs in zip(found[rest], found[model], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert "forward" not in {key for module in model.modules() for key in vars(module)}


@pytest.mark.parametrize("family", sorted(TWO_HEADS))
def test_two_heads_read_two_inputs(family):
    model = zoo.model_of(family)
    with pytest.raises(ModelError, match=r"its head is 2 modules \(dist_head, head\)"):
        head_input(model, _head_parameters(type(model), model.config), (64, 64))


class Doubled(ViTForImageClassification):
    def forward(self, pixel_values):
        output = super().forward(pixel_values)
        output.logits = output.logits * 2
        return output


class Twice(ViTForImageClassification):
    def forward(self, pixel_values):
        super().forward(pixel_values)
        return super().forward(pixel_values)


class ForAll(ViTForImageClassification):
    def forward(self, pixel_values):
        output = super().forward(pixel_values)
        output.logits = self.classifier(output.logits.new_ones(16))
        return output


@pytest.mark.parametrize(
    ("kind", "why"),
    [(Doubled, "is changed before it becomes the logits"), (Twice, "once per image"), (ForAll, "once per image")],
)
def test_a_head_that_is_not_all_there_is_after_the_features_is_refused(kind, why):
    model = kind(zoo.config("vit"))
    nn.init.zeros_(model.classifier.weight)  # as a new head: its output alone would tell nothing
    nn.init.zeros_(model.classifier.bias)
    with pytest.raises(ModelError, match=why):
        head_input(model, ("classifier.weight", "classifier.bias"), (32, 32))


def test_the_probe_changes_nothing():
    model = zoo.model_of("levit").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    head_input(model, ("classifier.linear.weight",), (64, 64))
    assert model.training and not model.classifier._forward_hooks and not model.classifier._forward_pre_hooks
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

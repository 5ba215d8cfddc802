"""What learns of a model, and what of it decays."""

import pytest
import torch
from zoo import model_of

from vitft.architectures.blocks import blocks
from vitft.errors import ModelError
from vitft.model.trainable import choose_trainable, freeze_unused, has_no_decay

HEAD = ("classifier.weight", "classifier.bias")


def learning(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_all_is_everything():
    model = model_of()
    choose_trainable(model, "all", HEAD)
    assert learning(model) == {name for name, _ in model.named_parameters()}


def test_head_is_the_head_alone():
    model = model_of()
    said = choose_trainable(model, "head", HEAD)
    assert learning(model) == set(HEAD)
    assert "model.train: head" in said


def test_last_n_is_the_last_blocks_and_what_follows_them():
    model = model_of()
    choose_trainable(model, "last:2", HEAD)
    expected = ("vit.layers.1.", "vit.layers.2.", "vit.layernorm.", "classifier.")
    assert learning(model) == {name for name, _ in model.named_parameters() if name.startswith(expected)}


def test_more_blocks_than_there_are_is_an_error_that_counts_them():
    with pytest.raises(ModelError, match="has 3 blocks") as error:
        choose_trainable(model_of(), "last:4", HEAD)
    assert "last:3" in error.value.allowed
    choose_trainable(model_of(), "last:3", HEAD)


def test_a_frozen_batch_norm_keeps_its_statistics_and_a_learning_one_does_not():
    model = model_of("resnet")
    choose_trainable(model, "last:1", ("classifier.1.weight", "classifier.1.bias"))
    before = {name: b.clone() for name, b in model.named_buffers() if name.endswith("running_mean")}
    for _ in range(2):  # an evaluation in between must not end it
        model.train()(torch.randn(4, 3, 32, 32))
        model.eval()
    moved = {name for name, b in model.named_buffers() if name in before and not torch.equal(b, before[name])}
    last = blocks(model)[-1][0]
    assert moved == {name for name in before if name.startswith(last)}


def test_only_what_learns_is_probed_for_gradients():
    model = model_of("dinov2")
    choose_trainable(model, "head", HEAD)
    assert freeze_unused(model, (32, 32)) == []
    assert learning(model) == set(HEAD)


def test_the_probe_leaves_no_trace():
    model = model_of("resnet").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    freeze_unused(model, (32, 32))
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("family", "exempt", "decayed"),
    [
        ("vit", ["vit.embeddings.cls_token", "vit.embeddings.position_embeddings", "vit.layernorm.weight",
                 "classifier.bias"], ["classifier.weight", "vit.embeddings.patch_embeddings.projection.weight"]),
        ("dinov2_with_registers", ["dinov2_with_registers.embeddings.register_tokens",
                                   "dinov2_with_registers.embeddings.mask_token"], ["classifier.weight"]),
        ("clip", ["vision_model.embeddings.class_embedding", "vision_model.embeddings.position_embedding.weight"],
         ["vision_model.encoder.layers.0.mlp.fc1.weight"]),
        ("siglip", ["vision_model.head.probe"], ["vision_model.head.attention.in_proj_weight"]),
        ("swinv2", ["swinv2.encoder.layers.0.blocks.0.attention.self.logit_scale"],
         ["swinv2.encoder.layers.0.blocks.0.attention.self.continuous_position_bias_mlp.0.weight"]),
        ("beit", ["beit.layers.0.relative_position_bias.relative_position_bias_table", "beit.layers.0.lambda_1"],
         ["beit.layers.0.mlp.fc1.weight"]),
    ],
)  # fmt: skip
def test_weight_decay_is_for_matrices(family, exempt, decayed):
    parameters = dict(model_of(family).named_parameters())
    assert [name for name in exempt if not has_no_decay(name, parameters[name])] == []
    assert [name for name in decayed if has_no_decay(name, parameters[name])] == []

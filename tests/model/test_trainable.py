"""What learns of a model, and what of it decays."""

import re

import pytest
import torch
from zoo import CONFIGS, model_of

from vitft.architectures.blocks import blocks
from vitft.architectures.families import FAMILIES
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


def test_attention_is_that_of_every_block_with_what_belongs_to_it():
    model = model_of()
    choose_trainable(model, "attention", HEAD)
    assert learning(model) == {name for name, _ in model.named_parameters() if ".attention." in name} | set(HEAD)
    model = model_of("levit")
    choose_trainable(model, "attention", ("classifier.linear.weight", "classifier.linear.bias"))
    in_blocks = {name for name in learning(model) if not name.startswith("classifier")}
    assert {name for name, _ in model.named_parameters() if "attention_biases" in name} < in_blocks
    assert in_blocks and not any("linear_up" in name or "patch" in name for name in in_blocks)


@pytest.mark.parametrize("family", CONFIGS)
def test_attention_is_trained_in_every_family_that_has_it_and_refused_in_the_others(family):
    model = model_of(family)
    if FAMILIES[family].attention:
        choose_trainable(model, "attention", HEAD)
        inside = [name for name in learning(model) if not name.startswith("classifier")]
        matrices = {name for name in inside if model.get_parameter(name).ndim > 1}
        assert {is_of(name, blocks(model)) for name in matrices} == {True}
        with_attention = {name for name, block in blocks(model) if any(f"{name}." in each for each in matrices)}
        assert len(with_attention) >= len(blocks(model)) / 3  # convolutional blocks come between
    else:
        with pytest.raises(ModelError, match=rf"knows of none in the blocks of this model .{family}") as error:
            choose_trainable(model, "attention", HEAD)
        assert "norms-and-biases" in error.value.allowed


def is_of(name, found):
    return any(name.startswith(f"{block}.") for block, _ in found)


def test_norms_and_biases_are_all_of_them_and_no_matrix():
    model = model_of("beit")
    choose_trainable(model, "norms-and-biases", HEAD)
    expected = {
        name for name, _ in model.named_parameters() if name.endswith(".bias") or "layernorm" in name or "norm." in name
    }
    assert learning(model) == expected | set(HEAD)
    assert "beit.layers.0.attention.k_proj.weight" not in expected and "beit.layers.0.attention.q_proj.bias" in expected
    model = model_of("resnet")
    choose_trainable(model, "norms-and-biases", ("classifier.1.weight", "classifier.1.bias"))
    assert {type(model.get_submodule(name.rpartition(".")[0])).__name__ for name in learning(model)} == {
        "BatchNorm2d", "Linear",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("family", "frozen"),
    [
        ("vit", r"vit\.embeddings\..+"),
        ("dinov2_with_registers", r"dinov2_with_registers\.embeddings\..+"),
        ("clip", r"vision_model\.(embeddings\..+|pre_layrnorm\..+)"),
        ("cvt", r"cvt\.encoder\.stages\.(0\.embedding\..+|\d\.cls_token)"),
        ("pvt", r"pvt\.encoder\.patch_embeddings\.(0\..+|\d\.(position_embeddings|cls_token))"),
        ("resnet", r"resnet\.embedder\..+"),
    ],
)
def test_all_but_embedding_leaves_out_what_comes_before_the_blocks_and_later_positions_and_tokens(family, frozen):
    model = model_of(family)
    choose_trainable(model, "all-but-embedding", HEAD)
    rest = {name for name, _ in model.named_parameters()} - learning(model)
    assert rest == {name for name, _ in model.named_parameters() if re.fullmatch(frozen, name)} != set()


def test_an_embedding_that_is_not_known_is_not_guessed(monkeypatch):
    model = model_of()
    monkeypatch.setattr("vitft.architectures.blocks.blocks", lambda _: [])
    with pytest.raises(ModelError, match=r"does not know the embedding of this model .vit") as error:
        choose_trainable(model.requires_grad_(True), "all-but-embedding", HEAD)
    assert "norms-and-biases" in error.value.allowed


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

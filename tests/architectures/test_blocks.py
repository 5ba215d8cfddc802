"""Blocks: which parameters belong to which, and activations computed twice instead of kept."""

import pytest
import torch
from model.zoo import images_for, model_of

from vitft.architectures.blocks import blocks, checkpoint_activations, layer_groups
from vitft.errors import ModelError
from vitft.model.drop_path import DropPath

HEAD = ("classifier.weight", "classifier.bias")


def test_layer_groups_of_a_vit():
    groups = layer_groups(model_of(), HEAD)
    assert {groups[name] for name in groups if "embeddings" in name} == {0}
    assert groups["vit.layers.1.mlp.fc1.weight"] == 2
    assert groups["vit.layernorm.weight"] == groups["classifier.bias"] == 4


def test_a_stage_s_downsampling_belongs_to_the_block_before_it_even_if_declared_first():
    groups = layer_groups(model_of("pvt"), HEAD)
    assert groups["pvt.encoder.patch_embeddings.0.projection.weight"] == 0
    assert groups["pvt.encoder.patch_embeddings.2.projection.weight"] == 2
    assert {depth for name, depth in groups.items() if name.startswith("pvt.encoder.block.2.0.")} == {3}


@pytest.mark.parametrize(
    ("family", "which"),
    [
        ("vit", "blocks"),
        ("vit", "half"),
        ("clip", "half"),
        ("dinov2", "blocks"),
        ("beit", "blocks"),
        ("swin", "blocks"),
    ],
)
def test_gradient_checkpointing_gives_the_same_gradients(family, which):
    gradients = []
    for checkpointing in ("off", which):
        model = model_of(family).train()
        images, positions = images_for(model)
        checkpoint_activations(model, checkpointing)
        drop_path = DropPath(model, 0.6, seed=3)
        drop_path.sample_indices = positions
        model(images).logits.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[1][name], g, atol=1e-6) for name, g in gradients[0].items())


def test_half_of_the_blocks_run_again_in_the_backward_pass():
    model = model_of("vit").train()
    runs = dict.fromkeys((name for name, _ in blocks(model)), 0)

    def count(name):
        def one_more(*_):
            runs[name] += 1

        return one_more

    for name, block in blocks(model):
        block.attention.register_forward_hook(count(name))
    checkpoint_activations(model, "half")
    model(images_for(model)[0]).logits.sum().backward()
    assert [*runs.values()] == [2 - number % 2 for number in range(len(runs))]


def test_half_is_refused_where_blocks_recompute_in_groups():
    with pytest.raises(ModelError, match="half is not there for the family 'swin'"):
        checkpoint_activations(model_of("swin"), "half")


def test_a_family_without_gradient_checkpointing_is_refused():
    with pytest.raises(ModelError, match="convnext"):
        checkpoint_activations(model_of("convnext"))

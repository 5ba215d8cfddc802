import pytest
import torch
import torch.nn.functional as F
import zoo

from vitft.architectures.blocks import blocks, checkpoint_activations, layer_groups
from vitft.errors import ModelError
from vitft.model.drop_path import DropPath
from vitft.model.trainable import choose_trainable, freeze_unused, has_no_decay

HEAD = ("classifier.weight", "classifier.bias")


def model_of(family="vit", **changes):
    return zoo.classifier(zoo.config(family, **changes))


def learning(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


# --- what learns -------------------------------------------------------------------------------------------


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


# --- groups ------------------------------------------------------------------------------------------------


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


# --- drop path ---------------------------------------------------------------------------------------------


def images_for(model):
    """Six images and the positions at which they stand."""
    config = model.config
    size = getattr(getattr(config, "vision_config", config), "image_size", 32)
    size = size if isinstance(size, int) else size[0]
    images = torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images, torch.tensor([11, 4, 90, 7, 2**40, 5])


def test_rates_grow_linearly_from_none_and_scaling_keeps_the_mean():
    model = model_of("dinov2").train()
    drop_path = DropPath(model, 0.5, seed=1)
    drop_path.sample_indices = torch.arange(20_000)
    for depth, (_, block) in enumerate(blocks(model)):
        rate = 0.25 * depth
        kept = block.drop_path(torch.ones(20_000, 1, 2))
        assert torch.equal(kept[:, 0, 0], kept[:, 0, 1]), "a branch is dropped as a whole"
        assert kept.unique().tolist() == pytest.approx([0.0, 1 / (1 - rate)] if rate else [1.0])
        assert float((kept[:, 0, 0] == 0).float().mean()) == pytest.approx(rate, abs=0.015)  # 4 standard errors


def test_the_branches_and_the_blocks_draw_apart():
    model = model_of("dinov2").train()
    drop_path = DropPath(model, 0.5, seed=1)
    drop_path.sample_indices = torch.arange(4000)
    modules = [block for _, block in blocks(model)]
    first, second = (modules[2].drop_path(torch.ones(4000, 1))[:, 0] > 0 for _ in range(2))
    other = modules[1].drop_path(torch.ones(4000, 1))[:, 0] > 0
    assert float((first == second).float().mean()) == pytest.approx(0.5, abs=0.04)
    assert float((first == other).float().mean()) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    "family", ["vit", "deit", "clip", "siglip", "dinov2", "beit", "swin", "swinv2", "convnext", "hiera", "pvt"]
)
def test_a_sample_has_the_same_mask_in_any_batch_and_none_in_evaluation(family):
    model = model_of(family).train()
    images, positions = images_for(model)
    drop_path = DropPath(model, 0.6, seed=3)

    def logits(images, positions):
        drop_path.sample_indices = positions
        return model(images).logits

    with torch.no_grad():
        whole = logits(images, positions)
        parts = [logits(images[part], positions[part]) for part in (slice(0, 1), slice(1, 6))]
        elsewhere, through = logits(images, positions + 1), logits(images, None)
        model.eval()
        evaluated = logits(images, positions)
    assert torch.allclose(torch.cat(parts), whole, atol=1e-5)
    assert not torch.allclose(elsewhere, whole, atol=1e-4)
    assert not torch.allclose(through, whole, atol=1e-4)
    assert torch.allclose(evaluated, through, atol=1e-6)


@pytest.mark.parametrize("family", ["vit", "clip", "dinov2", "beit", "swin"])
def test_gradient_checkpointing_gives_the_same_gradients(family):
    gradients = []
    for checkpointing in (False, True):
        model = model_of(family).train()
        images, positions = images_for(model)
        if checkpointing:
            checkpoint_activations(model)
        drop_path = DropPath(model, 0.6, seed=3)
        drop_path.sample_indices = positions
        model(images).logits.square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[1][name], g, atol=1e-6) for name, g in gradients[0].items())


def test_a_family_without_gradient_checkpointing_is_refused():
    with pytest.raises(ModelError, match="convnext"):
        checkpoint_activations(model_of("convnext"))


@pytest.mark.parametrize("family", ["vit", "beit", "swin"])
def test_the_state_dict_is_as_before(family):
    model = model_of(family)
    before = list(model.state_dict())
    DropPath(model, 0.5, seed=0)
    assert list(model.state_dict()) == before


def test_the_seed_matters():
    logits = []
    for seed in (1, 2, 1):
        model = model_of().train()
        images, positions = images_for(model)
        drop_path = DropPath(model, 0.6, seed)
        drop_path.sample_indices = positions
        logits.append(model(images).logits)
    assert torch.equal(logits[0], logits[2])
    assert not torch.equal(logits[0], logits[1])


def test_dropping_is_the_residual_stream_without_the_branch():
    """With both branches of the last block dropped for one sample, its stream passes the block untouched."""
    model = model_of().train()
    images, _ = images_for(model)
    drop_path = DropPath(model, 0.5, seed=1)
    drop_path.sample_indices = torch.arange(6)
    streams = {}
    model.vit.layers[2].register_forward_hook(lambda _, given, got: streams.update(before=given[0], after=got))
    model(images)
    untouched = [torch.equal(a, b) for a, b in zip(streams["before"], streams["after"], strict=True)]
    assert 0 < sum(untouched) < 6
    assert F.mse_loss(streams["before"], streams["after"]) > 0

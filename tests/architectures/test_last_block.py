"""The last block for the tokens that are read: the same logits and gradients, nothing else changed."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from model import zoo

from vitft.architectures.blocks import blocks, checkpoint_activations
from vitft.architectures.last_block import (
    has_short_last_block,
    restore_last_block,
    short_last_block,
    shorten_last_block,
    whole_last_block,
)
from vitft.model.drop_path import DropPath
from vitft.model.trainable import freeze_unused
from vitft.pictures.recording import recording
from vitft.pictures.tokens import watching
from vitft.resolution.multisize import MultiSize

BEIT = {"use_mean_pooling": False}
# case: (family, settings); in each, the head reads only the first tokens
CASES = {
    "vit": ("vit", {}),
    "vit, odd": ("vit", {"qkv_bias": False, "num_hidden_layers": 1, "num_attention_heads": 4}),
    "vit_msn": ("vit_msn", {}),
    "deit": ("deit", {}),
    "deit with a teacher": ("deit", {}),
    "beit": ("beit", BEIT),
    "beit, one bias for all": (
        "beit",
        BEIT | {"use_relative_position_bias": False, "use_shared_relative_position_bias": True},
    ),
    "beit like a vit": ("beit", BEIT | {"use_relative_position_bias": False, "layer_scale_init_value": 0.0}),
}
DROPOUT = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}


def made(case, **changes):
    """A model whose tables, biases and scales all count; some families start them at zero or one."""
    family, settings = CASES[case]
    config = zoo.config(family, **settings, **changes)
    torch.manual_seed(3)
    with_teacher = transformers.DeiTForImageClassificationWithTeacher
    model = with_teacher(config) if case == "deit with a teacher" else zoo.classifier(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.train()


def outcome(model, run, images):
    """Logits, and gradients of the cross-entropy with a class of its own for each image."""
    model.zero_grad()
    torch.manual_seed(0)  # BEiT's own drop path draws one number per image and branch
    logits = run(images).logits
    F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1]).backward()
    return logits.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(first, second):
    """Assert equal logits, and equal gradients of the same parameters."""
    torch.testing.assert_close(first[0], second[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(first[1], second[1], atol=1e-5, rtol=1e-5)  # compares their names too


def assert_nothing_changed(model, run=None, images=None):
    """Assert that a shortened last block changes neither logits nor gradients, and that it is whole again."""
    images = zoo.images_for(model)[0] if images is None else images
    before = outcome(model, run or model, images)
    with short_last_block(model):
        assert has_short_last_block(model)
        lengths = []
        hook = blocks(model)[-1][1].register_forward_hook(lambda *seen: lengths.append(seen[2].shape[1]))
        after = outcome(model, run or model, images)
        hook.remove()
    assert max(lengths, default=1) <= 2, "the class token, and DeiT's second"
    assert not has_short_last_block(model)
    assert before[0].abs().max() > 0.1
    assert_same(before, after)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("case", CASES)
def test_logits_and_all_gradients_are_the_same(case, attention):
    model = made(case)
    model.set_attn_implementation(attention)
    assert_nothing_changed(model)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_drop_path_drops_the_same_branches(case, checkpointing):
    model = made(case)
    if checkpointing:
        checkpoint_activations(model)
    images, sample_indices = zoo.images_for(model)
    if case != "vit, odd":  # one block: its rate is 0
        whole = model(images).logits
        drop_path = DropPath(model, 0.6, seed=3)
        drop_path.sample_indices = sample_indices
        assert not torch.allclose(model(images).logits, whole, atol=1e-3)
    assert_nothing_changed(model)


@pytest.mark.parametrize("case", ["vit", "deit", "beit", "beit, one bias for all"])
def test_so_it_is_at_another_size(case):
    """The twin of a shortened model is short too."""
    model = made(case)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    before = outcome(model, MultiSize(model, (32, 32), [(16, 16)], "bicubic"), images)
    shorten_last_block(model)
    several = MultiSize(model, (32, 32), [(16, 16)], "bicubic")
    [twin] = several._twins.values()
    assert has_short_last_block(twin.network)
    assert_same(before, outcome(model, several, images))
    restore_last_block(model)
    assert_nothing_changed(model, MultiSize(model, (32, 32), [(32, 32)], "bicubic"))


@pytest.mark.parametrize("case", ["vit", "beit"])
def test_the_same_parameters_are_unused(case):
    found = []
    for is_short in (False, True):
        model = made(case)
        assert not is_short or shorten_last_block(model)
        found.append(freeze_unused(model, (32, 32)))
    assert found[0] == found[1]


@pytest.mark.parametrize("case", ["vit", "beit"])
def test_dropout_draws_from_the_seed_alone_and_from_the_same_distribution(case):
    model = made(case, num_hidden_layers=1, **DROPOUT)
    one = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))

    def draws(seed):
        torch.manual_seed(seed)
        with torch.no_grad():
            return model(one.expand(2000, -1, -1, -1)).logits.double()

    whole = draws(0)
    shorten_last_block(model)
    short = draws(1)
    assert torch.equal(short, draws(1))
    assert not torch.equal(short, draws(2))
    error = (whole.var(0) / 2000 + short.var(0) / 2000).sqrt()
    assert ((whole.mean(0) - short.mean(0)).abs() < 5 * error).all()
    torch.testing.assert_close(whole.std(0), short.std(0), rtol=0.1, atol=0)
    model.eval()
    assert_nothing_changed_by_restoring(model, one)


def assert_nothing_changed_by_restoring(model, images):
    short = model(images).logits
    restore_last_block(model)
    torch.testing.assert_close(short, model(images).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", ["vit", "deit", "beit"])
def test_pictures_are_of_the_whole_block(case):
    model = made(case).eval()
    images, _ = zoo.images_for(model)

    def seen():
        attention = []
        with torch.no_grad(), recording(model, lambda each: attention.append(each.probs.clone())):
            logits = model(images).logits
        with torch.no_grad(), watching(model, "classifier") as tokens:
            model(images)
        return [logits, *attention, tokens.tokens, tokens.features]

    before = seen()
    shorten_last_block(model)
    after = seen()
    assert has_short_last_block(model), "as it was"
    assert before[3].shape[-1] == before[3].shape[-2] == before[-2].shape[1] > 2
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("case", ["vit", "beit"])
def test_modules_tensors_and_the_saved_model_stay(case, tmp_path):
    model = made(case).eval()
    images, _ = zoo.images_for(model)
    before, logits = list(model.state_dict()), model(images).logits
    shorten_last_block(model)
    assert list(model.state_dict()) == before
    model.save_pretrained(tmp_path)
    saved = type(model).from_pretrained(tmp_path).eval()
    assert not has_short_last_block(saved)
    assert torch.equal(saved(images).logits, logits)


def test_a_copy_is_short_and_has_its_own_weights():
    model = made("vit").eval()
    shorten_last_block(model)
    images, _ = zoo.images_for(model)
    logits, copied = model(images).logits, copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert has_short_last_block(copied)
    assert torch.equal(copied(images).logits, logits)


@pytest.mark.slow
def test_a_compiled_model_computes_the_same():
    model = made("vit").eval()
    images, _ = zoo.images_for(model)
    with torch.no_grad():
        expected = model(images).logits
        shorten_last_block(model)
        compiled = torch.compile(model, backend="eager")
        torch.testing.assert_close(compiled(images).logits, expected, atol=1e-5, rtol=1e-5)


def test_what_was_set_before_is_set_afterwards():
    model = made("vit")
    with short_last_block(model):
        with whole_last_block(model):
            assert not has_short_last_block(model)
        assert has_short_last_block(model)
        with short_last_block(model):
            pass
        assert has_short_last_block(model)
    with whole_last_block(model):
        pass
    assert not has_short_last_block(model)
    with pytest.raises(ZeroDivisionError), short_last_block(model):
        raise ZeroDivisionError
    assert not has_short_last_block(model)


# --- what is left alone ------------------------------------------------------------------------------------


def assert_left_alone(model):
    assert not shorten_last_block(model)
    assert not has_short_last_block(model)
    assert not [name for name, module in model.named_modules() if "forward" in vars(module)]
    restore_last_block(model)
    with short_last_block(model), whole_last_block(model):
        pass


@pytest.mark.parametrize("family", sorted(zoo.CONFIGS.keys() - {"vit", "vit_msn", "deit"}))
def test_a_family_whose_head_reads_other_tokens_is_left_alone(family):
    assert_left_alone(zoo.model_of(family))  # BEiT and Data2Vec average the patch tokens by default


def test_an_attention_of_another_kind_is_left_alone():
    assert_left_alone(zoo.model_of("data2vec-vision", use_mean_pooling=False))
    model = made("vit")
    model.vit.layers[-1].attention.q_norm = torch.nn.LayerNorm(8)
    assert_left_alone(model)
    model = made("vit")
    model.config._attn_implementation = "flex_attention"  # its masks are no tensors
    assert_left_alone(model)


def test_a_forward_that_others_have_replaced_is_left_alone():
    model = made("vit").eval()
    images, _ = zoo.images_for(model)
    attention = model.vit.layers[-1].attention
    plain = attention.forward
    attention.forward = lambda *args, **kwargs: plain(*args, **kwargs)
    assert not shorten_last_block(model)
    with short_last_block(model), whole_last_block(model):
        model(images)
    assert attention.forward is not plain and "forward" in vars(attention)


@pytest.mark.real
def test_the_real_checkpoint():
    path = Path(__file__).parents[3] / "shared" / "data" / "vit-tiny-patch16-224"
    model = transformers.AutoModelForImageClassification.from_pretrained(path)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert_nothing_changed(model.train(), images=images)

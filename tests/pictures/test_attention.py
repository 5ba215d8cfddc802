"""What is said of attention, against other people's numbers and against attention whose answer is known.

inspect_cases.npz was made with numpy alone, from the definitions in the papers: an attention stack of 3 layers, 2
images, 2 heads and 1 + 4x6 tokens with its rollouts and distances, filters with their principal components, and
positions with their similarities.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from model import zoo

from vitft.pictures.attention import (
    SINK,
    Rollout,
    Summary,
    attention_distance,
    entropy,
    output_row,
    received_attention,
    relevance,
    rollout_step,
)
from vitft.pictures.recording import Attention
from vitft.pictures.token_places import global_places

CASES = {
    name: torch.from_numpy(array)
    for name, array in np.load(Path(__file__).with_name("inspect_cases.npz"), allow_pickle=False).items()
}
GRID, IMAGE = (4, 6), (64, 96)  # patches of 16 pixels


def layers(attention=CASES["attn"], prefix=1):
    """The layers of a stack (L, B, A, N, N) as a model would hand them on."""
    places = global_places(GRID, IMAGE, prefix)
    return [Attention(index, f"layer.{index}", probs[:, None], places) for index, probs in enumerate(attention)]


def shifted(right, grid=GRID):
    """A head whose every patch looks ``right`` patches to the right; those that cannot look at themselves."""
    rows, columns = grid
    probs = torch.zeros(rows * columns, rows * columns, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            place = row * columns + column
            probs[place, place + right if column + right < columns else place] = 1
    return probs[None, None, None]


# --- distance ----------------------------------------------------------------------------------------------


def test_distances_between_patches_are_the_references():
    torch.testing.assert_close(global_places(GRID, IMAGE).distances[0], CASES["dist_matrix_px"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("renormalise", "name"), [(False, "mean_attn_dist_px_norenorm"), (True, "mean_attn_dist_px_renorm")]
)
def test_mean_attention_distance_is_the_references(renormalise, name):
    distances = global_places(GRID, IMAGE).distances
    found = [attention_distance(each.probs, distances, prefix=1, renormalise=renormalise) for each in layers()]
    torch.testing.assert_close(torch.stack(found), CASES[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [7, 14, 24])
def test_a_uniform_head_has_the_published_distance(side):
    count = side * side
    uniform = torch.full((1, 1, 1, count, count), 1 / count, dtype=torch.float64)
    distance = attention_distance(uniform, global_places((side, side), (224, 224)).distances)
    assert float(distance) == pytest.approx(float(CASES[f"uniform_dist_px_grid{side}_img224"]), abs=1e-6)


@pytest.mark.parametrize("right", [0, 1, 2])
def test_a_head_that_looks_k_patches_to_the_right_has_distance_k_patches(right):
    inside = shifted(right).reshape(24, 24).reshape(4, 6, 24)[:, : 6 - right].reshape(1, 1, 1, -1, 24)
    distances = global_places(GRID, IMAGE).distances.reshape(1, 4, 6, 24)[:, :, : 6 - right].reshape(1, -1, 24)
    assert float(attention_distance(inside, distances)) == pytest.approx(16 * right)


def test_attention_on_the_class_token_is_no_distance_or_taken_out():
    probs = torch.zeros(1, 1, 1, 25, 25, dtype=torch.float64)
    probs[..., 0] = 0.5  # half on the class token
    probs[..., 1:, 1:] = 0.5 / 24
    distances = global_places(GRID, IMAGE).distances
    uniform = float(CASES["mean_attn_dist_px_uniform_4x6"])
    assert float(attention_distance(probs, distances, prefix=1)) == pytest.approx(uniform / 2)
    assert float(attention_distance(probs, distances, prefix=1, renormalise=True)) == pytest.approx(uniform)


def test_a_row_wholly_on_the_class_token_is_not_divided_by_nothing():
    probs = torch.zeros(1, 1, 1, 25, 25)
    probs[..., 0] = 1
    distance = attention_distance(probs, global_places(GRID, IMAGE).distances, prefix=1, renormalise=True)
    assert float(distance) == 0


# --- entropy, special tokens, sinks ------------------------------------------------------------------------


def test_entropy_is_log_k_of_a_uniform_head_and_0_of_one_that_looks_at_one_patch():
    uniform = torch.full((2, 1, 1, 24, 24), 1 / 24)
    assert float(entropy(uniform)) == pytest.approx(np.log(24), abs=1e-5)
    assert float(entropy(shifted(1))) == 0


def test_a_summary_over_two_batches_is_that_over_one():
    whole, parts = Summary(), Summary()
    for each in layers():
        whole(each)
    for image in (slice(0, 1), slice(1, 2)):
        for each in layers(CASES["attn"][:, image]):
            parts(each)
    for one, other in zip(whole.layers, parts.layers, strict=True):
        assert one.distance_dropped == pytest.approx(other.distance_dropped, rel=1e-6)
        assert one.entropy == pytest.approx(other.entropy, rel=1e-6)
        assert np.array(one.on_special) == pytest.approx(np.array(other.on_special), rel=1e-6)


def test_a_summary_says_how_much_goes_to_special_tokens():
    summary = Summary()
    for each in layers():
        summary(each)
    expected = CASES["attn"][0][:, :, 1:, 0].mean((0, 2))
    assert np.array(summary.layers[0].on_special)[:, 0] == pytest.approx(expected.numpy(), abs=1e-6)
    assert summary.layers[0].uniform_distance == pytest.approx(float(CASES["mean_attn_dist_px_uniform_4x6"]))


def test_a_patch_that_all_others_look_at_is_a_sink():
    probs = torch.full((1, 1, 1, 25, 25), 0.4 / 24)
    probs[..., 7] = 0.6
    assert float(received_attention(probs)[0, 7]) == pytest.approx(0.6 * 25)
    assert float(received_attention(probs)[0, 7]) > SINK
    summary = Summary()
    summary(Attention(0, "layer", probs, global_places(GRID, IMAGE, 1)))
    assert summary.layers[0].sinks == 1
    assert summary.layers[0].on_sinks == pytest.approx(0.6)


def test_uniform_attention_has_no_sinks():
    summary = Summary()
    summary(Attention(0, "layer", torch.full((3, 1, 2, 25, 25), 1 / 25), global_places(GRID, IMAGE, 1)))
    assert summary.layers[0].sinks == 0
    assert summary.layers[0].on_sinks == 0


# --- rollout -----------------------------------------------------------------------------------------------


def rolled(attention=CASES["attn"], reads="class"):
    rollout = Rollout(reads)
    for each in layers(attention):
        rollout(each)
    return rollout


def test_rollout_is_the_references():
    rollout = rolled()
    torch.testing.assert_close(rollout.with_residual, CASES["rollout_full"], atol=1e-6, rtol=0)
    torch.testing.assert_close(rollout.maps(residual=True), CASES["rollout_cls_map"], atol=1e-6, rtol=0)
    torch.testing.assert_close(rollout.maps(residual=False), CASES["rollout_cls_map_noresidual"], atol=1e-6, rtol=0)


def test_rows_of_a_rollout_sum_to_1():
    for matrix in (rolled().with_residual, rolled().without_residual):
        torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 25, dtype=torch.float64), atol=1e-6, rtol=0)


def test_looking_one_patch_to_the_right_in_three_layers_is_looking_three_to_the_right():
    rollout = None
    for _ in range(3):
        rollout = rollout_step(rollout, shifted(1)[:, 0, 0], residual=False)
    assert rollout[0, 0].argmax() == 3
    assert rollout[0, 0, 3] == 1


def test_with_the_residual_half_of_each_step_stays():
    rollout = None
    for _ in range(2):
        rollout = rollout_step(rollout, shifted(1)[:, 0, 0], residual=True)
    assert rollout[0, 0, :3].tolist() == [0.25, 0.5, 0.25]


def test_where_tokens_are_thinned_out_no_identity_is_mixed_in():
    attention = torch.rand(1, 6, 24, dtype=torch.float64).softmax(-1)
    assert torch.equal(rollout_step(None, attention, residual=True), attention)


def test_without_a_class_token_the_mean_over_patches_is_read():
    matrix = torch.arange(9.0).reshape(1, 3, 3)
    assert output_row(matrix, "class", 1).tolist() == [[1.0, 2.0]]
    assert output_row(matrix, "mean", 1).tolist() == [[5.5, 6.5]]
    assert output_row(matrix, "mean", 0).tolist() == [[3.0, 4.0, 5.0]]


def test_the_last_layer_is_kept_by_head():
    torch.testing.assert_close(rolled().last, CASES["attn"][-1][:, :, 0, 1:], atol=1e-12, rtol=0)


# --- relevance ---------------------------------------------------------------------------------------------


def test_relevance_follows_the_gradient():
    """A patch whose change cannot change the logit has none."""
    model = zoo.classifier(zoo.config("vit", num_hidden_layers=1)).eval()
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = relevance(model, pixels, torch.tensor([0, 3]), "class")
    assert found.shape == (2, 4, 4)
    assert (found >= 0).all()
    assert found.max() > 0
    with torch.no_grad():
        model.classifier.weight.zero_()
    assert relevance(model, pixels, torch.tensor([0, 3]), "class").abs().max() == 0


def test_relevance_of_one_layer_is_the_formula():
    """Against transformers' own eager attention and autograd."""
    model = zoo.classifier(zoo.config("vit", num_hidden_layers=1)).eval()
    pixels = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = relevance(model, pixels, torch.tensor([2]), "class")
    model.set_attn_implementation("eager")
    out = model(pixels, output_attentions=True)
    (gradient,) = torch.autograd.grad(out.logits[0, 2], out.attentions[0])
    expected = (gradient * out.attentions[0]).clamp_min(0).mean(1)[0, 0, 1:].reshape(4, 4)
    torch.testing.assert_close(found[0], expected, atol=1e-7, rtol=1e-4)

"""Checkpoints that lie in their JSON files, before each command: a result or a clear error, in little time."""

import copy
import json
import os
import random
import re
import resource
import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from vitft import evaluate, finetune, inspect, predict, resize
from vitft.errors import ModelError, VitftError
from vitft.model.gate import check_model
from vitft.model.load import load_finished, load_for_training
from vitft.model.opening import open_checkpoint
from vitft.outside import printable
from vitft.recipe.keys import ModelRecipe
from vitft.recipe.recipe import Recipe

PLAIN = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8, "num_labels": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A tiny ViT that says the truth, and an image."""
    folder = tmp_path_factory.mktemp("honest")
    torch.manual_seed(0)
    transformers.ViTForImageClassification(transformers.ViTConfig(**PLAIN)).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    Image.new("RGB", (40, 50), "red").save(folder / "photo.png")
    predict(folder, [folder / "photo.png"], device="cpu")  # what is imported on the way takes seconds, once
    return folder


@pytest.fixture
def lying(honest, tmp_path):
    """Return a function that copies the honest checkpoint and changes what one of its files says."""

    def change(name, **values):
        folder = tmp_path / "lying"
        if not folder.exists():
            shutil.copytree(honest, folder)
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return folder

    return change


CONFIG = {
    "no patches": {"patch_size": 0},
    "patches of less than nothing": {"patch_size": -8},
    "half a patch": {"patch_size": 0.5},
    "patches of text": {"patch_size": "eight"},
    "an unknown function": {"hidden_act": "evil"},
    "a function of the system": {"hidden_act": "os.system"},
    "a function that is none": {"hidden_act": {"a": 1}},
    "an endless image": {"image_size": 10**9},
    "no image": {"image_size": 0},
    "a negative image": {"image_size": -32},
    "a nested image": {"image_size": [[32]]},
    "more classes than people": {"num_labels": 10**9, "id2label": None, "label2id": None},
    "fewer classes than none": {"num_labels": -1, "id2label": None, "label2id": None},
    "endless layers": {"num_hidden_layers": 10**9},
    "many layers": {"num_hidden_layers": 100_000},
    "wide layers": {"hidden_size": 10**8},
    "wider layers": {"intermediate_size": 10**8},
    "no heads": {"num_attention_heads": 0},
    "heads that do not divide": {"num_attention_heads": 3},
    "negative heads": {"num_attention_heads": -2},
    "no width": {"hidden_size": 0},
    "no channels": {"num_channels": 0},
    "other channels": {"num_channels": 4},
    "a large dropout": {"hidden_dropout_prob": 7},
    "a long number": {"hidden_size": int("9" * 4000)},
    "nothing": {"hidden_size": None},
    "truth": {"hidden_size": True},
    "no family": {"model_type": None},
    "a family that is none": {"model_type": "evil"},
    "a family of text": {"model_type": "bert"},
    "a family that is a list": {"model_type": ["vit"]},
    "labels that are none": {"id2label": [1, 2]},
    "labels without numbers": {"id2label": {"x": "cat"}},
    "labels that are objects": {"id2label": {"0": {"a": 1}}},
    "quantised weights": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
}
PROCESSOR = {
    "a negative size": {"size": -5},
    "a size of negatives": {"size": {"height": -5, "width": 32}},
    "no size": {"size": {"height": 0, "width": 0}},
    "an endless size": {"size": {"height": 10**9, "width": 10**9}},
    "an endless edge": {"size": {"shortest_edge": 10**9}},
    "a size of text": {"size": "large"},
    "a size that is none": {"size": {"evil": 1}},
    "no scale": {"rescale_factor": 0},
    "a scale of text": {"rescale_factor": "x"},
    "an endless scale": {"rescale_factor": 1e300},
    "no deviation": {"image_std": [0, 0, 0]},
    "a negative deviation": {"image_std": [-1, 1, 1]},
    "two means": {"image_mean": [0.5, 0.5]},
    "a mean of text": {"image_mean": "red"},
    "an endless mean": {"image_mean": [1e300] * 3},
    "an unknown filter": {"resample": 99},
    "a negative crop": {"do_center_crop": True, "crop_size": {"height": -1, "width": -1}},
    "an endless crop": {"do_center_crop": True, "crop_size": {"height": 10**8, "width": 10**8}},
    "a class that is no text": {"image_processor_type": {"a": 1}},
}
HARMLESS = {  # what is left out, so that the result is the honest one
    "code of its own": {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Model"}},
    "another's code": {"auto_map": {"AutoModelForImageClassification": "owner/repo--evil.Model"}},
    "another's attention": {"_attn_implementation": "owner/repo"},
    "another's attention by its new name": {"attn_implementation": "owner/repo"},
    "another's kernels": {"use_kernels": True, "kernel_config": {"a": "owner/repo"}},
    "tuples": {"return_dict": False},
    "a trace": {"torchscript": True},
    "all attentions": {"output_attentions": True, "output_hidden_states": True},
    "half precision": {"torch_dtype": "float16"},
    "a format that is a function": {"dtype": "load"},
    "other weights": {"transformers_weights": "../../etc/passwd"},
    "pruned heads": {"pruned_heads": {"0": [0, 1]}},
    "another's name": {"_name_or_path": "owner/repo"},
    "a problem that is none": {"problem_type": "evil"},
}


def commands(folder, out):
    """The commands that read a checkpoint; each is one gate."""
    photo = str(folder / "photo.png")
    yield "finetune", lambda: load_for_training(ModelRecipe(checkpoint=str(folder)), ["a", "b"], "squash")
    yield "predict", lambda: predict(folder, [photo], device="cpu")
    yield "evaluate", lambda: load_finished(folder, "FOLDER")
    yield "inspect", lambda: inspect(folder, [photo], format="json", only=["distance"], device="cpu")
    yield "resize", lambda: resize(folder, out, image_size=(64, 64))


def refusal(work):
    """Return what a ModelError says; it comes soon and its message is bounded and clean."""
    begun = time.process_time()
    with pytest.raises(ModelError) as raised:
        work()
    assert time.process_time() - begun < 5  # not the clock on the wall: other tests run beside this one
    said = str(raised.value)
    assert 0 < len(said) < 1500
    assert printable(said, lines=True) == said
    return said


@pytest.mark.parametrize("lie", CONFIG)
def test_a_config_that_lies_is_refused_alike_by_every_command(lie, lying, tmp_path):
    folder = lying("config.json", **CONFIG[lie])
    if lie == "other channels":
        said = {refusal(work) for name, work in commands(folder, tmp_path / "out") if name != "resize"}
    else:
        said = {refusal(work) for _, work in commands(folder, tmp_path / "out")}
    assert len(said) <= 2, said  # the folder is named in two ways
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lie", PROCESSOR)
def test_a_processor_that_lies_is_refused_alike_by_every_command(lie, lying, tmp_path):
    folder = lying("preprocessor_config.json", **PROCESSOR[lie])
    said = [refusal(work) for _, work in commands(folder, tmp_path / "out")]
    assert all("processor" in each for each in said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", HARMLESS)
def test_what_would_run_code_or_change_the_answer_is_left_out(key, lying, honest, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    folder = lying("config.json", **HARMLESS[key])
    expected = predict(honest, [honest / "photo.png"], device="cpu")[0]["predictions"]
    assert predict(folder, [folder / "photo.png"], device="cpu")[0]["predictions"] == expected
    loaded = load_for_training(ModelRecipe(checkpoint=str(folder)), ["a", "b"], "squash")
    loaded.model.save_pretrained(tmp_path / "saved")
    resize(folder, tmp_path / "resized", image_size=(64, 64))
    for place in ("saved", "resized"):
        written = json.loads((tmp_path / place / "config.json").read_text())
        assert not {"auto_map", "_attn_implementation", "attn_implementation", "use_kernels"} & set(written)
        assert "owner/repo" not in json.dumps(written) or key == "another's name"


@pytest.mark.parametrize("kind", ["EvilImageProcessor", "os.system", "owner/repo--Evil"])
def test_an_unknown_processor_is_the_family_s_own_as_for_pipeline(kind, lying, honest):
    folder = lying("preprocessor_config.json", image_processor_type=kind, auto_map={"AutoImageProcessor": "evil.Evil"})
    expected = predict(honest, [honest / "photo.png"], device="cpu")[0]["predictions"]
    assert predict(folder, [folder / "photo.png"], device="cpu")[0]["predictions"] == expected


@pytest.mark.parametrize("lie", [{"model_type": "convnext"}, {"patch_size": [8, 8, 8, 8]}, {"image_size": 64}])
def test_a_config_of_another_model_is_refused(lie, lying, tmp_path):
    folder = lying("config.json", **lie)
    for _, work in commands(folder, tmp_path / "out"):
        assert re.search(r"config\.json|already has this size", refusal(work))


@pytest.mark.parametrize(
    ("error", "is_refused"),
    [
        (RuntimeError("Tensor.item() cannot be called on meta tensors"), False),
        (RuntimeError("Tensor on device cpu is not on the expected device meta!"), False),
        (ValueError("its metadata are wrong"), True),
        (NotImplementedError("no such activation"), True),
    ],
)
def test_only_the_want_of_values_leaves_a_model_untried(error, is_refused, monkeypatch):
    def forward(*_, **__):
        raise error

    monkeypatch.setattr(transformers.ViTForImageClassification, "forward", forward)
    with pytest.raises(ModelError, match="cannot run") if is_refused else nullcontext():
        check_model(transformers.ViTConfig(**PLAIN), (32, 32), "FOLDER")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"null", b"1", b'"x"', b"{", b"\xff\xfe", b"{\"size\": NaN}", b'{"size": Infinity}', b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000, b'{"image_size": ' + b"9" * 5000 + b"}", b"{}" + b" " * 30_000_000,
    ],
    ids=["empty", "list", "null", "number", "text", "cut", "bytes", "nan", "inf", "deep", "deeper", "digits", "long"],
)  # fmt: skip
def test_a_file_that_is_no_config_is_refused(name, content, lying):
    folder = lying(name)
    (folder / name).write_bytes(content)
    for work in (lambda: open_checkpoint(folder, "FOLDER"), lambda: predict(folder, [], device="cpu")):
        assert name in refusal(work)


def test_a_config_that_is_no_regular_file_is_refused(lying):
    folder = lying("config.json")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    refusal(lambda: open_checkpoint(folder, "FOLDER"))


@pytest.mark.timeout(30)
def test_weights_that_are_no_regular_file_or_of_endless_shards_are_refused(lying):
    folder = lying("config.json")
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    assert "named pipe" in refusal(lambda: load_finished(folder, "FOLDER"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-99999.safetensors")
    assert "lacks 99998 of its 99999 weight files" in refusal(lambda: load_finished(folder, "FOLDER"))
    (folder / "model-00001-of-99999.safetensors").rename(folder / f"model-1-of-{'9' * 15}.safetensors")
    assert "has no weights" in refusal(lambda: load_finished(folder, "FOLDER"))


# --- weights -----------------------------------------------------------------------------------------------


def with_weights(folder, change):
    path = folder / "model.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_weights_that_are_not_finite_are_said_and_predict_nothing(value, lying, tmp_path):
    def spoil(state):
        state["vit.layernorm.weight"].fill_(value)

    folder = with_weights(lying("config.json"), spoil)
    for name, work in commands(folder, tmp_path / "out"):
        if name in ("predict", "evaluate"):
            said = refusal(work)
            assert "gives no finite output" in said and ("vit.layernorm.weight" in said or value == 3e38)


def test_weights_that_are_not_finite_and_not_used_are_said(lying, capsys):
    def spoil(state):
        state["classifier.bias"].fill_(0)
        state["vit.embeddings.position_embeddings"][0, 0, 0] = float("nan")

    folder = with_weights(lying("config.json"), spoil)
    with pytest.raises(ModelError, match="gives no finite output"):
        load_for_training(ModelRecipe(checkpoint=str(folder)), ["a", "b"], "squash")


# --- what a model is for -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "count", "words"),
    [("multi_label_classification", 5, "several labels"), ("regression", 3, "values"), (None, 1, "one logit")],
)
def test_only_a_choice_of_one_class_is_scored_and_a_new_head_says_what_the_old_was_for(
    kind, count, words, honest, tmp_path
):
    folder = tmp_path / "other"
    config = transformers.ViTConfig(**PLAIN | {"num_labels": count}, problem_type=kind)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    shutil.copy(honest / "preprocessor_config.json", folder)
    with pytest.raises(ModelError, match=words):
        evaluate(folder, "builtin:digits", device="cpu")
    notes = load_for_training(ModelRecipe(checkpoint=str(folder)), ["a", "b"], "squash").notes
    [new] = [note for note in notes if note.startswith("new head")]
    assert (words in new) == (kind is not None)
    assert predict(folder, [honest / "photo.png"], device="cpu")[0]["predictions"]


# --- at random ---------------------------------------------------------------------------------------------

FAMILIES = {
    "ViT": PLAIN,
    "ConvNext": {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 2], "image_size": 64},
    "Swin": {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [1, 2],
             "window_size": 4},
    "Dinov2": PLAIN,
    "Levit": {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2] * 3, "depths": [1] * 3,
              "key_dim": [8] * 3},
    "EfficientNet": {"image_size": 64, "width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
}  # fmt: skip
NONSENSE = [
    0, 1, -1, 2, 3, 7, 64, 1000, 4096, 10**6, 10**9, 10**18, 10**30, 0.5, -0.5, 1e-30, 1e30, True, False, None, "",
    "evil", "relu", [], [1], [0] * 4, [10], [10**6] * 4, [8, 8], {}, {"a": 1}, {"height": 1, "width": 10**6}, [[1]],
    "9" * 100,
]  # fmt: skip


def lies(seed, count, folders):
    """Yield (folder, what was changed) with a few values of its two files made nonsense."""
    generator = random.Random(seed)
    names = list(folders)
    for number in range(count):
        honest = folders[names[number % len(names)]]
        name = generator.choice(["config.json", "config.json", "preprocessor_config.json"])
        stored = (honest / name).read_text()
        values = json.loads(stored)
        chosen = generator.sample(list(values), generator.choice((1, 1, 2, 3)))
        changes = {key: copy.deepcopy(generator.choice(NONSENSE)) for key in chosen}
        (honest / name).write_text(json.dumps(values | changes))
        yield honest, f"{number}: {names[number % len(names)]} {name} {changes}"
        (honest / name).write_text(stored)


def try_lies(seed, count, tmp_path):
    folders = {}
    for name, settings in FAMILIES.items():
        folders[name] = tmp_path / name
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(**settings)
        getattr(transformers, f"{name}ForImageClassification")(config).save_pretrained(folders[name])
        processor = {"Dinov2": "Bit", "Swin": "ViT"}.get(name, name)
        getattr(transformers, f"{processor}ImageProcessorPil")().save_pretrained(folders[name])
    photo = tmp_path / "photo.png"
    Image.new("RGB", (50, 40), "blue").save(photo)
    refused, wrong = 0, []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for folder, what in lies(seed, count, folders):
        for work in (
            lambda folder=folder: predict(folder, [photo], device="cpu"),
            lambda folder=folder: load_for_training(ModelRecipe(checkpoint=str(folder)), ["a", "b"], "squash"),
        ):
            begun = time.process_time()
            try:
                work()
            except VitftError as error:
                refused += 1
                wrong += [what] if len(str(error)) > 2000 else []
            except Exception as error:
                wrong.append(f"{what}: {type(error).__name__}: {error}"[:500])
            if (took := time.process_time() - begun) > 5:
                wrong.append(f"{what}: {took:.1f} s"[:500])
    unit = 1 if sys.platform == "darwin" else 1024
    memory = unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return refused, wrong, memory


def test_any_lie_is_a_result_or_an_error_of_ours(tmp_path):
    refused, wrong, memory = try_lies(0, 40, tmp_path)
    assert wrong == []
    assert 20 < refused < 80
    assert memory < 1_500_000_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_so_is_every_lie_of_many(seed, tmp_path):
    _, wrong, memory = try_lies(seed, 100, tmp_path)
    assert wrong == []
    assert memory < 1_500_000_000


def test_a_run_from_a_lying_checkpoint_leaves_no_folder(lying, tmp_path):
    folder = lying("config.json", patch_size=0)
    changes = {"model.checkpoint": str(folder), "run.output_dir": str(tmp_path / "runs"), "train.device": "cpu"}
    with pytest.raises(ModelError):
        finetune(Recipe.load("quickstart", changes))
    left = [path for path in (tmp_path / "runs").rglob("*") if path.is_file()] if (tmp_path / "runs").exists() else []
    assert {Path(path).name for path in left} <= {"recipe.yaml", "environment.json", "metrics.jsonl"}


@pytest.mark.parametrize(
    "lie", [{"intermediate_size": 20_000_000}, {"image_size": 4096, "patch_size": 1}, {"num_hidden_layers": 200}]
)
def test_a_model_far_larger_than_its_weights_takes_no_memory(lie, lying):
    folder = lying("config.json", **lie)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for work in (
        lambda: predict(folder, [folder / "photo.png"], device="cpu"),
        lambda: load_for_training(ModelRecipe(checkpoint=str(folder)), ["a", "b"], "squash"),
    ):
        refusal(work)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 300_000_000

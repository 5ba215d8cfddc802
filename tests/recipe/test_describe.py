"""The keys in plain words, and the file that flags read them from."""

from pathlib import Path

from vitft.recipe import fields
from vitft.recipe.describe import describe, fields_module


def test_what_flags_say_is_what_the_keys_say():
    written = Path(fields.__file__).read_text(encoding="utf-8")
    assert written == fields_module(), "python -m vitft.recipe.describe"


def test_the_kinds_of_keys():
    described = dict(describe())
    kinds = {
        "optim.lr": ("str", ()),
        "optim.weight_decay": ("float", ()),
        "train.seed": ("int", ()),
        "train.batch_size": ("int", ("auto",)),
        "train.precision": ("str", ("auto", "bf16", "fp16", "fp32")),
        "train.duration": ("str", ()),
        "model.image_size": ("str", ()),
        "model.position.kind": ("str", ("learned-1d", "learned-2d", "sincos-2d", "none", "relative")),
        "data.streaming": ("bool", ()),
        "run.metrics": ("list", ()),
        "train.resolution_schedule": ("dict", ()),
    }
    assert {key: described[key][:2] for key in kinds} == kinds
    assert described["run.track"].kind == "list" and "tensorboard" in described["run.track"].choices

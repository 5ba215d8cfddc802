"""The numbers of a run: what is derived from recipe and data, with its reason, and what contradicts itself."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import zoo

from vitft.architectures.blocks import blocks
from vitft.data.images import ImageSplit, StreamSplit
from vitft.data.train_batches import StagingCost
from vitft.errors import ModelError, RecipeError, TrainError
from vitft.model.classifier import Classifier
from vitft.recipe.recipe import Recipe
from vitft.resolution.retarget import Retargeting
from vitft.train import batch_plan, feature_plan, plan
from vitft.train.caching import CachePlan
from vitft.train.feature_plan import cost_rows, plan_features
from vitft.train.plan import Phase, Plan, make_plan

ACCELERATE = ("ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "LOCAL_WORLD_SIZE")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Staging takes a millisecond, and no launcher says anything."""
    for name in ACCELERATE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(plan, "staging_cost", lambda *_: StagingCost(0.001, 1000))
    monkeypatch.setattr(batch_plan.os, "sched_getaffinity", lambda _: range(8), raising=False)


@pytest.fixture(scope="module")
def classifier():
    return zoo.loaded(zoo.model_of("vit"), None, (32, 32))


def split(num_rows=1000):
    return ImageSplit("train", None, ("image",), np.zeros(num_rows, dtype=np.int64))


def stream(num_rows=None):
    return StreamSplit("train", None, ("image",), "label", num_rows)


def planned(classifier, train=None, *, processes=1, device="cpu", settled=None, **changes):
    settings = {"data.cache": "off", **{key.replace("__", "."): value for key, value in changes.items()}}
    recipe = Recipe.load(None, settings)
    accelerator = SimpleNamespace(num_processes=processes, device=torch.device(device), mixed_precision="no")
    source = SimpleNamespace(train=split() if train is None else train, classes=("one",))
    return make_plan(recipe, source, classifier, accelerator, {}, settled)


# --- steps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "samples", "steps"),
    [
        ("3 epochs", 3000, 47),
        ("0.5 epochs", 500, 8),
        ("7 steps", 448, 7),
        ("0.5 steps", 64, 1),
        ("0.0001 epochs", 1, 1),
    ],
)
def test_a_duration_becomes_samples_and_steps(classifier, duration, samples, steps):
    made = planned(classifier, train__duration=duration, train__batch_size=64)
    assert (made.total_samples, made.total_steps) == (samples, steps)


def test_lengths_are_counted_in_steps_and_end_with_the_training(classifier):
    made = planned(
        classifier,
        train__duration="2 epochs",  # 32 steps
        train__batch_size=64,
        optim__warmup="25%",
        train__evaluate_every="1 epoch",
        train__checkpoint_every="500 steps",
        train__patience="1 epoch",
    )
    assert (made.total_steps, made.warmup_steps, made.evaluate_every) == (32, 8, 16)
    assert made.checkpoint_every == 32
    assert made.patience == 16


@pytest.mark.parametrize(("warmup", "steps"), [("0 steps", 0), ("0%", 0), ("1%", 1), ("3 epochs", 16)])
def test_a_warmup_is_left_out_only_if_it_is_zero_and_is_no_longer_than_the_training(classifier, warmup, steps):
    made = planned(classifier, train__duration="1 epoch", train__batch_size=64, optim__warmup=warmup)
    assert made.warmup_steps == steps


def test_without_patience_a_run_trains_to_the_end(classifier):
    assert planned(classifier).patience is None


def test_the_epochs_of_a_stream_of_unknown_length_cannot_be_counted_but_its_steps(classifier):
    with pytest.raises(RecipeError, match="the length of this stream is unknown"):
        planned(classifier, stream(), train__duration="2 epochs")
    lengths = {"train__evaluate_every": "2 steps", "train__checkpoint_every": "3 steps", "optim__warmup": "10%"}
    made = planned(classifier, stream(), train__duration="5 steps", **lengths)
    assert (made.num_samples, made.total_samples, made.total_steps, made.warmup_steps) == (None, 5 * 128, 5, 1)
    assert any("a stream has no random access" in note for note in made.notes)
    known = planned(classifier, stream(1000), train__duration="1 epoch", train__batch_size=100)
    assert (known.num_samples, known.total_steps) == (1000, 10)


# --- batch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("num_samples", "processes", "size"),
    [(2560, 1, 128), (2559, 1, 126), (1000, 1, 50), (500, 1, 24), (10, 1, 8), (10, 8, 16), (10**6, 100, 200)],
)
def test_an_automatic_batch_is_a_twentieth_of_the_images_between_8_and_128(classifier, num_samples, processes, size):
    made = planned(classifier, split(num_samples), processes=processes)
    assert made.batch_size == size
    assert made.reasons["batch_size"].startswith("auto: ")


def test_a_batch_that_was_given_is_kept_and_has_no_reason(classifier):
    made = planned(classifier, train__batch_size=30)
    assert made.batch_size == 30
    assert "batch_size" not in made.reasons


def test_a_batch_smaller_than_a_pair_for_each_process_is_refused(classifier):
    with pytest.raises(RecipeError, match="5 is less than two images for each of the 3 processes") as error:
        planned(classifier, processes=3, train__batch_size=5)
    assert "--batch-size 6" in error.value.hint
    assert planned(classifier, processes=3, train__batch_size=6).batch_size == 6


@pytest.mark.parametrize(
    ("batch_size", "processes", "given", "micro", "accumulation"),
    [
        (64, 1, 16, 16, 4),
        (64, 1, 17, 16, 4),  # pairs stay together
        (62, 2, 16, 16, 2),
        (62, 2, 62, 32, 1),  # a process's part of 31, and one more for the pair
        (62, 3, 8, 8, 3),
        (64, 1, 1, 2, 32),
    ],
)
def test_micro_batches_are_even_and_make_up_a_process_s_part(
    classifier, batch_size, processes, given, micro, accumulation
):
    settings = {"train__batch_size": batch_size, "train__micro_batch_size": given}
    made = planned(classifier, processes=processes, **settings)
    assert (made.micro_batch_size, made.accumulation) == (micro, accumulation)


@pytest.mark.parametrize(("side", "micro"), [(32, 128), (224, 32), (320, 14), (512, 8)])
def test_a_cpu_takes_as_many_pixels_at_once_whatever_the_image_size(side, micro):
    classifier = zoo.loaded(zoo.model_of("convnext"), None, (side, side))
    made = planned(classifier, train__batch_size=256)
    assert made.micro_batch_size == micro
    assert made.reasons["micro_batch_size"] == "auto: keeps the CPU's cores busy"


@pytest.mark.parametrize(
    ("fits", "reason"), [(8, "auto: as many as fit, found by trial"), (32, "the process's whole share fits")]
)
def test_another_device_is_tried_at_the_largest_size_of_the_run(classifier, monkeypatch, fits, reason):
    asked = []

    def find(recipe, classifier, accelerator, most, image_size, taken_bytes):
        asked.append((most, image_size))
        return fits

    monkeypatch.setattr(batch_plan, "find_micro_batch", find)
    schedule = {16: "50%", 48: "25%", 32: "25%"}
    made = planned(classifier, device="meta", train__batch_size=32, train__resolution_schedule=schedule)
    assert asked == [(32, (48, 48))]
    assert made.micro_batch_size == fits
    assert reason in made.reasons["micro_batch_size"]


def test_a_resumed_run_keeps_its_micro_batch_untried(classifier, monkeypatch):
    monkeypatch.setattr(batch_plan, "find_micro_batch", lambda *_: pytest.fail("it was tried"))
    made = planned(classifier, device="meta", settled=6, train__batch_size=32)
    assert made.micro_batch_size == 6


def test_the_accumulation_of_a_launcher_decides_the_micro_batch(classifier, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    made = planned(classifier, train__batch_size=64)
    assert (made.micro_batch_size, made.accumulation) == (16, 4)
    assert made.reasons["micro_batch_size"].startswith("from ")


# --- image sizes -------------------------------------------------------------------------------------------


def test_a_run_without_a_schedule_is_one_phase_at_its_own_size(classifier):
    made = planned(classifier)
    assert [(phase.first_step, phase.image_size) for phase in made.phases] == [(0, (32, 32))]
    assert made.stage_size >= 32
    assert made.gflop == pytest.approx(made.phases[0].gflop)


def test_parts_of_a_schedule_become_first_steps_and_larger_images_cost_more(classifier):
    schedule = {16: "40%", "16x32": "20%", 48: "40%"}
    made = planned(classifier, train__duration="11 steps", train__resolution_schedule=schedule)
    assert [(phase.first_step, phase.image_size) for phase in made.phases] == [
        (0, (16, 16)),
        (4, (16, 32)),
        (7, (48, 48)),
    ]
    costs = [phase.gflop for phase in made.phases]
    assert costs == sorted(costs) and costs[0] < made.gflop < costs[-1]
    assert made.stage_size == planned(classifier, train__resolution_schedule={48: "100%"}).stage_size
    assert "16x16 from step 0, 16x32 from step 4, 48x48 from step 7" in str(made)


def test_a_part_too_small_for_a_step_is_left_out_and_the_last_never(classifier):
    made = planned(classifier, train__duration="1 step", train__resolution_schedule={16: "50%", 48: "50%"})
    assert [phase.image_size for phase in made.phases] == [(48, 48)]
    made = planned(classifier, train__duration="10 steps", train__resolution_schedule={16: "1%", 32: "98%", 48: "1%"})
    assert [(phase.first_step, phase.image_size) for phase in made.phases] == [(0, (32, 32)), (9, (48, 48))]


def test_a_size_that_the_model_cannot_take_is_refused_by_its_key(classifier):
    with pytest.raises(ModelError, match=r"train\.resolution_schedule: .*not divisible by 8"):
        planned(classifier, train__resolution_schedule={30: "50%", 32: "50%"})


def test_trials_of_learning_rates_are_planned_and_counted(classifier):
    one, three = (planned(classifier, train__duration="95 steps", optim__lr=lr) for lr in (1e-3, "1e-4,3e-4,1e-3"))
    assert (three.trial_steps, three.trial_share) == (10, 30 / 95)
    assert three.total_gflop == pytest.approx(one.total_gflop * 125 / 95)
    assert three.lr == (1e-4, 3e-4, 1e-3) and "each tried for 10 steps, then the best" in str(three)
    assert one.trial_share == 0 and "tried" not in str(one)


def made_of(phases, batch_size=10, total_samples=95):
    zeros = dict.fromkeys(["warmup_steps", "evaluate_every", "checkpoint_every", "stage_size", "workers"], 0)
    return Plan(
        num_samples=50, total_samples=total_samples, batch_size=batch_size, micro_batch_size=4,
        total_steps=-(-total_samples // batch_size), patience=None, device="cpu", precision="fp32", world_size=2,
        num_parameters=1, num_learning=1, disk_bytes=1, lr=1e-3, phases=tuple(phases), cache=CachePlan("off"), **zeros,
    )  # fmt: skip


def test_the_phase_of_a_step_is_the_last_that_has_begun():
    first, second = Phase(0, (16, 16), 1.0), Phase(4, (32, 32), 5.0)
    made = made_of([first, second])
    assert [made.phase_at(step) for step in (0, 3, 4, 9)] == [first, first, second, second]


def test_the_work_is_that_of_the_images_that_are_left_at_their_sizes():
    made = made_of([Phase(0, (16, 16), 1.0), Phase(4, (32, 32), 5.0)])
    assert made.work() == 40 * 1 + 55 * 5  # the last step is short
    assert made.work(2) == 20 * 1 + 55 * 5
    assert made.work(9) == 5 * 5
    assert made.work(10) == 0
    assert made.gflop == pytest.approx(315 / 95)


def test_processes_take_their_slices_in_micro_batches_of_the_plan_or_smaller_ones():
    made = made_of([Phase(0, (16, 16), 1.0)])
    assert [[len(part) for part in made.slices(rank).micro_batches(0)] for rank in (0, 1)] == [[4], [4, 2]]
    assert [len(part) for part in made.slices(0, micro_batch_size=2).micro_batches(0)] == [2, 2]


# --- workers -----------------------------------------------------------------------------------------------


def test_what_is_staged_in_no_time_needs_no_processes(classifier):
    made = planned(classifier)
    assert made.workers == 0
    assert "staging takes 1.0 ms per image here, not worth extra processes" in made.reasons["workers"]


@pytest.mark.parametrize(
    ("device", "processes", "local", "workers"),
    [("cpu", 1, None, 1), ("meta", 1, None, 7), ("meta", 2, None, 3), ("meta", 8, None, 1), ("meta", 8, "2", 3)],
)
def test_a_device_has_the_cores_of_its_process_read_images(classifier, monkeypatch, device, processes, local, workers):
    monkeypatch.setattr(plan, "staging_cost", lambda *_: StagingCost(0.1, 1000))
    monkeypatch.setattr(batch_plan, "find_micro_batch", lambda *_: 2)
    if local:  # processes of several machines
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    made = planned(classifier, device=device, processes=processes)
    assert made.workers == workers
    assert "staging takes 100.0 ms per image here" in made.reasons["workers"]


def test_a_stream_has_one_reader_and_a_given_number_is_taken(classifier):
    lengths = dict.fromkeys(["train__duration", "train__evaluate_every", "train__checkpoint_every"], "5 steps")
    made = planned(classifier, stream(), **lengths)
    assert made.workers == 1 and "one reader per process" in made.reasons["workers"]
    assert planned(classifier, data__workers=3).workers == 3


# --- what is refused, and what is said -----------------------------------------------------------------------


def test_what_building_the_run_would_find_impossible_is_refused_first(classifier):
    convolutions = zoo.loaded(zoo.model_of("resnet"), None, (32, 32))
    with pytest.raises(ModelError, match="resnet"):
        planned(convolutions, model__drop_path=0.1)
    with pytest.raises(ModelError, match="convnext"):
        planned(zoo.loaded(zoo.model_of("convnext"), None, (64, 64)), train__gradient_checkpointing=True)
    with pytest.raises(TrainError, match="which is unknown for a stream") as error:
        planned(classifier, stream(100), train__imbalance="weights")
    assert "train.imbalance=none" in error.value.hint


def test_what_keeps_layouts_from_agreeing_is_said():
    notes = planned(zoo.loaded(zoo.model_of("resnet"), None, (32, 32))).notes
    assert any("BatchNorm" in note for note in notes)
    notes = planned(zoo.loaded(zoo.model_of("vit", hidden_dropout_prob=0.1), None, (32, 32))).notes
    assert any("its own dropout" in note for note in notes)
    assert planned(zoo.loaded(zoo.model_of("vit"), None, (32, 32))).notes == ()


def test_a_plan_prints_each_number_with_its_reason(classifier):
    text = str(planned(classifier, train__batch_size=64, train__micro_batch_size=16, train__duration="3 epochs"))
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert lines["batch_size"].split(maxsplit=2)[1:] == ["64", "images per step over all processes"]
    assert lines["micro_batch_size"].endswith("16  x 4 accumulated x 1 processes")
    assert lines["total_steps"].endswith("47  3,000 images")
    assert "not worth extra processes" in lines["workers"]


# --- features ----------------------------------------------------------------------------------------------


def source_of(train=None, validation=None):
    return SimpleNamespace(train=train or split(40), validation=validation)


def features_planned(classifier, source=None, **changes):
    """The plan of the features, and why there are none."""
    reasons = {}
    recipe = Recipe.load(None, {key.replace("__", "."): value for key, value in changes.items()})
    found = plan_features(recipe, source or source_of(), classifier, 120, reasons)
    return found, reasons.get("features", "")


@pytest.mark.parametrize(("views", "kept"), [(0, 0), (2, 2), (9, 3)])
def test_a_head_alone_reads_features_of_as_many_views_as_there_are_epochs(classifier, views, kept):
    source = source_of(validation=split(10))
    found, why_not = features_planned(classifier, source, model__train="head", train__feature_views=views)
    assert (found.num_views, found.read.module, found.read.shape, why_not) == (kept, "classifier", (16,), "")
    assert found.num_images == 40 * max(1, kept) + 10 and found.num_bytes == 4 * 16 * found.num_images


PLAIN = {"model__train": "last:1", "augment__crop_scale": [1, 1], "augment__flip": 0}


def test_last_blocks_read_features_of_plain_views_that_fit_into_memory(classifier, monkeypatch):
    found, why_not = features_planned(classifier, source_of(validation=split(10)), **PLAIN)
    assert (found.num_images, found.num_views, why_not) == (50, 1, "")
    assert found.read.module == blocks(classifier.model)[-1][0] and 0 < found.rest_gflop < 1e-3
    monkeypatch.setattr(feature_plan, "all_memory", lambda: (4 * found.num_bytes - 1, "this machine"))
    found, why_not = features_planned(classifier, source_of(validation=split(10)), **PLAIN)
    assert found is None and "takes" in why_not and "too much for this machine" in why_not


@pytest.mark.parametrize(
    ("source", "changes", "why"),
    [
        (None, {"model__train": "attention"}, "model.train: attention changes what the head reads in every step"),
        (None, {"model__train": "last:1"}, "random views (augment) change what last:1 reads each time"),
        (None, PLAIN | {"model__drop_path": 0.1}, "model.drop_path also drops branches of frozen blocks"),
        (None, {"model__train": "head", "train__features": "off"}, "as given"),
        (source_of(stream(40)), {"model__train": "head"}, "a stream is read only once"),
        (
            None,
            {"model__train": "head", "train__resolution_schedule": {16: "50%", 32: "50%"}},
            "the image size changes",
        ),
    ],
)
def test_without_features_the_plan_says_why(classifier, source, changes, why):
    found, why_not = features_planned(classifier, source, **changes)
    assert found is None and why_not.startswith(why) and why_not.endswith("the backbone runs in every epoch")
    assert features_planned(classifier, source, model__train="all") == (None, "")


def test_two_heads_have_no_common_features():
    model = zoo.model_of("swiftformer")
    two = Classifier(
        "mine", model, None, Retargeting("swiftformer", (64, 64), (64, 64)), ("head.bias", "dist_head.bias")
    )
    assert features_planned(two, model__train="head") == (
        None, "its head is 2 modules (dist_head, head); the backbone runs in every epoch"
    )  # fmt: skip


def test_what_features_leave_out_is_said():
    model = zoo.model_of("vit", hidden_dropout_prob=0.1)
    dropped = zoo.loaded(model, None, (32, 32))
    changes = {"model__train": "head", "model__drop_path": 0.1, "augment__mixup_alpha": 0.2}
    plain = "\n".join(features_planned(dropped, **changes)[0].notes)
    assert "of the plain images, because" in plain and "nothing in augment but label_smoothing is used" in plain
    assert "drop path and dropout in the frozen backbone: off" in plain
    views = "\n".join(features_planned(dropped, **changes, train__feature_views=2)[0].notes)
    assert "view k mod 2" in views and "mixup and CutMix are not used" in views


def test_the_cost_of_features_is_one_pass_of_each_image(classifier):
    features, _ = features_planned(classifier, source_of(validation=split(10)), model__train="head")
    rows = {name: (value, reason) for name, value, reason in cost_rows(features, 2.0, 100.0, False)}
    assert rows["features"] == ("3 kB", "40 x 16, computed once from each plain image; the memory includes validation")
    assert rows["cost"] == ("2.0 GFLOP", "per image, each view once; 0.0001 PFLOP in all, without the head")
    assert [row[0] for row in cost_rows(None, 2.0, 600.0, True)] == ["features", "cost"]
    assert [row[0] for row in cost_rows(None, 2.0, 600.0, False)] == ["cost"]

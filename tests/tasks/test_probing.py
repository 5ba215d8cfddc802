"""Checkpoints ranked on a dataset: scores, cache, the saved head, and the choice of a run's checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import yaml
from cli.command import run
from PIL import Image

from vitft import Recipe, evaluate, finetune, probe
from vitft.errors import DataError, ModelError, UsageError
from vitft.features import backbone
from vitft.recipe.keys import DataRecipe
from vitft.tasks.probing import _settings

COUNTS = {"train": 12, "validation": 6, "test": 8}  # of each class


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with photos that are told apart by their colour, and two checkpoints, one of which is colour-blind."""
    from transformers import ViTForImageClassification

    folder = tmp_path_factory.mktemp("probe")
    generator = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for label, name in enumerate(("red", "green", "blue")):
            (folder / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(60, 150, (8, 8, 3))
                pixels[..., label] += 40
                Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / split / name / f"{number}.png")
    tiny.make_checkpoint(folder / "seeing")
    tiny.make_checkpoint(folder / "blind")
    model = ViTForImageClassification.from_pretrained(folder / "blind")
    model.vit.embeddings.patch_embeddings.projection.weight.data.zero_()
    model.save_pretrained(folder / "blind")
    (folder / "seeing" / "README.md").write_text("---\nlicense: cc0-1.0\nbase_model: some/body\n---\n")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def passes(cache, monkeypatch):
    """Keep features in one cache; return what will list the images of each pass through a backbone."""
    found = []
    original = backbone.features_of
    counted = lambda *given: (found.append(len(given[2])), original(*given))[1]  # noqa: E731
    monkeypatch.setattr(backbone, "features_of", counted)
    monkeypatch.setenv("VITFT_CACHE", str(cache))
    return found


@pytest.fixture(scope="module")
def ranking(home, cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITFT_CACHE", str(cache))
        names = [home / "blind", home / "seeing", home / "nowhere"]
        return probe(names, str(home / "photos"), device="cpu", precision="fp32", save=home / "saved")


def test_the_checkpoint_that_sees_is_first_and_one_that_is_missing_stops_nothing(home, ranking):
    assert [each.model for each in ranking.ranking] == [str(home / "seeing"), str(home / "blind")]
    best, blind = ranking.ranking
    assert best.scores.validation.top1 > 0.9 and blind.scores.validation.top1 == pytest.approx(1 / 3)
    assert blind.is_surely_worse(best) and best.licence == "cc0-1.0"
    assert list(best.scores.few_shot) == [1, 5, 10]  # 25 are more than a class has
    [refused] = ranking.refused
    assert refused.model == str(home / "nowhere") and "does not exist" in refused.reason
    text = str(ranking)
    assert "nowhere: not probed: the model" in text and "few-shot scores left out: 25 (the class" in text
    assert f"vitft finetune {home / 'photos'} --model {home / 'seeing'} " in text
    plain = json.loads(json.dumps(ranking.plain()))
    assert plain["images"] == {"train": 36, "validation": 18, "test": 24}
    low, high = plain["models"][0]["logistic_regression"]["test"]["interval"]
    assert low <= plain["models"][0]["logistic_regression"]["test"]["top1"] <= high
    assert "error" in plain["models"][2]


def test_a_second_call_and_training_the_head_read_the_features(home, ranking, passes, capsys):
    options = ("--precision", "fp32", "--device", "cpu", "--format", "json", "--shots", "2")
    assert run("probe", "--dataset", str(home / "photos"), str(home / "seeing"), *options) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["models"][0]["logistic_regression"] == ranking.best.plain()["logistic_regression"]
    assert list(found["models"][0]["few_shot"]) == ["2"]
    head = {"model__checkpoint": str(home / "seeing"), "model__train": "head", "model__drop_path": 0, "train__seed": 0}
    head |= {"train__batch_size": "auto", "train__micro_batch_size": "auto", "train__duration": "2 steps"}
    finetune(tiny.recipe(home, **head, run__pictures="off"))
    assert passes == []


def test_the_saved_model_is_loaded_by_transformers_and_by_vitft(home, ranking):
    from transformers import pipeline

    folder = ranking.saved
    result = evaluate(folder, str(home / "photos"), device="cpu", precision="fp32")
    test = ranking.best.scores.test
    assert result.scores["top1"] == test.top1 and result.scores["nll"] == pytest.approx(test.nll, rel=1e-4)
    answer = pipeline("image-classification", str(folder), device="cpu")(str(home / "photos/test/blue/3.png"))
    assert answer[0]["label"] == "blue"
    card = (folder / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc0-1.0" and "base_model: some/body" in card
    kept = (folder / "probe.json").read_text()
    assert str(home) not in card + kept and len(json.loads(kept)["models"]) == 2
    with pytest.raises(UsageError, match="already exists"):
        probe([home / "seeing"], str(home / "photos"), save=folder)


def test_auto_takes_the_best_candidate_and_the_run_keeps_it(home, ranking):
    changes = {"model__checkpoint": "auto", "model__candidates": [str(home / "blind"), str(home / "seeing")]}
    changes |= {"model__drop_path": 0, "train__duration": "3 steps", "train__seed": 0, "run__pictures": "off"}
    result = finetune(tiny.recipe(home, **changes))
    folder = result.run_dir
    recipe = Recipe.load(folder / "recipe.yaml")
    assert recipe.model.checkpoint == str(home / "seeing") and folder.name.startswith("seeing-photos")
    said = [line["text"] for line in tiny.events(folder, "note") if "auto chose" in line["text"]]
    assert len(said) == 1 and f"{home / 'blind'} 33.3 %" in said[0]
    assert "auto chose" in finetune(tiny.recipe(home, **changes), dry_run=True).plan_text
    with pytest.raises(UsageError, match="is finished"):  # a resumed run does not choose again
        finetune(resume=folder)


def test_the_next_command_reads_the_images_in_the_same_way():
    changes = {"data.check_images": "off", "data.config": "1", "data.accept_classes": True, "data.bad_images": "skip"}
    changes |= {"data.dataset": "photos", "model.image_size": "48x32", "model.resize_method": "bilinear"}
    words = list(_settings(Recipe.load(None, changes)))
    assert words == [
        "--set", "data.config='1'", "--set", "data.accept_classes=true", "--set", "data.check_images=off",
        "--bad-images", "skip", "--image-size", "48x32", "--set", "model.resize_method=bilinear",
    ]  # fmt: skip


def test_what_makes_no_sense_is_refused(home):
    photos = str(home / "photos")
    with pytest.raises(UsageError, match="--shots 13: the class 'blue' has 12 training images"):
        probe([home / "seeing"], photos, shots=[2, 13])
    with pytest.raises(ModelError, match=r"no checkpoint could be probed:\n  .*nowhere: "):
        probe([home / "nowhere"], photos)
    with pytest.raises(UsageError, match="a stream is read only once"):
        probe([home / "seeing"], DataRecipe(dataset=photos, streaming=True))
    with pytest.raises(DataError, match="there is no folder"):
        probe([home / "seeing"], str(home / "no-photos"))


@pytest.mark.parametrize(
    "words", [("--shots", "1,x"), ("--shots", "0"), ("--image-size", "8,16"), ("--set", "optim.lr=1")]
)
def test_bad_words_end_with_2(home, words, capsys):
    assert run("probe", "--dataset", str(home / "photos"), str(home / "seeing"), *words) == 2
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [{"data.streaming": True}, {"model.init": "random"}, {"model.revision": "main"}, {"model.candidates": ["auto"]}],
)
def test_auto_contradicts_what_it_cannot_use(changes):
    with pytest.raises(UsageError, match=r"auto"):
        Recipe.load(None, {"model.checkpoint": "auto", **changes})


@pytest.mark.real
@pytest.mark.slow
def test_of_twelve_flowers_a_pretrained_vit_knows_all(monkeypatch, tmp_path):
    monkeypatch.setenv("VITFT_CACHE", str(tmp_path))
    data = Path(__file__).parents[3] / "shared" / "data"
    models = ["builtin:vit-micro", data / "vit-tiny-patch16-224"]
    best, micro = probe(models, str(data / "flowers12"), device="cpu").ranking
    assert best.model.endswith("vit-tiny-patch16-224") and best.scores.test.top1 >= 0.99
    assert micro.is_surely_worse(best)

"""A model card that needs no edit: valid metadata, text that shows what it says, no link to what is only here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData

from vitft.hub.card import write_card
from vitft.hub.prose import as_text
from vitft.names import slug
from vitft.outside import printable


def change(run: Path, name: str, **values: object) -> None:
    path = run / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values), encoding="utf-8")


def change_recipe(run: Path, section: str, **values: object) -> None:
    path = run / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe[section] |= values
    path.write_text(yaml.safe_dump(recipe))


def nulls(value: object) -> bool:
    if isinstance(value, dict):
        return any(nulls(each) for each in value.values())
    return any(map(nulls, value)) if isinstance(value, list) else value is None


def test_the_card_of_local_things_is_valid_and_links_nowhere(run: Path) -> None:
    card = write_card(run, run / "model", "me/leaves")
    data = ModelCard(card.text).data
    assert isinstance(data, ModelCardData)
    assert data.library_name == "transformers" and data.pipeline_tag == "image-classification"
    assert "vitft" in data.tags
    metadata = data.to_dict()
    assert not nulls(metadata)
    assert not {"base_model", "datasets", "license"} & metadata.keys()
    assert "huggingface.co" not in card.text
    assert any("--license" in note for note in card.notes)
    assert str(run) not in card.text


def test_scores_survive_the_round_trip_of_the_metadata(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    data = ModelCard(write_card(run, run / "model", "me/leaves").text).data
    found = {(each.dataset_split, each.metric_type): each.metric_value for each in data.eval_results}
    for split in ("test", "validation"):
        assert found[split, "accuracy"] == results[split]["top1"]
        assert found[split, "f1"] == results[split]["macro_f1"]
    again = ModelCardData(**{key: value for key, value in data.__dict__.items() if value is not None})
    assert again.eval_results == data.eval_results


def test_hub_names_are_linked_with_their_revision_and_configuration(run: Path) -> None:
    change_recipe(run, "data", dataset="uoft-cs/cifar100", config="fine")
    change_recipe(run, "model", checkpoint="acme/vit")
    dataset = {"id": "uoft-cs/cifar100", "revision": "c" * 40, "rows": {}}
    model = {"id": "acme/vit", "revision": "a" * 40, "base": "acme/vit", "license": {"license": "mit"}}
    change(run, "environment.json", dataset=dataset, model=model)
    card = write_card(run, run / "model", "me/leaves")
    data = ModelCard(card.text).data
    assert (data.base_model, data.license, data.datasets) == ("acme/vit", "mit", ["uoft-cs/cifar100"])
    result = data.eval_results[0]
    assert (result.dataset_config, result.dataset_revision) == ("fine", "c" * 40)
    assert "https://huggingface.co/acme/vit" in card.text
    assert "https://huggingface.co/datasets/uoft-cs/cifar100" in card.text
    assert not card.notes


def test_a_licence_that_is_said_wins(run: Path) -> None:
    change(run, "environment.json", model={"base": None, "license": {"license": "mit"}})
    assert ModelCard(write_card(run, run / "model", "me/x", "cc-by-4.0").text).data.license == "cc-by-4.0"


@pytest.mark.parametrize(
    "name", ["no", "~", "a: b", "#1", "[x]", "- y", "海豹", 'it\'s "a"', "a|b", "*", "null", "<b>"]
)
def test_class_names_may_be_anything(name: str, run: Path) -> None:
    change(run / "model", "config.json", id2label={"0": name, "1": "birch", "2": "cedar"})
    results = json.loads((run / "results.json").read_text())
    del results["test"], results["validation"]
    (run / "results.json").write_text(json.dumps(results))
    text = write_card(run, run / "model", "me/leaves").text
    ModelCard(text)
    body = text.split("## Classes\n\n")[1].split("\n\n")[0]
    assert re.sub(r"\\(.)", r"\1", body) == f"{as_text(name)}, birch, cedar.".replace("\\", "")


def score_classes(run: Path, names: list[str], support: list[int], correct: list[int], predicted: list[int]) -> None:
    results = json.loads((run / "results.json").read_text())
    results["test"]["per_class"] = {"class": names, "support": support, "correct": correct, "predicted": predicted}
    (run / "results.json").write_text(json.dumps(results))


def test_each_class_has_its_scores(run: Path) -> None:
    score_classes(run, ["a|b", "birch", "cedar"], [4, 0, 1], [3, 0, 0], [5, 0, 0])
    table = write_card(run, run / "model", "me/x").text.split("## Classes\n\n")[1].split("\n\n![")[0]
    assert table.splitlines() == [
        "Scores of each class on the test images:",
        "",
        "| class | images | recall | precision | F1 |",
        "|---|---|---|---|---|",
        r"| a\|b | 4 | 75.00 % | 60.00 % | 66.67 % |",
        "| cedar | 1 | 0.00 % | - | 0.00 % |",
    ]


def test_of_many_classes_the_worst_are_shown(run: Path) -> None:
    names = [f"class {number}" for number in range(60)]
    change(run / "model", "config.json", id2label={str(k): name for k, name in enumerate(names)})
    score_classes(run, names, [100] * 60, list(range(60)), [100] * 60)
    classes = write_card(run, run / "model", "me/x").text.split("## Classes\n\n")[1].split("\n## ")[0]
    assert "class 49 and 10 more (`id2label` in `config.json` has all)." in classes
    rows = [line for line in classes.splitlines() if line.startswith("| class ") and "100" in line]
    assert [row.split(" | ")[0] for row in rows] == [f"| class {number}" for number in range(10)]


def test_class_names_and_notes_hide_nothing(run: Path) -> None:
    change(run / "model", "config.json", id2label={"0": "\x1b[2Jash\u202e", "1": "birch\n# title", "2": "cedar"})
    text = write_card(run, run / "model", "me/leaves").text
    assert printable(text, lines=True) == text
    assert "\n# title" not in text


@pytest.mark.parametrize("dataset", ["./a: b", "./[x] #1", "./海豹"])
def test_a_folder_may_be_called_anything(dataset: str, run: Path) -> None:
    change_recipe(run, "data", dataset=dataset)
    data = ModelCard(write_card(run, run / "model", "me/leaves").text).data
    assert {each.dataset_name for each in data.eval_results} == {slug(dataset)}
    assert {each.dataset_type for each in data.eval_results} == {"imagefolder"}


def test_paths_are_shortened_before_their_underscores_are_escaped(run: Path) -> None:
    change(run, "results.json", unscored={"test": "cut off: /home/ada_b/my_photos/cat_1.png"})
    text = write_card(run, run / "model", "me/leaves").text
    assert r"cut off: cat\_1.png" in text and "ada" not in text


def test_what_was_local_where_it_trained_is_local_elsewhere(run: Path) -> None:
    """``data/photos`` has the form of a Hub id, and is no folder of the directory that pushes."""
    change_recipe(run, "data", dataset="data/photos")
    change_recipe(run, "model", checkpoint="models/tiny")
    change(run, "environment.json", dataset={"id": "/srv/data/photos"}, model={"id": "models/tiny", "revision": None})
    card = write_card(run, run / "model", "me/leaves")
    metadata = ModelCard(card.text).data.to_dict()
    assert not {"base_model", "datasets"} & metadata.keys()
    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == "photos"
    assert "huggingface.co" not in card.text and "/srv" not in card.text and "models/tiny" not in card.text


def test_what_was_on_the_hub_stays_there_beside_a_folder_of_that_name(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cifar100").mkdir()
    monkeypatch.chdir(tmp_path)
    change_recipe(run, "data", dataset="cifar100")
    change(run, "environment.json", dataset={"id": "uoft-cs/cifar100", "revision": "c" * 40})
    assert ModelCard(write_card(run, run / "model", "me/leaves").text).data.datasets == ["uoft-cs/cifar100"]


def test_a_resized_model_says_how(run: Path) -> None:
    change(run, "results.json", resize={
        "image_size": {"before": [8, 8], "after": [16, 12]},
        "tensors": [{"name": "pos", "kind": "positions", "old": "2x2", "new": "4x3", "method": "bicubic"}],
    })  # fmt: skip
    text = write_card(run, run / "model", "me/leaves").text
    assert "from 8 x 8 to 16 x 12 pixels" in text and "`pos`: positions 2x2 to 4x3, bicubic" in text


def test_figures_of_the_run_are_shown(run: Path) -> None:
    (run / "figures").mkdir()
    (run / "figures" / "rollout.png").write_bytes(b"png")
    assert "![rollout](figures/rollout.png)" in write_card(run, run / "model", "me/leaves").text
    assert "![rollout](../figures/rollout.png)" in write_card(run, run / "model").text


def test_a_run_without_test_images_says_so(run: Path) -> None:
    path = run / "results.json"
    results = json.loads(path.read_text())
    del results["test"]
    path.write_text(json.dumps(results))
    text = write_card(run, run / "model", "me/leaves").text
    assert "There were no test images." in text and "| test |" not in text


def test_a_split_has_the_name_that_the_dataset_has_for_it(run: Path) -> None:
    environment = json.loads((run / "environment.json").read_text())
    assert environment["dataset"]["splits"] == {"train": "train", "validation": "validation", "test": "test"}
    splits = {"train": "train", "validation": "train", "test": "eval"}
    change(run, "environment.json", dataset=environment["dataset"] | {"splits": splits})
    card = write_card(run, run / "model", "me/leaves").text
    found = {(each.dataset_split, each.metric_name) for each in ModelCard(card).data.eval_results}
    assert ("eval", "Top-1 accuracy") in found
    assert ("train", "Top-1 accuracy (images set aside from train)") in found
    assert {split for split, _ in found} == {"eval", "train"}
    assert "| validation (images set aside from train) |" in card


def test_the_columns_are_named(run: Path) -> None:
    dataset = json.loads((run / "environment.json").read_text())["dataset"]
    change(run, "environment.json", dataset=dataset | {"image_column": "image", "label_column": "kind_of_leaf"})
    assert r"- Columns: images in image, labels in kind\_of\_leaf." in write_card(run, run / "model", "me/x").text


def test_of_class_folders_it_is_said_that_they_are_the_labels(run: Path) -> None:
    assert "- Labels: the names of the folders." in write_card(run, run / "model", "me/x").text


def training(run: Path) -> str:
    return write_card(run, run / "model", "me/leaves").text.split("## Training\n\n")[1].split("\n\n")[0]


def of_environment(run: Path, section: str, **values: object) -> None:
    path = run / "environment.json"
    environment = json.loads(path.read_text())
    environment[section] |= values
    path.write_text(json.dumps(environment))


def test_what_was_said_along_the_way_is_not_on_the_card(run: Path) -> None:
    for section in ("dataset", "model"):
        of_environment(run, section, notes=[f"a note on the {section}"])
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"event": "note", "text": "out of memory with 8 images at once"}) + "\n")
    text = write_card(run, run / "model", "me/leaves").text
    assert "a note on" not in text and "out of memory" not in text
    assert "- `environment.json` lists every choice that was made while reading the data and the base model." in text


def test_the_training_is_told_in_sentences(run: Path) -> None:
    text = training(run)
    assert text.startswith("The head was new and started at zero; all other weights come from checkpoint. All ")
    assert "Training took 11 steps of 15 images, 4 times over 40 images, and " in text
    best = json.loads((run / "results.json").read_text())["weights"].removeprefix("best (step ").removesuffix(")")
    assert text.endswith(
        f"The weights are moving averages as of step {best}, which scored best on the validation images."
    )


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("model", "train", "head", "Only the head was trained: 51 of 3,000 parameters."),
        (
            "model",
            "train",
            "lora",
            "The head and LoRA adapters were trained, which are merged into the weights: 51 of ",
        ),
        ("train", "head_first", True, "The head was first fitted to features of the training images."),
        ("model", "train", "last:2", "The head and the last 2 blocks were trained: 51 of 3,000 parameters."),
        ("model", "init", "random", "All weights started at random values; only the architecture is that of"),
        ("optim", "ema_decay", 0.0, "The weights are those of step"),
        ("train", "imbalance", "sampling", "classes differ in size, so all classes were shown equally often."),
    ],
)
def test_a_recipe_is_told_as_it_was(run: Path, section: str, key: str, value: object, said: str) -> None:
    change_recipe(run, section, **{key: value})
    of_environment(run, "model", parameters=3000, trained_parameters=51)
    assert said in training(run)


def test_a_kept_head_is_told(run: Path) -> None:
    of_environment(run, "model", kept_classes=2)
    assert "Its head knew 2 of the classes, and the rest of the head was new." in training(run)
    of_environment(run, "model", kept_classes=3)
    assert "All weights come from checkpoint, which already knew these classes." in training(run)


def test_images_are_told_in_sentences(run: Path) -> None:
    lines = write_card(run, run / "model", "me/leaves").text.split("## Data and limits\n\n")[1].splitlines()
    assert lines[0] == "- The model was trained on 40 images, validated on 16 images and tested on 6 images."
    of_environment(run, "dataset", splits={"train": "train", "validation": "train"})
    change_recipe(run, "data", max_train_samples=40)
    text = write_card(run, run / "model", "me/leaves").text
    assert "- The validation images were set aside from the split train, in proportion to the classes (seed 1)" in text
    assert "- Training used only 40 images (`data.max_train_samples`)." in text


def test_a_split_without_a_score_says_why(run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["unscored"] = {"test": "row 7 of /home/ada/test is cut off"}
    del results["test"]
    (run / "results.json").write_text(json.dumps(results))
    assert "- test has no score: row 7 of test is cut off" in write_card(run, run / "model", "me/leaves").text


def calibrate(run: Path, **changes: object) -> None:
    scores = {"nll": 0.5, "ece": 0.06}
    content = {
        "temperature": 1.25,
        "fitted_on": {"dataset": "photos", "split": "validation", "count": 1200},
        "scored_on": {"dataset": "my_photos", "split": "test", "count": 40},
        "before": scores,
        "after": {"nll": 0.4, "ece": 0.02},
    }
    (run / "model" / "calibration.json").write_text(json.dumps(content | changes))


def test_a_calibrated_model_says_what_its_temperature_does(run: Path) -> None:
    assert "alibrat" not in write_card(run, run / "model", "me/leaves").text
    calibrate(run)
    text = " ".join(write_card(run, run / "model", "me/leaves").text.split())
    assert "a temperature of 1.250, fitted on 1,200 validation images" in text
    assert "calibration error from 6.00 % to 2.00 %" in text
    assert "log-likelihood from 0.5000 to 0.4000 (40 images, test of my\\_photos), and no prediction" in text


@pytest.mark.parametrize("changes", [{"temperature": 0}, {"before": 1}, {"fitted_on": {}}, {"after": {"nll": None}}])
def test_a_damaged_calibration_costs_the_card_only_its_sentence(changes: dict[str, object], run: Path) -> None:
    calibrate(run, **changes)
    assert "alibrat" not in write_card(run, run / "model", "me/leaves").text


def test_the_confusions_are_shown_where_they_were_drawn(run: Path) -> None:
    assert (run / "model" / "confusion.png").is_file()  # by the run itself
    assert "![confusion matrix](confusion.png)" in write_card(run, run / "model", "me/leaves").text
    (run / "model" / "confusion.png").unlink()
    assert "confusion.png" not in write_card(run, run / "model", "me/leaves").text


def test_more_than_twenty_classes_are_folded(run: Path) -> None:
    names = [f"class {number}" for number in range(21)]
    change(run / "model", "config.json", id2label={str(k): name for k, name in enumerate(names)})
    score_classes(run, names, [2] * 21, [1] * 21, [2] * 21)
    text = write_card(run, run / "model", "me/x").text
    folded = text.split("<details><summary>(21 classes)</summary>\n\n")[1].split("</details>")[0]
    assert folded.count("| class ") == 22 and "\n\n" not in folded.strip()
    score_classes(run, names[:20], [2] * 20, [1] * 20, [2] * 20)
    assert "<details>" not in write_card(run, run / "model", "me/x").text

"""``vitft inspect`` as a person meets it: what is written, what is said, what is refused."""

import csv
import json
from pathlib import Path

import pytest
import torch
from model import zoo
from PIL import Image
from transformers import ViTConfig, ViTModel

from vitft import inspect
from vitft.cli import main
from vitft.data.staging import decode
from vitft.errors import DataError, ModelError, UsageError
from vitft.pictures.attention import Rollout
from vitft.pictures.look import KINDS
from vitft.pictures.recording import recording
from vitft.tasks.models import load_model

MICRO = "builtin:vit-micro"


@pytest.fixture
def photo_files(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        zoo.photo(40, 60, seed=number).save(folder / f"{number}.png")
    return [folder / f"{number}.png" for number in range(3)]


def checkpoint(tmp_path, family="vit", **changes):
    return zoo.save(zoo.classifier(zoo.config(family, **changes)), tmp_path / family, size=32)


def run(*arguments):
    with pytest.raises(SystemExit) as exit_:
        main(["inspect", *map(str, arguments)])
    return exit_.value.code


def test_files_give_every_picture_but_those_that_need_more(tmp_path, photo_files):
    result = inspect(MICRO, photo_files, out=tmp_path / "out")
    drawn = set(KINDS) - {"relevance", "neighbours"}
    assert set(result.pictures) == drawn
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *(f"{kind}.png" for kind in drawn), "index.html", "numbers.json", "distance.csv",
    }  # fmt: skip
    assert set(result.numbers["not_drawn"]) == {"relevance", "neighbours"}
    assert any("the paper uses 128" in note for note in result.notes)
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert numbers["images"]["count"] == 3
    with (tmp_path / "out" / "distance.csv").open() as file:
        assert len(list(csv.DictReader(file))) == sum(len(layer["entropy"]) for layer in numbers["layers"])


def test_a_dataset_gives_neighbours_and_labels(tmp_path):
    result = inspect(MICRO, dataset="builtin:digits", only=["neighbours"], num_images=6, show=2, out=tmp_path / "out")
    assert set(result.pictures) == {"neighbours"}
    shown = result.numbers["shown"]
    assert len(shown) == 2
    assert shown[0]["label"] in "0123456789"
    assert len(shown[0]["neighbours"]) == 5


def test_images_shown_come_from_all_over_a_dataset(tmp_path):
    result = inspect(MICRO, dataset="builtin:digits", only=["rollout"], num_images=100, format="json")
    rows = [int(each["image"].split()[1]) for each in result.numbers["shown"]]
    assert len(rows) == 4
    assert max(rows) - min(rows) > 200
    assert result.folder is None


def test_a_checkpoint_without_a_head_is_looked_at_and_nothing_predicted(tmp_path, photo_files):
    torch.manual_seed(0)
    ViTModel(ViTConfig(**zoo.PLAIN), add_pooling_layer=False).save_pretrained(tmp_path / "bare")
    zoo.processor("vit", 32).save_pretrained(tmp_path / "bare")
    result = inspect(tmp_path / "bare", photo_files[:1], only=["rollout"], format="json")
    assert result.numbers["shown"][0]["predictions"] == []
    assert any("no trained head" in note for note in result.notes)


def test_positions_are_shown_before_and_after_a_change_of_size(tmp_path):
    result = inspect(checkpoint(tmp_path), only=["positions"], image_size=(48, 48), out=tmp_path / "out")
    assert result.numbers["positions_before"][0]["grid"] == [4, 4]
    assert result.numbers["positions"][0]["grid"] == [6, 6]
    with Image.open(tmp_path / "out" / "positions.png") as figure:
        assert figure.width > 1.5 * figure.height


def test_relevance_is_of_the_class_that_was_named(tmp_path, photo_files):
    model = checkpoint(tmp_path)
    found = [
        inspect(model, photo_files[:1], only=["relevance"], target_class=each, format="json").numbers["shown"][0]
        for each in ("LABEL_3", "3", "0")
    ]
    assert [each["relevance_for"] for each in found] == ["LABEL_3", "LABEL_3", "LABEL_0"]
    assert found[0]["relevance"] == found[1]["relevance"] != found[2]["relevance"]


def test_an_image_that_cannot_be_read_is_named_or_skipped(tmp_path, photo_files):
    photo_files[0].write_bytes(b"")
    with pytest.raises(DataError, match=r"0\.png cannot be used: the file is empty"):
        inspect(MICRO, photo_files, only=["distance"], format="json")
    result = inspect(MICRO, photo_files, only=["distance"], format="json", bad_images="skip")
    assert result.numbers["images"]["count"] == 2
    assert result.notes == [
        f"skipped {photo_files[0]}: the file is empty",
        "only 2 of the 3 requested images were found",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["rolout"]}, "no picture called rolout"),
        ({"only": ["rollout"]}, "needs images"),
        ({"only": ["neighbours"], "images": ["a.png"]}, "needs training images"),
        ({"format": "gif"}, "'gif'"),
        ({"target_class": "unicorn", "dataset": "builtin:digits"}, "no class 'unicorn'"),
        ({"dataset": "builtin:digits", "split": "other"}, "no split 'other'"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        inspect(MICRO, **options)
    assert not list(tmp_path.iterdir())


def test_a_convolutional_model_says_what_can_be_drawn(tmp_path, photo_files):
    model = checkpoint(tmp_path, "resnet")
    with pytest.raises(ModelError, match="convolutions") as raised:
        inspect(model, photo_files, only=["rollout", "heads"], out=tmp_path / "out")
    assert raised.value.allowed == "filters, tokens, neighbours"
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="will not be overwritten"):
        inspect(MICRO, out=tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_without_a_name_the_folder_counts_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [inspect(MICRO, only=["filters"]).folder.name for _ in range(2)]
    assert folders == ["pictures-vit-micro", "pictures-vit-micro-2"]


def test_the_command_prints_what_was_made_and_why_not_the_rest(tmp_path, capsys):
    assert run(MICRO, "-o", tmp_path / "out", "--format", "svg") == 0
    out = capsys.readouterr().out
    assert f"filters    {tmp_path / 'out' / 'filters.svg'}" in out
    assert "not drawn: distance, entropy, sinks, rollout, heads, tokens: it needs images" in out
    assert out.splitlines()[-1] == f"page       {tmp_path / 'out' / 'index.html'}"


def test_the_command_prints_numbers_for_programs(capsys):
    assert run(MICRO, "--only", "filters", "--format", "json") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert len(numbers["filters"]["explained_variance"]) == 28


def test_unknown_kinds_are_a_wrong_command_line(capsys):
    assert run(MICRO, "--only", "filters,rolout") == 2
    assert "try: --only rollout" in capsys.readouterr().err


# --- real data ---------------------------------------------------------------------------------------------

REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.real
def test_the_real_checkpoint_is_read_without_a_changed_bit_and_its_rollouts_sum_to_1():
    loaded, _ = load_model(REAL / "vit-tiny-patch16-224", "fp32", "cpu")
    files = sorted((REAL / "flowers12" / "test").rglob("*.jpg"))[::80]
    pixels = loaded.pixel_values(torch.stack([loaded.process(decode(str(path))[0]) for path in files]))
    rollout = Rollout("class")
    with torch.no_grad():
        before = loaded.model(pixels).logits
        with recording(loaded.model, rollout):
            during = loaded.model(pixels).logits
    assert torch.equal(before, during)
    for matrix in (rollout.with_residual, rollout.without_residual):
        torch.testing.assert_close(matrix.sum(-1), torch.ones(3, 197, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.real
def test_the_real_checkpoint_shows_what_the_paper_saw():
    """Local heads beside wide ones in the first layers, wider ones later; positions of rows and columns."""
    numbers = inspect(
        REAL / "vit-tiny-patch16-224",
        dataset=str(REAL / "flowers12"),
        only=["positions", "distance"],
        num_images=8,
        format="json",
    ).numbers
    distances = [layer["distance_renormalised"] for layer in numbers["layers"]]
    first, last = (
        [each for layer in distances[:3] for each in layer],
        [each for layer in distances[-3:] for each in layer],
    )
    assert max(first) > 2 * min(first)
    assert min(last) > max(first)
    assert numbers["positions"][0]["row_and_column_share"] > 0.9

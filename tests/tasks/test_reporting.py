"""The page at the end of a run and by hand: what it keeps for it, wrong labels that it shows, and what may fail."""

import errno
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vitft import Recipe, finetune, write_report
from vitft.cli import main
from vitft.errors import UsageError
from vitft.hub.bundle import collect
from vitft.processes.signals import StopRequest
from vitft.run import Run
from vitft.tasks import reporting, thumbnails
from vitft.views.policy import policy

COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40)}


def make_photos(folder):
    """Write photos that are easy to tell apart; ten of the test split lie in the wrong folder."""
    generator = np.random.default_rng(0)
    planted = []
    for split, count in (("train", 20), ("validation", 4), ("test", 20)):
        for number, (name, colour) in enumerate(COLOURS.items()):
            for image in range(count):
                is_planted = split == "test" and image < (4 if number == 0 else 3)
                place = folder / split / (list(COLOURS)[(number + 1) % 3] if is_planted else name)
                place.mkdir(parents=True, exist_ok=True)
                pixels = np.array(colour) + generator.normal(0, 25, (40, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{name}-{image}.png")
                planted += [f"{name}-{image}.png"] if is_planted else []
    return planted


def recipe(folder, **changes):
    settings = {
        "data.dataset": str(folder / "photos"), "data.workers": 0, "model.checkpoint": "builtin:vit-micro",
        "model.image_size": 16, "train.duration": "4 epochs", "train.batch_size": 10, "optim.lr": 2e-3,
        "augment.cutmix_alpha": 1.0, "run.output_dir": str(folder / "runs"), "run.pictures": "off", "run.name": "one",
    }  # fmt: skip
    return Recipe.load(None, settings | changes)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def planted(home):
    return make_photos(home / "photos")


@pytest.fixture(scope="module")
def seen():
    """What the views of the training gave, in their order."""
    return []


@pytest.fixture(scope="module")
def result(home, planted, seen):
    def watched(*arguments, **options):
        view = policy(*arguments, **options)
        return lambda batch: seen.append(view(batch)) or seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitft.train.setup.policy", watched)
        return finetune(recipe(home))


@pytest.fixture
def run(result, tmp_path):
    """A copy of the run, to be broken."""
    return Run(shutil.copytree(result.run_dir, tmp_path / "one"))


def test_wrong_labels_are_among_the_surest_mistakes(result, planted):
    page = (result.run_dir / "report.html").read_text(encoding="utf-8")
    surest = page[page.index('id="mistakes"') : page.index('id="pairs"')]
    assert len(planted) == 10
    assert [name for name in planted if name not in surest] == []
    assert surest.count("data:image/jpeg") == surest.count('class="photo"') >= 10


def test_thumbnails_are_small_and_name_their_image(result, planted):
    folder = result.run_dir / "thumbnails"
    index = json.loads((folder / "index.json").read_text())
    assert index["split"] == "test" and index["notes"] == []
    assert {each["source"].rsplit("/", 1)[-1] for each in index["images"]} >= set(planted)
    files = {each["file"] for each in index["images"] + index["views"]}
    assert {path.name for path in folder.iterdir()} == files | {"index.json"}
    for each in index["images"]:
        with Image.open(folder / each["file"]) as image:
            assert image.format == "JPEG" and image.size == (24, 40)  # never enlarged


def test_views_are_what_the_network_saw_with_their_mixed_labels(result, seen):
    folder = result.run_dir / "thumbnails"
    views = json.loads((folder / "index.json").read_text())["views"]
    assert len(views) == 16
    assert any(len(each["labels"]) == 2 for each in views)
    pixels = np.concatenate([each[0].numpy() for each in seen[:2]])[:16]  # two steps of ten images
    targets = np.concatenate([each[1].numpy() for each in seen[:2]])[:16]
    for each, pixel, target in zip(views, pixels, targets, strict=True):
        shares = dict(each["labels"])
        expected = (target - 0.1 / 3) / 0.9  # without label smoothing
        assert [shares.get(name, 0.0) for name in COLOURS] == pytest.approx(expected.tolist(), abs=0.011)
        with Image.open(folder / each["file"]) as image:
            difference = np.asarray(image, dtype=float) - 255 * (0.5 + 0.5 * pixel.transpose(1, 2, 0))
        assert np.abs(difference).mean() < 25  # colours are coarse in a JPEG of 16 pixels


def test_the_plan_is_written_with_its_reasons(result):
    plan = json.loads((result.run_dir / "plan.json").read_text())
    rows = {row["name"]: row for row in plan["rows"]}
    assert rows["lr"]["value"] == "0.002" and rows["lr"]["reason"].startswith("peak, of the head")


def test_the_end_of_a_run_names_the_page_and_what_makes_it(result):
    text = str(result)
    assert f"report: {result.run_dir / 'report.html'}" in text
    assert f"vitft report {result.run_dir}" in text
    assert f"vitft evaluate {result.run_dir} DATASET" in text


def test_what_shows_images_stays_on_this_machine(result):
    names = set(collect(result.run_dir, result.run_dir / "model", "card"))
    assert not [name for name in names if "report" in name or "predictions" in name or "thumbnails" in name]
    assert "plan.json" not in names


# --- what may fail -----------------------------------------------------------------------------------------


def notes(run):
    return [event["text"] for event in run.events() if event["event"] == "note"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("broken template")])
def test_a_page_that_fails_costs_the_run_nothing(home, planted, tmp_path, monkeypatch, error, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("vitft.report.page.write_page", fail)
    path = tmp_path / "recipe.yaml"
    changes = {"run.output_dir": str(tmp_path / "runs"), "train.duration": "1 steps", "run.name": "two"}
    path.write_text(recipe(home, **changes).dump())
    with pytest.raises(SystemExit) as ended:
        main(["finetune", "--recipe", str(path)])
    assert ended.value.code == 0
    run = Run(tmp_path / "runs" / "two")
    assert run.is_finished and not (run.folder / "report.html").exists()
    assert any(f"to make it: vitft report {run.folder}" in note for note in notes(run))
    assert "report:" not in capsys.readouterr().out


def test_a_request_to_stop_ends_the_page_too(run, monkeypatch):
    def stop(*_):
        raise StopRequest("SIGTERM")

    monkeypatch.setattr("vitft.report.page.run_page", stop)
    with pytest.raises(StopRequest):
        reporting.report_run(run)


def test_a_resumed_run_makes_thumbnails_and_page_that_are_missing(run, result):
    before = {path.name: path.read_bytes() for path in (run.folder / "thumbnails").iterdir()}
    shutil.rmtree(run.folder / "thumbnails")
    (run.folder / "report.html").unlink()
    (run.model_folder / "README.md").unlink()
    finetune(resume=run.folder)
    assert {path.name: path.read_bytes() for path in (run.folder / "thumbnails").iterdir()} == before
    assert (run.folder / "report.html").is_file() and run.is_finished


def test_an_image_that_is_gone_has_no_thumbnail(run, home, planted, monkeypatch):
    from vitft.data import staging

    def fail(encoded, *_):
        if str(encoded).endswith(planted[0]):
            raise staging.BadImage("gone")
        return original(encoded, *_)

    original = staging.decode
    monkeypatch.setattr(staging, "decode", fail)
    shutil.rmtree(run.folder / "thumbnails")
    (run.model_folder / "README.md").unlink()
    finetune(resume=run.folder)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("no thumbnail") >= 1 and planted[0] in page


def test_thumbnails_that_fail_are_a_note_and_a_full_disk_is_not(run, monkeypatch):
    from types import SimpleNamespace

    setup = SimpleNamespace(accelerator=SimpleNamespace(is_main_process=True))
    shutil.rmtree(run.folder / "thumbnails")

    def fail_with(error):
        def fail(*_):
            raise error

        monkeypatch.setattr(thumbnails, "_write", fail)
        thumbnails.keep_thumbnails(run, setup)

    fail_with(ValueError("odd"))
    assert "no thumbnails, and nothing else is lost: ValueError: odd" in notes(run)[-1]
    with pytest.raises(OSError, match="No space"):
        fail_with(OSError(errno.ENOSPC, "No space left on device"))


def test_a_stream_has_no_thumbnails_and_says_so(home, planted, tmp_path):
    from vitft.builtin.digits import load_digits

    for split, count in (("train", 30), ("test", 10)):
        rows = load_digits()["train"].select(range(count))
        rows.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    changes = {
        "data.dataset": str(tmp_path / "data"), "data.streaming": True, "train.duration": "1 steps",
        "run.output_dir": str(tmp_path / "runs"),
    }  # fmt: skip
    run = Run(finetune(recipe(home, **changes)).run_dir)
    assert any("is a stream, which cannot be read from the middle" in note for note in notes(run))
    assert any("no training views" in note for note in notes(run))
    assert "is a stream" in (run.folder / "report.html").read_text(encoding="utf-8")


# --- by hand -----------------------------------------------------------------------------------------------


def test_a_page_is_made_again(run):
    (run.folder / "report.html").write_text("old")
    assert write_report(run.folder).path == run.folder / "report-2.html"  # not ours: it stays
    (run.folder / "report.html").unlink()
    assert write_report(run.folder).path == run.folder / "report.html"
    assert write_report([run.folder]).path == run.folder / "report.html"  # ours: written anew
    assert str(write_report(run.folder)) == f"report: {run.folder / 'report.html'}"


@pytest.mark.parametrize(
    ("runs", "output", "message"),
    [
        ([], None, "no run was given"),
        (["photos"], None, "is not a run directory"),
        (["runs/on"], None, "does not exist"),
        (["runs/one"], "nowhere/page.html", "nowhere does not exist"),
        (["runs/one"], "runs", "is a folder"),
    ],
)
def test_what_cannot_be_done_is_said(result, home, runs, output, message):
    with pytest.raises(UsageError, match=message) as error:
        write_report([home / each for each in runs], None if output is None else home / output)
    assert error.value.hint
    if runs == ["runs/on"]:
        assert f"vitft report {home / 'runs' / 'one'}" in error.value.hint

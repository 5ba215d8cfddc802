"""The page of a run: what stands on it, that outside text stays text, that it needs no torch and stays small."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from made import HOSTILE, make_run

from vitft.report.page import is_ours, run_page, write_page
from vitft.report.record import read_record
from vitft.run import Run


class Seen(HTMLParser):
    """The tags, the addresses and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.text, self.handlers = [], [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"), optim__lr=0.003)


@pytest.fixture(scope="module")
def page(run):
    return run_page(read_record(run))


def test_every_part_of_a_whole_run_is_there(page):
    seen = Seen(page)
    ids = set(re.findall(r'<h[23] id="(\w+)"', page))
    parts = {"scores", "curves", "confusion", "classes", "mistakes", "pairs", "trust", "views"}
    assert ids == parts | {"plan", "recipe", "environment", "notes"}
    assert "could not be made" not in page and 'class="gaps"' not in page
    assert seen.tags.count("svg") == 5 + 1 + 2  # learning curves, confusions, calibration
    assert "a/vit on someone/photos" in seen.text
    assert re.search(r"test top-1 \d\d\.\d\d % \(95 % interval [\d.]+ to [\d.]+ %\) on 60 images", seen.text)
    assert re.search(r"\d+ % of the images can be labelled with 95 % precision|No share of the images", seen.text)
    for note in ("a note along the way", "a note of the dataset", "a note of the plan", "peak, of the head"):
        assert note in seen.text
    assert re.search(r"optim\.lr\s*0\.003\s*0\.001", seen.text)


def test_mistakes_have_their_thumbnail_file_name_and_both_classes(run, page):
    record = read_record(run)
    seen = Seen(page)
    wrong = [place for place in range(60) if not record.predictions.is_correct[place]]
    shown = [place for place in wrong if f"{place:05d} ash.jpg" in seen.text]
    assert shown == wrong  # fewer than twenty
    assert sum(each.startswith("data:image/jpeg") for each in seen.addresses) >= len(wrong) + 1


def test_nothing_is_loaded_from_anywhere(page):
    assert [each for each in Seen(page).addresses if not each.startswith(("data:", "#"))] == []
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def test_names_of_strangers_are_text(tmp_path):
    page = run_page(read_record(make_run(tmp_path, classes=HOSTILE, num_rows=140)))
    seen = Seen(page)
    assert seen.tags.count("script") == 1 and not seen.handlers
    assert "x" not in seen.addresses
    for name in HOSTILE[:3] + HOSTILE[4:6]:
        assert name in seen.text
    assert "\x1b" not in page and "\u202e" not in page
    assert "\\x1b[31mred\\u202eder" in seen.text
    assert "could not be made" not in page


def test_the_page_needs_no_torch(run, tmp_path):
    code = (
        "import sys; from pathlib import Path; from vitft.tasks import write_report; "
        f"write_report({str(run.folder)!r}, {str(tmp_path / 'page.html')!r}); "
        "print(sorted({'torch', 'transformers', 'datasets', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert (tmp_path / "page.html").is_file()


def test_a_thousand_classes_and_fifty_thousand_images_make_a_small_page(tmp_path):
    run = make_run(tmp_path, classes=[f"class number {number}" for number in range(1000)], num_rows=50_000)
    page = run_page(read_record(run))
    assert len(page.encode()) < 8_000_000
    assert "could not be made" not in page
    assert "each cell holds 5 x 5 of them" in page
    assert page.count("<tr><td><bdi>class number") == 1000


def test_without_a_confusion_matrix_the_page_says_so_and_has_the_pairs(run, tmp_path):
    folder = tmp_path / "many"
    shutil.copytree(run.folder, folder)
    results = json.loads((folder / "results.json").read_text())
    del results["test"]["confusion"]
    (folder / "results.json").write_text(json.dumps(results))
    page = run_page(read_record(Run(folder)))
    assert "There is no confusion matrix of this many classes" in page and "could not be made" not in page
    assert 'id="confusion"' not in page and 'id="pairs"' in page and 'id="classes"' in page


def test_a_temperature_that_was_fitted_stands_beside_the_calibration(run, tmp_path):
    folder = tmp_path / "calibrated"
    shutil.copytree(run.folder, folder)
    fitted = {"temperature": 1.25, "before": {"nll": 0.5, "ece": 0.2}, "after": {"nll": 0.4, "ece": 0.1}}
    fitted |= {"fitted_on": {"split": "validation", "count": 30}, "scored_on": {"split": "test", "count": 60}}
    (folder / "model" / "calibration.json").write_text(json.dumps(fitted))
    page = run_page(read_record(Run(folder)))
    assert (
        "Temperature 1.250, fitted on validation (30 images), scored on test (60 images);" in page
        and ">0.5000<" in page
        and ">0.4000<" in page
    )


def test_two_classes_and_no_mistake_are_a_page_too(tmp_path):
    run = make_run(tmp_path, classes=("cat", "dog"), num_rows=4, seed=3)
    record = read_record(run)
    record.predictions.predicted = record.predictions.label
    record.results["test"]["confusion"] = [[2, 0], [0, 2]]
    page = run_page(record)
    assert "every image was recognised" in page
    assert "could not be made" not in page


# --- what is not there -------------------------------------------------------------------------------------


def test_a_run_that_is_not_finished_says_so_and_shows_its_curves(run, tmp_path):
    folder = tmp_path / "begun"
    folder.mkdir()
    for name in ("recipe.yaml", "metrics.jsonl"):
        shutil.copy(run.folder / name, folder / name)
    page = run_page(read_record(Run(folder)))
    assert "This run is not finished: it has taken 40 steps" in page
    assert "vitft finetune --resume" in page
    assert 'id="curves"' in page and 'id="scores"' not in page
    assert "could not be made" not in page


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("predictions-test.parquet", "Predictions-test.parquet is not there"),
        ("thumbnails", "There are no thumbnails"),
        ("plan.json", ""),
        ("environment.json", ""),
        ("metrics.jsonl", ""),
    ],
)
def test_what_an_older_version_did_not_write_is_left_out(run, tmp_path, name, said):
    folder = tmp_path / "older"
    shutil.copytree(run.folder, folder)
    shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    page = run_page(read_record(Run(folder)))
    assert said in page and "could not be made" not in page
    assert 'id="scores"' in page


def test_scores_without_intervals_are_those_of_an_older_version(run, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(run.folder, folder)
    results = json.loads((folder / "results.json").read_text())
    for name in ("intervals", "reliability", "coverage", "confused_pairs", "brier", "ece", "ece_equal_count"):
        del results["test"][name]
    (folder / "results.json").write_text(json.dumps(results))
    page = run_page(read_record(Run(folder)))
    assert "The scores have no intervals" in page and "could not be made" not in page
    assert 'id="confusion"' in page and 'id="trust"' not in page


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("predictions-test.parquet", b"PAR1 not"),
        ("thumbnails/index.json", b'{"split": 3}'),
        ("recipe.yaml", b"optim: {lr: green}"),
        ("plan.json", b"[1"),
        ("environment.json", b'{"dataset": 3, "model": null}'),
        ("results.json", b'{"train": {}, "classes": ["a"], "test": {"top1": 0.5, "confusion": "no"}}'),
    ],
)
def test_broken_files_cost_their_part_alone(run, tmp_path, name, content):
    folder = tmp_path / "broken"
    shutil.copytree(run.folder, folder)
    (folder / name).write_bytes(content)
    page = run_page(read_record(Run(folder)))
    assert 'id="scores"' in page and 'id="curves"' in page


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page.html"
    write_page(path, "<html>")
    assert not is_ours(path)
    with pytest.raises(OSError, match="No such file"):
        write_page(tmp_path / "nowhere" / "page.html", "<html>")
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]

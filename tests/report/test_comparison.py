"""Several runs beside each other: differences, scores, and a test where it can be made."""

import json
import re

import numpy as np
import pytest
from made import make_hostile_run, make_run

from vitft.cli import main
from vitft.report.comparison import compare, comparison_page
from vitft.report.record import read_record
from vitft.scoring.evidence import mcnemar
from vitft.tasks import write_report


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs"), "one", optim__lr=0.001)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("others"), "other", optim__lr=0.01, seed=1)


def comparison_of(*runs):
    return compare([read_record(run) for run in runs])


def test_the_test_is_mcnemars_on_the_same_images(one, other):
    found = comparison_of(one, other)
    right = [read_record(run).predictions.is_correct for run in (one, other)]
    expected = mcnemar(*right)
    [test] = found.tests
    assert (test.count, test.only_one, test.only_other) == (60, expected["only_one"], expected["only_other"])
    assert test.p == pytest.approx(expected["p"])
    assert ("not more than chance" in found.sentence(test)) == (expected["p"] >= 0.05)


def test_a_large_difference_is_real(one, tmp_path):
    bad = make_run(tmp_path, "bad")
    record = read_record(bad)
    record.predictions.predicted = (record.predictions.label + 1) % 3
    found = compare([read_record(one), record])
    assert found.tests[0].only_other == 0 and found.tests[0].p < 1e-6
    assert re.search(r": more than chance explains \(p = \d", found.sentence(found.tests[0]))


def test_several_tests_share_the_five_per_cent(one, other, tmp_path):
    assert comparison_of(one, other).level == 0.05
    found = comparison_of(one, other, make_run(tmp_path, "third", seed=2))
    assert len(found.tests) == 3 and found.level == pytest.approx(0.05 / 3)


def test_only_what_differs_stands_in_the_table(one, other):
    assert comparison_of(one, other).differences == [("optim.lr", ["0.001", "0.01"])]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"classes": ("ash", "birch", "oak"), "fingerprint": "g"}, "they have other classes"),
        ({"num_rows": 20}, "they share 20 of 60 images"),
    ],
)
def test_without_the_same_images_there_is_no_test_and_the_reason_is_said(one, tmp_path, changes, reason):
    found = comparison_of(one, make_run(tmp_path, "else", **changes))
    assert found.tests[0].p is None and found.tests[0].reason == reason
    assert f"no paired test of one and else: {reason}" in str(found)


def test_other_datasets_are_compared_without_the_test(one, tmp_path):
    run = make_run(tmp_path, "else", fingerprint="g")
    environment = run.read_json("environment.json")
    environment["dataset"]["id"] = "someone/others"
    run.write_json("environment.json", environment)
    assert "other datasets, someone/photos and someone/others" in str(comparison_of(one, run))


def test_another_training_split_does_not_prevent_the_test(one, tmp_path):
    found = comparison_of(one, make_run(tmp_path, "fewer", fingerprint="g", seed=1))  # same rows, sources and labels
    assert found.tests[0].count == 60


def test_a_run_without_scores_is_shown_for_what_it_is(one, tmp_path):
    run = make_run(tmp_path, "stopped")
    (run.folder / "results.json").unlink()
    found = comparison_of(one, run)
    assert "stopped has no predictions" in str(found)
    assert "This run is not finished: it has taken 40 steps" in comparison_page(found)


def test_runs_of_the_same_name_are_told_apart(one, tmp_path):
    namesake = make_run(tmp_path, "one", seed=1)
    found = comparison_of(one, namesake)
    assert found.names == [str(one.folder), str(namesake.folder)]


def test_the_page_overlays_the_curves_and_names_each_run(one, other):
    page = comparison_page(comparison_of(one, other))
    assert page.count("<svg") == 5
    assert all(page.count(f"<bdi>{name}</bdi>") >= 2 for name in ("one", "other"))
    assert "McNemar" in page and "optim.lr" in page


def test_hostile_names_are_text_on_the_page_and_in_the_terminal(tmp_path):
    runs = [make_hostile_run(tmp_path / str(seed), seed=seed) for seed in range(2)]
    found = comparison_of(*runs)
    page = comparison_page(found)
    assert "<img" not in page and "&lt;img" in page
    assert "\x1b" not in str(found) + page


def test_many_runs_are_a_page(one, tmp_path):
    runs = [one, *(make_run(tmp_path, f"run-{seed}", num_rows=10, seed=seed) for seed in range(9))]
    assert "colours repeat" in comparison_page(comparison_of(*runs))


# --- the command -------------------------------------------------------------------------------------------


def outcome(*words):
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, words)])
    return ended.value.code


def test_the_command_prints_the_table_and_where_the_page_is(one, other, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert outcome(one.folder, other.folder) == 0
    text = capsys.readouterr().out
    assert re.search(r"^one +test +\d", text, re.MULTILINE) and "optim.lr" in text and "of 60 images" in text
    assert text.endswith("report: comparison.html\n")
    assert (tmp_path / "comparison.html").is_file()


def test_a_file_of_somebody_else_stays(one, other, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "comparison.html").write_text("mine")
    assert outcome(one.folder, other.folder) == outcome(one.folder, other.folder) == 0
    assert (tmp_path / "comparison.html").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison-2.html", "comparison.html"]
    assert outcome(one.folder, other.folder, "-o", tmp_path / "all.html") == 0
    assert (tmp_path / "all.html").is_file()


def test_the_comparison_is_also_for_programs(one, other, tmp_path, capsys):
    assert outcome(one.folder, other.folder, "-o", tmp_path / "all.html", "--format", "json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str(tmp_path / "all.html")
    assert found["differences"] == {"optim.lr": {"one": "0.001", "other": "0.01"}}
    assert found["tests"][0]["count"] == 60
    assert np.shape(found["runs"][0]["scores"]["intervals"]["top1"]) == (2,)


def test_the_same_run_twice_is_one_run(one, tmp_path):
    assert write_report([one.folder, f"{one.folder}/"], tmp_path / "page.html").comparison is None


def test_a_folder_that_is_no_run_lists_the_runs_there_are(one, capsys):
    assert outcome(one.folder.parent / "on") == 2
    said = capsys.readouterr().err
    assert f"allowed: {one.folder}" in said and f"try: vitft report {one.folder}" in said
    assert outcome() == 2
    assert "RUN... is missing" in capsys.readouterr().err

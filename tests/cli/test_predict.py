"""``vitft predict``: what it prints, as text and for programs, and which files it takes."""

import csv
import io
import json
import os

import pytest
from cli.command import run

ROWS = [
    {"image": "a.png", "predictions": [{"label": "cat", "score": 0.9}, {"label": "a, b", "score": 0.1}]},
    {
        "image": "longer.png",
        "predictions": [{"label": "kitten", "score": 0.5}, {"label": "cat", "score": 0.25}],
    },
    {"image": "bad.png", "error": "cannot identify image file"},
]


@pytest.fixture
def predictions(tasks):
    tasks.predict_each = lambda model, images, **options: (row for row in ROWS if row["image"] in images)


def test_predict_prints_columns(predictions, capsys):
    assert run("predict", "m", "a.png", "longer.png", "bad.png") == 1
    assert capsys.readouterr().out.splitlines() == [
        "a.png       cat 0.9000     a, b 0.1000",
        "longer.png  kitten 0.5000  cat 0.2500",
        "bad.png     error: cannot identify image file",
    ]


def test_predict_prints_what_is_known_before_the_rest_is_computed(tasks, capsys):
    printed = []

    def rows(model, images, **options):
        for row in ROWS:
            printed.append(capsys.readouterr().out)
            yield row

    tasks.predict_each = rows
    assert run("predict", "m", "a", "b", "c", "--format", "jsonl", "--batch-size", "1") == 1
    assert [json.loads(text)["image"] for text in printed[1:]] == ["a.png", "longer.png"]


def test_predict_columns_only_grow(tasks, capsys):
    tasks.predict_each = lambda model, images, **options: iter(ROWS[:2] + ROWS[:1])
    assert run("predict", "m", "a", "b", "c", "--batch-size", "1") == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.png  cat 0.9000  a, b 0.1000",
        "longer.png  kitten 0.5000  cat 0.2500",
        "a.png       cat 0.9000     a, b 0.1000",
    ]


@pytest.mark.parametrize("columns", [20, 25, 200])
def test_predict_gives_an_image_one_line_of_a_narrow_terminal(columns, predictions, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    run("predict", "m", "a.png", "longer.png", "bad.png")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:2])) <= columns
    said = {20: "longer.png  kitten 0", 25: "longer.png  kitten 0.5000", 200: "longer.png  kitten 0.5000  cat 0.2500"}
    assert lines[1] == said[columns]
    assert lines[2] == "bad.png     error: cannot identify image file"  # a reason is never cut off


def test_a_reader_that_has_seen_enough_of_predict_is_no_error(tmp_path):
    import subprocess
    import sys

    command = (
        f"{sys.executable} -m vitft predict builtin:vit-micro x.png --format jsonl | true; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() in ("0", "1")  # 1: it was done before the reader had gone


def test_predict_ends_with_0_when_every_image_could_be_read(predictions):
    assert run("predict", "m", "a.png", "longer.png") == 0


def test_predict_prints_json_and_json_lines(predictions, capsys):
    assert run("predict", "m", "a.png", "bad.png", "--format", "json") == 1
    assert json.loads(capsys.readouterr().out) == [ROWS[0], ROWS[2]]
    assert run("predict", "m", "a.png", "bad.png", "--format", "jsonl") == 1
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [ROWS[0], ROWS[2]]


def test_predict_prints_csv_that_csv_reads(predictions, capsys):
    assert run("predict", "m", "a.png", "bad.png", "--format", "csv") == 1
    assert list(csv.DictReader(io.StringIO(capsys.readouterr().out))) == [
        {"image": "a.png", "rank": "1", "label": "cat", "score": "0.9", "error": ""},
        {"image": "a.png", "rank": "2", "label": "a, b", "score": "0.1", "error": ""},
        {"image": "bad.png", "rank": "", "label": "", "score": "", "error": "cannot identify image file"},
    ]


def test_predict_takes_files_folders_and_globs_each_image_once(tasks, tmp_path, monkeypatch):
    for name in ("b.PNG", "a.jpg", "deep/c.webp", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    seen = []
    tasks.predict_each = lambda model, images, **options: iter(seen.extend(images) or [])
    assert run("predict", "m", "notes.txt", "*.jpg", "deep", ".", "missing.png") == 0
    assert seen == ["notes.txt", "a.jpg", os.path.join("deep", "c.webp"), "b.PNG", "missing.png"]  # noqa: PTH118


def test_predict_lists_a_folder_as_training_does(tasks, tmp_path, monkeypatch):
    for name in (
        "p/a/1.jpg",
        "p/__MACOSX/a/1.jpg",
        "p/.ipynb_checkpoints/2.jpg",
        "p/a/._1.jpg",
        "store/3.jfif",
        "p/4.tga",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "p" / "linked").symlink_to("../store")
    (tmp_path / "p" / "a" / "up").symlink_to("..")
    monkeypatch.chdir(tmp_path)
    seen = []
    tasks.predict_each = lambda model, images, **options: iter(seen.extend(images) or [])
    assert run("predict", "m", "p") == 0
    assert [*map(os.path.normpath, seen)] == [*map(os.path.normpath, ("p/4.tga", "p/a/1.jpg", "p/linked/3.jfif"))]


HOSTILE = [
    {"image": "\x1b[2Ja.png", "predictions": [{"label": "\x1b]0;owned\x07cat", "score": -0.5}]},
    {"image": "=cmd.png", "predictions": [{"label": '=HYPERLINK("http://x")', "score": 0.25}]},
    {"image": "a\nb.png", "error": "there is no file \u202ea\udcff"},
]


@pytest.mark.parametrize("format", ["text", "json", "jsonl", "csv"])
def test_predict_shows_names_and_labels_from_outside_safely(format, tasks, capsys):
    tasks.predict_each = lambda model, images, **options: iter(HOSTILE)
    assert run("predict", "m", "a.png", "--format", format) == 1
    said = "".join(capsys.readouterr())
    assert said.isascii() and not set(said) & {chr(code) for code in (*range(10), *range(11, 32), 127)}
    assert len(said.splitlines()) == {"text": 4, "json": 25, "jsonl": 4, "csv": 5}[format]


def test_predict_writes_no_formula_and_keeps_numbers(tasks, capsys):
    tasks.predict_each = lambda model, images, **options: iter(HOSTILE)
    run("predict", "m", "a.png", "--format", "csv")
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:]
    assert [row[3] for row in rows] == ["-0.5", "0.25", ""]
    assert rows[1][0] == "'=cmd.png" and rows[1][2] == '\'=HYPERLINK("http://x")'


def test_predict_says_what_was_not_read_as_it_is_and_takes_one_setting(tasks, capsys):
    seen = {}
    row = {"image": "a.jpg", "predictions": [{"label": "cat", "score": 1.0}], "notes": ["read at half its size"]}
    tasks.predict_each = lambda model, images, **options: iter(seen.update(options) or [row])
    assert run("predict", "m", "a.jpg", "--set", "data.max_pixels=9") == 0
    assert seen["max_pixels"] == 9
    assert "a.jpg: read at half its size" in capsys.readouterr().err
    assert run("predict", "m", "a.jpg", "--set", "data.fit=crop") == 2
    assert "data.max_pixels" in capsys.readouterr().err


def test_predict_does_not_look_through_the_whole_machine(tasks, capsys):
    assert run("predict", "m", "--", "/") == 2
    assert "the whole file system" in capsys.readouterr().err


def test_predict_applies_a_temperature_only_when_asked(tasks):
    seen = []
    tasks.predict_each = lambda model, images, **options: iter(seen.append(options["calibrated"]) or ROWS[:1])
    assert run("predict", "m", "a.png") == run("predict", "m", "a.png", "--calibrated") == 0
    assert seen == [False, True]

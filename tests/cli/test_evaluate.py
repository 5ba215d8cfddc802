"""``vitft evaluate``."""

import json
from types import SimpleNamespace

from cli.command import run


def test_evaluate_passes_on_what_was_asked(tasks, capsys):
    seen = {}

    def evaluate(model, dataset, **options):
        seen.update(options, model=model, data=dataset)
        return SimpleNamespace(scores={"top1": 0.75, "count": 4})

    tasks.evaluate = evaluate
    words = ["--dataset", "d", "--split", "val", "--set", "data.label_column=kind", "--bad-images", "skip"]
    assert run("evaluate", "m", *words, "--metrics", "f1", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"top1": 0.75, "count": 4}
    assert (seen["model"], seen["data"].dataset, seen["data"].label_column) == ("m", "d", "kind")
    assert (seen["split"], seen["metrics"], seen["bad_images"]) == ("val", ("f1",), "skip")
    assert (seen["batch_size"], seen["precision"], seen["device"]) == (None, "auto", "auto")


def test_evaluate_calibrates_and_folds_when_asked(tasks, tmp_path, capsys):
    seen = {}
    tasks.evaluate = lambda model, dataset, **options: seen.update(options) or SimpleNamespace(scores={})
    assert run("evaluate", "m", "d", "--format", "json") == 0
    assert (seen["calibrate"], seen["fold_temperature"]) == (False, None)
    out = tmp_path / "out"
    assert run("evaluate", "m", "d", "--calibrate", "--fold-temperature", str(out), "--format", "json") == 0
    assert (seen["calibrate"], seen["fold_temperature"]) == (True, out)
    capsys.readouterr()
    assert run("evaluate", "m", "d", "--fold-temperature", str(out)) == 2
    assert f"--calibrate --fold-temperature {out}" in capsys.readouterr().err
    assert run("evaluate", "m", "d", "--calibrate", "--image-size", "24,32") == 2
    assert "single size" in capsys.readouterr().err

"""Run directories made by hand, as a run of any size would leave them; no model and no image is needed."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
from PIL import Image

from vitft.recipe.recipe import Recipe
from vitft.report.gallery import FOLDER, choose
from vitft.run import Run
from vitft.scoring.evidence import (
    confused_pairs,
    coverage,
    equal_count_bins,
    equal_width_bins,
    evidence,
    reliability,
    wilson,
)
from vitft.scoring.predictions import Predictions, file_name, write_predictions

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "\x1b[31mred\u202eder",
    "蒲公英",
    "ورد جوري",
    "long " * 40,
]


def predictions_of(num_rows, num_classes, *, right=0.8, seed=0):
    """Return predictions of which a share is right; mistakes go to the next class or anywhere."""
    generator = np.random.default_rng(seed)
    label = np.arange(num_rows) % num_classes
    wrong = np.where(generator.random(num_rows) < 0.5, label + 1, generator.integers(0, num_classes, num_rows))
    predicted = np.where(generator.random(num_rows) < right, label, wrong % num_classes)
    confidence = generator.uniform(1 / num_classes, 1, num_rows).astype(np.float32)
    p_label = np.where(predicted == label, confidence, (1 - confidence) / 2).astype(np.float32)
    best = (predicted[:, None] + np.arange(min(5, num_classes))) % num_classes
    return Predictions(
        row=np.arange(num_rows),
        label=label.astype(np.int32),
        predicted=predicted.astype(np.int32),
        p_label=p_label,
        p_predicted=confidence,
        nll=-np.log(p_label),
        brier=(1 - p_label) ** 2,
        entropy=np.zeros(num_rows, dtype=np.float32),
        best=best.astype(np.int32),
        p_best=np.repeat(confidence[:, None], best.shape[1], axis=1),
    )


def scores_of(predictions, classes):
    """Return what results.json says of a split; of many rows without the bootstrap, which takes its time."""
    num_classes = len(classes)
    confusion = np.zeros((num_classes, num_classes), dtype=int)
    np.add.at(confusion, (predictions.label, predictions.predicted), 1)
    top1 = float(predictions.is_correct.mean())
    scores = {
        "top1": top1,
        "mean_per_class_accuracy": top1,
        "macro_f1": top1,
        "nll": float(predictions.nll.mean()),
        "count": len(predictions),
        "per_class": {
            "class": list(classes),
            "support": confusion.sum(1).tolist(),
            "correct": np.diag(confusion).tolist(),
            "predicted": confusion.sum(0).tolist(),
        },
        "confusion": confusion.tolist(),
    }
    if len(predictions) < 5000:
        return scores | evidence(predictions, classes, scores)
    confidence, correct = predictions.p_predicted.astype(float), predictions.is_correct
    return scores | {
        "intervals": {"top1": wilson(top1, len(predictions))},
        "reliability": {
            "equal_width": reliability(confidence, correct, equal_width_bins(confidence)),
            "equal_count": reliability(confidence, correct, equal_count_bins(confidence)),
        },
        "coverage": coverage(confidence, correct),
        "confused_pairs": confused_pairs(predictions, classes),
    }


def make_run(folder, name="one", *, classes=("ash", "birch", "cedar"), num_rows=60, seed=0, fingerprint="f", **changes):
    """Make the directory of a finished run, with everything but a model."""
    settings = {"run.name": name, "run.output_dir": str(folder), "data.dataset": "someone/photos"}
    settings |= {key.replace("__", "."): value for key, value in changes.items()}
    run = Run.create(Recipe.load(None, settings), name)
    predictions = predictions_of(num_rows, len(classes), seed=seed)
    run.write_json(
        "environment.json",
        {
            "python": "3.11.7",
            "versions": {"torch": "2.13.0"},
            "dataset": {"id": "someone/photos", "fingerprint": fingerprint, "notes": ["a note of the dataset"]},
            "model": {"id": "a/vit", "notes": [f"a note of the model: {classes[0]}"]},
        },
    )
    rows = [{"name": "lr", "value": "0.001", "reason": "peak, of the head"}]
    run.write_json("plan.json", {"rows": rows, "notes": ["a note of the plan"]})
    for step in range(1, 41):
        run.log("step", step=step, loss=2 / step, lr=1e-3, images_per_second=30.0 * (step > 1), image_size=[8, 8])
        if step % 10 == 0:
            run.log("validation", step=step, top1=step / 50, nll=1 / step)
    run.note("a note along the way")
    write_predictions(
        run.folder / file_name("test"), predictions, classes, lambda row: f"test/{row:05d} {classes[0]}.jpg"
    )
    run.write_json(
        "results.json",
        {"test": scores_of(predictions, classes), "train": {"steps": 40, "seconds": 9.0}, "classes": list(classes)},
    )
    keep_thumbnails(run, predictions, classes)
    run.model_folder.mkdir()
    run.write_json("model/config.json", {})
    run.write_text("model/README.md", "card")
    return run


def make_hostile_run(folder, *, seed=0):
    """Make a run whose folder somebody renamed, with hostile class names."""
    run = make_run(folder, classes=HOSTILE, num_rows=140, seed=seed)
    return Run(run.folder.rename(run.folder.with_name("x<img src=x>")))


def keep_thumbnails(run, predictions, classes):
    (run.folder / FOLDER).mkdir()
    file = BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (112, 112, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "JPEG", quality=80)
    images = []
    for place in choose(predictions).places:
        images.append({"row": int(predictions.row[place]), "file": f"test-{place:08d}.jpg", "source": "s"})
        (run.folder / FOLDER / images[-1]["file"]).write_bytes(file.getvalue())
    (run.folder / FOLDER / "view-00.jpg").write_bytes(file.getvalue())
    views = [{"file": "view-00.jpg", "labels": [[classes[0], 0.6], [classes[1], 0.4]]}]
    index = {"split": "test", "images": images, "views": views, "notes": []}
    (run.folder / FOLDER / "index.json").write_text(json.dumps(index))

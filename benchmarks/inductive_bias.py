"""What a convolution's built-in knowledge is worth: a ViT against a ResNet of similar cost, by the number of images.

    python benchmarks/inductive_bias.py --cifar100 PATH [--out FOLDER] [--per-class 10 100 all] [--seeds 3]
    python benchmarks/inductive_bias.py --dataset cifar100 --classes 100 [--vit ID] [--resnet ID] [--steps 2000]

Both start from random weights and from pretrained ones, take the same number of steps with the same settings (recipes
study-inductive-bias-vit and -resnet), and are scored on the test split: top-1, and the part of predictions that stay
when the image is shifted by --shift pixels. A table, and a plot of both against the images per class (plot.png).

The first form needs no network. It builds a pair of very small models (ViT: width 64, depth 4, patch 4; ResNet: three
basic blocks of 64, 128 and 256 channels), pretrains both alike on classes 0 to 49 of CIFAR-100, and compares them on
classes 50 to 99. Runs that stand in FOLDER already are not repeated. The
second form compares checkpoints of the Hub, by default the recipes' own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Image, load_dataset

from vitft import Recipe, evaluate, finetune
from vitft.recipe.keys import DataRecipe

FAMILIES, STARTS = ("ViT", "ResNet"), ("scratch", "pretrained")
SMALL = {"optim.lr": 1.5e-3, "train.batch_size": 64, "data.workers": 0}
TEST_PER_CLASS, PRETRAINING_STEPS = 50, 1560


# --- the pair that needs no network ------------------------------------------------------------------------


def half(path: str, first: int, per_class: int | None) -> DatasetDict:
    """Return 50 classes of CIFAR-100 from class ``first``: so many training images of each, validation and test."""
    source = load_dataset(
        "parquet", data_files={s: str(Path(path) / "data" / f"{s}-*.parquet") for s in ("train", "test")}
    )

    def part(split: str, start: int, stop: int | None) -> Dataset:
        labels = np.asarray(source[split]["fine_label"])
        rows = sorted(r for k in range(first, first + 50) for r in np.flatnonzero(labels == k)[start:stop].tolist())
        names = source[split].features["fine_label"].names
        images = source[split].select(rows).select_columns("img").rename_column("img", "image")
        return images.add_column("label", [names[labels[row]] for row in rows]).cast_column("image", Image())

    stop = None if per_class is None else per_class + 1
    return DatasetDict(
        train=part("train", 1, stop), validation=part("train", 0, 1), test=part("test", 0, TEST_PER_CLASS)
    )


def small_models(folder: Path) -> dict[str, Path]:
    """Write the configurations of the pair; they are trained from random weights, so there are no others."""
    from transformers import ResNetConfig, ViTConfig, ViTImageProcessor

    configs = {
        "ViT": ViTConfig(
            hidden_size=64, num_hidden_layers=4, num_attention_heads=2, intermediate_size=256, image_size=32,
            patch_size=4, architectures=["ViTForImageClassification"],
        ),
        "ResNet": ResNetConfig(
            embedding_size=64, hidden_sizes=[64, 128, 256], depths=[1, 1, 1], layer_type="basic",
            architectures=["ResNetForImageClassification"],
        ),
    }  # fmt: skip
    for name, config in configs.items():
        config.save_pretrained(folder / name)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / name)
    return {name: folder / name for name in configs}


def pretrain(given: argparse.Namespace, models: dict[str, Path]) -> dict[str, Path]:
    """Train both alike on the other half of the classes, once; return the folders of what they became."""
    made: dict[str, Path] = {}
    for name, model in models.items():
        made[name] = given.out / f"runs/{name}-upstream/model"
        changes = {"model.checkpoint": str(model), "train.duration": f"{PRETRAINING_STEPS} steps"}
        upstream = saved(given, "upstream", half, given.cifar100, 0, None)
        run(given, name, f"{name}-upstream", "scratch", {"data.dataset": upstream, **changes})
    return made


def saved(given: argparse.Namespace, name: str, make: Any, *args: Any) -> str:
    """Return the folder of a dataset, made once."""
    folder = given.out / f"data/{name}"
    if not folder.is_dir():
        make(*args).save_to_disk(str(folder))
    return str(folder)


# --- runs --------------------------------------------------------------------------------------------------


def run(given: argparse.Namespace, family: str, name: str, start: str, changes: dict[str, Any]) -> Path:
    """Train once by the recipe of a family, if it is not done yet; return the run's folder."""
    folder = given.out / "runs" / name
    if not (folder / "results.json").is_file():
        settings = {
            "run.name": name, "run.output_dir": str(given.out / "runs"), "train.duration": f"{given.steps} steps",
            "train.evaluate_every": "100%", "train.checkpoint_every": "100%",
        }  # fmt: skip
        settings |= SMALL if given.cifar100 else {}
        settings |= {"model.init": "random", "optim.layer_decay": 1.0} if start == "scratch" else {}
        finetune(Recipe.load(f"study-inductive-bias-{family.lower()}", settings | changes))
    return Path(folder)


def compare(given: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Return scores by family, start and images per class, a list over seeds; kept in FOLDER/scores.json."""
    path = given.out / "scores.json"
    found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text()) if path.is_file() else {}
    models: dict[str, dict[str, Any]] = {start: {"ViT": given.vit, "ResNet": given.resnet} for start in STARTS}
    if given.cifar100:
        models["scratch"] = small_models(given.out / "models")
        models["pretrained"] = pretrain(given, models["scratch"])
    for seed, count, start, family in itertools.product(range(given.seeds), given.per_class, STARTS, FAMILIES):
        key = f"{family} {start} {count}"
        if len(found.get(key, [])) > seed:
            continue
        changes = data(given, count)
        model = {"model.checkpoint": str(models[start][family]), "train.seed": seed}
        folder = run(given, family, f"{key} {seed}".replace(" ", "-"), start, changes | model)
        test = DataRecipe(dataset=changes["data.dataset"], workers=0 if given.cifar100 else "auto")
        scores = evaluate(folder, test, split="test", shift=given.shift).scores
        trained = json.loads((folder / "environment.json").read_text())["dataset"]["rows"]["train"]
        row = {name: scores[name] for name in ("top1", "shift_consistency", "count")}
        found.setdefault(key, []).append(row | {"images_per_class": trained / len(scores["per_class"]["support"])})
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{key} seed {seed}: {row}", flush=True)
    return found


def data(given: argparse.Namespace, count: str) -> dict[str, Any]:
    """Return the settings of a dataset with so many training images per class."""
    number = None if count == "all" else int(count)
    if given.cifar100:
        return {"data.dataset": saved(given, count, half, given.cifar100, 50, number)}
    return {"data.dataset": given.dataset, "data.max_train_samples": number and number * given.classes}


# --- what came of it ---------------------------------------------------------------------------------------


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Return mean and standard deviation over seeds of both scores, in per cent."""
    lines = [f"{'':<24}{'top-1':>18}{'stays when shifted':>22}"]
    for key, rows in found.items():
        cells = [mean_and_spread([row[score] for row in rows]) for score in ("top1", "shift_consistency")]
        lines.append(f"{key:<24}" + "".join(f"{mean:>11.2f} +- {spread:5.2f}" for mean, spread in cells))
    return "\n".join(lines)


def mean_and_spread(values: list[float]) -> tuple[float, float]:
    """Return mean and standard deviation in per cent."""
    return 100 * statistics.mean(values), 100 * statistics.stdev(values) if len(values) > 1 else 0.0


def draw(found: dict[str, list[dict[str, Any]]], path: Path, title: str) -> None:
    """Draw both scores against the training images per class."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(9, 4.4), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    looks = {"ViT": ("#1f5fa8", "o"), "ResNet": ("#b35c00", "s")}
    for panel, score in zip(panels, ("top1", "shift_consistency"), strict=True):
        for family, start in itertools.product(FAMILIES, STARTS):
            groups = [rows for key, rows in found.items() if key.startswith(f"{family} {start} ")]
            groups.sort(key=lambda rows: rows[0]["images_per_class"])
            counts = [rows[0]["images_per_class"] for rows in groups]
            cells = [mean_and_spread([row[score] for row in rows]) for rows in groups]
            color, marker = looks[family]
            panel.errorbar(
                counts, [mean for mean, _ in cells], yerr=[spread for _, spread in cells], color=color, marker=marker,
                linestyle="--" if start == "scratch" else "-", markerfacecolor="white" if start == "scratch" else color,
                capsize=3, label=f"{family}, {'from scratch' if start == 'scratch' else 'pretrained'}",
            )  # fmt: skip
        panel.set_xscale("log")
        ticks = sorted({rows[0]["images_per_class"] for rows in found.values()})
        panel.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel("training images per class")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test top-1 in %")
    panels[1].set_ylabel("predictions that stay when shifted in %")
    figure.suptitle(title, fontsize=10)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    figure.savefig(path)


def costs(given: argparse.Namespace) -> str:
    """Return size and cost of both models as they were trained."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification

    from vitft.architectures.config import image_size_of
    from vitft.train.cost import forward_gflop

    lines = []
    for family in FAMILIES:
        folder = given.out / f"runs/{family}-scratch-{given.per_class[0]}-0/model"
        processor = AutoImageProcessor.from_pretrained(folder)
        model = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(folder))
        gflop = forward_gflop(model, (3, *image_size_of(model.config, processor)))
        million = sum(p.numel() for p in model.parameters()) / 1e6
        lines.append(f"{family}: {million:.2f} M parameters, {500 * gflop:.1f} million multiply-adds per image")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, then print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar100", help="folder of the dataset in the Hub's parquet files")
    parser.add_argument("--dataset", default="cifar100", help="instead, with --vit and --resnet")
    parser.add_argument("--classes", type=int, default=100, help="of --dataset")
    parser.add_argument("--vit", default="facebook/deit-small-patch16-224")
    parser.add_argument("--resnet", default="microsoft/resnet-50")
    parser.add_argument("--per-class", nargs="+", default=["10", "100", "all"])
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shift", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("inductive-bias"))
    given = parser.parse_args()
    found = compare(given)
    print(costs(given), table(found), sep="\n")
    what = "classes 50-99 of CIFAR-100, very small models" if given.cifar100 else given.dataset
    spread = f"mean and standard deviation of {given.seeds} seeds"
    draw(found, given.out / "plot.png", f"{what}\n{given.steps} steps, {spread}, shifts of {given.shift} pixels")


if __name__ == "__main__":
    main()

"""Layouts of files that hold images: kinds K and L of "data read as it was meant", and D and E in such files."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from trees import PETS, Tree, labelled, layout, names, reads, refuses

TEST = {"cat": 2, "dog": 2}
TEXT, INTEGER = datasets.Value("string"), datasets.Value("int64")


def _names(*each: str) -> datasets.ClassLabel:
    return datasets.ClassLabel(names=list(each))


def _tar(file: Path, samples: Mapping[str, Mapping[str, bytes]]) -> None:
    """Write key -> suffix -> content as webdataset does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for key, members in samples.items():
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _samples(
    tree: Tree, labels: Sequence[object], suffixes: Sequence[str] = ("jpg",), label: str = "cls"
) -> dict[str, dict[str, bytes]]:
    return {
        f"{index:06d}": {suffixes[index % len(suffixes)]: tree.content(), label: str(each).encode()}
        for index, each in enumerate(labels)
    }


def _pets(tree: Tree, name: str, count: int = 8) -> None:
    """Write a parquet file of images, the first half cats."""
    labels = ["cat"] * (count // 2) + ["dog"] * (count // 2)
    tree.root.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
    tree.rows(count, label=(labels, TEXT)).to_parquet(tree.root / name)


def _embeddings(tree: Tree, name: str, **more: Any) -> None:
    tree.root.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"vector": [[0.1, 0.2]] * 8, "cluster": [0, 1] * 4, **more}), tree.root / name)


# --- K: webdataset -----------------------------------------------------------------------------------------


@layout("K: jpg and png members", "webdataset", reads(train={"3": 4, "7": 4}))
def _(tree: Tree) -> None:
    _tar(tree.root / "train-0000.tar", _samples(tree, [7, 3] * 4, ("jpg", "png")))


@layout("K: .cls with words", "webdataset", reads(train=PETS))
def _(tree: Tree) -> None:
    _tar(tree.root / "train-0000.tar", _samples(tree, ["cat", "dog"] * 4))


@layout("K: .cls with numbers and line breaks", "webdataset, written by shell", reads(train={"3": 4, "10": 4}))
def _(tree: Tree) -> None:
    _tar(tree.root / "train-0000.tar", _samples(tree, ["10\n", "3\n"] * 4))


@layout("K: many suffixes, upper case too", "webdataset", reads(train=PETS))
def _(tree: Tree) -> None:
    _tar(tree.root / "data.tar", _samples(tree, ["cat", "dog"] * 4, ("JPG", "jpeg", "webp", "bmp")))


@layout("K: the label in a json member", "img2dataset", reads(train=PETS))
def _(tree: Tree) -> None:
    samples = _samples(tree, [json.dumps({"label": name, "width": 2}) for name in ["cat", "dog"] * 4], label="json")
    _tar(tree.root / "00000.tar", samples)


@layout("K: .txt with captions and .cls with classes", "img2dataset", reads(train=PETS))
def _(tree: Tree) -> None:
    samples = _samples(tree, ["cat", "dog"] * 4)
    for index, sample in enumerate(samples.values()):
        sample["txt"] = f"a photo, number {index}".encode()
    _tar(tree.root / "00000.tar", samples)


@layout("K: tars in folders called train and val", "webdataset", reads(train=PETS, validation=TEST))
def _(tree: Tree) -> None:
    _tar(tree.root / "train/000.tar", _samples(tree, ["cat", "dog"] * 2))
    _tar(tree.root / "train/001.tar", _samples(tree, ["cat", "dog"] * 2, ("png",)))
    _tar(tree.root / "val/000.tar", _samples(tree, ["cat", "dog"] * 2))


@layout("K: a shard of jpg and a shard of png", "webdataset", reads(train=PETS))
def _(tree: Tree) -> None:
    _tar(tree.root / "train-000.tar", _samples(tree, ["cat", "dog"] * 2, ("jpg",)))
    _tar(tree.root / "train-001.tar", _samples(tree, ["cat", "dog"] * 2, ("png",)))


@layout(
    "K: images of two moments in one sample", "webdataset", refuses("two images in one sample", r"jpg|before|image")
)
def _(tree: Tree) -> None:
    samples = _samples(tree, ["cat", "dog"] * 4, ("before.jpg",))
    for sample in samples.values():
        sample["after.jpg"] = tree.content()
    _tar(tree.root / "train.tar", samples)


@layout("K: one sample without a label", "webdataset", refuses("a training image without label", r"no label"))
def _(tree: Tree) -> None:
    samples = _samples(tree, ["cat", "dog"] * 4)
    del samples["000003"]["cls"]
    _tar(tree.root / "train.tar", samples)


@layout(
    "K: a tar of class folders, which is no webdataset",
    "downloads",
    refuses("an archive that must be unpacked", r"photos\.tar", r"unpack|webdataset|label"),
)
def _(tree: Tree) -> None:
    _tar(
        tree.root / "photos.tar", {f"{name}/{i}": {"jpg": tree.content()} for name in ("cat", "dog") for i in range(4)}
    )


# --- L: formats beside each other --------------------------------------------------------------------------


@layout(
    "L: train.csv and test.csv beside a parquet without images", "Kaggle", reads(r"old\.parquet", train=PETS, test=TEST)
)
def _(tree: Tree) -> None:
    tree.table("train.csv", "file,label", labelled(tree.images("photos", 8)))
    tree.table("test.csv", "file,label", labelled(tree.images("photos", 4, "t{}.jpg")))
    _embeddings(tree, "old.parquet")


@layout(
    "L: train.csv and test.csv beside a parquet with images",
    "converted once",
    refuses(
        "two formats hold images",
        r"old\.parquet", r"train\.csv", r"layout",
        ways=[
            ({"layout": "table"}, reads(train=PETS, test=TEST)),
            ({"layout": "parquet"}, reads(train={"cat": 3, "dog": 3})),
        ],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    tree.table("train.csv", "file,label", labelled(tree.images("photos", 8)))
    tree.table("test.csv", "file,label", labelled(tree.images("photos", 4, "t{}.jpg")))
    _pets(tree, "old.parquet", 6)


@layout("L: class folders beside embeddings.parquet", "feature extractors", reads(r"embeddings\.parquet", train=PETS))
def _(tree: Tree) -> None:
    tree.pets()
    _embeddings(tree, "embeddings.parquet")


@layout(
    "L: class folders beside an arrow file of features", "feature extractors", reads(r"features\.arrow", train=PETS)
)
def _(tree: Tree) -> None:
    tree.pets()
    table = pa.table({"vector": [[0.1, 0.2]] * 8})
    with pa.OSFile(str(tree.root / "features.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


@layout(
    "L: class folders beside a parquet of images",
    "converted once",
    refuses(
        "two formats hold images",
        r"train\.parquet", r"folders", r"layout",
        ways=[
            ({"layout": "folders"}, reads(train=PETS)),
            ({"layout": "parquet"}, reads(train={"cat": 3, "dog": 3})),
        ],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    tree.pets("photos")
    _pets(tree, "train.parquet", 6)


@layout(
    "L: class folders beside webdataset tars of them",
    "converted once",
    refuses(
        "two formats hold images",
        r"\.tar", r"folders", r"layout",
        ways=[
            ({"layout": "folders"}, reads(train=PETS)),
            ({"layout": "webdataset"}, reads(train={"cat": 3, "dog": 3})),
        ],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    tree.pets("photos")
    _tar(tree.root / "shards/train-0.tar", _samples(tree, ["cat", "dog"] * 3))


@layout(
    "L: class folders beside the archive they came from", "downloads", reads(r"photos\.tar|photos\.zip", train=PETS)
)
def _(tree: Tree) -> None:
    tree.pets("photos")
    _tar(tree.root / "photos.tar", {f"photos/{name}/{i}": {"jpg": tree.content()} for name in PETS for i in range(4)})
    tree.text("photos.zip", "PK")


@layout(
    "L: parquet shards beside the pictures of the README", "the Hub, cloned", reads(r"assets", train=PETS, test=TEST)
)
def _(tree: Tree) -> None:
    _pets(tree, "data/train-00000-of-00001.parquet", 8)
    _pets(tree, "data/test-00000-of-00001.parquet", 4)
    tree.images("assets", 2, "example_{}.png")
    tree.text("README.md", "# Pets", "![](assets/example_0.png)")
    tree.text(".gitattributes", "*.parquet filter=lfs")


@layout(
    "L: parquet and jsonl of the same images",
    "the Hub, cloned",
    refuses(
        "two formats hold images",
        r"train\.parquet",
        r"train\.jsonl",
        r"layout",
        ways=[({"layout": "parquet"}, reads(train=PETS)), ({"layout": "table"}, reads(train=PETS))],
    ),
)
def _(tree: Tree) -> None:
    _pets(tree, "train.parquet", 8)
    tree.lines("train.jsonl", [{"image": a, "label": b} for a, b in labelled(tree.images("images", 8))])


@layout("L: csv and jsonl of the same labels", "exported twice", reads(train=PETS))
def _(tree: Tree) -> None:
    rows = labelled(tree.images("images", 8))
    tree.table("labels.csv", "file_name,label", rows)
    tree.lines("labels.jsonl", [{"file_name": path, "label": label} for path, label in rows])


@layout("L: a parquet that names files", "Spark", reads(train=PETS))
def _(tree: Tree) -> None:
    rows = labelled(tree.images("images", 8))
    pq.write_table(
        pa.table({"path": [a for a, _ in rows], "label": [b for _, b in rows]}), tree.root / "labels.parquet"
    )


@layout("L: a parquet that names files and their splits", "Spark", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    rows = [*((*row, "train") for row in labelled(tree.images("images", 8))),
            *((*row, "test") for row in labelled(tree.images("images", 4, "t{}.jpg")))]  # fmt: skip
    columns = dict(zip(("path", "label", "split"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tree.root / "labels.parquet")


@layout("L: whole numbers as floats", "pandas", reads(train={"0": 4, "2": 4}))
def _(tree: Tree) -> None:
    tree.rows(8, label=([0.0, 2.0] * 4, datasets.Value("float64"))).to_parquet(tree.root / "train.parquet")


@layout("L: fractions as labels", "regression sets", refuses("fractions are no classes", r"fraction|label", r"label"))
def _(tree: Tree) -> None:
    tree.rows(8, label=([0.5, 2.25] * 4, datasets.Value("float64"))).to_parquet(tree.root / "train.parquet")


@layout("L: one-hot columns in parquet", "pandas", reads(train={"daisy": 4, "rose": 4}))
def _(tree: Tree) -> None:
    columns = {"daisy": ([1, 0] * 4, INTEGER), "rose": ([0, 1] * 4, INTEGER), "tulip": ([0] * 8, INTEGER)}
    tree.rows(8, **columns).to_parquet(tree.root / "train.parquet")


@layout(
    "L: columns of 0 and 1, several to an image",
    "multi-label sets",
    refuses("several labels per image", r"(?i)several labels", r"daisy", never=[r"label_column=daisy"]),
)
def _(tree: Tree) -> None:
    rows = [(path, 1, i % 2, int(i % 3 == 0)) for i, path in enumerate(names(tree.images("images", 8)))]
    tree.table("labels.csv", "file,daisy,rose,tulip", rows)


@layout(
    "L: captions in metadata.csv beside class folders", "datasets' imagefolder", reads(r"metadata\.csv", train=PETS)
)
def _(tree: Tree) -> None:
    rows = [(path, f"photo number {i}, of an animal") for i, path in enumerate(tree.pets())]
    tree.text("metadata.csv", "file_name,caption", *(f'{a},"{b}"' for a, b in rows))


@layout(
    "L: captions in metadata.jsonl in split folders with classes",
    "datasets' imagefolder",
    reads(r"metadata\.jsonl", train=PETS, test=TEST),
)
def _(tree: Tree) -> None:
    for split, count in (("train", 4), ("test", 2)):
        paths = tree.pets(split, count)
        tree.lines(
            f"{split}/metadata.jsonl",
            [
                {"file_name": path.removeprefix(f"{split}/"), "text": f"a photo, number {i}"}
                for i, path in enumerate(paths)
            ],
        )


@layout("L: metadata.jsonl with labels in flat split folders", "datasets' imagefolder", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    for split, count in (("train", 8), ("test", 4)):
        rows = labelled(names(tree.images(split, count)))
        tree.lines(f"{split}/metadata.jsonl", [{"file_name": a, "label": b} for a, b in rows])


@layout("L: one metadata.csv above split folders", "datasets' imagefolder", reads(train=PETS, validation=TEST))
def _(tree: Tree) -> None:
    rows = [*labelled(tree.images("train", 8)), *labelled(tree.images("validation", 4))]
    tree.table("metadata.csv", "file_name,label", rows)


@layout(
    "L: captions only, flat images",
    "datasets' imagefolder",
    refuses("a text of its own for each image is no class", r"caption", r"metadata\.csv"),
)
def _(tree: Tree) -> None:
    rows = [(path, f"photo number {i}") for i, path in enumerate(names(tree.images("train", 12)))]
    tree.table("train/metadata.csv", "file_name,caption", rows)


for _name, _folders, _level in (
    ("folds/fold0 to fold4 above the same classes", [f"folds/fold{i}" for i in range(5)], 3),
    ("sizes/full and sizes/thumbs above the same classes", ["sizes/full", "sizes/thumbs"], 3),
    ("original and augmented above the same classes", ["original", "augmented"], 2),
    ("day and night above the same classes", ["day", "night"], 2),
):

    @layout(
        f"L: {_name}",
        "web shops, cross-validation",
        refuses(
            "folders with the same classes below",
            _folders[0].split("/")[-1], r"\bcat\b", r"class_level",
            ways=[({"class_level": _level}, reads(train={"cat": 2 * len(_folders), "dog": 2 * len(_folders)}))],
        ),
    )  # fmt: skip
    def _(tree: Tree, each: Sequence[str] = _folders) -> None:
        tree.folders({f"{folder}/{name}": 2 for folder in each for name in ("cat", "dog")})


@layout(
    "L: zip files of class folders",
    "datasets' imagefolder",
    refuses("archives must be unpacked", r"train\.zip|\.zip", r"unpack|unzip"),
)
def _(tree: Tree) -> None:
    tree.text("train.zip", "PK")
    tree.text("test.zip", "PK")


@layout("L: TFRecords", "TensorFlow, Kaggle TPU sets", refuses("a format that is not read", r"tfrec"))
def _(tree: Tree) -> None:
    tree.text("tfrecords-jpeg-224x224/train/00-224x224-798.tfrec", "x")


@layout("L: detection labels beside flat split folders", "YOLO", refuses("images without classes", r"class folder"))
def _(tree: Tree) -> None:
    for split in ("train", "val"):
        for path in tree.images(f"images/{split}", 4):
            tree.text(path.replace("images", "labels").replace(".jpg", ".txt"), "0 0.5 0.5 0.2 0.3")
    tree.text("data.yaml", "names: [cat, dog]")


@layout(
    "L: masks in SegmentationClass/ beside flat JPEGImages/",
    "Pascal VOC",
    refuses("images without classes", r"class folder|label"),
)
def _(tree: Tree) -> None:
    for path in tree.images("VOC2012/JPEGImages", 6, "2008_{:06d}.jpg"):
        tree.text(path.replace("JPEGImages", "Annotations").replace(".jpg", ".xml"), "<annotation/>")
        tree.image(path.replace("JPEGImages", "SegmentationClass").replace(".jpg", ".png"))
    tree.text("VOC2012/ImageSets/Segmentation/train.txt", "2008_000000", "2008_000001")


# --- C and D in files that hold images ---------------------------------------------------------------------


@layout("C: a column split in one parquet file", "Hub, pandas", reads(train=PETS, validation=TEST, test=TEST))
def _(tree: Tree) -> None:
    splits = ["train"] * 8 + ["val"] * 4 + ["test"] * 4
    tree.rows(16, label=(["cat", "dog"] * 8, TEXT), split=(splits, TEXT)).to_parquet(tree.root / "all.parquet")


@layout("C: a column is_train in one parquet file", "Hub, pandas", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    truths = ([True] * 8 + [False] * 4, datasets.Value("bool"))
    tree.rows(12, label=(["cat", "dog"] * 6, TEXT), is_train=truths).to_parquet(tree.root / "all.parquet")


@layout("C: a column fold in parquet", "Hub",
        refuses("parts that are neither train nor test", r"fold", r"split_column",
                ways=[({"split_column": "none"}, reads(train={"cat": 6, "dog": 6})),
                      ({"validation_split": "2"}, reads(train=PETS, validation=TEST))]))  # fmt: skip
def _(tree: Tree) -> None:
    columns = {"label": (["cat", "dog"] * 6, TEXT), "fold": ([0] * 4 + [1] * 4 + [2] * 4, INTEGER)}
    tree.rows(12, **columns).to_parquet(tree.root / "train.parquet")


@layout(
    "C: a ClassLabel called split in a saved dataset", "save_to_disk", reads(train=PETS, validation=TEST, test=TEST)
)
def _(tree: Tree) -> None:
    splits = ([2] * 8 + [0] * 4 + [1] * 4, _names("dev", "test", "train"))
    tree.rows(16, label=([0, 1] * 8, _names("cat", "dog")), split=splits).save_to_disk(str(tree.root))


@layout("C: a column set in a saved dataset", "save_to_disk", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    splits = (["train"] * 8 + ["test"] * 4, TEXT)
    tree.rows(12, label=([0, 1] * 6, _names("cat", "dog")), set=splits).save_to_disk(str(tree.root))


@layout("D: parquet shards whose class names stand in another order", "two scripts", reads(train={"cat": 16, "dog": 8}))
def _(tree: Tree) -> None:
    tree.rows(12, label=([0] * 8 + [1] * 4, _names("cat", "dog"))).to_parquet(
        tree.root / "train-00000-of-00002.parquet"
    )
    tree.rows(12, label=([1] * 8 + [0] * 4, _names("dog", "cat"))).to_parquet(
        tree.root / "train-00001-of-00002.parquet"
    )


@layout("D: train and test parquet whose class names stand in another order", "two scripts",
        reads(train=PETS, test={"cat": 3, "dog": 1}))  # fmt: skip
def _(tree: Tree) -> None:
    tree.rows(8, label=([0, 1] * 4, _names("cat", "dog"))).to_parquet(tree.root / "train.parquet")
    tree.rows(4, label=([1, 1, 1, 0], _names("dog", "cat"))).to_parquet(tree.root / "test.parquet")


@layout("D: a shard that knows more classes than the other", "grown sets", reads(train={"cat": 4, "dog": 8, "fox": 4}))
def _(tree: Tree) -> None:
    tree.rows(8, label=([0, 1] * 4, _names("cat", "dog"))).to_parquet(tree.root / "train-00000-of-00002.parquet")
    tree.rows(8, label=([0, 1] * 4, _names("dog", "fox"))).to_parquet(tree.root / "train-00001-of-00002.parquet")


@layout("D: a shard with names and a shard with numbers", "two scripts",
        refuses("a number among names means nothing", r"00001-of-00002|00000-of-00002", r"cat"))  # fmt: skip
def _(tree: Tree) -> None:
    tree.rows(8, label=([0, 1] * 4, _names("cat", "dog"))).to_parquet(tree.root / "train-00000-of-00002.parquet")
    tree.rows(8, label=([0, 1] * 4, INTEGER)).to_parquet(tree.root / "train-00001-of-00002.parquet")


@layout(
    "D: saved splits whose class names stand in another order",
    "save_to_disk",
    reads(train=PETS, test={"cat": 3, "dog": 1}),
)
def _(tree: Tree) -> None:
    train = tree.rows(8, label=([0, 1] * 4, _names("cat", "dog")))
    test = tree.rows(4, label=([1, 1, 1, 0], _names("dog", "cat")))
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tree.root))


@layout("D: a saved dataset put together from parts of another order", "save_to_disk",
        reads(train={"cat": 16, "dog": 8}))  # fmt: skip
def _(tree: Tree) -> None:
    tree.rows(12, label=([0] * 8 + [1] * 4, _names("cat", "dog"))).save_to_disk(str(tree.root))
    other = tree.rows(12, label=([1] * 8 + [0] * 4, _names("dog", "cat")))
    state = json.loads((tree.root / "state.json").read_text())
    table = other.data.table
    with pa.OSFile(str(tree.root / "part-2.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    state["_data_files"].append({"filename": "part-2.arrow"})
    (tree.root / "state.json").write_text(json.dumps(state))


@layout("D: True and False in parquet", "Hub", reads(train={"false": 4, "true": 4}))
def _(tree: Tree) -> None:
    tree.rows(8, is_ripe_label=([True, False] * 4, datasets.Value("bool"))).to_parquet(tree.root / "train.parquet")


@layout("E: a parquet whose class names have a word twice", "ImageNet's two cranes, two maillots",
        refuses("two classes of one name", r"crane"))  # fmt: skip
def _(tree: Tree) -> None:
    rows = tree.rows(9, label=([0, 1, 2] * 3, _names("crane", "dog", "crane2")))
    rows.to_parquet(tree.root / "made.parquet")
    table = pq.read_table(tree.root / "made.parquet")
    (tree.root / "made.parquet").unlink()
    metadata = {key: value.replace(b'"crane2"', b'"crane"') for key, value in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(metadata), tree.root / "train.parquet")


@layout(
    "E: two columns of class names, the finer one taken",
    "CIFAR-100",
    reads(r"coarse_label", train={"fish": 4, "rose": 4, "tulip": 4}),
)
def _(tree: Tree) -> None:
    fine = ([0, 1, 2] * 4, _names("fish", "rose", "tulip"))
    coarse = ([0, 1, 1] * 4, _names("animal", "flower"))
    tree.rows(12, fine_label=fine, coarse_label=coarse).to_parquet(tree.root / "train.parquet")


# --- more of the same kinds --------------------------------------------------------------------------------


@layout("L: a saved dataset below a wrapping folder", "archives", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    train, test = (tree.rows(n, label=([0, 1] * (n // 2), _names("cat", "dog"))) for n in (8, 4))
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(tree.root / "pets"))


@layout(
    "L: two configurations in folders of their own",
    "the Hub, cloned",
    refuses("two datasets in one folder", r"small", r"large", ways=[({"dataset": "small"}, reads(train=TEST))]),
)
def _(tree: Tree) -> None:
    _pets(tree, "small/train-00000-of-00001.parquet", 4)
    _pets(tree, "large/train-00000-of-00001.parquet", 8)


@layout("L: parquet files in a folder with signs that file patterns use", "downloads", reads(train=PETS, test=TEST))
def _(tree: Tree) -> str:
    _pets(tree, "my [2024] data *?/train.parquet", 8)
    _pets(tree, "my [2024] data *?/test.parquet", 4)
    return "my [2024] data *?"


@layout("L: the same image in train and test parquet", "leaks",
        refuses("the same bytes in train and test", r"train", r"test", r"allow_overlap",
                ways=[({"allow_overlap": True}, reads(train=PETS, test=TEST))]))  # fmt: skip
def _(tree: Tree) -> None:
    _pets(tree, "train.parquet", 8)
    tree.num_images -= 1
    _pets(tree, "test.parquet", 4)


@layout("L: a csv with image bytes as text", "exports", refuses("no image files", r"no image|no column"))
def _(tree: Tree) -> None:
    tree.table("train.csv", "image,label", [("iVBORw0KGgo=", label) for label in ("cat", "dog") * 4])


@layout("L: a parquet cut off", "half a download", refuses("a file is broken", r"train\.parquet"))
def _(tree: Tree) -> None:
    _pets(tree, "train.parquet", 8)
    file = tree.root / "train.parquet"
    file.write_bytes(file.read_bytes()[:300])


@layout(
    "L: class folders beside a broken parquet",
    "half a download",
    refuses(
        "a broken file may hold images", r"old\.parquet", r"layout", ways=[({"layout": "folders"}, reads(train=PETS))]
    ),
)
def _(tree: Tree) -> None:
    tree.pets()
    tree.text("old.parquet", "PAR1")


@layout("K: tars beside a json of their shards", "webdataset", reads(train=PETS))
def _(tree: Tree) -> None:
    _tar(tree.root / "train-0000.tar", _samples(tree, ["cat", "dog"] * 4))
    tree.json("_info.json", {"shards": ["train-0000.tar"], "num_samples": 8})
    tree.text("classes.txt", "cat", "dog")

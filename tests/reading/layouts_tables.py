"""Layouts with tables: kinds B, C, D and E of "data read as it was meant", and what is published so."""

from __future__ import annotations

from trees import PETS, Tree, labelled, layout, names, reads, refuses, stems

TEST = {"cat": 2, "dog": 2}

# --- B: tables that must be understood ---------------------------------------------------------------------


@layout("B: train.csv of ids beside train_images/", "Kaggle", reads(train=PETS))
def _(tree: Tree) -> None:
    tree.table("train.csv", "id,label", labelled(stems(tree.images("train_images", 8, "img_{:04d}.jpg"))))


@layout("B: train.csv of bare names beside train_images/ and test_images/", "Kaggle: Cassava leaf disease",
        reads("sample_submission", "test", train={"0": 4, "4": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    tree.table("train.csv", "image_id,label", labelled(names(tree.images("train_images", 8, "{:06d}.jpg")), (0, 4)))
    test = names(tree.images("test_images", 2, "22{:05d}.jpg"))
    tree.table("sample_submission.csv", "image_id,label", [(name, 4) for name in test])
    tree.json("label_num_to_disease_map.json", {"0": "Cassava Bacterial Blight", "4": "Healthy"})


@layout("B: labels.csv beside a flat train/", "Kaggle: Dog breed identification",
        reads("sample_submission", "test", train={"boxer": 4, "whippet": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    ids = stems(tree.images("train", 8, "{:032x}.jpg"))
    tree.table("labels.csv", "id,breed", labelled(ids, ("boxer", "whippet")))
    test = stems(tree.images("test", 3, "f{:031x}.jpg"))
    tree.table("sample_submission.csv", "id,boxer,whippet", [(name, 0.5, 0.5) for name in test])


@layout("B: train and test images have the same ids", "Kaggle: CIFAR-10",
        reads("(?i)submission", "test", train={"automobile": 4, "frog": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    ids = stems(tree.images("train", 8, "{}.png", first=1))
    tree.table("trainLabels.csv", "id,label", labelled(ids, ("frog", "automobile")))
    test = stems(tree.images("test", 10, "{}.png", first=1))
    tree.table("sampleSubmission.csv", "id,label", [(name, "cat") for name in test])


@layout("B: train_labels.csv with 0 and 1", "Kaggle: Histopathologic cancer detection",
        reads("sample_submission", "test", train={"0": 4, "1": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    tree.table("train_labels.csv", "id,label", labelled(stems(tree.images("train", 8, "{:040x}.tif")), (0, 1)))
    test = stems(tree.images("test", 3, "f{:039x}.tif"))
    tree.table("sample_submission.csv", "id,label", [(name, 0) for name in test])


@layout("B: train.csv and test.csv, test without labels", "Kaggle: APTOS 2019 blindness detection",
        reads("test", train={"0": 4, "2": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    tree.table("train.csv", "id_code,diagnosis", labelled(stems(tree.images("train_images", 8, "{:012x}.png")), (2, 0)))
    tree.table("test.csv", "id_code", [(name,) for name in stems(tree.images("test_images", 3, "f{:011x}.png"))])


@layout(
    "B: one-hot train.csv, all images in one folder",
    "Kaggle: Plant pathology 2020",
    reads("sample_submission", "test", "scab", train={"healthy": 4, "rust": 4}),
)
def _(tree: Tree) -> None:
    ids = stems(tree.images("images", 8, "Train_{}.jpg"))
    one_hot = {"healthy": (1, 0, 0, 0), "rust": (0, 0, 1, 0)}
    rows = [(name, *one_hot[str(label)]) for name, label in labelled(ids, ("healthy", "rust"))]
    tree.table("train.csv", "image_id,healthy,multiple_diseases,rust,scab", rows)
    test = stems(tree.images("images", 3, "Test_{}.jpg"))
    tree.table("test.csv", "image_id", [(name,) for name in test])
    tree.table("sample_submission.csv", "image_id,healthy,multiple_diseases,rust,scab",
               [(name, 0.25, 0.25, 0.25, 0.25) for name in test])  # fmt: skip


@layout("B: one-hot ground truth beside Training_Input", "ISIC 2018",
        reads(train={"BCC": 4, "MEL": 4, "NV": 4}, validation={"BCC": 1, "MEL": 1, "NV": 1}))  # fmt: skip
def _(tree: Tree) -> None:
    one_hot = {"MEL": "1.0,0.0,0.0", "NV": "0.0,1.0,0.0", "BCC": "0.0,0.0,1.0"}
    for part, count, first in (("Training", 12, 24306), ("Validation", 3, 34321)):
        folder = f"ISIC2018_Task3_{part}_Input"
        ids = stems(tree.images(folder, count, "ISIC_{:07d}.jpg", first=first))
        tree.text(f"{folder}/ATTRIBUTION.txt", "Thanks")
        rows = [(name, one_hot[str(label)]) for name, label in labelled(ids, tuple(one_hot))]
        truth = f"ISIC2018_Task3_{part}_GroundTruth"
        tree.table(f"{truth}/{truth}.csv", "image,MEL,NV,BCC", rows)


_ISIC = reads(train={"MEL": 4, "NV": 4})


@layout(
    "B: one-hot ground truth and a second table of metadata",
    "ISIC 2019",
    refuses(
        "two tables of the same images, each with columns that could be the label",
        r"ISIC_2019_Training_GroundTruth\.csv", r"ISIC_2019_Training_Metadata\.csv", r"data\.table|label_column",
        ways=[({"table": ("ISIC_2019_Training_GroundTruth.csv",)}, _ISIC)],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    ids = stems(tree.images("ISIC_2019_Training_Input", 8, "ISIC_{:07d}.jpg"))
    one_hot = {"MEL": "1.0,0.0,0.0", "NV": "0.0,1.0,0.0"}
    rows = [(name, one_hot[str(label)]) for name, label in labelled(ids, ("MEL", "NV"))]
    tree.table("ISIC_2019_Training_GroundTruth.csv", "image,MEL,NV,UNK", rows)
    more = [(name, 55.0, "anterior torso", "", "male" if index % 3 else "female") for index, name in enumerate(ids)]
    tree.table("ISIC_2019_Training_Metadata.csv", "image,age_approx,anatom_site_general,lesion_id,sex", more)


@layout(
    "B: labels and paths in two tables",
    "DrivenData: Conser-vision",
    refuses(
        "two tables of the same images, each with columns that could be the label",
        r"train_features\.csv",
        r"train_labels\.csv",
        ways=[({"table": ("train_labels.csv",)}, reads(train={"bird": 4, "blank": 4}))],
    ),
)
def _(tree: Tree) -> None:
    paths = tree.images("train_features", 8, "ZJ{:06d}.jpg")
    sites = [f"S{index % 3:04d}" for index in range(8)]
    tree.table("train_features.csv", "id,filepath,site", zip(stems(paths), paths, sites, strict=True))
    one_hot = {"bird": "1.0,0.0,0.0", "blank": "0.0,1.0,0.0"}
    tree.table("train_labels.csv", "id,bird,blank,hog",
               [(name, one_hot[str(label)]) for name, label in labelled(stems(paths), ("bird", "blank"))])  # fmt: skip
    test = tree.images("test_features", 3, "ZJ9{:05d}.jpg")
    tree.table(
        "test_features.csv", "id,filepath,site", [(*row, "S0009") for row in zip(stems(test), test, strict=True)]
    )
    tree.table("submission_format.csv", "id,bird,blank,hog", [(name, 0.3, 0.3, 0.4) for name in stems(test)])


@layout(
    "B: two folders of parts and a table with several columns",
    "HAM10000",
    refuses(
        "which column is the label cannot be told",
        r"\bdx\b.*2", r"dx_type", r"localization.*3", r"label_column",
        ways=[({"label_column": "dx"}, reads(train={"mel": 6, "nv": 6}))],
        never=[r"label_column=(age|lesion_id|image_id)\b"],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    ids = [
        *stems(tree.images("HAM10000_images_part_1", 6, "ISIC_{:07d}.jpg")),
        *stems(tree.images("HAM10000_images_part_2", 6, "ISIC_{:07d}.jpg", first=100)),
    ]
    rows = [
        (
            f"HAM_{index // 2:07d}",
            name,
            ("mel", "nv")[index // 2 % 2],
            ("histo", "follow_up")[index % 2],
            40.0 + 5 * (index % 7),
            ("male", "female")[index % 2],
            ("back", "face", "hand")[index % 3],
        )
        for index, name in enumerate(ids)
    ]
    tree.table("HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age,sex,localization", rows)
    pixels = ",".join(f"pixel{index:04d}" for index in range(4))
    tree.table("hmnist_2_2_L.csv", f"{pixels},label", [(1, 2, 3, 4, index % 2) for index in range(12)])


@layout(
    "B: findings, follow-ups and ages beside lists of the splits",
    "NIH chest X-rays",
    reads(train={"Mass": 4, "No Finding": 4}, test={"Mass": 2, "No Finding": 2}),
)  # fmt: skip
def _(tree: Tree) -> None:
    paths = [
        *tree.images("images_001/images", 6, "{:08d}_000.png"),
        *tree.images("images_002/images", 6, "1{:07d}_000.png"),
    ]
    rows = [
        (name, ("Mass", "No Finding")[index % 2], index % 5, index // 2, 30 + index, "MF"[index // 2 % 2],
         ("PA", "AP")[index % 3 == 0], 2048, 2500)
        for index, name in enumerate(names(paths))
    ]  # fmt: skip
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,Width,Height"
    tree.table("Data_Entry_2017.csv", head, rows)
    tree.text("train_val_list.txt", *names(paths)[:8])
    tree.text("test_list.txt", *names(paths)[8:])
    tree.table(
        "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h]", [(names(paths)[0], "Mass", 1, 2, 3, 4)]
    )


@layout("B: several findings in one cell", "NIH chest X-rays",
        refuses("several labels per image", r"(?i)several labels", r"\|"), label_column="Finding Labels")  # fmt: skip
def _(tree: Tree) -> None:
    found = ["Mass", "Mass|Nodule", "Nodule", "No Finding"] * 3
    paths = names(tree.images("images", 12, "{:08d}_000.png"))
    tree.table("Data_Entry_2017.csv", "Image Index,Finding Labels", zip(paths, found, strict=True))


for _name, _encoding in (
    ("latin-1", "latin-1"), ("utf-16", "utf-16"), ("UTF-8 with a byte order mark", "utf-8-sig"),
    ("utf-16 without a mark", "utf-16-le"),
):  # fmt: skip

    @layout(f"B: a csv in {_name}", "Excel, Windows", reads(train={"Vögel": 4, "café": 4}))
    def _(tree: Tree, encoding: str = _encoding) -> None:
        rows = labelled(tree.images("photos", 8), ("café", "Vögel"))
        tree.table("labels.csv", "file,label", rows, encoding=encoding)


for _name, _sep in (("semicolons", ";"), ("tabs", "\t"), ("bars", "|")):

    @layout(f"B: a csv with {_name}", "Excel in Europe, databases", reads(train={"cat, tame": 4, "dog": 4}))
    def _(tree: Tree, sep: str = _sep) -> None:
        tree.table("labels.csv", "file,label", labelled(tree.images("photos", 8), ("cat, tame", "dog")), sep)


for _name, _prefix, _slash in (
    ("backslashes", "", "\\"), ("drive letters", "C:\\Users\\me\\data\\", "\\"), ("leading slashes", "/", "/"),
    ("the folders of another machine", "/home/me/data/", "/"), ("./ before them", "./", "/"),
    ("the dataset's own name before them", "root/", "/"),
):  # fmt: skip

    @layout(f"B: paths with {_name}", "Windows, other people's machines", reads(train=PETS))
    def _(tree: Tree, prefix: str = _prefix, slash: str = _slash) -> None:
        paths = tree.images("photos/2024", 8)
        rows = [(prefix + path.replace("/", slash), label) for path, label in labelled(paths)]
        tree.table("labels.csv", "file,label", rows)


@layout("B: labels of mixed types", "hand-made", reads(train={"1": 4, "3.5": 4, "two": 4}))
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,label", labelled(tree.images("photos", 12), ("1", "3.5", "two")))


@layout("B: two tables with other columns", "two annotators", reads(train=PETS))
def _(tree: Tree) -> None:
    rows = labelled(tree.images("photos", 8))
    tree.table("monday.csv", "file,label", rows[::2])
    tree.table("tuesday.csv", "comment,label,file", [("fine", label, path) for path, label in rows[1::2]])


@layout("B: train.csv and test.csv with other columns", "two exports", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    tree.table("train.csv", "file,label", labelled(tree.images("photos", 8)))
    tree.table("test.csv", "label,file,remark", [(b, a, "x") for a, b in labelled(tree.images("photos", 4, "t{}.jpg"))])


@layout("B: a csv without a header", "hand-made", reads(train=PETS))
def _(tree: Tree) -> None:
    tree.table("labels.csv", "", labelled(tree.images("photos", 8)))


@layout("B: a csv with the index of pandas", "pandas", reads(train=PETS))
def _(tree: Tree) -> None:
    rows = labelled(tree.images("photos", 8))
    tree.table("labels.csv", ",file,label", [(index, *row) for index, row in enumerate(rows)])


@layout("B: names with spaces around them, empty lines at the end", "hand-made", reads(train=PETS))
def _(tree: Tree) -> None:
    rows = [f"{path} , {label}" for path, label in labelled(tree.images("photos", 8))]
    tree.text("labels.csv", "file, label", *rows, "", "")


@layout("B: Excel's sep= line", "Excel", reads(train=PETS))
def _(tree: Tree) -> None:
    rows = [f"{path};{label}" for path, label in labelled(tree.images("photos", 8))]
    tree.text("labels.csv", "sep=;", "file;label", *rows)


@layout("B: headers in another language", "Germany", reads(train=PETS))
def _(tree: Tree) -> None:
    tree.table("Tabelle1.csv", "Datei,Klasse", labelled(tree.images("Bilder", 8)), ";", "latin-1")


@layout("B: a txt list of path and number", "Caffe", reads(train={"0": 4, "1": 4}, validation={"0": 2, "1": 2}))
def _(tree: Tree) -> None:
    tree.table("train.txt", "", labelled(tree.images("images", 8), (0, 1)), " ")
    tree.table("val.txt", "", labelled(tree.images("images", 4, "v{}.jpg"), (0, 1)), " ")


@layout("B: a json that maps files to labels", "hand-made", reads(train=PETS))
def _(tree: Tree) -> None:
    tree.json("labels.json", dict(labelled(names(tree.images("images", 8)))))


@layout("B: a json that maps labels to files", "hand-made", reads(train=PETS))
def _(tree: Tree) -> None:
    paths = names(tree.images("images", 8))
    tree.json("labels.json", {"cat": paths[:4], "dog": paths[4:]})


@layout("B: a json list of records", "hand-made", reads(train=PETS))
def _(tree: Tree) -> None:
    tree.json("labels.json", [{"image": path, "label": label} for path, label in labelled(tree.images("images", 8))])


@layout("B: a jsonl with numbers and words as labels", "scripts", reads(train={"1": 4, "two": 4}))
def _(tree: Tree) -> None:
    labels = [1, "1", 1, "1"] + ["two"] * 4
    paths = tree.images("images", 8)
    tree.lines("labels.jsonl", [{"file_name": a, "label": b} for a, b in zip(paths, labels, strict=True)])


@layout("B: one category for each image", "COCO", reads(train=PETS, validation=TEST))
def _(tree: Tree) -> None:
    for split, count in (("train2017", 8), ("val2017", 4)):
        paths = names(tree.images(split, count, "{:012d}.jpg", first=count * 100))
        images = [{"id": 7 + i, "file_name": path, "width": 2, "height": 2} for i, path in enumerate(paths)]
        marks = [
            {"id": i, "image_id": 7 + i // 2, "category_id": 17 if i // 2 < count // 2 else 18, "bbox": [0, 0, 1, 1]}
            for i in range(count * 2)
        ]
        kinds = [
            {"id": 17, "name": "cat", "supercategory": "animal"},
            {"id": 18, "name": "dog"},
            {"id": 19, "name": "horse"},
        ]
        content = {"info": {}, "images": images, "annotations": marks, "categories": kinds}
        tree.json(f"annotations/instances_{split}.json", content)


@layout("B: several categories for one image", "COCO",
        refuses("several labels per image", r"(?i)several labels|more than one", r"instances_train\.json"))  # fmt: skip
def _(tree: Tree) -> None:
    paths = names(tree.images("train", 4, "{:012d}.jpg"))
    images = [{"id": i, "file_name": path} for i, path in enumerate(paths)]
    marks = [{"id": i, "image_id": i // 2, "category_id": i % 2} for i in range(8)]
    kinds = [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]
    tree.json("annotations/instances_train.json", {"images": images, "annotations": marks, "categories": kinds})


@layout("B: JSON", "Label Studio", reads(train=PETS))
def _(tree: Tree) -> None:
    tasks = [
        {
            "id": index, "file_upload": path,
            "annotations": [{"id": index, "completed_by": 1, "was_cancelled": False, "result": [
                {"value": {"choices": [label]}, "from_name": "choice", "to_name": "image", "type": "choices"}]}],
            "data": {"image": f"/data/upload/1/{path}"}, "total_annotations": 1, "project": 1,
        }
        for index, (path, label) in enumerate(labelled(names(tree.images("images", 8, "0a1b2c3d-{}.jpg"))))
    ]  # fmt: skip
    tree.json("project-1-at-2024-01-01.json", tasks)


@layout("B: JSON-MIN", "Label Studio", reads(train=PETS))
def _(tree: Tree) -> None:
    tree.json("project-1-at-2024-01-01.json", [
        {"image": f"/data/upload/1/{path}", "id": index, "choice": label, "annotator": 1, "annotation_id": index,
         "created_at": f"2024-01-01T00:00:0{index}Z", "lead_time": index + 0.5}
        for index, (path, label) in enumerate(labelled(names(tree.images("images", 8, "0a1b2c3d-{}.jpg"))))
    ])  # fmt: skip


@layout("B: CSV", "Label Studio", reads(train=PETS))
def _(tree: Tree) -> None:
    rows = [
        (f"/data/upload/1/{path}", index, label, 1, index, f"2024-01-01T00:00:0{index}Z", index + 0.5)
        for index, (path, label) in enumerate(labelled(names(tree.images("images", 8, "0a1b2c3d-{}.jpg"))))
    ]
    tree.table("project-1.csv", "image,id,choice,annotator,annotation_id,created_at,lead_time", rows)


@layout("B: one-hot _classes.csv in each split", "Roboflow",
        reads(train=PETS, validation=TEST, test=TEST))  # fmt: skip
def _(tree: Tree) -> None:
    for split, count in (("train", 8), ("valid", 4), ("test", 4)):
        paths = names(tree.images(split, count, split + "_{}_jpg.rf.0a1b.jpg"))
        rows = [(path, *((1, 0) if label == "cat" else (0, 1))) for path, label in labelled(paths)]
        tree.text(f"{split}/_classes.csv", "filename, cat, dog", *(", ".join(map(str, row)) for row in rows))
    tree.text("README.roboflow.txt", "Exported via roboflow.com")


@layout("B: folders", "Roboflow", reads(train=PETS, validation=TEST, test=TEST))
def _(tree: Tree) -> None:
    tree.pets("train")
    tree.pets("valid", 2)
    tree.pets("test", 2)
    tree.text("README.roboflow.txt", "Exported via roboflow.com")
    tree.text("README.dataset.txt", "Undefined")


@layout(
    "B: several rows of labels for one image",
    "Open Images",
    refuses("several labels per image", r"(?i)several labels|different labels|more than one", r"imagelabels\.csv"),
)
def _(tree: Tree) -> None:
    ids = stems(tree.images("train", 6, "{:016x}.jpg"))
    rows = [(name, "verification", label, 1) for name in ids for label in ("/m/011k07", "/m/0120dh")]
    tree.table("train-annotations-human-imagelabels.csv", "ImageID,Source,LabelName,Confidence", rows)
    tree.table("class-descriptions.csv", "", [("/m/011k07", "Tortoise"), ("/m/0120dh", "Sea turtle")])


@layout("B: class folders and lists of ids for train and test", "Food-101",
        reads(train={"apple_pie": 4, "baby_back_ribs": 4}, test={"apple_pie": 2, "baby_back_ribs": 2}))  # fmt: skip
def _(tree: Tree) -> str:
    train: dict[str, list[str]] = {}
    test: dict[str, list[str]] = {}
    for number, name in enumerate(("apple_pie", "baby_back_ribs")):
        paths = tree.images(f"food-101/images/{name}", 6, "{}.jpg", first=100 + 10 * number)
        ids = [f"{name}/{stem}" for stem in stems(paths)]
        train[name], test[name] = ids[:4], ids[4:]
    for split, content in (("train", train), ("test", test)):
        tree.text(f"food-101/meta/{split}.txt", *(each for ids in content.values() for each in ids))
        tree.json(f"food-101/meta/{split}.json", content)
    tree.text("food-101/meta/classes.txt", *train)
    tree.text("food-101/meta/labels.txt", "Apple pie", "Baby back ribs")
    return "food-101"


@layout(
    "B: ten lists of splits that contradict each other",
    "DTD",
    refuses(
        "the same images in train1.txt and test2.txt",
        r"train1\.txt|train2\.txt",
        r"test1\.txt|test2\.txt|val1\.txt|val2\.txt",
        ways=[
            (
                {"table": ("labels/train1.txt", "labels/val1.txt", "labels/test1.txt")},
                reads(
                    train={"banded": 2, "dotted": 2},
                    validation={"banded": 2, "dotted": 2},
                    test={"banded": 2, "dotted": 2},
                ),
            ),
            ({"layout": "folders"}, reads(train={"banded": 6, "dotted": 6})),
        ],
    ),
)
def _(tree: Tree) -> None:
    paths = {name: tree.images(f"images/{name}", 6, name + "_{:04d}.jpg") for name in ("banded", "dotted")}
    for turn in (1, 2, 3):
        for place, split in enumerate(("train", "val", "test")):
            first = 2 * ((place + turn) % 3)
            chosen = [path.removeprefix("images/") for each in paths.values() for path in each[first : first + 2]]
            tree.text(f"labels/{split}{turn}.txt", *chosen)
    tree.text(
        "labels/labels_joint_anno.txt", *(f"{path.removeprefix('images/')} banded dotted " for path in paths["banded"])
    )


_INDOOR = ("bar", "kitchen")


@layout("B: class folders and two lists that name them all", "MIT Indoor 67",
        reads(train={"bar": 4, "kitchen": 4}, test={"bar": 2, "kitchen": 2}))  # fmt: skip
def _(tree: Tree) -> None:
    paths = [tree.images(f"Images/{name}", 6, name + "{:03d}.jpg") for name in _INDOOR]
    tree.text("TrainImages.txt", *(path.removeprefix("Images/") for each in paths for path in each[:4]))
    tree.text("TestImages.txt", *(path.removeprefix("Images/") for each in paths for path in each[4:]))


@layout(
    "B: class folders and two lists that name a third",
    "MIT Indoor 67",
    refuses(
        "the lists name a third of the images",
        r"TrainImages\.txt", r"12\b", r"data\.table|layout",
        ways=[
            (
                {"table": ("TrainImages.txt", "TestImages.txt")},
                reads(train={"bar": 2, "kitchen": 2}, test={"bar": 1, "kitchen": 1}),
            ),
            ({"layout": "folders"}, reads(train={"bar": 9, "kitchen": 9})),
        ],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    paths = [tree.images(f"Images/{name}", 9, name + "{:03d}.jpg") for name in _INDOOR]
    tree.text("TrainImages.txt", *(path.removeprefix("Images/") for each in paths for path in each[:2]))
    tree.text("TestImages.txt", *(path.removeprefix("Images/") for each in paths for path in each[2:3]))


_BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross")


@layout(
    "B: ids, names, labels and splits in four files",
    "CUB-200-2011",
    refuses(
        "a list of splits that cannot be joined",
        r"train_test_split\.txt",
        r"layout",
        ways=[({"layout": "folders"}, reads(train=dict.fromkeys(_BIRDS, 4)))],
    ),
)
def _(tree: Tree) -> str:
    paths = [path.removeprefix("CUB_200_2011/images/") for name in _BIRDS
             for path in tree.images(f"CUB_200_2011/images/{name}", 4, name[4:] + "_{:04d}.jpg")]  # fmt: skip
    tree.table("CUB_200_2011/images.txt", "", enumerate(paths, 1), " ")
    tree.table("CUB_200_2011/image_class_labels.txt", "", [(i + 1, i // 4 + 1) for i in range(8)], " ")
    tree.table("CUB_200_2011/train_test_split.txt", "", [(i + 1, int(i % 2 == 0)) for i in range(8)], " ")
    tree.table("CUB_200_2011/classes.txt", "", enumerate(_BIRDS, 1), " ")
    tree.table("CUB_200_2011/bounding_boxes.txt", "", [(i + 1, 60.0, 27.0, 325.0, 304.0) for i in range(8)], " ")
    return "CUB_200_2011"


@layout(
    "B: the class is in the file name, lists name ids",
    "Oxford-IIIT Pet",
    refuses("images without classes, and lists of several numbers", r"test\.txt|trainval\.txt|class folder"),
)
def _(tree: Tree) -> None:
    breeds = {"Abyssinian": (1, 1, 1), "beagle": (5, 2, 4), "boxer": (8, 2, 7)}
    rows = []
    for name, numbers in breeds.items():
        for path in tree.images("images", 4, name + "_{}.jpg"):
            tree.image(f"annotations/trimaps/{path[7:-4]}.png")
            rows.append((path[7:-4], *numbers))
    tree.table("annotations/trainval.txt", "", [row for index, row in enumerate(rows) if index % 4 < 2], " ")
    tree.table("annotations/test.txt", "", [row for index, row in enumerate(rows) if index % 4 > 1], " ")
    tree.text("annotations/list.txt", "#Image CLASS-ID SPECIES BREED ID", *(" ".join(map(str, row)) for row in rows))


@layout("B: the class is in the file name", "Kaggle: Dogs vs. cats",
        refuses("images without classes", r"class folder"))  # fmt: skip
def _(tree: Tree) -> None:
    tree.images("train", 4, "cat.{}.jpg")
    tree.images("train", 4, "dog.{}.jpg")
    tree.images("test1", 4, "{}.jpg", first=1)
    tree.text("sampleSubmission.csv", "id,label", "1,0", "2,0", "3,0", "4,0")


@layout("B: labels only in a MATLAB file", "Oxford 102 flowers",
        refuses("images without classes", r"class folder", r"\.mat\b"))  # fmt: skip
def _(tree: Tree) -> None:
    tree.images("jpg", 6, "image_{:05d}.jpg")
    tree.text("imagelabels.mat", "MATLAB 5.0")


@layout("B: labels only in a workbook", "hospitals", refuses("images without classes", r"class folder", r"\.xlsx\b"))
def _(tree: Tree) -> None:
    tree.images("images", 6)
    tree.text("labels.xlsx", "PK")


@layout("B: pixels in a table", "Kaggle: FER2013", refuses("no image files", r"no images|pixels"))
def _(tree: Tree) -> None:
    rows = [(index % 2, "70 80 82 72", ("Training", "PublicTest")[index > 5]) for index in range(8)]
    tree.table("fer2013.csv", "emotion,pixels,Usage", rows)


@layout(
    "B: addresses instead of files",
    "Unsplash lite",
    refuses("images that must be downloaded first", r"https://|download"),
)
def _(tree: Tree) -> None:
    rows = [(f"https://example.org/{index}.jpg", ("cat", "dog")[index % 2]) for index in range(8)]
    tree.table("train.csv", "url,label", rows)


@layout(
    "B: three label files at once",
    "FGVC-Aircraft",
    refuses(
        "several tables name the same images with other labels",
        r"images_variant_", r"images_manufacturer_",
        ways=[
            (
                {"table": ("data/images_variant_train.txt", "data/images_variant_test.txt")},
                reads(train={"707-320": 3, "Cessna 172": 3}, test={"707-320": 2, "Cessna 172": 2}),
            )
        ],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    for split, count, first in (("train", 6, 1000), ("test", 4, 2000)):
        ids = stems(tree.images("data/images", count, "{:07d}.jpg", first=first))
        for kind, labels in (("variant", ("707-320", "Cessna 172")), ("manufacturer", ("Boeing", "Cessna"))):
            tree.table(f"data/images_{kind}_{split}.txt", "", labelled(ids, labels), " ")
    tree.text("data/variants.txt", "707-320", "Cessna 172")


@layout("B: boxes, ids and paths in Train.csv and Test.csv, and a table of signs", "Kaggle: GTSRB",
        reads("Meta", train={"0": 4, "2": 4, "11": 4}, test={"0": 2, "2": 2, "11": 2}))  # fmt: skip
def _(tree: Tree) -> None:
    head = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path"
    rows = []
    for kind in (0, 2, 11):
        paths = tree.images(f"Train/{kind}", 4, f"{kind:05d}" + "_{:05d}.png")
        rows += [(27 + i, 26 + i % 2, 5, 5, 22, 20 + i, kind, path) for i, path in enumerate(paths)]
    tree.table("Train.csv", head, rows)
    test = labelled(tree.images("Test", 6, "{:05d}.png"), (11, 0, 2))
    tree.table("Test.csv", head, [(53 + i, 54, 6, 5, 48, 49, kind, path) for i, (path, kind) in enumerate(test)])
    signs = [(tree.image(f"Meta/{kind}.png"), kind, 0, kind % 3, "3.29") for kind in (0, 2, 11)]
    tree.table("Meta.csv", "Path,ClassId,ShapeId,ColorId,SignId", signs)


@layout("B: an annotation csv with semicolons in each class folder", "GTSRB",
        reads(train={"00000": 4, "00001": 4}))  # fmt: skip
def _(tree: Tree) -> str:
    for kind in ("00000", "00001"):
        paths = names(tree.images(f"GTSRB/Final_Training/Images/{kind}", 4, "00000_{:05d}.ppm"))
        rows = [(path, 29 + i, 30, 5, 6, 24, 25, int(kind)) for i, path in enumerate(paths)]
        head = "Filename,Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId"
        tree.table(f"GTSRB/Final_Training/Images/{kind}/GT-{kind}.csv", head, rows, ";")
    return "GTSRB"


@layout("B: headerless tables of boxes beside split folders", "Kaggle: Stanford cars",
        reads(train={"Acura RL": 4, "BMW M3": 4}, test={"Acura RL": 2, "BMW M3": 2}))  # fmt: skip
def _(tree: Tree) -> None:
    for split, count in (("train", 4), ("test", 2)):
        paths = tree.folders(
            {f"car_data/car_data/{split}/{name}": count for name in ("Acura RL", "BMW M3")}, "{:05d}.jpg"
        )
        rows = [(name, 39, 116, 569, 375, kind) for name, kind in labelled(names(paths), (1, 2))]
        tree.table(f"anno_{split}.csv", "", rows)
    tree.text("names.csv", "Acura RL", "BMW M3")


@layout("B: features of each image beside its class", "Kaggle: Leaf classification",
        reads("test", train={"Acer_Opalus": 4, "Quercus_Rubra": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    ids = stems(tree.images("images", 12, "{}.jpg", first=1))
    train = labelled(ids[:8], ("Acer_Opalus", "Quercus_Rubra"))
    tree.table("train.csv", "id,species,margin1,margin2", [(*row, 0.01 * i, 0.02) for i, row in enumerate(train)])
    tree.table("test.csv", "id,margin1,margin2", [(name, 0.1, 0.2) for name in ids[8:]])
    tree.table("sample_submission.csv", "id,Acer_Opalus,Quercus_Rubra", [(name, 0.5, 0.5) for name in ids[8:]])


@layout("B: one column of 0 and 1", "Kaggle: Aerial cactus identification",
        reads("sample_submission", "test", train={"0": 4, "1": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    tree.table("train.csv", "id,has_cactus", labelled(names(tree.images("train/train", 8, "{:032x}.jpg")), (1, 0)))
    test = names(tree.images("test/test", 3, "f{:031x}.jpg"))
    tree.table("sample_submission.csv", "id,has_cactus", [(name, 0.5) for name in test])


@layout(
    "B: the label column is called Id",
    "Kaggle: Humpback whale identification",
    refuses(
        "no column can be told to be the label",
        r"\bId\b",
        r"label_column",
        ways=[({"label_column": "Id"}, reads(train={"new_whale": 4, "w_f48451c": 4}))],
    ),
)
def _(tree: Tree) -> None:
    rows = labelled(names(tree.images("train", 8, "{:08x}.jpg")), ("new_whale", "w_f48451c"))
    tree.table("train.csv", "Image,Id", rows)


@layout(
    "B: a csv names a file that is not there",
    "half a download",
    refuses(
        "a file of a row is missing",
        r"labels\.csv", r"gone\.jpg", r"\b10\b|row 8|line 10", r"bad_images|bad-images",
        ways=[({"bad_images": "skip"}, reads(r"1 .*missing|missing.* 1|gone\.jpg", train=PETS))],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,label", [*labelled(tree.images("photos", 8)), ("photos/gone.jpg", "dog")])


@layout(
    "B: a csv that names no file of the folder",
    "tables of other images",
    refuses("all files of the table are missing, or images without classes", r"labels\.csv", r"x0\.jpg"),
)
def _(tree: Tree) -> None:
    tree.images("photos", 8)
    tree.table("labels.csv", "file,label", labelled([f"photos/x{index}.jpg" for index in range(8)]))


@layout("B: names that differ from the files in case", "Windows",
        reads(train=PETS))  # fmt: skip
def _(tree: Tree) -> None:
    rows = labelled([path.upper().replace("PHOTOS", "photos") for path in tree.images("photos", 8)])
    tree.table("labels.csv", "file,label", rows)


@layout(
    "B: a table that names fewer than half of flat images",
    "work in progress",
    refuses(
        "most images would be left out",
        r"labels\.csv", r"\b6\b", r"\b14\b|\b8\b", r"data\.table",
        ways=[({"table": ("labels.csv",)}, reads(r"\b8\b", train={"cat": 3, "dog": 3}))],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,label", labelled(names(tree.images("photos", 14))[:6]))


@layout("B: a table that names most of flat images", "work in progress", reads(r"\b2\b", train=PETS))
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,label", labelled(names(tree.images("photos", 10))[:8]))


@layout("B: a table of class descriptions", "hand-made", reads(r"classes\.csv", train=PETS))
def _(tree: Tree) -> None:
    tree.pets("photos")
    tree.table("classes.csv", "class,latin", [("cat", "Felis catus"), ("dog", "Canis familiaris")])


# --- C: tables beside folders ------------------------------------------------------------------------------


@layout(
    "C: a csv of all splits beside split folders",
    "Kaggle: Birds 525",
    reads(train={"BALD EAGLE": 4, "EMU": 4}, validation={"BALD EAGLE": 2, "EMU": 2}, test={"BALD EAGLE": 2, "EMU": 2}),
)
def _(tree: Tree) -> None:
    rows = []
    for split, count in (("train", 4), ("valid", 2), ("test", 2)):
        for number, name in enumerate(("BALD EAGLE", "EMU")):
            for path in tree.images(f"{split}/{name}", count):
                rows.append((number, path, name, split, ("HALIAEETUS", "DROMAIUS")[number]))
    tree.table("birds.csv", "class id,filepaths,labels,data set,scientific name", rows)
    tree.text("EfficientNetB0-525-(224 X 224)- 98.97.h5", "HDF")


@layout(
    "C: metadata.csv with width and height", "datasets' imagefolder, Kaggle", reads(train={"benign": 4, "malignant": 4})
)
def _(tree: Tree) -> None:
    paths = tree.folders({"benign": 4, "malignant": 4})
    rows = [(path, 300 + 100 * (index % 3), 400) for index, path in enumerate(paths)]
    tree.table("metadata.csv", "file_name,width,height", rows)


@layout(
    "C: a csv that names 4 of 20 images",
    "a list of favourites",
    reads(r"favourites\.csv", train={"cat": 10, "dog": 10}),
)
def _(tree: Tree) -> None:
    paths = tree.pets(count=10)
    tree.table("favourites.csv", "file,label", [(path, path[:3]) for path in (*paths[:2], *paths[-2:])])


@layout("C: a csv in train/ only", "Kaggle", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    rows = [(path.removeprefix("train/"), path.split("/")[1]) for path in tree.pets("train")]
    tree.table("train/labels.csv", "file,label", rows)
    tree.pets("test", 2)


@layout("C: metadata.csv in a flat train/, class folders in test/", "two hands", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    tree.table("train/metadata.csv", "file_name,label", labelled(names(tree.images("train", 8))))
    tree.pets("test", 2)


@layout("C: sample_submission.csv beside class folders", "Kaggle", reads("sample_submission", train=PETS))
def _(tree: Tree) -> None:
    tree.pets("train")
    test = names(tree.images("test", 4, "t{}.jpg"))
    tree.table("sample_submission.csv", "id,label", [(name, "cat") for name in test])


@layout("C: a detection csv repeats images", "Kaggle", reads(train=PETS))
def _(tree: Tree) -> None:
    rows = [(path, 2, 2, label, 0, 0, corner, corner)
            for path, label in labelled(names(tree.images("images", 8))) for corner in (1, 2)]  # fmt: skip
    tree.table("annotations.csv", "filename,width,height,class,xmin,ymin,xmax,ymax", rows)


@layout(
    "C: a detection csv gives an image two classes",
    "Kaggle",
    refuses("several labels per image", r"(?i)several labels|different labels|more than one", r"000\.jpg"),
)
def _(tree: Tree) -> None:
    rows = [(path, label) for path, label in labelled(names(tree.images("images", 8)))]
    tree.table("annotations.csv", "filename,class", [*rows, ("000.jpg", "dog")])


@layout("C: class folders and train.csv with more columns", "Kaggle: Paddy doctor",
        reads("sample_submission", "test", train={"blast": 4, "normal": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    paths = tree.folders({"train_images/blast": 4, "train_images/normal": 4}, "{:06d}.jpg")
    rows = [(path.split("/")[-1], path.split("/")[1], "ADT45", 45 + i % 5) for i, path in enumerate(paths)]
    tree.table("train.csv", "image_id,label,variety,age", rows)
    test = names(tree.images("test_images", 3, "2{:05d}.jpg"))
    tree.table("sample_submission.csv", "image_id,label", [(name, "") for name in test])


@layout("C: class folders below imgs/train and a list of drivers", "Kaggle: State Farm distracted driver",
        reads("test", train={"c0": 4, "c1": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    paths = tree.folders({"imgs/train/c0": 4, "imgs/train/c1": 4}, "img_{}.jpg")
    rows = [(f"p{index % 3:03d}", path.split("/")[2], path.split("/")[3]) for index, path in enumerate(paths)]
    tree.table("driver_imgs_list.csv", "subject,classname,img", rows)
    tree.images("imgs/test", 3, "img_9{}.jpg")
    tree.table("sample_submission.csv", "img,c0,c1", [("img_90.jpg", 0.5, 0.5)])


@layout(
    "C: train.csv, validation.csv and test.csv with number and name of the class",
    "EuroSAT on Kaggle",
    reads(train={"Forest": 4, "River": 4}, validation={"Forest": 2, "River": 2}, test={"Forest": 2, "River": 2}),
)
def _(tree: Tree) -> None:
    paths = [tree.images(f"EuroSAT/{name}", 8, name + "_{}.jpg", first=1) for name in ("Forest", "River")]
    for split, part in (("train", slice(0, 4)), ("validation", slice(4, 6)), ("test", slice(6, 8))):
        chosen = [(kind, path) for kind, each in enumerate(paths) for path in each[part]]
        rows = [(i, path.removeprefix("EuroSAT/"), kind, path.split("/")[1]) for i, (kind, path) in enumerate(chosen)]
        tree.table(f"EuroSAT/{split}.csv", ",Filename,Label,ClassName", rows)
    tree.json("EuroSAT/label_map.json", {"Forest": 0, "River": 1})


@layout(
    "C: lists of file and number for train, val and test",
    "Kaggle: Garbage classification",
    reads(train={"glass": 4, "metal": 4}, validation={"glass": 2, "metal": 2}, test={"glass": 2, "metal": 2}),
)
def _(tree: Tree) -> None:
    paths = [names(tree.images(f"Garbage classification/Garbage classification/{name}", 8, name + "{}.jpg"))
             for name in ("glass", "metal")]  # fmt: skip
    for split, part in (("train", slice(0, 4)), ("val", slice(4, 6)), ("test", slice(6, 8))):
        rows = [(path, kind) for kind, each in enumerate(paths, 1) for path in each[part]]
        tree.table(f"one-indexed-files-notrash_{split}.txt", "", rows, " ")
    tree.table("zero-indexed-files.txt", "", [(path, kind) for kind, each in enumerate(paths) for path in each], " ")


@layout(
    "C: noisy labels beside the true ones",
    "fastai: imagenette2",
    reads(
        r"noisy_imagenette\.csv", train={"n01440764": 8, "n02102040": 8}, validation={"n01440764": 4, "n02102040": 4}
    ),
)
def _(tree: Tree) -> str:
    rows = []
    for split, count in (("train", 8), ("val", 4)):
        for name, other in (("n01440764", "n02102040"), ("n02102040", "n01440764")):
            for index, path in enumerate(
                tree.images(f"imagenette2/{split}/{name}", count, name + "_" + split + "{}.JPEG")
            ):
                rows.append((path.removeprefix("imagenette2/"), name, other if index == 0 else name, split == "val"))
    tree.table("imagenette2/noisy_imagenette.csv", "path,noisy_labels_0,noisy_labels_50,is_valid", rows)
    return "imagenette2"


@layout(
    "C: labels.csv numbers the class folders",
    "fastai: mnist_sample",
    reads(train={"3": 4, "7": 4}, validation={"3": 2, "7": 2}),
)
def _(tree: Tree) -> None:
    paths = tree.folders({"train/3": 4, "train/7": 4, "valid/3": 2, "valid/7": 2}, "{}.png")
    tree.table("labels.csv", "name,label", [(path, int("/7/" in path)) for path in paths if path.startswith("train")])


@layout(
    "C: lists that agree with split and class folders",
    "Places365",
    reads(train={"airfield": 4, "alley": 4}, validation={"airfield": 2, "alley": 2}),
)
def _(tree: Tree) -> None:
    for split, count in (("train", 4), ("val", 2)):
        paths = tree.folders({f"places365/{split}/{name}": count for name in ("airfield", "alley")}, "{:08d}.jpg")
        rows = labelled([path.removeprefix("places365/") for path in paths], (0, 1))
        tree.table(f"places365/{split}.txt", "", rows, " ")


@layout(
    "C: a csv that contradicts the class folders",
    "relabelled by hand",
    refuses(
        "folders say one class, the table another",
        r"labels\.csv",  r"layout",
        ways=[
            ({"layout": "folders"}, reads(train=PETS)),
            ({"layout": "table"}, reads(train={"cat": 2, "dog": 6})),
        ],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    paths = tree.pets()
    tree.table("labels.csv", "file,label", [(path, "cat" if path in paths[2:4] else "dog") for path in paths])


@layout(
    "C: a csv with other classes than the folders",
    "cameras as folders",
    refuses(
        "folders say one class, the table another",
        r"labels\.csv", r"camera1", r"\bcat\b", r"layout",
        ways=[
            ({"layout": "folders"}, reads(train={"camera1": 4, "camera2": 4})),
            ({"layout": "table"}, reads(train=PETS)),
        ],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    paths = tree.folders({"camera1": 4, "camera2": 4})
    tree.table("labels.csv", "file,label", [(path, ("cat", "dog")[index % 2]) for index, path in enumerate(paths)])


@layout(
    "C: a split column that contradicts the split folders",
    "split twice",
    refuses("folders say train, the table test", r"labels\.csv", r"train", r"test"),
)
def _(tree: Tree) -> None:
    paths = [*tree.pets("train"), *tree.pets("test", 2)]
    rows = [
        (path, path.split("/")[1], "test" if "/00" in path and path.endswith("0.jpg") else "train") for path in paths
    ]
    tree.table("labels.csv", "file,label,split", rows)


for _column in ("split", "set", "Subset", "partition", "data set", "dataset", "Usage", "image_split", "phase"):

    @layout(f"C: a column {_column}", "csv of all splits", reads(train=PETS, validation=TEST, test=TEST))
    def _(tree: Tree, column: str = _column) -> None:
        rows = []
        for split, count in (("train", 8), ("val", 4), ("test", 4)):
            rows += [(*row, split) for row in labelled(tree.images("photos", count, split + "{}.jpg"))]
        tree.table("labels.csv", f"file,label,{column}", rows)


for _column, _yes, _no, _roles in (
    ("is_training_image", 1, 0, ("train", "test")),
    ("is_train", "True", "False", ("train", "test")),
    ("is_valid", "False", "True", ("train", "validation")),
    ("is_test", "no", "yes", ("train", "test")),
    ("train", "TRUE", "FALSE", ("train", "test")),
):

    @layout(f"C: a column {_column} of {_yes} and {_no}", "fastai, CUB-like tables",
            reads(**{_roles[0]: PETS, _roles[1]: TEST}))  # fmt: skip
    def _(tree: Tree, column: str = _column, yes: object = _yes, no: object = _no) -> None:
        rows = [(*row, yes) for row in labelled(tree.images("photos", 8))]
        rows += [(*row, no) for row in labelled(tree.images("photos", 4, "t{}.jpg"))]
        tree.table("labels.csv", f"file,label,{column}", rows)


@layout("C: a column split beside class folders", "csv of all splits", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    paths = tree.pets("photos", 6)
    rows = [(path, path.split("/")[1], "test" if index % 3 == 2 else "train") for index, path in enumerate(paths)]
    tree.table("labels.csv", "file,label,split", rows)


for _column, _values in (("fold", (0, 1, 2, 3)), ("kfold", (1, 2, 3, 4)), ("set", ("A", "B", "C", "D"))):

    @layout(
        f"C: a column {_column} of {_values[0]} to {_values[-1]}",
        "Kaggle: folds",
        refuses(
            "parts that are neither train nor test",
            _column, rf"\b{_values[0]}\b", r"split_column",
            ways=[
                ({"split_column": "none"}, reads(train={"cat": 8, "dog": 8})),
                (
                    {"validation_split": str(_values[0])},
                    reads(train={"cat": 6, "dog": 6}, validation={"cat": 2, "dog": 2}),
                ),
            ],
        ),
    )  # fmt: skip
    def _(tree: Tree, column: str = _column, values: tuple[object, ...] = _values) -> None:
        rows = [(*row, values[i % 4]) for i, row in enumerate(labelled(tree.images("photos", 16)))]
        tree.table("train.csv", f"file,label,{column}", rows)


@layout(
    "C: captions.csv with five captions for each image beside class folders",
    "Flickr30k-like",
    reads(r"captions\.csv", train=PETS),
)
def _(tree: Tree) -> None:
    paths = tree.pets("photos")
    rows = [(path, number, f"A photo {number} of {path[-7:]}") for path in paths for number in range(5)]
    tree.table("captions.csv", "image,comment_number,comment", rows)


@layout("C: only widths and heights beside flat images", "datasets' imagefolder",
        refuses("no label column", r"width", r"height|label", never=[r"label_column=(width|height)"]))  # fmt: skip
def _(tree: Tree) -> None:
    rows = [(path, 300 + 100 * (i % 3), 400 + 100 * (i % 2)) for i, path in enumerate(names(tree.images("photos", 9)))]
    tree.table("metadata.csv", "file_name,width,height", rows)


@layout(
    "C: ages as the only column",
    "UTKFace-like tables",
    refuses(
        "many numbers are a quantity, not classes",
        r"\bage\b", r"accept_classes",
        ways=[({"accept_classes": True}, reads(train={str(age): 2 for age in range(20, 50)}))],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    rows = [(path, 20 + i % 30) for i, path in enumerate(names(tree.images("photos", 60)))]
    tree.table("faces.csv", "file,age", rows)


@layout(
    "C: a column of words like yes and no beside the label",
    "surveys",
    refuses(
        "which column is the label cannot be told",
        r"blurred",
        r"animal",
        r"weather",
        r"label_column",
        ways=[({"label_column": "animal"}, reads(train=PETS))],
    ),
)
def _(tree: Tree) -> None:
    rows = [
        (*row, ("yes", "no")[i % 2], ("sun", "rain", "snow")[i % 3])
        for i, row in enumerate(labelled(tree.images("photos", 8)))
    ]
    tree.table("survey.csv", "file,animal,blurred,weather", rows)


# --- D: labels keep their meaning --------------------------------------------------------------------------


@layout("D: codes with leading zeros in a long table", "product codes", reads(train={"010": 6, "x10": 6}))
def _(tree: Tree) -> None:
    rows = labelled(tree.images("photos", 12), ("010", "x10"))
    tree.table("labels.csv", "file,label", [*rows[:6] * 1_700, *rows[6:]])  # over 10,000 rows of numbers first


@layout("D: 007 and 7", "agents", reads(train={"007": 4, "7": 4}))
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,label", labelled(tree.images("photos", 8), ("007", "7")))


@layout(
    "D: True and False, as the folders are called",
    "fastai",
    reads(train={"False": 4, "True": 4}, test={"False": 2, "True": 2}),
)
def _(tree: Tree) -> None:
    rows = [(path, path.split("/")[1], path.split("/")[0]) for path in tree.folders(
        {"train/True": 4, "train/False": 4, "test/True": 2, "test/False": 2})]  # fmt: skip
    tree.table("labels.csv", "file,label,split", rows)


@layout("D: NA, null, nan and None are classes", "countries", reads(train={"NA": 4, "None": 4, "nan": 4, "null": 4}))
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,country", labelled(tree.images("photos", 16), ("NA", "None", "nan", "null")))


@layout("D: 1e3 and 1000, inf and +1", "part numbers", reads(train={"+1": 4, "1000": 4, "1e3": 4, "inf": 4}))
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,label", labelled(tree.images("photos", 16), ("1e3", "1000", "inf", "+1")))


@layout("D: dates and versions", "software", reads(train={"1.10": 4, "1.9": 4, "2024-01-01": 4}))
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,version", labelled(tree.images("photos", 12), ("1.10", "1.9", "2024-01-01")))


@layout("D: integers are sorted by value", "MNIST as csv", reads(train={"2": 4, "9": 4, "10": 4, "100": 4}))
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,label", labelled(tree.images("photos", 16), (10, 9, 100, 2)))


@layout(
    "D: -100 marks rows without a label",
    "PyTorch",
    refuses("training rows without label", r"-100", r"no label", r"\b2\b"),
)
def _(tree: Tree) -> None:
    rows = labelled(tree.images("photos", 8), (0, 1))
    tree.table("train.csv", "file,label", [*rows, *((path, -100) for path in tree.images("photos", 2, "x{}.jpg"))])


@layout("D: -1 and 1 are all there is", "support vector machines", reads(train={"-1": 4, "1": 4}))
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,label", labelled(tree.images("photos", 8), (1, -1)))


@layout(
    "D: -1 beside 0 and 1 in training", "CelebA-like", refuses("training rows without label", r"no label", r"\b4\b")
)
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,label", labelled(tree.images("photos", 12), (1, -1, 0)))


@layout("D: a test table of nothing but -1", "Hub competitions", reads("test", train={"0": 4, "1": 4}))
def _(tree: Tree) -> None:
    tree.table("train.csv", "file,label", labelled(tree.images("photos", 8), (0, 1)))
    tree.table("test.csv", "file,label", labelled(tree.images("photos", 4, "t{}.jpg"), (-1,)))


@layout(
    "D: some training rows without label",
    "work in progress",
    refuses("training rows without label", r"labels\.csv|train", r"no label", r"\b2\b"),
)
def _(tree: Tree) -> None:
    rows = labelled(tree.images("photos", 8))
    tree.table("labels.csv", "file,label", [*rows, *((path, "") for path in tree.images("photos", 2, "x{}.jpg"))])


@layout("D: cat and 'cat ' are one class", "hand-made", reads(r"(?i)space", train=PETS))
def _(tree: Tree) -> None:
    rows = [
        (path, f"{label} " if i % 2 else label) for i, (path, label) in enumerate(labelled(tree.images("photos", 8)))
    ]
    tree.table("labels.csv", "file,label", rows)


for _one, _other, _where in (("cat", "Cat", "table"), ("hot dog", "hot_dog", "table"), ("cat", "CAT", "folders")):

    @layout(
        f"D: {_one} and {_other} in {_where}",
        "several annotators",
        refuses(
            "two names for one class, or two classes?",
            rf"\b{_one}\b", rf"\b{_other}\b", r"similar_names",
            ways=[
                ({"similar_names": "keep"}, reads(train=dict.fromkeys(sorted((_one, _other, "fox")), 4))),
            ],
        ),
    )  # fmt: skip
    def _(tree: Tree, pair: tuple[str, str] = (_one, _other), where: str = _where) -> None:
        if where == "folders":
            tree.folders({pair[0]: 4, pair[1]: 4, "fox": 4})
        else:
            tree.table("labels.csv", "file,label", labelled(tree.images("photos", 12), (*pair, "fox")))


@layout(
    "D: Cat in train, cat in test, merged",
    "two annotators",
    reads(train={"Cat": 4, "dog": 4}, test={"Cat": 2, "dog": 2}),
    similar_names="merge",
)
def _(tree: Tree) -> None:
    tree.folders({"train/Cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2})


# --- E: names are no keys ----------------------------------------------------------------------------------


@layout("E: bare names that are found in two folders", "cameras",
        refuses("a name stands for two files", r"000\.jpg", r"monday", r"tuesday"))  # fmt: skip
def _(tree: Tree) -> None:
    tree.images("monday", 8)
    tree.images("tuesday", 8)
    tree.table("labels.csv", "file,label", labelled([f"{index:03d}.jpg" for index in range(8)]))


@layout("E: an id that stands for two files", "jpg and png exports",
        refuses("an id stands for two files", r"\b000\b", r"several files"))  # fmt: skip
def _(tree: Tree) -> None:
    ids = stems(tree.images("photos", 8))
    tree.images("photos", 2, "{:03d}.png")
    tree.table("labels.csv", "id,label", labelled(ids))


@layout(
    "E: the same names in each folder, told apart by the path",
    "cameras",
    refuses(
        "folders say one class, the table another",
        r"monday",
        r"cat",
        r"layout",
        ways=[({"layout": "table"}, reads(train=PETS))],
    ),
)
def _(tree: Tree) -> None:
    paths = [*tree.images("monday", 4), *tree.images("tuesday", 4)]
    tree.table("labels.csv", "file,label", [(path, ("cat", "dog")[index % 2]) for index, path in enumerate(paths)])


@layout(
    "E: two columns called label",
    "joined tables",
    reads(r"label_3", train=PETS),
)
def _(tree: Tree) -> None:
    rows = [(path, label, ("x", "y")[i % 2]) for i, (path, label) in enumerate(labelled(tree.images("photos", 8)))]
    tree.table("labels.csv", "file,label,label", rows)


@layout("E: two categories of one name", "COCO",
        refuses("a name stands for two categories", r"crane", r"instances\.json"))  # fmt: skip
def _(tree: Tree) -> None:
    paths = names(tree.images("images", 9))
    images = [{"id": i, "file_name": path} for i, path in enumerate(paths)]
    marks = [{"id": i, "image_id": i, "category_id": i % 3} for i in range(9)]
    kinds = [{"id": 0, "name": "crane"}, {"id": 1, "name": "dog"}, {"id": 2, "name": "crane"}]
    tree.json("instances.json", {"images": images, "annotations": marks, "categories": kinds})


@layout(
    "E: a table that names both the file and its copy in a thumbnail folder",
    "web shops",
    refuses(
        "sizes as folders, labels in the table",
        r"thumbs",
        r"labels\.csv",
        r"layout",
        ways=[({"layout": "table"}, reads("thumbs", train=PETS))],
    ),
)
def _(tree: Tree) -> None:
    paths = tree.images("full", 8)
    for path in paths:
        tree.image(path.replace("full", "thumbs"))
    rows = [(path, path.replace("full", "thumbs"), label) for path, label in labelled(paths)]
    tree.table("labels.csv", "image,thumbnail,label", rows)


# --- more of the same kinds --------------------------------------------------------------------------------


@layout("B: forty attributes of 1 and -1, and a partition of numbers", "CelebA on Kaggle",
        refuses("several labels per image, and parts without a meaning", r"partition|(?i:several labels)"))  # fmt: skip
def _(tree: Tree) -> None:
    paths = names(tree.images("img_align_celeba/img_align_celeba", 12, "{:06d}.jpg", first=1))
    rows = [(name, *((1, -1)[(i >> bit) % 2] for bit in range(3))) for i, name in enumerate(paths)]
    tree.table("list_attr_celeba.csv", "image_id,Bald,Male,Smiling", rows)
    tree.table("list_eval_partition.csv", "image_id,partition", [(name, i // 5) for i, name in enumerate(paths)])
    tree.table("list_bbox_celeba.csv", "image_id,x_1,y_1,width,height", [(name, 95, 71, 226, 313) for name in paths])


@layout("B: findings that are 1, 0, -1 or empty", "CheXpert",
        refuses("several labels per image", r"train\.csv", r"(?i)several labels|label_column"))  # fmt: skip
def _(tree: Tree) -> None:
    for split, count in (("train", 8), ("valid", 4)):
        paths = [tree.image(f"{split}/patient{i:05d}/study1/view1_frontal.jpg") for i in range(count)]
        rows = [(f"CheXpert-v1.0-small/{path}", "MF"[i % 2], 50 + i, "Frontal", "AP", ("1.0", "", "0.0", "-1.0")[i % 4],
                 ("1.0", "")[i // 2 % 2]) for i, path in enumerate(paths)]  # fmt: skip
        tree.table(f"{split}.csv", "Path,Sex,Age,Frontal/Lateral,AP/PA,Edema,Pneumonia", rows)


@layout("B: species beside ids of animals", "Kaggle: Happywhale",
        reads("sample_submission", "test", train={"beluga": 4, "orca": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    rows = [(*row, f"{i // 3:012x}") for i, row in enumerate(
        labelled(names(tree.images("train_images", 8, "{:014x}.jpg")), ("beluga", "orca")))]  # fmt: skip
    tree.table("train.csv", "image,species,individual_id", rows)
    test = names(tree.images("test_images", 3, "f{:013x}.jpg"))
    tree.table("sample_submission.csv", "image,predictions", [(name, "37c7aba965a5") for name in test])


@layout("B: boxes where there are some, and a target", "Kaggle: RSNA pneumonia, as png", reads(train={"0": 4, "1": 4}))
def _(tree: Tree) -> None:
    ids = stems(tree.images("stage_2_train_images", 8, "{:08x}-0000.png"))
    rows = [(name, "", "", "", "", 0) for name in ids[:4]]
    rows += [(name, 264.0 + box, 152.0, 213.0, 379.0, 1) for name in ids[4:] for box in (0, 298)]
    tree.table("stage_2_train_labels.csv", "patientId,x,y,width,height,Target", rows)


@layout("B: class folders and a json of their images", "iNaturalist 2021",
        reads(train={"00000_Aves": 4, "00001_Insecta": 4}))  # fmt: skip
def _(tree: Tree) -> None:
    paths = tree.folders({"train_mini/00000_Aves": 4, "train_mini/00001_Insecta": 4})
    images = [{"id": i, "file_name": path, "width": 500, "height": 500, "license": 0} for i, path in enumerate(paths)]
    marks = [{"id": i, "image_id": i, "category_id": i // 4} for i in range(8)]
    kinds = [{"id": 0, "name": "Parus major", "class": "Aves"}, {"id": 1, "name": "Apis mellifera", "class": "Insecta"}]
    tree.json("train_mini.json", {"images": images, "annotations": marks, "categories": kinds})


@layout(
    "B: a header without rows beside flat images",
    "templates",
    refuses("images without classes", r"labels\.csv|class folder"),
)
def _(tree: Tree) -> None:
    tree.images("photos", 8)
    tree.text("labels.csv", "file,label")


@layout("B: an empty csv beside class folders", "templates", reads(r"labels\.csv", train=PETS))
def _(tree: Tree) -> None:
    tree.pets()
    (tree.root / "labels.csv").write_bytes(b"")


@layout("B: a broken json beside class folders", "half a download", reads(r"labels\.json", train=PETS))
def _(tree: Tree) -> None:
    tree.pets()
    tree.text("labels.json", '{"images": [{"id": 0, "file_na')


@layout("B: commas in quotes and line breaks in cells", "exports", reads(train={"cat, tame": 4, "dog": 4}))
def _(tree: Tree) -> None:
    rows = [f'"{path}","two\nlines, said ""a""","{label}"' for path, label in
            labelled(tree.images("photos", 8, "a, {}.jpg"), ("cat, tame", "dog"))]  # fmt: skip
    tree.text("labels.csv", "file,remark,label", *rows)


@layout("B: rows of more cells than the header", "hand-made",
        refuses("a row that does not fit the header", r"labels\.csv", r"line 6|row 4|row 5"))  # fmt: skip
def _(tree: Tree) -> None:
    rows = [f"{path},{label}" for path, label in labelled(tree.images("photos", 8))]
    tree.text("labels.csv", "file,label", *rows[:4], rows[4] + ",more,cells", *rows[5:])


@layout("C: lists of validation and test only, the rest trains", "Speech Commands as spectrograms",
        reads(train={"bed": 5, "cat": 5}, validation={"bed": 1, "cat": 1}, test={"bed": 2, "cat": 2}))  # fmt: skip
def _(tree: Tree) -> None:
    paths = [tree.images(name, 8, "{:08x}_nohash_0.png") for name in ("bed", "cat")]
    tree.text("validation_list.txt", *(each[0] for each in paths))
    tree.text("testing_list.txt", *(path for each in paths for path in each[1:3]))


@layout("C: test_labels.csv for a flat test/ beside train/CLASS", "course material", reads(train=PETS, test=TEST))
def _(tree: Tree) -> None:
    tree.pets("train")
    tree.table("test_labels.csv", "filename,label", labelled(names(tree.images("test", 4, "t{}.jpg"))))


@layout("C: a type of dataset and three columns of labels", "Kaggle: CoronaHack chest X-ray",
        reads(train={"Normal": 4, "Pnemonia": 4}, test={"Normal": 2, "Pnemonia": 2}))  # fmt: skip
def _(tree: Tree) -> None:
    rows = []
    for split, count in (("train", 8), ("test", 4)):
        found = labelled(names(tree.images(f"images/{split}", count, split + "{}.jpeg")), ("Normal", "Pnemonia"))
        rows += [(i, name, label, split.upper(), "" if label == "Normal" else ("Virus", "bacteria")[i % 2], "")
                 for i, (name, label) in enumerate(found)]  # fmt: skip
    head = ",X_ray_image_name,Label,Dataset_type,Label_1_Virus_category,Label_2_Virus_category"
    tree.table("Chest_xray_Corona_Metadata.csv", head, rows)


@layout("C: a split column with empty cells", "work in progress",
        refuses("rows of no split", r"\bsplit\b", r"labels\.csv", r"\b4\b"))  # fmt: skip
def _(tree: Tree) -> None:
    rows = [(*row, ("train", "", "test")[i // 4]) for i, row in enumerate(
        [*labelled(tree.images("photos", 8)), *labelled(tree.images("photos", 4, "t{}.jpg"))])]  # fmt: skip
    tree.table("labels.csv", "file,label,split", rows)


@layout("C: a split column with TRAIN, Test and dev", "several hands", reads(train=PETS, validation=TEST, test=TEST))
def _(tree: Tree) -> None:
    rows = []
    for split, count in (("TRAIN", 8), ("dev ", 4), ("Test", 4)):
        rows += [(*row, split) for row in labelled(tree.images("photos", count, split.strip() + "{}.jpg"))]
    tree.table("labels.csv", "file,label,split", rows)


@layout(
    "C: a column train that is the class",
    "vehicles",
    refuses(
        "parts of the data, or classes?",
        r"\btrain\b",
        r"split_column",
        ways=[({"split_column": "none"}, reads(train={"diesel": 4, "electric": 4}))],
    ),
)
def _(tree: Tree) -> None:
    tree.table("labels.csv", "file,train", labelled(tree.images("photos", 8), ("diesel", "electric")))


@layout(
    "C: one row in train and test",
    "joined tables",
    refuses("the same image in train and test", r"000\.jpg", r"train", r"test"),
)
def _(tree: Tree) -> None:
    rows = [(*row, "train") for row in labelled(tree.images("photos", 8))]
    rows += [(*row, "test") for row in labelled(tree.images("photos", 4, "t{}.jpg"))]
    tree.table("labels.csv", "file,label,split", [*rows, (*rows[0][:2], "test")])


@layout("E: bare names that are found in train and in test", "Kaggle",
        reads("test", train=PETS))  # fmt: skip
def _(tree: Tree) -> None:
    tree.table("train/labels.csv", "file,label", labelled(names(tree.images("train", 8))))
    tree.images("test", 8)


@layout("E: a class that is called like the column of another", "one-hot, with a label too", reads(train=PETS))
def _(tree: Tree) -> None:
    rows = [(*row, int(row[1] == "cat"), int(row[1] == "dog")) for row in labelled(tree.images("photos", 8))]
    tree.table("labels.csv", "file,label,cat,dog", rows)


for _name in ("flowers", "data", "all", "2024", "img_align"):

    @layout(f"B: labels.csv beside a flat {_name}/", "anyone", reads(train=PETS))
    def _(tree: Tree, folder: str = _name) -> None:
        tree.table("labels.csv", "file,label", labelled(names(tree.images(folder, 8))))


@layout(
    "B: one of many attributes asked for",
    "CelebA on Kaggle",
    reads(train={"-1": 4, "1": 8}),
    label_column="Smiling",
    split_column="none",
)
def _(tree: Tree) -> None:
    paths = names(tree.images("img_align_celeba/img_align_celeba", 12, "{:06d}.jpg", first=1))
    rows = [(name, (1, -1)[i % 2], (1, -1, 1)[i // 4]) for i, name in enumerate(paths)]
    tree.table("list_attr_celeba.csv", "image_id,Male,Smiling", rows)
    tree.table("list_eval_partition.csv", "image_id,partition", [(name, i // 5) for i, name in enumerate(paths)])


@layout("B: ids of images that have trimaps beside the table", "Oxford-IIIT Pet with a csv", reads(train=PETS))
def _(tree: Tree) -> None:
    paths = tree.images("images", 8, "pet_{}.jpg")
    for stem in stems(paths):
        tree.image(f"annotations/trimaps/{stem}.png")
    tree.table("annotations/labels.csv", "id,label", labelled(stems(paths)))


@layout(
    "B: labels of two words in a list",
    "FGVC-Aircraft",
    reads(train={"Boeing 707": 4, "Boeing 717": 4}),
)
def _(tree: Tree) -> None:
    rows = labelled(stems(tree.images("images", 8, "{:07d}.jpg")), ("Boeing 707", "Boeing 717"))
    tree.table("images_train.txt", "", rows, " ")

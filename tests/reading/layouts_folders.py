"""Layouts of folders: kinds A, G, H and I of "data read as it was meant", and what is published so."""

from __future__ import annotations

import os
import unicodedata

from trees import PETS, Tree, folders, labelled, layout, names, reads, refuses, stems

# --- A: which level of folders is which --------------------------------------------------------------------

folders(
    "A: seg_train beside seg_test",
    "Kaggle",
    {"seg_train/sea": 4, "seg_train/street": 4, "seg_test/sea": 2, "seg_test/street": 2},
    reads(train={"sea": 4, "street": 4}, test={"sea": 2, "street": 2}),
)
folders(
    "A: seg_train in seg_train, and seg_pred without classes",
    "Kaggle: Intel image classification",
    {
        "seg_train/seg_train/sea": 4, "seg_train/seg_train/street": 4,
        "seg_test/seg_test/sea": 2, "seg_test/seg_test/street": 2, "seg_pred/seg_pred": 3,
    },
    reads("seg_pred", train={"sea": 4, "street": 4}, test={"sea": 2, "street": 2}),
)  # fmt: skip
for _train, _other, _role, _origin in (
    ("training_set", "test_set", "test", "Kaggle: Cats and dogs mini"),
    ("train_images", "val_images", "validation", "Kaggle"),
    ("trainset", "testset", "test", "university pages"),
    ("Train Set", "Test Set", "test", "Google Drive"),
    ("training-data", "testing-data", "test", "GitHub"),
    ("train2017", "val2017", "validation", "COCO crops"),
    ("images_train", "images_test", "test", "Kaggle"),
    ("TRAIN", "EVALUATION", "test", "Kaggle"),
    ("train_mini", "val", "validation", "iNaturalist 2021"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val", "validation", "ImageNet ILSVRC2012, val sorted"),
    ("01_train", "02_test", "test", "course material"),
    ("train_224", "test_224", "test", "Kaggle, resized"),
):
    folders(
        f"A: {_train} beside {_other}",
        _origin,
        {f"{_train}/cat": 4, f"{_train}/dog": 4, f"{_other}/cat": 2, f"{_other}/dog": 2},
        reads(**{"train": PETS, _role: {"cat": 2, "dog": 2}}),
    )
folders(
    "A: training_set in training_set",
    "Kaggle: Cat and dog",
    {
        "training_set/training_set/cats": 4, "training_set/training_set/dogs": 4,
        "test_set/test_set/cats": 2, "test_set/test_set/dogs": 2,
    },
    reads(train={"cats": 4, "dogs": 4}, test={"cats": 2, "dogs": 2}),
)  # fmt: skip
folders(
    "A: data/train and data/test beside extra/",
    "Kaggle",
    {"data/train/cat": 4, "data/train/dog": 4, "data/test/cat": 2, "data/test/dog": 2, "extra/cat": 3, "extra/fox": 3},
    reads("extra", train=PETS, test={"cat": 2, "dog": 2}),
)
folders(
    "A: splits beside a second copy of themselves in a folder",
    "Kaggle: Chest X-ray pneumonia",
    {
        "train/NORMAL": 4, "train/PNEUMONIA": 6, "test/NORMAL": 2, "test/PNEUMONIA": 2, "val/NORMAL": 2,
        "val/PNEUMONIA": 2, "chest_xray/train/NORMAL": 4, "chest_xray/test/NORMAL": 2, "__MACOSX/train/NORMAL": 4,
    },
    reads(
        "chest_xray",
        train={"NORMAL": 4, "PNEUMONIA": 6},
        validation={"NORMAL": 2, "PNEUMONIA": 2},
        test={"NORMAL": 2, "PNEUMONIA": 2},
    ),
)  # fmt: skip
folders(
    "A: splits beside a folder of loose images",
    "Kaggle: Fruits-360",
    {
        "Training/Apple Braeburn": 4, "Training/Apple Red 1": 4, "Test/Apple Braeburn": 2, "Test/Apple Red 1": 2,
        "test-multiple_fruits": 3, "papers": 1,
    },
    reads(
        "test-multiple_fruits",
        "papers",
        train={"Apple Braeburn": 4, "Apple Red 1": 4},
        test={"Apple Braeburn": 2, "Apple Red 1": 2},
    ),
)  # fmt: skip
folders(
    "A: folds of the same classes",
    "UrbanSound-style folds",
    {f"fold{fold}/{name}": 3 for fold in (1, 2, 3) for name in ("cat", "dog")},
    refuses(
        "three folders with the same two classes below: folds, or classes?",
        r"fold1", r"cat", r"class_level",
        ways=[({"class_level": 2}, reads(train={"cat": 9, "dog": 9}))],
    ),
)  # fmt: skip
folders(
    "A: CLASS/images beside CLASS/masks",
    "Kaggle: COVID-19 radiography",
    {"COVID/images": 4, "COVID/masks": 4, "Normal/images": 6, "Normal/masks": 6},
    reads("mask", train={"COVID": 4, "Normal": 6}),
)
folders(
    "A: images/CLASS beside masks/CLASS",
    "segmentation sets",
    {"images/benign": 4, "images/malignant": 4, "masks/benign": 4, "masks/malignant": 4},
    reads("mask", train={"benign": 4, "malignant": 4}),
)
folders(
    "A: flat images beside flat masks",
    "Kaggle: Carvana",
    {"images": 5, "masks": 5},
    refuses("images without classes, and their masks", r"class folder"),
)
folders(
    "A: splits of images/ and masks/ with classes below",
    "segmentation sets",
    {
        "train/images/cat": 4, "train/images/dog": 4, "train/masks/cat": 4, "train/masks/dog": 4,
        "val/images/cat": 2, "val/images/dog": 2, "val/masks/cat": 2, "val/masks/dog": 2,
    },
    reads("mask", train=PETS, validation={"cat": 2, "dog": 2}),
)  # fmt: skip


@layout(
    "A: X.png beside X_mask.png",
    "BUSI breast ultrasound",
    reads("mask", train={"benign": 4, "malignant": 4, "normal": 3}),
)
def _(tree: Tree) -> None:
    for name, count in (("benign", 4), ("malignant", 4), ("normal", 3)):
        for index in range(1, count + 1):
            tree.image(f"Dataset_BUSI_with_GT/{name}/{name} ({index}).png")
            tree.image(f"Dataset_BUSI_with_GT/{name}/{name} ({index})_mask.png")
        tree.image(f"Dataset_BUSI_with_GT/{name}/{name} (1)_mask_1.png")


folders(
    "A: CLASS/train and CLASS/test",
    "Kaggle",
    {"cat/train": 4, "dog/train": 4, "cat/test": 2, "dog/test": 2},
    reads(train=PETS, test={"cat": 2, "dog": 2}),
)
folders(
    "A: CLASS/train, CLASS/valid and CLASS/test under a wrapping folder",
    "Kaggle",
    {
        f"birds/{name}/{split}": count
        for name in ("owl", "tit")
        for split, count in (("train", 4), ("valid", 2), ("test", 3))
    },
    reads(train={"owl": 4, "tit": 4}, validation={"owl": 2, "tit": 2}, test={"owl": 3, "tit": 3}),
)
folders(
    "A: classes called train, plane and car",
    "CIFAR-like vehicles",
    {"train": 4, "plane": 4, "car": 4},
    reads(train={"car": 4, "plane": 4, "train": 4}),
)
folders(
    "A: classes called test and control", "lab data", {"test": 6, "control": 6}, reads(train={"control": 6, "test": 6})
)
folders(
    "A: flat train, val and test",
    "Kaggle detection sets",
    {"train": 5, "val": 3, "test": 3},
    refuses("splits without classes", r"class folder"),
)
folders(
    "A: several folders with their own train and test",
    "MVTec-like collections",
    {
        f"{site}/{split}/{name}": 3
        for site in ("north", "south")
        for split in ("train", "test")
        for name in ("cat", "dog")
    },
    refuses(
        "two datasets in one folder",
        r"north",
        r"south",
        ways=[
            ({"dataset": "north"}, reads(train={"cat": 3, "dog": 3}, test={"cat": 3, "dog": 3})),
            ({"class_level": 3}, reads(train={"cat": 6, "dog": 6}, test={"cat": 6, "dog": 6})),
        ],
    ),
)
folders(
    "A: defect kinds under train and test of several products",
    "MVTec AD",
    {
        "bottle/train/good": 4, "bottle/test/good": 2, "bottle/test/broken": 2, "bottle/ground_truth/broken": 2,
        "cable/train/good": 4, "cable/test/good": 2, "cable/test/bent": 2, "cable/ground_truth/bent": 2,
    },
    refuses("two datasets in one folder", r"bottle", r"cable"),
)  # fmt: skip
folders(
    "A: super-categories above categories",
    "iNaturalist 2018",
    {f"train_val2018/{name}": 3 for name in ("Aves/10", "Aves/9", "Insecta/100", "Insecta/2")},
    refuses(
        "two levels could be the classes",
        r"Aves", r"Insecta", r"\b100\b", r"class_level",
        ways=[
            ({"class_level": 2}, reads(train={"Aves": 6, "Insecta": 6})),
            ({"class_level": 3}, reads(train={"2": 3, "9": 3, "10": 3, "100": 3})),
        ],
    ),
)  # fmt: skip
folders(
    "A: patients below diagnoses",
    "medical sets",
    {"benign/patient01": 3, "benign/patient02": 3, "malignant/patient03": 3, "malignant/patient04": 3},
    refuses(
        "two levels could be the classes",
        r"benign",
        r"patient01",
        r"class_level",
        ways=[({"class_level": 1}, reads(train={"benign": 6, "malignant": 6}))],
    ),
)
folders(
    "A: species below genera, in splits",
    "biodiversity sets",
    {
        "train/Felis/catus": 3, "train/Felis/silvestris": 3, "train/Canis/lupus": 3, "train/Canis/aureus": 3,
        "test/Felis/catus": 1, "test/Felis/silvestris": 1, "test/Canis/lupus": 1, "test/Canis/aureus": 1,
    },
    refuses(
        "two levels could be the classes",
        r"Felis", r"catus", r"class_level",
        ways=[
            ({"class_level": 2}, reads(train={"Canis": 6, "Felis": 6}, test={"Canis": 2, "Felis": 2})),
            (
                {"class_level": 3},
                reads(
                    train={"aureus": 3, "catus": 3, "lupus": 3, "silvestris": 3},
                    test={"aureus": 1, "catus": 1, "lupus": 1, "silvestris": 1},
                ),
            ),
        ],
    ),
)  # fmt: skip
folders(
    "A: magnifications deep below the diagnoses",
    "BreakHis",
    {
        f"BreaKHis_v1/histology_slides/breast/{kind}/SOB/{sub}/SOB_{number}/{scale}X": 1
        for kind, sub, number in (
            ("benign", "adenosis", 1), ("benign", "adenosis", 2), ("benign", "fibroadenoma", 3),
            ("malignant", "ductal_carcinoma", 4), ("malignant", "lobular_carcinoma", 5),
        )
        for scale in (40, 100)
    },
    refuses(
        "several levels could be the classes",
        r"benign", r"adenosis", r"class_level",
        ways=[
            ({"class_level": 4}, reads(train={"benign": 6, "malignant": 4})),
            (
                {"class_level": 6},
                reads(train={"adenosis": 4, "ductal_carcinoma": 2, "fibroadenoma": 2, "lobular_carcinoma": 2}),
            ),
        ],
    ),
)  # fmt: skip
folders(
    "A: the same subfolder in each class",
    "scraped sets",
    {"cat/raw": 4, "dog/raw": 4},
    reads(train=PETS),
)
folders(
    "A: a subfolder of its own kind in each class",
    "scraped sets",
    {"cat/cat_images": 4, "dog/dog_images": 4},
    reads(train=PETS),
)
folders(
    "A: images in the class folder and below it",
    "scraped sets",
    {"cat": 4, "dog": 4, "dog/more": 2, "cat/2023": 1},
    reads(r"deeper|below", train={"cat": 5, "dog": 6}),
)
folders(
    "A: years below classes",
    "camera traps",
    {"cat/2021": 3, "cat/2022": 3, "dog/2021": 3, "dog/2022": 3},
    refuses(
        "two levels could be the classes",
        r"2021", r"cat", r"class_level",
        ways=[({"class_level": 1}, reads(train={"cat": 6, "dog": 6}))],
    ),
)  # fmt: skip
folders(
    "A: domains above the same classes",
    "PACS",
    {f"PACS/{domain}/{name}": 3 for domain in ("art_painting", "cartoon", "photo") for name in ("dog", "horse")},
    refuses(
        "three folders with the same two classes below: domains, or classes?",
        r"cartoon", r"horse", r"class_level",
        ways=[
            ({"class_level": 3}, reads(train={"dog": 9, "horse": 9})),
            ({"class_level": 2}, reads(train={"art_painting": 6, "cartoon": 6, "photo": 6})),
        ],
    ),
)  # fmt: skip
folders(
    "A: domains, each with one folder images/ of classes",
    "Office-31",
    {f"{domain}/images/{name}": 3 for domain in ("amazon", "dslr", "webcam") for name in ("back_pack", "bike")},
    refuses(
        "three folders with the same two classes below: domains, or classes?",
        r"webcam", r"bike", r"class_level",
        ways=[({"class_level": 3}, reads(train={"back_pack": 9, "bike": 9}))],
    ),
)  # fmt: skip
folders(
    "A: corruptions and severities above the classes",
    "ImageNet-C",
    {
        f"{kind}/{level}/{name}": 2
        for kind in ("fog", "snow")
        for level in (1, 5)
        for name in ("n01440764", "n01443537")
    },
    refuses(
        "three levels could be the classes",
        r"fog",
        r"n01440764",
        r"class_level",
        ways=[({"class_level": 3}, reads(train={"n01440764": 8, "n01443537": 8}))],
    ),
)
folders(
    "A: parts of a download beside each other",
    "Google Drive zip",
    {
        "photos-20240101T120000Z-001/photos/cat": 4, "photos-20240101T120000Z-001/photos/dog": 2,
        "photos-20240101T120000Z-002/photos/dog": 2, "photos-20240101T120000Z-002/photos/fox": 4,
    },
    reads(train={"cat": 4, "dog": 4, "fox": 4}),
)  # fmt: skip
folders(
    "A: classes beside a folder with the same classes",
    "Kaggle: Malaria cell images, Brain MRI, PlantVillage",
    {"Parasitized": 4, "Uninfected": 4, "cell_images/Parasitized": 4, "cell_images/Uninfected": 4},
    refuses("class names repeat below one of the classes", r"cell_images", r"Parasitized"),
)
folders(
    "A: colour, grey and segmented copies of the same classes",
    "PlantVillage",
    {
        f"plantvillage dataset/{look}/{name}": 3
        for look in ("color", "grayscale", "segmented") for name in ("Apple___Apple_scab", "Apple___healthy")
    },
    refuses(
        "three folders with the same two classes below",
        r"grayscale", r"Apple___healthy", r"class_level",
        ways=[
            ({"class_level": 3}, reads(train={"Apple___Apple_scab": 9, "Apple___healthy": 9})),
        ],
    ),
)  # fmt: skip
folders(
    "A: only test and validation folders, no training",
    "evaluation sets",
    {"val/cat": 4, "val/dog": 4, "test/cat": 2, "test/dog": 2},
    refuses("nothing to train on", r"train"),
)
folders(
    "A: train, test and a class folder beside them",
    "unpacked twice",
    {"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2, "cat": 3},
    reads(r"\bcat\b", train=PETS, test={"cat": 2, "dog": 2}),
)
folders(
    "A: two training folders",
    "semi-supervised sets",
    {"train/cat": 4, "train/dog": 4, "train_unlabeled": 5, "test/cat": 2, "test/dog": 2},
    reads("train_unlabeled", train=PETS, test={"cat": 2, "dog": 2}),
)
folders(
    "A: folders that a phone named by the day",
    "photos from a phone",
    {"2024-05-30": 4, "2024-05-31": 4},
    refuses(
        "days say nothing of what the images show",
        r"2024-05-30, 2024-05-31 are dates",
        ways=[({"accept_classes": True}, reads(train={"2024-05-30": 4, "2024-05-31": 4}))],
    ),
)
folders(
    "A: a folder of what is still to be labelled",
    "a labelling in progress",
    {"cat": 4, "dog": 4, "unlabeled": 5},
    refuses(
        "its images may be of any class",
        r"unlabeled is beside 2 class folders",
        r"no label",
        ways=[({"accept_classes": True}, reads(train={**PETS, "unlabeled": 5}))],
    ),
)
folders(
    "A: flat class folders under a wrapping folder",
    "TensorFlow flower_photos",
    {"flower_photos/daisy": 4, "flower_photos/roses": 4, "flower_photos/tulips": 4},
    reads("flower_photos", train={"daisy": 4, "roses": 4, "tulips": 4}),
)
folders(
    "A: Images/ and Annotations/ of the same classes",
    "UC Merced, Caltech-101",
    {"UCMerced_LandUse/Images/agricultural": 4, "UCMerced_LandUse/Images/airplane": 4},
    reads(train={"agricultural": 4, "airplane": 4}),
)


@layout(
    "A: Images/CLASS beside Annotation/CLASS without suffixes",
    "Stanford Dogs",
    reads(train={"n02085620-Chihuahua": 4, "n02085782-Japanese_spaniel": 4}),
)
def _(tree: Tree) -> None:
    for name in ("n02085620-Chihuahua", "n02085782-Japanese_spaniel"):
        for path in tree.images(f"Images/{name}", 4, name[:9] + "_{:d}.jpg"):
            tree.text(path.replace("Images", "Annotation").removesuffix(".jpg"), "<annotation></annotation>")
    tree.text("lists/train_list.mat", "MATLAB")


@layout(
    "A: train/CLASS/images, and a table for val",
    "Tiny ImageNet",
    reads("test", train={"n01443537": 4, "n01629819": 4}, validation={"n01443537": 3, "n01629819": 3}),
)
def _(tree: Tree) -> str:
    root = "tiny-imagenet-200"
    for name in ("n01443537", "n01629819"):
        paths = tree.images(f"{root}/train/{name}/images", 4, name + "_{:d}.JPEG")
        tree.table(f"{root}/train/{name}/{name}_boxes.txt", "", [(each, 0, 10, 63, 58) for each in names(paths)], "\t")
    paths = tree.images(f"{root}/val/images", 6, "val_{:d}.JPEG")
    rows = [(*row, 0, 32, 44, 62) for row in labelled(names(paths), ("n01443537", "n01629819"))]
    tree.table(f"{root}/val/val_annotations.txt", "", rows, "\t")
    tree.images(f"{root}/test/images", 5, "test_{:d}.JPEG")
    tree.text(f"{root}/wnids.txt", "n01443537", "n01629819")
    tree.text(f"{root}/words.txt", "n01443537\tgoldfish, Carassius auratus", "n01629819\tEuropean fire salamander")
    return root


@layout(
    "A: train/CLASS, and val as it is downloaded",
    "ImageNet ILSVRC2012",
    reads("val", train={"n01440764": 4, "n01443537": 4}),
)
def _(tree: Tree) -> None:
    for name in ("n01440764", "n01443537"):
        tree.images(f"ILSVRC2012_img_train/{name}", 4, name + "_{:d}.JPEG")
    tree.images("ILSVRC2012_img_val", 6, "ILSVRC2012_val_{:08d}.JPEG", first=1)
    tree.text(
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", *["490", "361", "171", "822", "297", "482"]
    )


@layout(
    "A: Data/CLS-LOC with Annotations/ and ImageSets/",
    "Kaggle: ImageNet object localization",
    reads("LOC_val_solution", train={"n01440764": 4, "n01443537": 4}, validation={"n01440764": 4, "n01443537": 0}),
)
def _(tree: Tree) -> None:
    for name in ("n01440764", "n01443537"):
        for path in tree.images(f"ILSVRC/Data/CLS-LOC/train/{name}", 4, name + "_{:d}.JPEG"):
            tree.text(path.replace("Data", "Annotations").replace(".JPEG", ".xml"), "<annotation/>")
    val = stems(tree.images("ILSVRC/Data/CLS-LOC/val", 4, "ILSVRC2012_val_{:08d}.JPEG", first=1))
    tree.images("ILSVRC/Data/CLS-LOC/test", 3, "ILSVRC2012_test_{:08d}.JPEG", first=1)
    tree.table("ILSVRC/ImageSets/CLS-LOC/val.txt", "", [(name, number) for number, name in enumerate(val, 1)], " ")
    boxes = [(name, f"n01440764 {number} 85 1 499 ") for number, name in enumerate(val)]
    tree.table("LOC_val_solution.csv", "ImageId,PredictionString", boxes)
    tree.table("LOC_sample_submission.csv", "ImageId,PredictionString", [("ILSVRC2012_test_00000001", "n0 1 1 1 1")])
    tree.text("LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus")


# --- G: links ----------------------------------------------------------------------------------------------


@layout(
    "G: val is a link to test",
    "shared disks",
    refuses(
        "the same files in validation and test",
        r"val", r"test", r"00\d\.jpg",
        ways=[({"allow_overlap": True}, reads(train=PETS, validation={"cat": 2, "dog": 2}, test={"cat": 2, "dog": 2}))],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    tree.pets("train")
    tree.pets("test", 2)
    (tree.root / "val").symlink_to("test")


@layout(
    "G: a class of test is a link into train",
    "shared disks",
    refuses("a class without training images, and the same files in both", r"\bc\b"),
)
def _(tree: Tree) -> None:
    tree.folders({"train/a": 4, "train/b": 4, "test/b": 2})
    (tree.root / "test/c").symlink_to("../train/a")


@layout(
    "G: the same bytes in train and test",
    "Kaggle: sets with leaks",
    refuses(
        "copies of training images in test",
        r"train", r"test",  r"allow_overlap",
        ways=[({"allow_overlap": True}, reads(train=PETS, test={"cat": 3, "dog": 2}))],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    path = tree.pets("train")[0]
    tree.pets("test", 2)
    (tree.root / "test/cat/copy.png").write_bytes((tree.root / path).read_bytes())


@layout("G: the same bytes twice in train", "scraped sets", reads(train={"cat": 5, "dog": 4}))
def _(tree: Tree) -> None:
    path = tree.pets()[0]
    (tree.root / "cat/Copy of 000.jpg").write_bytes((tree.root / path).read_bytes())


@layout("G: class folders are links to another disk", "clusters", reads(train=PETS))
def _(tree: Tree) -> str:
    tree.pets("disk2/store")
    (tree.root / "data").mkdir()
    for name in ("cat", "dog"):
        (tree.root / "data" / name).symlink_to(tree.root / "disk2/store" / name)
    return "data"


@layout("G: every file is a link into a store", "git-annex, the Hub's cache", reads(train=PETS))
def _(tree: Tree) -> str:
    for index, path in enumerate(tree.pets("data")):
        target = tree.root / "blobs" / f"{index:040x}"
        target.parent.mkdir(exist_ok=True)
        (tree.root / path).rename(target)
        (tree.root / path).symlink_to(f"../../blobs/{target.name}")
    return "data"


@layout("G: a link to its own ancestor", "shared disks", reads(train=PETS))
def _(tree: Tree) -> None:
    tree.pets()
    (tree.root / "cat/all").symlink_to("..")


@layout(
    "G: a link that leads nowhere",
    "git-annex without content",
    refuses(
        "a file is missing",
        r"cat/gone\.jpg",
        ways=[({"bad_images": "skip"}, reads(r"gone|1 row", train={"cat": 5, "dog": 4}))],
    ),
)
def _(tree: Tree) -> None:
    tree.pets()
    (tree.root / "cat/gone.jpg").symlink_to("../.git/annex/objects/gone.jpg")


@layout("G: what systems leave behind", "Google Drive, macOS, Jupyter, Windows", reads(train=PETS))
def _(tree: Tree) -> None:
    tree.pets("photos")
    tree.image("photos/cat/.ipynb_checkpoints/000-checkpoint.jpg")
    tree.image("__MACOSX/photos/cat/._000.jpg")
    tree.image("photos/.Trash-1000/files/old.jpg")
    tree.text("photos/cat/Thumbs.db", "x")
    tree.text("photos/desktop.ini", "x")
    tree.text("photos/.DS_Store", "x")


@layout("G: every suffix that Pillow reads", "scraped sets", reads(train={"cat": 8, "dog": 4}))
def _(tree: Tree) -> None:
    for suffix in ("JPG", "jpeg", "JPE", "jfif", "webp", "TIFF", "bmp", "gif"):
        tree.image(f"cat/{suffix}.{suffix}")
    tree.images("dog", 4, "{}.tif")


@layout(
    "G: hard links between splits", "deduplicated disks", refuses("the same files in train and test", r"train", r"test")
)
def _(tree: Tree) -> None:
    path = tree.pets("train")[0]
    tree.pets("test", 2)
    os.link(tree.root / path, tree.root / "test/cat/000b.jpg")


@layout(
    "G: a class is a link to another class",
    "aliases",
    refuses("one set of files under two class names", r"cat", r"kitten"),
)
def _(tree: Tree) -> None:
    tree.pets()
    (tree.root / "kitten").symlink_to("cat")


# --- H: carving and limits ---------------------------------------------------------------------------------

folders(
    "H: two images in each class",
    "few-shot sets",
    {"a": 2, "b": 2, "c": 2},
    reads(r"3 of .*6 .*50(\.0)?%", train={"a": 2, "b": 2, "c": 2}),
)
for _count in (9, 12):
    folders(
        f"H: {_count} classes of one image, with a val folder",
        "one-shot sets",
        {f"{split}/class_{index:02d}": 1 for split in ("train", "val") for index in range(_count)},
        reads(**{role: {f"class_{i:02d}": 1 for i in range(_count)} for role in ("train", "validation")}),
    )  # fmt: skip
folders(
    "H: max_train_samples below the number of classes",
    "any",
    {f"{split}/{name}": 4 if split == "train" else 2 for split in ("train", "val") for name in "abcd"},
    reads(r"\bc, d\b", train={"a": 1, "b": 1, "c": 0, "d": 0}, validation=dict.fromkeys("abcd", 2)),
    max_train_samples=2,
)


@layout(
    "H: a class of .HEIC files only",
    "photos from a phone",
    refuses(
        "a class would be missing",
        r"dog", r"(?i)\.heic",
        ways=[({"accept_classes": True}, reads(r"(?i)heic", train={"cat": 4, "fox": 4}))],
    ),
)  # fmt: skip
def _(tree: Tree) -> None:
    tree.folders({"cat": 4, "fox": 4})
    for index in range(4):
        tree.text(f"dog/IMG_{index}.HEIC", "heif")


@layout(
    "H: a class of files without suffix",
    "exports by id",
    refuses(
        "a class would be missing",
        r"dog",
        ways=[({"accept_classes": True}, reads(train={"cat": 4, "fox": 4}))],
    ),
)
def _(tree: Tree) -> None:
    tree.folders({"cat": 4, "fox": 4})
    for path in tree.images("dog", 4):
        (tree.root / path).rename((tree.root / path).with_suffix(""))


@layout(
    "H: some images of a class are .HEIC",
    "photos from a phone",
    reads(r"2 .*(?i:heic)|(?i:heic).*2\b", train=PETS),
)
def _(tree: Tree) -> None:
    tree.pets()
    tree.text("dog/IMG_1.HEIC", "heif")
    tree.text("dog/IMG_2.heic", "heif")


@layout("H: an empty class folder", "half a download", reads(r"\bfox\b", train=PETS))
def _(tree: Tree) -> None:
    tree.pets()
    (tree.root / "fox").mkdir()


folders(
    "H: one class only", "one-class sets", {"train/cat": 5, "test/cat": 3}, refuses("one class", r"cat", r"two classes")
)
folders(
    "H: a class of validation that training lacks",
    "moved by hand",
    {"train/cat": 4, "train/dog": 4, "val/cat": 2, "val/fox": 2},
    refuses("a class without training images", r"fox"),
)
folders(
    "H: a class of training that validation lacks",
    "moved by hand",
    {"train/cat": 4, "train/dog": 4, "val/cat": 2},
    reads(r"\bdog\b", train=PETS, validation={"cat": 2}),
)
folders(
    "H: many people, some with one photo",
    "Labeled Faces in the Wild",
    {f"lfw/{name}": count for name, count in (("Aaron_Eckhart", 1), ("Abdul_Rahman", 1), ("Bush", 6), ("Powell", 4))},
    reads(r"Aaron_Eckhart", train={"Aaron_Eckhart": 1, "Abdul_Rahman": 1, "Bush": 6, "Powell": 4}),
)


@layout(
    "H: more classes than the largest carved validation",
    "product sets",
    reads(r"10,000 of", r"11,?000", train={f"{index:05d}": 2 for index in range(11_000)}),
)
def _(tree: Tree) -> None:
    import datasets

    labels = [f"{index % 11_000:05d}" for index in range(22_000)]
    tree.rows(22_000, label=(labels, datasets.Value("string"))).to_parquet(tree.root / "train.parquet")


# --- I: names ----------------------------------------------------------------------------------------------

_NFC, _NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@layout("I: a file name that is not UTF-8", "old zip archives", reads(r"UTF-8", train=PETS))
def _(tree: Tree) -> None:
    tree.pets()
    with open(os.fsencode(tree.root / "cat") + b"/caf\xe9.jpg", "wb") as file:  # noqa: PTH123
        file.write(tree.content())


@layout(
    "I: a class folder whose name is not UTF-8",
    "old zip archives",
    refuses("a class would be missing", r"UTF-8", ways=[({"accept_classes": True}, reads(r"UTF-8", train=PETS))]),
)
def _(tree: Tree) -> None:
    tree.pets()
    folder = os.fsencode(tree.root) + b"/caf\xe9"
    os.mkdir(folder)  # noqa: PTH102
    for index in range(3):
        with open(folder + b"/%d.jpg" % index, "wb") as file:  # noqa: PTH123
            file.write(tree.content())


folders(
    "I: NFC in train, NFD in test",
    "macOS beside Linux",
    {f"train/{_NFC}": 4, "train/tea": 4, f"test/{_NFD}": 2, "test/tea": 2},
    reads(train={_NFC: 4, "tea": 4}, test={_NFC: 2, "tea": 2}),
)
folders(
    "I: NFC and NFD of one class side by side",
    "macOS beside Linux",
    {_NFC: 4, _NFD: 3, "tea": 4},
    reads(train={_NFC: 7, "tea": 4}),
)
folders(
    "I: class names in many scripts",
    "the world",
    {"猫": 4, "собака": 4, "🦊": 4, "قطة": 4},
    reads(train=dict.fromkeys(sorted(("猫", "собака", "🦊", "قطة")), 4)),
)
folders(
    "I: class names with signs of all kinds",
    "scraped sets",
    {"-rf": 4, "50% off": 4, "a, b": 4, 'c "d"': 4, "e#f": 4, "g'h": 4, "[i]": 4, "*": 4},
    reads(train=dict.fromkeys(sorted(("-rf", "50% off", "a, b", 'c "d"', "e#f", "g'h", "[i]", "*")), 4)),
)
folders(
    "I: class names with a line break and an escape",
    "hostile archives",
    {"two\nlines": 4, "red\x1b[31m": 4},
    reads(train={"red\x1b[31m": 4, "two\nlines": 4}),
)


@layout("I: a table in NFD beside files in NFC", "macOS beside Linux", reads(train={_NFC: 4, "tea": 4}))
def _(tree: Tree) -> None:
    paths = tree.images("photos", 8, _NFC + "_{}.jpg")
    rows = labelled([unicodedata.normalize("NFD", path) for path in paths], (_NFD, "tea"))
    tree.table("labels.csv", "file,label", rows)


folders(
    "I: numbers as class folders are sorted by value",
    "MNIST as folders",
    {str(number): 2 for number in range(12)},
    reads(train={str(number): 2 for number in range(12)}),
)
folders(
    "I: numbers with leading zeros",
    "GTSRB",
    {f"{number:05d}": 2 for number in (0, 1, 2, 10)},
    reads(train={f"{number:05d}": 2 for number in (0, 1, 2, 10)}),
)


# --- more of the same kinds --------------------------------------------------------------------------------

folders(
    "A: numbered parts of a download, each with images/",
    "NIH chest X-rays without its table",
    {"images_001/images": 4, "images_002/images": 4},
    refuses("parts of an archive, not classes", r"class folder"),
)
folders(
    "A: test images in test/test",
    "Kaggle: Aerial cactus identification, sorted",
    {"train/cactus": 4, "train/none": 4, "test/test": 3},
    reads("test", train={"cactus": 4, "none": 4}),
)
folders(
    "A: test images in test/unknown",
    "ImageDataGenerator's habit",
    {"train/cat": 4, "train/dog": 4, "test/unknown": 3},
    refuses("a class without training images", r"unknown", r"test_split|test"),
)
folders(
    "A: train and val of two classes",
    "PyTorch's hymenoptera_data",
    {
        "hymenoptera_data/train/ants": 4,
        "hymenoptera_data/train/bees": 4,
        "hymenoptera_data/val/ants": 2,
        "hymenoptera_data/val/bees": 2,
    },
    reads(train={"ants": 4, "bees": 4}, validation={"ants": 2, "bees": 2}),
)
folders(
    "A: train, val and dev, test and eval at once",
    "grown sets",
    {f"{split}/{name}": 3 for split in ("train", "val", "dev", "test", "eval") for name in ("cat", "dog")},
    reads("dev", "eval", train={"cat": 3, "dog": 3}, validation={"cat": 3, "dog": 3}, test={"cat": 3, "dog": 3}),
)
folders(
    "A: train/ in two spellings",
    "Windows beside Linux",
    {"train/cat": 3, "Train/dog": 3, "test/cat": 2, "test/dog": 2},
    refuses("two folders for one split", r"\btrain\b", r"\bTrain\b"),
)
folders(
    "A: only a folder called test",
    "half a download",
    {"test/cat": 4, "test/dog": 4},
    refuses("nothing to train on", r"test", r"train", ways=[({"train_split": "test"}, reads(train=PETS))]),
)
folders("H: an empty folder", "half a download", {}, refuses("there is nothing", r"no images|empty"))
folders(
    "H: nothing but hidden files",
    "backups",
    {".git/cat": 3, ".cache/dog": 3},
    refuses("there is nothing", r"no images", r"hidden"),
)
folders(
    "G: thumbnails of a file manager below each class",
    "Synology, Picasa",
    {"cat": 4, "dog": 4, "cat/@eaDir": 4, "dog/.picasaoriginals": 3},
    reads(r"@eaDir", train=PETS),
)


@layout(
    "G: two links to one folder as two splits",
    "shared disks",
    refuses("the same files in train and test", r"train", r"test"),
)
def _(tree: Tree) -> str:
    tree.pets("store")
    (tree.root / "data").mkdir()
    for split in ("train", "test"):
        (tree.root / "data" / split).symlink_to("../store")
    return "data"


@layout("I: a folder with signs that file patterns use", "downloads", reads(train=PETS, test={"cat": 2, "dog": 2}))
def _(tree: Tree) -> str:
    root = "my [2024] data, 50%? *"
    tree.table(f"{root}/train.csv", "file,label", [(path.removeprefix(f"{root}/"), label) for path, label in
                                                   labelled(tree.images(f"{root}/photos", 8))])  # fmt: skip
    tree.table(f"{root}/test.csv", "file,label", [(path.removeprefix(f"{root}/"), label) for path, label in
                                                  labelled(tree.images(f"{root}/photos", 4, "t{}.jpg"))])  # fmt: skip
    return root

"""The house: who may import whom, what must be declared, and what must not be done anywhere."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import vitft

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "vitft"

# From the ground up. A module imports from lower floors only; neighbours on a floor do not know each other.
FLOORS = [
    ["outside"],
    ["errors", "disk", "files", "libraries", "notebook"],
    ["builtin", "retry", "ownership", "environment", "machine", "quantities", "status", "svg"],
    ["recipe"],
    ["processes", "names"],
    ["run"],
    ["data"],
    ["views", "reading"],
    ["architectures"],
    ["resolution"],
    ["model"],
    ["scoring", "pictures"],
    ["features"],
    ["probes"],
    ["train", "report"],
    ["hub"],
    ["tasks"],
    ["cli"],
    ["__main__"],
]

# Inside a folder, a file imports from those before it.
FOLDERS = {
    "builtin": ["__init__", "digits"],
    "recipe": [
        "choices", "lengths", "sizes", "amounts", "rates", "yaml12", "keys", "complaints", "recipe", "describe",
        "fields", "flags",
    ],
    "processes": ["signals", "worker", "fsdp", "accelerate_config", "device", "launch", "turns"],
    "data": [
        "order", "row_numbers", "class_counts", "staging", "images", "row_order", "store", "cache", "staged_store",
        "batches", "device_store", "workers", "train_batches", "stream_batches", "evaluation_batches",
    ],
    "views": [
        "pixel_values", "geometry", "resampling", "tone", "focus", "warp", "random_ops", "erasing", "mixing", "policy",
    ],
    "reading": [
        "words", "listing", "places", "class_level", "folders", "tables", "joining", "splitting", "table_labels",
        "evidence", "rows", "files", "columns", "labels", "splits", "tars", "shards", "opened", "plain", "formats",
        "saved", "unread", "streams", "local", "downloads", "opening", "encoded", "fingerprint", "copies", "checks",
        "guard", "chosen", "source", "overview",
    ],
    "architectures": [
        "settings", "timm_models", "dinov3", "family", "families", "config", "blocks", "last_block", "weights",
    ],
    "resolution": ["tables", "patch", "retarget", "encoding", "multisize"],
    "model": [
        "pixels", "processor", "fitting", "locate", "origin", "gate", "opening", "adapter", "classifier", "head",
        "load", "fold", "rewrite", "trainable", "head_input", "block_input", "drop_path",
    ],
    "scoring": [
        "scores", "per_class", "predictions", "evidence", "calibration", "calibration_file", "told", "collecting",
        "table", "modules", "metrics", "shifts", "evaluation", "prediction",
    ],
    "pictures": [
        "token_places", "recording", "attention", "positions", "filters", "tokens", "look", "captions", "draw",
        "figures", "numbers", "page",
    ],
    "features": ["features", "backbone", "views", "facts", "store", "kept"],
    "probes": ["labelled", "few_shot", "neighbours", "logistic", "head", "outcome", "table"],
    "train": [
        "trial", "cost", "memory", "caching", "imbalance", "feature_plan", "batch_plan", "sharding", "plan",
        "compiling", "averages", "optim", "checkpoint", "sharded_checkpoint", "clock", "stopping", "on_features",
        "head_first", "setup", "late", "resume", "pace", "step", "progress", "validation", "fit", "rate_trials",
    ],
    "report": [
        "runs", "size_plot", "gallery", "record", "words", "confusion", "charts", "sections", "page",
        "comparison",
    ],
    "hub": ["prose", "bundle", "card", "access", "push", "background"],
    "tasks": [
        "models", "judging", "ending", "calibrating", "describing", "photos", "tracking", "picturing",
        "training_views", "thumbnails", "publishing", "recording", "reporting", "keeping", "peak_memory", "finishing",
        "candidate", "probing", "loading", "training", "viewing", "evaluating", "predicting", "resizing", "inspecting",
        "__init__",
    ],
    "cli": [
        "foreign", "command", "recipe_flags", "options", "images", "data", "views", "finetune", "probe", "evaluate",
        "predict",
        "resize", "inspect", "report", "push", "recipes", "runs", "cache", "__init__",
    ],
}  # fmt: skip

DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", "sklearn": "scikit-learn"}
NEVER_SET = ("ignore_mismatched_sizes", "trust_remote_code")
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path.relative_to(SOURCE): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def parts(path: Path) -> tuple[str, str | None]:
    """Return (what stands on a floor, the place inside its folder) of a file."""
    names = path.with_suffix("").parts
    return names[0], names[1] if len(names) > 1 else None


def floor_of(name: str) -> int:
    return next((number for number, names in enumerate(FLOORS) if name in names), -1)


def imports(tree: ast.AST) -> list[tuple[int, str]]:
    """Return (line, dotted name) of everything that is imported, also inside functions."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def ours(dotted: str) -> tuple[str, str | None] | None:
    """Return the module of vitft that an imported name lies in, None for the package itself or a stranger."""
    names = dotted.split(".")
    if names[0] != "vitft" or len(names) < 2:
        return None
    for end in range(len(names), 1, -1):
        module = SOURCE.joinpath(*names[1:end])
        if module.with_suffix(".py").is_file():
            return parts(module.relative_to(SOURCE))
        if module.is_dir():
            return names[1], names[2] if len(names) > 2 and end > 2 else "__init__"
    return None


@pytest.mark.parametrize("path", TREES, ids=str)
def test_every_file_has_its_place(path):
    name, place = parts(path)
    if place is None:
        assert name == "__init__" or floor_of(name) >= 0, f"{path} stands on no floor"
    elif (SOURCE / path).stat().st_size:
        assert place in FOLDERS[name], f"{path} has no place in its folder"


def test_every_place_has_its_file():
    there = {(name, place) for name, place in map(parts, TREES)}
    named = {(name, None) for floor in FLOORS for name in floor if name not in FOLDERS}
    inside = {(name, place) for name, places in FOLDERS.items() for place in places}
    assert named | inside <= there | {("scoring", "modules")}


def test_arrows_between_folders_go_one_way():
    arrows = {(parts(path)[0], ours(dotted)[0]) for path in TREES for _, dotted in imports(TREES[path]) if ours(dotted)}
    assert [arrow for arrow in arrows if arrow[0] != arrow[1] and arrow[::-1] in arrows] == []


@pytest.mark.parametrize("path", TREES, ids=str)
def test_a_file_imports_only_from_lower_floors(path):
    name, place = parts(path)
    for line, dotted in imports(TREES[path]):
        target = ours(dotted)
        if target is None:
            continue
        where = f"{path}:{line} imports {dotted}"
        if target[0] == name and place is not None:
            order = FOLDERS[name]
            assert order.index(target[1]) <= order.index(place), f"{where}, which stands behind it"
        else:
            assert floor_of(target[0]) < floor_of(name), f"{where}, which is on no lower floor"


def test_every_import_of_a_package_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    declared = {re.match(r"[\w.\-]+", each)[0].lower().replace("_", "-").replace(".", "-") for each in requirements}
    for path, tree in TREES.items():
        for line, dotted in imports(tree):
            top = dotted.split(".")[0]
            if top != "vitft" and top not in sys.stdlib_module_names:
                name = DISTRIBUTIONS.get(top, top).lower().replace("_", "-")
                assert name in declared, f"{path}:{line} imports {top}, which pyproject.toml does not declare"


def unsafe(tree: ast.AST) -> list[str]:
    """Return what a file does that none may do."""
    found = [f"{line}: imports {name}" for line, name in imports(tree) if name.split(".")[0] in FORBIDDEN_IMPORTS]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {each.arg: each.value for each in node.keywords}
            for name in NEVER_SET:
                if name in keywords:
                    found.append(f"{node.lineno}: sets {name}")
            if is_true(keywords.get("allow_pickle")):
                found.append(f"{node.lineno}: allows pickles")
            if ast.unparse(node.func) == "torch.load" and not is_true(keywords.get("weights_only")):
                found.append(f"{node.lineno}: torch.load without weights_only=True")
    return found


def is_true(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


@pytest.mark.parametrize("path", TREES, ids=str)
def test_nothing_unsafe_is_done(path):
    assert unsafe(TREES[path]) == []


@pytest.mark.parametrize(
    "line",
    [
        "from pickle import loads",
        "import joblib",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        *(f"AutoModel.from_pretrained(name, {word}={value})" for word in NEVER_SET for value in (True, False)),
    ],
)
def test_what_is_unsafe_is_seen(line):
    assert len(unsafe(ast.parse(line))) == 1
    assert unsafe(ast.parse("torch.load(path, weights_only=True); np.load(path)")) == []


def test_import_vitft_imports_nothing_heavy():
    heavy = "{'torch', 'transformers', 'datasets', 'pydantic', 'yaml', 'numpy', 'rich', 'typer'}"
    code = f"import sys, vitft; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_public_names_exist():
    assert vitft.__all__ == [
        "Recipe",
        "VitftError",
        "__version__",
        "describe",
        "evaluate",
        "finetune",
        "inspect",
        "predict",
        "predict_each",
        "probe",
        "push",
        "resize",
        "show_views",
        "write_report",
    ]
    assert dir(vitft) == vitft.__all__
    for name in vitft.__all__:
        assert getattr(vitft, name) is not None


def test_an_unknown_name_is_an_attribute_error_that_lists_the_known():
    with pytest.raises(AttributeError, match="it has Recipe"):
        vitft.fine_tune  # noqa: B018

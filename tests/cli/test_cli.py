"""The command line: what it accepts, what it says, and how it ends."""

import json
import os
import subprocess
import sys

import pytest
from cli.command import run
from typer.main import get_command

import vitft
from vitft.cli import app
from vitft.errors import DataError, StoppedEarly, TrainError
from vitft.processes import launch, worker
from vitft.processes.worker import PeerLost
from vitft.recipe.fields import FIELDS
from vitft.recipe.flags import FLAGS as TABLE
from vitft.recipe.recipe import Recipe, keys
from vitft.run import Run

HEAVY = ("torch", "transformers", "datasets", "rich", "pydantic")

FLAGS = {
    "finetune": """--adapter --bad-images --batch-size --create-pr --dataset --dataset-revision --debug --deterministic
        --device --dry-run --epochs --force --format --from --fsdp --hub-every --hub-repo --hub-revision --image-size
        --lr --max-train-samples
        --metrics --model --model-revision --name --num-processes --output-dir --precision --private --profile
        --push-to-hub --recipe --resume --seed --set --streaming --time --track --train --trust-metrics""",
    "data": "--bad-images --dataset-revision --debug --format --set",
    "views": """--batch-size --dataset --dataset-revision --debug --epochs --format --image-size --max-train-samples
        --model --model-revision --number --output --per-image --recipe --seed --set --train -o""",
    "evaluate": """--bad-images --batch-size --calibrate --dataset --dataset-revision --debug --device
        --fold-temperature --format --image-size --method --metrics --model-revision --num-processes --output -o
        --per-class --plot --precision --set --shift --split""",
    "inspect": """--bad-images --class --dataset --dataset-revision --debug --device --format --image-size --method
        --model-revision --num-images --only --output --show --split -o""",
    "predict": """--batch-size --calibrated --debug --device --format --image-size --method --model-revision --precision
        --set --top-k""",
    "probe": """--bad-images --dataset --dataset-revision --debug --device --format --image-size --max-train-samples
        --method --num-processes --precision --save --seed --set --shots""",
    "push": "--create-pr --debug --force --format --hub-revision --license --private --training",
    "report": "--debug --format --output -o",
    "resize": "--debug --format --image-size --method --model-revision --patch-size --window-size",
    "recipes ls": "--debug",
    "recipes show": "--debug",
    "recipes cp": "--debug",
    "recipes validate": "--debug",
    "recipes schema": "--debug",
    "recipes keys": "--debug --format",
    "runs ls": "--debug --format",
    "runs clean": "--debug --yes -y",
    "cache ls": "--debug --format",
    "cache rm": "--all --debug",
}


CALLED = {"resume": None, "changes": {}, "dry_run": False, "is_timed": False, "trust_metrics": False}


# --- lightness and shape -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([*name.split(), "--help"] for name in FLAGS)])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom vitft.cli import main\n"
        f"try: main({arguments!r})\n"
        f"finally: sys.stderr.write(' '.join({{*sys.modules}} & {{*{HEAVY!r}}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_every_command_has_the_flags_that_were_agreed():
    group = get_command(app)
    groups = ("recipes", "runs", "cache")
    commands = {name: command for name, command in group.commands.items() if name not in groups}
    for each in groups:
        commands |= {f"{each} {name}": command for name, command in group.commands[each].commands.items()}
    found = {
        name: sorted(flag for each in command.params if each.param_type_name == "option" for flag in each.opts)
        for name, command in commands.items()
    }
    assert found == {name: sorted(flags.split()) for name, flags in FLAGS.items()}


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"vitft {vitft.__version__}\n"


def test_python_m_runs_the_same_command_line():
    done = subprocess.run([sys.executable, "-m", "vitft", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"vitft {vitft.__version__}\n"


# --- flags -> recipe ---------------------------------------------------------------------------------------


def test_no_flag_changes_nothing_but_the_dataset(tasks):
    assert run("finetune", "--dataset", "builtin:digits") == 0
    [(recipe, options)] = tasks.calls
    assert recipe == Recipe.load(None, {"data.dataset": "builtin:digits"})
    assert options == CALLED | {"changes": {"data.dataset": "builtin:digits"}}


def test_every_flag_reaches_its_key(tasks):
    given = {
        "--dataset": ("builtin:digits", "data.dataset", "builtin:digits"),
        "--model": ("builtin:vit-micro", "model.checkpoint", "builtin:vit-micro"),
        "--train": ("last:2", "model.train", "last:2"),
        "--epochs": ("0.5", "train.duration", "0.5 epochs"),
        "--batch-size": ("64", "train.batch_size", 64),
        "--lr": ("3e-4", "optim.lr", 3e-4),
        "--seed": ("7", "train.seed", 7),
        "--precision": ("fp32", "train.precision", "fp32"),
        "--bad-images": ("skip", "data.bad_images", "skip"),
        "--max-train-samples": ("100", "data.max_train_samples", 100),
        "--device": ("cpu", "train.device", "cpu"),
        "--name": ("trial", "run.name", "trial"),
        "--output-dir": ("there", "run.output_dir", "there"),
        "--track": ("tensorboard", "run.track", ["tensorboard"]),
        "--metrics": ("f1", "run.metrics", ["f1"]),
    }
    words = [word for flag, (text, _, _) in given.items() for word in (flag, text)]
    assert run("finetune", *words, "--streaming", "--deterministic") == 0
    [(recipe, _)] = tasks.calls
    expected = Recipe().flat() | {key: value for _, key, value in given.values()}
    assert recipe.flat() == expected | {"data.streaming": True, "train.deterministic": True}


def test_a_number_of_epochs_is_written_out_in_full(tasks):
    assert run("finetune", "--dataset", "builtin:digits", "--epochs", "1e-5") == 0
    assert tasks.calls[0][1]["changes"]["train.duration"] == "0.00001 epochs"


def test_a_flag_for_a_list_can_be_repeated(tasks):
    words = ("--metrics", "f1", "--metrics", "recall", "--track", "tensorboard")
    assert run("finetune", "--dataset", "builtin:digits", *words) == 0
    [(recipe, _)] = tasks.calls
    assert (recipe.run.metrics, recipe.run.track) == (("f1", "recall"), ("tensorboard",))


def test_every_flag_of_the_table_is_taken_by_a_command():
    taken = {flag for flags in FLAGS.values() for flag in flags.split()}
    assert set(TABLE) <= taken


def test_a_flag_says_what_its_key_says(capsys):
    assert run("finetune", "--help") == 0
    said = " ".join(capsys.readouterr().out.split())
    for name in ("--model", "--device", "--lr", "--hub-every"):
        _, choices, default, meaning = FIELDS[TABLE[name].key]
        shown = f"<{'|'.join(choices)}>" if choices else TABLE[name].metavar
        assert f"{name} {shown} {meaning.replace('`', '')} [default: {default}]" in said


def test_resize_explains_every_method(capsys):
    assert run("resize", "--help") == 0
    explained = capsys.readouterr().out.split("Arguments and options")[0]
    assert [method for method in FIELDS["model.resize_method"][1] if method not in explained] == []


def test_set_wins_over_flags_and_flags_over_the_file(tasks, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("optim: {lr: 1e-3, momentum: 0.5}\ntrain: {seed: 1}\ndata: {dataset: builtin:digits}\n")
    assert run("finetune", "--recipe", str(file), "--lr", "2e-3", "--seed=3", "--set", "optim.lr=4e-3") == 0
    [(recipe, _)] = tasks.calls
    assert (recipe.optim.lr, recipe.optim.momentum, recipe.train.seed) == (4e-3, 0.5, 3)


def test_several_learning_rates_are_given_with_commas(tasks):
    assert run("finetune", "builtin:digits", "--lr", "1e-3,1e-4,3e-4") == 0
    assert tasks.calls[0][0].optim.lr == (1e-4, 3e-4, 1e-3)


def test_snake_case_is_accepted(tasks):
    assert run("finetune", "--dataset", "builtin:digits", "--batch_size=32", "--output_dir", "my_runs") == 0
    [(recipe, _)] = tasks.calls
    assert (recipe.train.batch_size, recipe.run.output_dir) == (32, "my_runs")


def test_resume_leaves_the_recipe_to_the_run(tasks, tmp_path):
    (tmp_path / "recipe.yaml").write_text(Recipe.load(None, {"data.dataset": "builtin:digits"}).dump())
    assert run("finetune", "--resume", str(tmp_path), "--epochs", "20") == 0
    assert tasks.calls == [(None, CALLED | {"resume": tmp_path, "changes": {"train.duration": "20 epochs"}})]


def test_dry_run_prints_a_recipe_with_the_plan_in_comments(tasks, tmp_path, capsys):
    assert run("finetune", "--dataset", "builtin:digits", "--lr", "0.25", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert printed.endswith("# steps: 3\n#\n# lr: 1\n")
    (tmp_path / "again.yaml").write_text(printed)
    assert Recipe.load(tmp_path / "again.yaml") == tasks.calls[0][0]


def test_json_results_are_one_document(tasks, capsys):
    assert run("finetune", "--dataset", "builtin:digits", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out) == {"run_dir": "runs/x", "test": {"top1": 0.5}}


def test_hub_flags_become_keys_and_need_the_wish_to_push(tasks, capsys):
    flags = ("--hub-repo", "me/x", "--private", "--hub-every", "best", "--hub-revision", "v2", "--force")
    assert run("finetune", "--dataset", "builtin:digits", "--push-to-hub", *flags) == 0
    hub = tasks.calls[0][0].hub
    assert (hub.push, hub.repo, hub.private, hub.every, hub.revision, hub.force) == (
        True,
        "me/x",
        True,
        "best",
        "v2",
        True,
    )
    assert run("finetune", "--dataset", "builtin:digits", *flags) == 2
    assert "add --push-to-hub" in capsys.readouterr().err
    for setting in ("hub.push=false", "hub.license=mit"):
        assert run("finetune", "--dataset", "builtin:digits", "--set", setting) == 0


def test_a_resumed_run_is_not_told_where_to_push_what_it_does_not_push(tasks, tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text(Recipe.load(None, {"data.dataset": "builtin:digits"}).dump())
    assert run("finetune", "--resume", str(tmp_path), "--hub-repo", "me/x") == 2
    assert "add --push-to-hub" in capsys.readouterr().err
    assert run("finetune", "--resume", str(tmp_path), "--hub-repo", "me/x", "--push-to-hub") == 0


# --- several processes -------------------------------------------------------------------------------------


def test_a_launch_gets_the_command_without_what_was_for_the_launcher(monkeypatch):
    seen = {}

    def choose(*arguments):
        seen["choose"] = arguments
        return "a launch"

    def start(chosen, arguments):
        seen["run"] = chosen, list(arguments)
        return 75

    monkeypatch.setattr(launch, "choose", choose)
    monkeypatch.setattr(launch, "run", start)
    words = ["--dataset", "builtin:digits", "--num_processes", "2", "--device", "cpu", "--lr=1e-3"]
    assert run("finetune", *words, "--", "--main_process_port", "0") == 75
    assert seen["choose"] == (2, "cpu", ["--main_process_port", "0"])
    rest = ["finetune", "--dataset", "builtin:digits", "--device", "cpu", "--lr=1e-3"]
    assert seen["run"] == ("a launch", rest)


def test_dry_run_starts_no_processes(tasks, monkeypatch):
    monkeypatch.setattr(launch, "choose", lambda *_: pytest.fail("asked for processes"))
    assert run("finetune", "--dataset", "builtin:digits", "--num-processes", "2", "--dry-run") == 0


@pytest.mark.parametrize(("rank", "says"), [("0", "error: no columns"), ("1", "")])
def test_one_process_speaks_for_all(tasks, monkeypatch, capsys, rank, says):
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tasks, "finetune", _raise(vitft.VitftError("no columns")))
    assert run("finetune", "--dataset", "builtin:digits") == 1
    assert capsys.readouterr().err.strip() == says


def test_another_process_names_what_only_it_has_met(tasks, monkeypatch, capsys):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tasks, "finetune", _raise(DataError("row 7 cannot be decoded")))
    assert run("finetune", "--dataset", "builtin:digits") == 1
    assert capsys.readouterr().err == "[process 1] error: row 7 cannot be decoded\n"


def test_a_worker_of_ours_hands_its_outcome_to_the_parent(tasks, monkeypatch, tmp_path, capsys):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("VITFT_LAUNCH_DIR", str(tmp_path))
    recorded = []
    monkeypatch.setattr(worker, "register", lambda: recorded.append("here"))
    monkeypatch.setattr(worker, "record", lambda *outcome, is_echo: recorded.append((*outcome, is_echo)) or 0)
    for error in (DataError("row 7 cannot be decoded"), PeerLost("process 0 is gone")):
        monkeypatch.setattr(tasks, "finetune", _raise(error))
        assert run("finetune", "--dataset", "builtin:digits") == 0
    assert recorded == ["here", (1, "row 7 cannot be decoded", False), "here", (1, "process 0 is gone", True)]
    assert capsys.readouterr().err == ""


def test_the_main_process_leaves_it_to_our_parent_to_say_which_process_is_lost(tasks, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tasks, "finetune", _raise(PeerLost("another process is gone")))
    monkeypatch.setattr(worker, "register", lambda: None)
    monkeypatch.setenv("VITFT_LAUNCH_DIR", str(tmp_path))
    assert run("finetune", "--dataset", "builtin:digits") == 1
    assert capsys.readouterr().err == ""
    monkeypatch.delenv("VITFT_LAUNCH_DIR")
    assert run("finetune", "--dataset", "builtin:digits") == 1
    assert capsys.readouterr().err == "error: another process is gone\n"


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("finetune", "no dataset was given"),
        ("finetune --dataset builtin:digits --recipe quikstart", "there is no recipe 'quikstart'"),
        ("finetune --dataset builtin:digits --set optim.lr", "has no '='"),
        ("finetune --dataset builtin:digits --set optim.lrr=1", "did you mean 'lr'?"),
        ("finetune --dataset builtin:digits --lr -1", "use a number > 0"),
        ("finetune --dataset builtin:digits --lr fast", "--lr"),
        ("finetune --dataset builtin:digits --lr", "--lr"),
        ("finetune --dataset builtin:digits --precision fp8", "fp16"),
        ("finetune --dataset builtin:digits --set train.duration=10", "10 epochs, 2500 steps"),
        ("finetune --dataset builtin:digits --train everything", "use all, head, attention, norms-and-biases, "),
        ("finetune --dataset builtin:digits more", "more"),
        ("finetune --resume runs/x --recipe default", "--recipe cannot be given"),
        ("finetun", "try: vitft finetune"),
        ("evaluate model", "no dataset was given"),
        ("evaluate model --dataset builtin:digits --set optim.lr=1", "only the dataset has settings here"),
        ("predict model", "IMAGES"),
        ("predict model nowhere/*.png", "nothing matches nowhere/*.png"),
        ("recipes lss", "try: vitft recipes ls"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_why(line, says, capsys):
    assert run(*line.split()) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_pasted_flags_of_other_trainers_are_all_translated_at_once(capsys):
    words = """--model_name_or_path m --learning_rate 1e-3 --num_train_epochs 3
        --per_device_train_batch_size 8 --do_train --fp16 --weight_decay 0.1 --dry_runn --train_dir photos"""
    assert run("finetune", *words.split()) == 2
    said = capsys.readouterr().err
    for line in (
        "--model_name_or_path: use --model\n",
        "--learning_rate: use --lr\n",
        "--num_train_epochs: use --epochs\n",
        "--per_device_train_batch_size: use --batch-size, which counts the images of a step",
        "--do_train: leave it out",
        "--fp16: use --precision fp16\n",
        "--weight_decay: use --set optim.weight_decay=VALUE\n",
        "--dry_runn: did you mean --dry-run?\n",
        "--train_dir: use --dataset FOLDER\n",
    ):
        assert line in said


def test_every_pointer_names_a_flag_or_a_key_that_exists():
    from vitft.cli.foreign import FOREIGN

    known = set(" ".join(FLAGS.values()).split())
    recipe_keys = {key for key, _ in keys()}
    for foreign, advice in FOREIGN.items():
        assert foreign not in FLAGS["finetune"].split(), foreign
        words = advice.replace(",", " ").split()
        assert {word for word in words if word.startswith("--")} <= known, foreign
        if words[0] == "--set":
            assert words[1].split("=")[0] in recipe_keys, foreign


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (
            DataError("no image column", allowed="one", hint="this"),
            1,
            "error: no image column\n  allowed: one\n",
        ),
        (TrainError("loss is nan"), 1, "error: loss is nan\n"),
        (StoppedEarly("stopped at step 3"), 75, "stopped at step 3\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (ZeroDivisionError("by zero"), 1, "error: this is a bug in vitft or in a library that it uses"),
    ],
)
def test_outcomes_have_their_codes_and_no_traceback(tasks, monkeypatch, capsys, error, code, says):
    monkeypatch.setattr(tasks, "finetune", _raise(error))
    assert run("finetune", "--dataset", "builtin:digits") == code
    said = capsys.readouterr().err
    assert said.startswith(says)
    assert "Traceback" not in said


def test_an_interrupt_says_how_to_resume_if_that_is_known(tasks, monkeypatch, capsys):
    interrupt = KeyboardInterrupt()
    interrupt.add_note("resume with: vitft finetune --resume runs/x")
    monkeypatch.setattr(tasks, "finetune", _raise(interrupt))
    assert run("finetune", "--dataset", "builtin:digits") == 130
    assert capsys.readouterr().err == "interrupted\nresume with: vitft finetune --resume runs/x\n"


def test_debug_shows_the_traceback(tasks, monkeypatch, capsys):
    monkeypatch.setattr(tasks, "finetune", _raise(DataError("no image column")))
    assert run("finetune", "--dataset", "builtin:digits", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m vitft recipes schema | true"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("word", ["https://user:TOKEN@host/x", "\x1b[2J"])
def test_what_a_command_line_says_is_repeated_safely(word, capsys):
    for line in ([word], ["recipes", word], ["finetune", "--dataset", word], ["finetune", f"--sett={word}"]):
        assert run(*line) in (1, 2)
        said = "".join(capsys.readouterr())
        assert "TOKEN" not in said and "\x1b" not in said


def test_a_traceback_holds_no_secret(tasks, capsys):
    def fail(*_, **__):
        raise RuntimeError("https://user:TOKEN@host \x1b")

    tasks.predict_each = fail
    assert run("predict", "m", "a.png", "--debug") == 1
    said = capsys.readouterr().err
    assert "RuntimeError" in said and "TOKEN" not in said and "\x1b" not in said


def test_an_ascii_terminal_gets_escapes(tasks, tmp_path):
    code = r"from vitft.cli import main; main(['recipes', 'show', 'caf\u00e9\udcff.png'])"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert r"caf\xe9\udcff.png" in done.stderr


def _raise(error):
    def fail(*_, **__):
        raise error

    return fail


# --- what hands expect ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("train", "vitft finetune"),
        ("trian", "vitft finetune"),
        ("eval", "vitft evaluate"),
        ("finetun", "vitft finetune"),
        ("xyz", "vitft --help"),
    ],
)
def test_a_command_that_there_is_not_gets_the_one_that_is_meant(word, hint, capsys):
    assert run(word, "./photos") == 2
    error = capsys.readouterr().err
    assert f"there is no command 'vitft {word}'" in error and error.endswith(f"try: {hint}\n")


def test_everything_that_is_wrong_is_said_at_once(capsys):
    words = """builtin:digits --epochs 0 --lr fast --train heads --datset y --format xml --num-processes no"""
    assert run("finetune", *words.split()) == 2
    assert capsys.readouterr().err.splitlines() == [
        "error: vitft finetune:",
        "  --datset: did you mean --dataset?",
        "  --num-processes: use a whole number",
        "  --format: use text, json",
        "  --train (model.train): 'heads' is not allowed; use all, head, attention, norms-and-biases, "
        "all-but-embedding, lora, dora or last:N (did you mean head?)",
        "  --lr (optim.lr): 'fast' is not allowed; use a number or a list",
        "  --epochs (train.duration): '0 epochs' is nothing; use a length above 0, such as '1 epoch'",
        "  try: vitft finetune --help",
    ]
    assert run("predict") == 2
    assert capsys.readouterr().err == (
        "error: vitft predict:\n  MODEL is missing\n  IMAGES is missing\n  try: vitft predict --help\n"
    )
    assert run("finetune", "builtin:digits", "--set", "foo", "--set", "bar", "--set", "optim.lrr=1") == 2
    said = capsys.readouterr().err
    assert "--set 'foo' has no '='\n  --set 'bar' has no '='\n  optim.lrr: unknown key; did you mean 'lr'?\n" in said


def test_a_run_that_is_mistyped_is_looked_for_among_the_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "flowers" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "flowers" / "recipe.yaml").write_text("{}")
    assert run("finetune", "--resume", "runs/flower") == 2
    assert capsys.readouterr().err.endswith("allowed: runs/flowers\n  try: vitft finetune --resume runs/flowers\n")
    assert run("evaluate", "runs/flower") == 2  # it has no model yet
    assert "none of the runs in runs can be used here; vitft runs ls runs" in capsys.readouterr().err
    (tmp_path / "runs" / "flowers" / "model" / "config.json").touch()
    (tmp_path / "runs" / "flowers" / "model" / "README.md").touch()
    (tmp_path / "runs" / "flowers" / "results.json").write_text('{"train": {}, "classes": []}')
    assert run("evaluate", "runs/flower") == 2
    assert capsys.readouterr().err.endswith("allowed: runs/flowers\n  try: vitft evaluate runs/flowers\n")
    assert run("finetune", "--resume", "runs/flower") == 2  # nothing is left to do
    assert "none of the runs in runs can be used here" in capsys.readouterr().err
    assert run("runs", "flowers") == 2
    assert capsys.readouterr().err.endswith("try: vitft runs ls flowers\n")


def test_help_is_a_command_too(capsys):
    assert run("help", "finetune") == 0
    text = capsys.readouterr().out
    assert run("finetune", "--help") == 0
    assert capsys.readouterr().out == text
    assert [line for line in text.splitlines() if line.startswith("  vitft finetune ")]
    assert all(f"\n{heading}:\n" in text for heading in ("Data", "Model", "Training", "Run", "Hub", "More", "Examples"))


def test_the_dataset_may_stand_without_a_flag_but_not_twice(capsys, monkeypatch):
    seen = {}
    monkeypatch.setattr("vitft.tasks.finetune", lambda recipe, **_: seen.update(recipe=recipe) or pytest.skip("seen"))
    with pytest.raises(pytest.skip.Exception):
        run("finetune", "builtin:digits", "--dry-run")
    assert seen["recipe"].data.dataset == "builtin:digits"
    assert run("finetune", "builtin:digits", "--dataset", "cifar100") == 2
    assert "two datasets were given: builtin:digits and cifar100" in capsys.readouterr().err


def test_going_on_from_a_run_needs_a_finished_one_and_no_other_recipe(tmp_path, capsys):
    begun = Run.create(Recipe.load(None, {"run.output_dir": str(tmp_path), "run.name": "begun"}), "begun")
    assert run("finetune", "--from", str(begun.folder)) == 2
    assert "is not finished, so it has no model yet" in capsys.readouterr().err
    assert run("finetune", "--from", str(begun.folder), "--recipe", "quickstart") == 2
    assert "--from uses the recipe of" in capsys.readouterr().err
    assert run("finetune", "./x", "--time") == 2
    assert "--dry-run --time" in capsys.readouterr().err

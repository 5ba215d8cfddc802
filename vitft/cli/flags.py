"""What the commands share: flags that several have, and how a command line is read.

A flag that is not given is None. ``Command`` accepts snake_case spellings, takes what stands after ``--`` for
accelerate's launcher, and names every flag that does not exist at once, with what to write instead.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from vitft.errors import UsageError, did_you_mean
from vitft.files import exists, is_file, is_folder
from vitft.processes import launch
from vitft.reading.listing import IMAGE_SUFFIXES, image_files

if TYPE_CHECKING:
    from vitft.recipe.keys import DataRecipe

Dataset = Annotated[
    str | None,
    typer.Option("--dataset", metavar="DATASET", help="Hub id or old name, folder, file, or builtin:digits."),
]
Split = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Split to take: test when there is one.")]
BatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, metavar="N", help="Images per forward pass.")]
Precision = Annotated[
    Literal["auto", "bf16", "fp16", "fp32"] | None,
    typer.Option("--precision", help="Number format of the forward pass."),
]
Device = Annotated[str | None, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N, mps or xpu.")]
BadImages = Annotated[
    Literal["stop", "skip"] | None,
    typer.Option(
        "--bad-images",
        help="What an image that cannot be decoded does: end the run, or be counted and left out.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        metavar="METRIC",
        help="A further `evaluate` metric, from the Hub or a folder; repeatable. It is code, and is run.",
    ),
]
NumProcesses = Annotated[
    int | None,
    typer.Option(
        "--num-processes",
        min=1,
        metavar="N",
        help="Processes to start through accelerate; all GPUs when not given.",
    ),
]
ImageSize = Annotated[
    str | None,
    typer.Option(
        "--image-size",
        metavar="SIZE",
        help="Pixels of the model's input: 384, or 384x512 for height x width; the checkpoint's own when not given.",
    ),
]
ResizeMethod = Annotated[
    Literal["bicubic", "bicubic-plain", "bilinear", "corners", "geometric"] | None,
    typer.Option("--method", help="How position tables are resampled to another size [default: bicubic]."),
]
ModelRevision = Annotated[
    str | None, typer.Option("--model-revision", metavar="REVISION", help="Branch, tag or commit of a Hub model.")
]
DatasetRevision = Annotated[
    str | None, typer.Option("--dataset-revision", metavar="REVISION", help="Branch, tag or commit of a Hub dataset.")
]
PushToHub = Annotated[
    bool | None, typer.Option("--push-to-hub", help="Publish the model on the Hub; asked before training.")
]
HubRepo = Annotated[
    str | None,
    typer.Option("--hub-repo", metavar="REPO", help="OWNER/NAME, or NAME of your own.  [the run's name]"),
]
Private = Annotated[bool | None, typer.Option("--private", help="Make the repository a private one.")]
HubRevision = Annotated[
    str | None, typer.Option("--hub-revision", metavar="BRANCH", help="Branch to push to; made if it is not there.")
]
HubEvery = Annotated[
    Literal["end", "best", "checkpoint"] | None,
    typer.Option("--hub-every", help="What else is pushed, in the background, while it trains.  [end]"),
]
CreatePr = Annotated[
    bool | None, typer.Option("--create-pr", help="Open a pull request instead of changing the branch.")
]
Force = Annotated[
    bool | None, typer.Option("--force", help="Push also into a repository that holds what vitft did not make.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any recipe key, as KEY=VALUE; repeatable. `vitft recipes show default` lists them.",
    ),
]
Format = Annotated[Literal["text", "json"], typer.Option("--format", help="How results are printed.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

# Flags of transformers' image-classification examples, and of other trainers, that people paste.
FOREIGN = {
    "--bf16": "--precision bf16",
    "--cache-dir": "set the environment variable HF_HOME",
    "--config-name": "--model",
    "--data-dir": "--dataset FOLDER",
    "--dataloader-num-workers": "--set data.workers=N",
    "--dataset-config-name": "--set data.config=NAME",
    "--dataset-name": "--dataset",
    "--do-eval": "leave it out: finetune scores at the end; vitft evaluate scores a model alone",
    "--do-predict": "that is another command: vitft predict MODEL IMAGES",
    "--do-train": "leave it out: vitft finetune trains",
    "--eval-steps": "--set train.evaluate_every='N steps'",
    "--eval-strategy": "--set train.evaluate_every='1 epoch'",
    "--evaluation-strategy": "--set train.evaluate_every='1 epoch'",
    "--fp16": "--precision fp16",
    "--gradient-accumulation-steps": "leave it out: derived from --batch-size and train.micro_batch_size",
    "--hub-model-id": "--hub-repo",
    "--hub-private-repo": "--private",
    "--hub-strategy": "--hub-every",
    "--hub-token": "set the environment variable HF_TOKEN, or run: hf auth login",
    "--ignore-mismatched-sizes": "leave it out: only the head is new; model.allow_new names what else may be",
    "--image-column-name": "--set data.image_column=NAME",
    "--image-processor-name": "leave it out: it belongs to --model",
    "--label-column-name": "--set data.label_column=NAME",
    "--label-smoothing-factor": "--set augment.label_smoothing=X",
    "--learning-rate": "--lr",
    "--load-best-model-at-end": "--set train.weights=best (the default)",
    "--logging-steps": "leave it out: metrics.jsonl in the run directory has every step",
    "--logging-strategy": "leave it out: metrics.jsonl in the run directory has every step",
    "--lr-scheduler-type": "--set optim.schedule=cosine",
    "--max-steps": "--set train.duration='N steps'",
    "--metric-for-best-model": "leave it out: the best weights have the best validation top-1",
    "--model-name": "--model",
    "--model-name-or-path": "--model",
    "--num-epochs": "--epochs",
    "--num-train-epochs": "--epochs",
    "--num-warmup-steps": "--set optim.warmup='N steps'",
    "--optim": "--set optim.name=adamw",
    "--overwrite-output-dir": "leave it out: a run never overwrites another",
    "--per-device-eval-batch-size": "--batch-size of vitft evaluate",
    "--per-device-train-batch-size": "--batch-size, which counts the images of a step over all devices",
    "--remove-unused-columns": "leave it out: the image column is found by its type",
    "--report-to": "--track",
    "--resume-from-checkpoint": "--resume RUN",
    "--run-name": "--name",
    "--save-steps": "--set train.checkpoint_every='N steps'",
    "--save-strategy": "--set train.checkpoint_every='1 epoch'",
    "--save-total-limit": "--set train.keep_checkpoints=N",
    "--token": "set the environment variable HF_TOKEN, or run: hf auth login",
    "--train-dir": "--dataset FOLDER",
    "--train-val-split": "--set data.validation_fraction=X",
    "--trust-remote-code": "leave it out: vitft runs no code from the Hub",
    "--validation-dir": "--dataset FOLDER, the parent of train/ and validation/",
    "--warmup-ratio": "--set optim.warmup='10%'",
    "--warmup-steps": "--set optim.warmup='N steps'",
    "--with-tracking": "--track tensorboard",
}


class Command(TyperCommand):
    """A command that is read by typer and done outside it.

    Typer turns Ctrl-C and a closed pipe into exits of its own; so ``invoke`` only returns the work, and
    ``vitft.cli.main`` does it with its one table of outcomes.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; keep in ``ctx.meta`` what the processes of a launch are to be given."""
        args, launcher = _split(args) if self.takes_value("--num-processes") else (list(args), [])
        args = list(_normalise(args, self, ctx.command_path))
        ctx.meta["vitft.arguments"] = [*ctx.command_path.split()[1:], *_without(args, "--num-processes")]
        ctx.meta["vitft.launcher"] = launcher
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Callable[[], object]:
        """Return the work, to be done by ``vitft.cli.main``."""
        return lambda: super(Command, self).invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the flags with our own metavars; typer would write ``<list[str]>``."""
        records = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name, metavar = record[0], getattr(parameter, "metavar", None)
                if metavar:
                    is_option = parameter.param_type_name == "option"
                    name = re.sub(r"<[^<>]*>$", metavar, name) if is_option else name.split()[0]
                records.append((name, record[1]))
        with formatter.section("Arguments and options"):
            formatter.write_dl(records)

    def takes_value(self, flag: str) -> bool | None:
        """Whether ``flag`` of this command wants a value; None if it has no such flag."""
        for parameter in self.params:
            if flag in parameter.opts and parameter.param_type_name == "option":
                return not getattr(parameter, "is_flag", False)
        return False if flag == "--help" else None

    def flags(self) -> list[str]:
        """Return the long flags of this command."""
        return [flag for each in self.params for flag in each.opts if flag.startswith("--")] + ["--help"]


def image_sizes(text: str | None) -> list[tuple[int, int]]:
    """Read what was given to ``--image-size``: one size, or several with commas between them."""
    from vitft.recipe.sizes import parse_size

    try:
        return [parse_size(part) for part in text.split(",")] if text is not None else []
    except ValueError as error:
        raise UsageError(f"--image-size {text}: {error}", hint="--image-size 384") from None


def one_size(text: str | None) -> tuple[int, int] | None:
    """Read what was given to ``--image-size`` of a command that takes one."""
    from vitft.recipe.sizes import show_size

    sizes = image_sizes(text)
    if len(sizes) > 1:
        raise UsageError(f"--image-size {text}: one size is possible here", hint=f"--image-size {show_size(sizes[-1])}")
    return sizes[0] if sizes else None


def expand_images(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the files that arguments stand for, each once, those of a folder or glob in sorted order."""
    seen: set[str] = set()
    for argument in arguments:
        if is_folder(argument):
            found = _images_of(argument)
        elif not exists(argument) and glob.has_magic(argument):
            found = sorted(path for path in glob.glob(argument, recursive=True) if is_file(path))  # noqa: PTH207
            if not found:
                raise UsageError(f"nothing matches {argument}", allowed="image files, folders or globs")
        else:
            found = [argument]  # one that is missing is reported in its place
        for path in found:
            if path not in seen:
                seen.add(path)
                yield path


def _images_of(folder: str) -> list[str]:
    """Return the image files of a folder and those below it, but for what may not be looked into."""
    path = Path(folder)
    if path.resolve() == Path(path.resolve().anchor):
        raise UsageError(
            f"{folder} is the whole file system",
            allowed="image files, folders or globs",
            hint="name a folder of images",
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise UsageError(f"the folder {folder} may not be read", hint=f"ls -ld {folder}")
    found = image_files(folder)
    if not found:
        raise UsageError(f"the folder {folder} holds no images", allowed=", ".join(sorted(IMAGE_SUFFIXES)))
    return found


def settings(texts: Sequence[str] | None) -> dict[str, object]:
    """Read what was given to ``--set``; of a key given twice the last counts."""
    from vitft.recipe.yaml12 import parse_setting

    return dict(parse_setting(text) for text in texts or ())


def data_settings(flags: Mapping[str, object], texts: Sequence[str] | None, example: str) -> DataRecipe:
    """Return the recipe's data section as flags and ``--set`` give it.

    Raises:
        UsageError: if ``--set`` is given a key of another section.
    """
    from vitft.recipe.recipe import Recipe

    given = settings(texts)
    others = [key for key in given if not key.startswith("data.")]
    if others:
        raise UsageError(
            f"--set {others[0]}: only the dataset has settings here",
            allowed="keys of the section data, such as data.label_column",
            hint=example,
        )
    return Recipe.load(None, {key: value for key, value in flags.items() if value is not None} | given).data


def launched(ctx: typer.Context, num_processes: int | None, device: str) -> int | None:
    """Run this command in several processes if it should be; return their exit code, else None."""
    chosen = launch.choose(num_processes, device, ctx.meta["vitft.launcher"])
    return None if chosen is None else launch.run(chosen, ctx.meta["vitft.arguments"])


def rank() -> int:
    """Return which of the processes of a launch this is; 0 speaks for all."""
    return int(os.environ.get("RANK", 0))


def _split(args: list[str]) -> tuple[list[str], list[str]]:
    place = args.index("--") if "--" in args else len(args)
    return list(args[:place]), list(args[place + 1 :])


def _normalise(args: list[str], command: Command, path: str) -> Iterator[str]:
    """Yield the arguments with flags in kebab-case; raise one error that names every unknown flag."""
    complaints = []
    is_value = False
    for place, argument in enumerate(args):
        if argument == "--":
            yield from args[place:]
            break
        if is_value or not argument.startswith("--"):
            is_value = False
            yield argument
            continue
        written, equals, value = argument.partition("=")
        flag = written.replace("_", "-")
        wants_value = command.takes_value(flag)
        if wants_value is None:
            complaints.append(f"{written}: {_advice(flag, command)}")
        is_value = bool(wants_value) and not equals
        yield flag + equals + value
    if complaints:
        subject = "this flag is" if len(complaints) == 1 else "these flags are"
        raise UsageError(
            f"{subject} unknown to {path}:\n" + "\n".join(f"  {line}" for line in complaints),
            hint=f"{path} --help",
        )


def _advice(flag: str, command: Command) -> str:
    own = command.flags()
    if flag in FOREIGN:
        return f"use {FOREIGN[flag]}" if FOREIGN[flag].startswith("--") else FOREIGN[flag]
    if "--set" in own:
        from vitft.recipe.recipe import keys  # pydantic: only on the way to an error

        word = flag.removeprefix("--").replace("-", "_")
        matches = [key for key, _ in keys() if key.split(".")[-1] == word]
        if matches:
            return "use " + " or ".join(f"--set {key}=VALUE" for key in matches)
    guess = did_you_mean(flag, own)
    return f"did you mean {guess}?" if guess else "there is no such flag"


def _without(args: list[str], flag: str) -> Iterator[str]:
    """Yield ``args`` without a flag and its value."""
    skip = False
    for argument in args:
        if not skip and argument != flag and not argument.startswith(f"{flag}="):
            yield argument
        skip = not skip and argument == flag

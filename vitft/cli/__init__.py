"""The command line: commands parse, call ``vitft.tasks`` and print; errors become exit codes here.

    0  done                            3  trained and saved, but not published
    1  the run could not be done      75  stopped early with a complete checkpoint
    2  the command line was wrong    130  interrupted

Nothing heavy is imported until a command runs: ``vitft --help`` loads neither torch nor pydantic.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, NamedTuple

import typer
from typer.main import get_command

import vitft
from vitft.cli import (
    cache,
    data,
    evaluate,
    finetune,
    inspect,
    predict,
    probe,
    push,
    recipes,
    report,
    resize,
    runs,
    views,
)
from vitft.cli.command import CONTEXT, Command, complaint, is_complaint, with_flags
from vitft.errors import DataError, RecipeError, StoppedEarly, TrainError, UsageError, VitftError, did_you_mean
from vitft.outside import shown
from vitft.processes import launch, signals, worker

__all__ = ["app", "main"]

app = typer.Typer(
    name="vitft",
    rich_markup_mode=None,  # rich help doubles the start-up time
    pretty_exceptions_enable=False,
    add_completion=True,
    no_args_is_help=True,
    context_settings=CONTEXT,
    epilog="Exit codes: 0 done; 1 it could not be done; 2 the command line or recipe was wrong; "
    "3 trained and saved, but not published; 75 stopped early with a complete checkpoint; 130 interrupted.",
)
_EXAMPLES = {
    finetune.finetune: """vitft finetune ./photos
vitft finetune cifar100 --model facebook/dinov2-small --epochs 5 --push-to-hub
vitft finetune --from runs/photos --epochs 5""",
    data.data: """vitft data ./photos
vitft data cifar100
vitft data ./photos --set data.check_images=all""",
    probe.probe: """vitft probe --dataset ./photos
vitft probe --dataset ./photos facebook/dinov2-small google/vit-base-patch16-224-in21k
vitft probe --dataset ./photos facebook/dinov2-small --save photos-probe""",
    views.views: """vitft views ./photos
vitft views ./photos --recipe deit3-ft --set augment.vertical_flip=0.5
vitft views cifar100 --set augment.policy=trivialaugment -o trivial.html""",
    evaluate.evaluate: """vitft evaluate runs/photos
vitft evaluate runs/photos ./new-photos
vitft evaluate runs/photos ./new-photos --image-size 192,224,256""",
    predict.predict: """vitft predict runs/photos holiday.jpg
vitft predict runs/photos ./holiday --format csv > labels.csv
vitft predict OWNER/NAME 'photos/**/*.png' --top-k 1""",
    resize.resize: """vitft resize google/vit-base-patch16-224 vit-384 --image-size 384
vitft resize runs/photos photos-wide --image-size 192x384
vitft resize google/vit-base-patch16-224 vit-32 --patch-size 32""",
    inspect.inspect: """vitft inspect runs/photos holiday.jpg
vitft inspect runs/photos --dataset ./photos --only rollout,distance
vitft inspect google/vit-base-patch16-224 --only filters,positions""",
    report.report: """vitft report runs/photos
vitft report runs/photos runs/photos-2
vitft report runs/* -o all.html""",
    push.push: """vitft push runs/photos
vitft push runs/photos my-lab/flowers --private
vitft push runs/photos --create-pr --license apache-2.0""",
}
"""The commands, each with examples."""

for _command, _examples in _EXAMPLES.items():
    app.command(_command.__name__, cls=Command, context_settings=CONTEXT, epilog=_examples)(_command)
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")
app.add_typer(cache.app, name="cache")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"vitft {vitft.__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune Vision Transformers from the Hugging Face Hub on any image dataset."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says, and exit with the code of the outcome."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal shows other characters as escapes
    ended = _run(arguments)
    sys.exit(worker.record(*ended[:2], is_echo=ended.is_echo) if launch.is_worker() else ended.code)


class _Ended(NamedTuple):
    """How a command line ended."""

    code: int
    message: str = ""
    """What went wrong, as already printed on stderr."""
    is_echo: bool = False
    """Whether another process knows the real cause."""


def _run(arguments: list[str]) -> _Ended:
    """Do what a command line says, and print what went wrong."""
    try:
        with _stoppable(arguments):
            worker.register()
            work = _parse(arguments)
            code = work() if callable(work) else work
        sys.stdout.flush()
        return _Ended(code if isinstance(code, int) else 0)
    except KeyboardInterrupt as interrupt:
        return _Ended(130, _say("\n".join(["interrupted", *getattr(interrupt, "__notes__", ())])))
    except BrokenPipeError:
        # The reader is gone (| head). What is still buffered must not raise again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _Ended(0)
    except StoppedEarly as stop:
        return _Ended(stop.exit_code, _say(str(stop)))
    except worker.PeerLost as error:
        if not worker.has_parent():  # the parent knows how the other one ended, and prints that instead
            _explain(error, arguments, is_local=True)
        return _Ended(error.exit_code, str(error), is_echo=True)
    except VitftError as error:
        _explain(error, arguments, is_local=isinstance(error, DataError | TrainError))
        return _Ended(error.exit_code, str(error))
    except Exception as error:  # the last resort: report a bug without its traceback
        if signal := signals.interrupted():  # during another library's import, which failed because of it
            return _Ended(StoppedEarly.exit_code, _say(f"stopped ({signal})\n  try: the same command again"))
        unknown = VitftError(
            f"this is a bug in vitft or in a library that it uses: {_describe(error)}",
            hint="the same command with --debug, to see the traceback",
        )
        _explain(unknown, arguments, is_local=True)
        return _Ended(1, str(unknown))


def _stoppable(arguments: list[str]) -> AbstractContextManager[None]:
    """Let a stop signal end ``finetune`` with the right exit code from the start, even during imports."""
    if arguments[:1] != ["finetune"]:
        return nullcontext()
    return signals.stoppable(
        lambda signal: StoppedEarly(
            f"stopped before the first step ({signal}): there is nothing to resume", hint="the same command again"
        ),
        is_last=True,
    )


def _parse(arguments: list[str]) -> Callable[[], object] | int:
    """Return the work that a command line asks for, or the exit code if there is none to do."""
    # Straight to the command: typer would load pydantic to convert the flags that a group was not given.
    parser: Any = get_command(app)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    name = [str(parser.name)]
    while arguments and arguments[0] in getattr(parser, "commands", {}):
        parser = parser.commands[arguments[0]]
        name.append(arguments[0])
        arguments = arguments[1:]
    if arguments and not arguments[0].startswith("-") and hasattr(parser, "commands"):
        raise _no_command(arguments[0], list(parser.commands), " ".join(name))
    try:
        outcome: Callable[[], object] | int = parser.main(arguments, prog_name=" ".join(name), standalone_mode=False)
    except Exception as error:  # which of click's classes it is depends on typer
        if not is_complaint(error):
            raise
        raise UsageError(f"{' '.join(name)}: {complaint(error)}", hint=f"{' '.join(name)} --help") from error
    return outcome


_OTHER_WORDS = {
    "train": "finetune", "fit": "finetune", "fine-tune": "finetune", "eval": "evaluate", "test": "evaluate",
    "val": "evaluate", "score": "evaluate", "classify": "predict", "infer": "predict", "dataset": "data",
    "info": "data", "upload": "push", "publish": "push", "list": "runs", "ls": "runs", "recipe": "recipes",
    "look": "inspect", "compare": "report", "page": "report", "visualize": "inspect", "interpolate": "resize",
    "rank": "probe", "augment": "views", "view": "views",
}  # fmt: skip


def _no_command(word: str, commands: Sequence[str], above: str) -> UsageError:
    """Return the error for an unknown command."""
    others = _OTHER_WORDS if above == "vitft" else {}
    guess = did_you_mean(word.lower(), [*commands, *others])
    if above == "vitft runs" and guess is None:  # a folder, most likely
        guess = f"ls {word}"
    return UsageError(
        f"there is no command {f'{above} {word}'!r}",
        allowed=", ".join(commands),
        hint=f"{above} {others.get(guess, guess)}" if guess else f"{above} --help",
    )


def _explain(error: VitftError, arguments: list[str], *, is_local: bool) -> None:
    """Print an error; ``is_local`` if it may have happened in this process only."""
    if "--debug" in arguments:
        print(shown(traceback.format_exc()), file=sys.stderr)
    elif worker.is_main():
        _say(f"error: {with_flags(str(error)) if isinstance(error, RecipeError) else error}")
    elif is_local and not worker.has_parent():
        # Process 0 prints for all, except errors that it may not know. Our own parent would print those.
        print(shown(f"[process {worker.rank()}] error: {error}"), file=sys.stderr, flush=True)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _say(text: str) -> str:
    if worker.is_main():
        print(shown(text), file=sys.stderr, flush=True)
    return text

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
from typing import Annotated, Any

import typer
from typer.main import get_command

import vitft
from vitft import launch
from vitft.cli import data, evaluate, finetune, inspect, predict, push, recipes, resize
from vitft.cli.flags import CONTEXT, Command, rank
from vitft.errors import DataError, StoppedEarly, TrainError, VitftError
from vitft.outside import shown

__all__ = ["app", "main"]

app = typer.Typer(
    name="vitft",
    rich_markup_mode=None,  # rich help doubles the start-up time
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings=CONTEXT,
    epilog="Exit codes: 0 done; 1 it could not be done; 2 the command line or recipe was wrong; "
    "3 trained and saved, but not published; 75 stopped early with a complete checkpoint; 130 interrupted.",
)
app.command("finetune", cls=Command, context_settings=CONTEXT)(finetune.finetune)
app.command("data", cls=Command, context_settings=CONTEXT)(data.data)
app.command("evaluate", cls=Command, context_settings=CONTEXT)(evaluate.evaluate)
app.command("predict", cls=Command, context_settings=CONTEXT)(predict.predict)
app.command("resize", cls=Command, context_settings=CONTEXT)(resize.resize)
app.command("inspect", cls=Command, context_settings=CONTEXT)(inspect.inspect)
app.command("push", cls=Command, context_settings=CONTEXT)(push.push)
app.add_typer(recipes.app, name="recipes")


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
    for stream in (sys.stdout, sys.stderr):  # a terminal that knows few characters must not end a run
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows only ASCII shows the rest as escapes
    if not launch.is_worker():
        sys.exit(_run(arguments)[0])
    launch.register()
    sys.exit(launch.record(*_run(arguments)))


def _run(arguments: list[str]) -> tuple[int, str]:
    """Return the exit code of a command line, and what went wrong, which was also said on stderr."""
    try:
        work = _parse(arguments)
        code = work() if callable(work) else work
        sys.stdout.flush()
        return (code if isinstance(code, int) else 0), ""
    except KeyboardInterrupt as interrupt:
        return 130, _say("\n".join(["interrupted", *getattr(interrupt, "__notes__", ())]))
    except BrokenPipeError:
        # The reader went away (| head). What is still buffered must not raise again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1, ""
    except StoppedEarly as stop:
        return stop.exit_code, _say(str(stop))
    except VitftError as error:
        _explain(error, arguments, is_local=isinstance(error, DataError | TrainError))
        return error.exit_code, str(error)
    except Exception as error:  # the last resort: a bug is said in our words, with the way to its traceback
        unknown = VitftError(
            f"this is a bug in vitft, or a failure under it that it does not know: {_describe(error)}",
            hint="the same command with --debug shows the traceback",
        )
        _explain(unknown, arguments, is_local=True)
        return 1, str(unknown)


def _parse(arguments: list[str]) -> Callable[[], object] | int:
    """Return the work that a command line asks for, or the exit code if there is none to do."""
    # Straight to the command: typer would load pydantic to convert the flags that a group was not given.
    parser: Any = get_command(app)
    name = [str(parser.name)]
    while arguments and arguments[0] in getattr(parser, "commands", {}):
        parser = parser.commands[arguments[0]]
        name.append(arguments[0])
        arguments = arguments[1:]
    try:
        outcome: Callable[[], object] | int = parser.main(arguments, prog_name=" ".join(name), standalone_mode=False)
    except Exception as error:  # which of click's classes it is depends on typer
        # Click's own complaints know how to show themselves; which click they come from depends on typer.
        show = getattr(error, "show", None)
        if show is None:
            raise
        if rank() == 0:
            error.message = shown(getattr(error, "message", ""))  # type: ignore[attr-defined]
            show()
        return int(getattr(error, "exit_code", 2))
    return outcome


def _explain(error: VitftError, arguments: list[str], *, is_local: bool) -> None:
    """Print an error; ``is_local`` if it may have met this process and no other."""
    if "--debug" in arguments:
        print(shown(traceback.format_exc()), file=sys.stderr)
    elif rank() == 0:
        _say(f"error: {error}")
    elif is_local and "VITFT_LAUNCH_DIR" not in os.environ:
        # Process 0 speaks for all, except of what it may not know. Our own parent would pass that on.
        print(shown(f"[process {rank()}] error: {error}"), file=sys.stderr, flush=True)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _say(text: str) -> str:
    if rank() == 0:
        print(shown(text), file=sys.stderr, flush=True)
    return text

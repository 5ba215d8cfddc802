"""Read a command line.

``Command`` accepts snake_case spellings, passes arguments after ``--`` to accelerate's launcher, and reports all
unknown flags at once, with what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand

from vitft.cli.foreign import FOREIGN
from vitft.errors import UsageError, did_you_mean
from vitft.processes import launch
from vitft.recipe.fields import FIELDS
from vitft.recipe.flags import FLAGS

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_FEW = 14  # a command with at most this many options needs no headings
_HEADINGS = ["Arguments and options", "Arguments", "Data", "Model", "Training", "Run", "Hub", "More"]
_HEADING_OF = {
    "data": "Data", "model": "Model", "augment": "Training", "optim": "Training", "train": "Training", "run": "Run",
    "hub": "Hub",
}  # fmt: skip
_OF_RUNS = ("--recipe", "--resume", "--from", "--dry-run", "--time")


def _heading(parameter: Any) -> str:
    """Return the heading of an argument or option in a long help text."""
    if parameter.param_type_name != "option":
        return "Arguments"
    flag = FLAGS.get(parameter.opts[0])
    if flag is not None:
        return _HEADING_OF[flag.key.split(".")[0]]
    return "Run" if parameter.opts[0] in _OF_RUNS else "More"


class Command(TyperCommand):
    """A command that typer parses but does not run.

    Typer turns Ctrl-C and a closed pipe into its own exit codes, so ``invoke`` only returns the work, and
    ``vitft.cli.main`` does it and sets the exit code.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; keep those for launched processes and their launcher in ``ctx.meta``."""
        args, launcher = _split(args) if self.takes_value("--num-processes") else (list(args), [])
        args = list(_normalise(args, self, ctx.command_path))
        ctx.meta["vitft.arguments"] = [*ctx.command_path.split()[1:], *_without(args, "--num-processes")]
        ctx.meta["vitft.launcher"] = launcher
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Callable[[], object]:
        """Return the work, to be done by ``vitft.cli.main``."""
        return lambda: super(Command, self).invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the flags under headings, with our own metavars; typer would write ``<list[str]>``."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name, metavar = record[0], getattr(parameter, "metavar", None)
                if metavar:
                    is_option = parameter.param_type_name == "option"
                    name = re.sub(r"<[^<>]*>$", metavar, name) if is_option else name.split()[0]
                groups.setdefault(_heading(parameter), []).append((name, record[1]))
        if sum(map(len, groups.values())) <= _FEW:
            groups = {"Arguments and options": [record for records in groups.values() for record in records]}
        for heading in sorted(groups, key=_HEADINGS.index):
            with formatter.section(heading):
                formatter.write_dl(groups[heading])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one per line."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in self.epilog.splitlines():
                    formatter.write(f"  {line}\n")

    def takes_value(self, flag: str) -> bool | None:
        """Whether ``flag`` of this command takes a value; None if it has no such flag."""
        for parameter in self.params:
            if flag in parameter.opts and parameter.param_type_name == "option":
                return not getattr(parameter, "is_flag", False)
        return False if flag == "--help" else None

    def flags(self) -> list[str]:
        """Return the long flags of this command."""
        return [flag for each in self.params for flag in each.opts if flag.startswith("--")] + ["--help"]


def launched(ctx: typer.Context, num_processes: int | None, device: str) -> int | None:
    """Run this command in several processes if asked to, and return their exit code; else return None."""
    chosen = launch.choose(num_processes, device, ctx.meta["vitft.launcher"])
    return None if chosen is None else launch.run(chosen, ctx.meta["vitft.arguments"])


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
        word = flag.removeprefix("--").replace("-", "_")
        matches = [key for key in FIELDS if key.split(".")[-1] == word]
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

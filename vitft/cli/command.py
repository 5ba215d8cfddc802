"""Read a command line.

``Command`` accepts snake_case spellings, passes arguments after ``--`` to accelerate's launcher, and reports everything
that is wrong at once, with what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperCommand

from vitft.cli.foreign import FOREIGN
from vitft.errors import RecipeError, UsageError, did_you_mean
from vitft.processes import launch
from vitft.recipe.fields import FIELDS
from vitft.recipe.flags import FLAGS, Flag

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


_FEW = 14  # a command with at most this many options needs no headings
_HEADINGS = ["Arguments and options", "Arguments", "Data", "Model", "Training", "Run", "Hub", "More"]
_HEADING_OF = {
    "data": "Data", "model": "Model", "augment": "Training", "optim": "Training", "train": "Training", "run": "Run",
    "hub": "Hub",
}  # fmt: skip
_OTHERS = {"--split": "Data"} | dict.fromkeys(("--recipe", "--resume", "--from", "--dry-run", "--time"), "Run")


def _heading(parameter: Any) -> str:
    """Return the heading of an argument or option in a long help text."""
    if parameter.param_type_name != "option":
        return "Arguments"
    flag = FLAGS.get(parameter.opts[0])
    if flag is not None:
        return _HEADING_OF[flag.key.split(".")[0]]
    return _OTHERS.get(parameter.opts[0], "More")


class Command(TyperCommand):
    """A command that typer parses but does not run.

    Typer turns Ctrl-C and a closed pipe into its own exit codes, so ``invoke`` only returns the work, and
    ``vitft.cli.main`` does it and sets the exit code.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; keep those for launched processes and their launcher in ``ctx.meta``."""
        args, launcher = _split(args) if self.takes_value("--num-processes") else (list(args), [])
        args, wrong = _normalise(args, self)
        ctx.meta["vitft.arguments"] = [*ctx.command_path.split()[1:], *_without(args, "--num-processes")]
        ctx.meta["vitft.launcher"] = launcher
        left: list[str] = []
        try:
            left = super().parse_args(ctx, list(args))
        except Exception as error:  # which of click's classes it is depends on typer
            if not is_complaint(error):
                raise
            wrong += _wrong_values(self, ctx, args, error, has_unknown=bool(wrong))
        if wrong:
            raise UsageError("\n  ".join([f"{ctx.command_path}:", *wrong]), hint=f"{ctx.command_path} --help")
        return left

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


def _normalise(args: list[str], command: Command) -> tuple[list[str], list[str]]:
    """Return the arguments with flags in kebab-case, and a line for each flag that does not exist, left out."""
    kept: list[str] = []
    unknown: list[str] = []
    is_value = False
    for place, argument in enumerate(args):
        if argument == "--":
            return kept + args[place:], unknown
        if is_value or not argument.startswith("--"):
            is_value = False
            kept.append(argument)
            continue
        written, equals, value = argument.partition("=")
        flag = written.replace("_", "-")
        wants_value = command.takes_value(flag)
        is_value = bool(wants_value) and not equals
        if wants_value is None:
            unknown.append(f"{written}: {_advice(flag, command)}")
        else:
            kept.append(flag + equals + value)
    return kept, unknown


def is_complaint(error: Exception) -> bool:
    """Whether an error is click's own about a command line; which click it comes from depends on typer."""
    return hasattr(error, "format_message")


def complaint(error: Any) -> str:
    """Return what click complains of, as a line in our words."""
    text = str(error.format_message()).rstrip(".")
    parameter = getattr(error, "param", None)
    if parameter is not None and parameter.param_type_name == "argument":
        return f"{parameter.metavar} is missing" if text.startswith("Missing") else text
    name = parameter.opts[0] if parameter is not None else ""
    text = text.removeprefix(f"Invalid value for '{name}': ").removeprefix("Input should be ")
    text = re.sub(r"^a valid integer\b.*", "use a whole number", text)
    text = re.sub(r"^a valid number\b.*", "use a number", text)
    text = re.sub(r"^greater than or equal to (\S+)$", r"use a number >= \1", text)
    text = re.sub(r"^Value error, .* is not one of (.+)$", lambda match: f"use {match[1]}".replace("'", ""), text)
    return f"{name}: {text}" if name and name not in text else text


def _wrong_values(command: Command, ctx: Any, args: list[str], first: Exception, *, has_unknown: bool) -> list[str]:
    """Return a line for each argument or value that is missing or not allowed; click stops at the first."""
    try:
        given, rest, _ = command.make_parser(ctx).parse_args(args=list(args))
    except Exception as error:  # an option without its value
        if not is_complaint(error):
            raise
        return [complaint(error)]
    found: list[str] = []
    changes: dict[str, object] = {}
    for parameter in command.get_params(ctx):
        text = given.get(parameter.name)
        if parameter.opts[0] in getattr(command.callback, "recipe_flags", ()) and isinstance(text, str):
            flag = FLAGS[parameter.opts[0]]
            changes[flag.key] = _as_yaml(flag, text)
            continue
        try:
            parameter.handle_parse_result(ctx, given, rest)
        except Exception as error:  # which of click's classes it is depends on typer
            if not is_complaint(error):
                raise
            found.append(complaint(error))
    found += wrong_keys(changes)
    if rest and not has_unknown:  # after a flag that does not exist they are its values, as likely as not
        found.append(f"one argument too many: {' '.join(rest)}")
    return found or ([] if has_unknown else [complaint(first)])


def wrong_keys(changes: Mapping[str, object]) -> list[str]:
    """Return a line for each value that no recipe takes."""
    from vitft.recipe.recipe import Recipe

    try:
        Recipe.load(None, changes)
    except RecipeError as error:
        return [line.strip() for line in with_flags(error.wrong).splitlines()[1:]]
    return []


def _as_yaml(flag: Flag, text: str) -> object:
    """Return the value of a flag's key as a recipe file would have it."""
    from vitft.recipe.yaml12 import parse_setting

    try:
        return parse_setting(f"{flag.key}={text}")[1] if not flag.unit else f"{text} {flag.unit}"
    except RecipeError:
        return text


_FLAG_OF = {flag.key: flag.name for flag in FLAGS.values() if not flag.sets}


def with_flags(text: str) -> str:
    """Return a message about recipe keys with the flag beside each key that has one."""

    def named(match: re.Match[str]) -> str:
        flag = _FLAG_OF.get(match[1])
        return f"  {flag} ({match[1]})" if flag else match[0]

    return re.sub(r"^  ([a-z_]+\.[a-z_.]+)(?=: )", named, text, flags=re.MULTILINE)


def _advice(flag: str, command: Command) -> str:
    own = command.flags()
    if flag in ("--model", "--dataset") and flag not in own:
        return f"leave out the flag: {flag[2:].upper()} is an argument of this command"
    if flag in FOREIGN:
        return f"use {FOREIGN[flag]}" if FOREIGN[flag].startswith("--") else FOREIGN[flag]
    if "--set" in own:
        word = flag.removeprefix("--").replace("-", "_")
        matches = [key for key in FIELDS if key.split(".")[-1] == word]
        if matches:
            return "use " + " or ".join(f"--set {key}=VALUE" for key in matches)
    guess = did_you_mean(flag, [*own, *FOREIGN])
    if guess in FOREIGN:
        return _advice(guess, command)
    return f"did you mean {guess}?" if guess else "there is no such flag"


def _without(args: list[str], flag: str) -> Iterator[str]:
    """Yield ``args`` without a flag and its value."""
    skip = False
    for argument in args:
        if not skip and argument != flag and not argument.startswith(f"{flag}="):
            yield argument
        skip = not skip and argument == flag

"""``vitft cache``: list the decoded images that are kept for later epochs and runs, and remove them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vitft.cli.command import CONTEXT, Command
from vitft.cli.options import Debug, Format
from vitft.errors import UsageError, did_you_mean
from vitft.outside import printable, shown

if TYPE_CHECKING:
    from vitft.data.cache import Cache, Kept

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings=CONTEXT,
)


@app.callback()
def cache(ctx: typer.Context) -> None:
    """List the decoded images that are kept for later epochs and runs, and remove them. Without a command: list."""
    if ctx.invoked_subcommand is None:
        list_stores()


@app.command("ls", cls=Command, context_settings=CONTEXT)
def list_stores(format: Format = "text", debug: Debug = False) -> int:
    """List what is kept, the most recently used first: dataset, what of it, by which model, rows, size, last use.

    It is in $VITFT_CACHE, or in ~/.cache/vitft if that is not set, and in memory while a run with few images lasts.
    All of it can be removed: what a run needs is made again.
    """
    found = [each for cache in _caches() for each in cache.stores()]
    if format == "json":
        print(json.dumps([_plain(each) for each in found], indent=2))
    else:
        print(shown(_table(found)))
    return 0


@app.command("rm", cls=Command, context_settings=CONTEXT)
def remove(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names that `vitft cache ls` shows.", metavar="NAME")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Remove everything that no run is using.")] = False,
    debug: Debug = False,
) -> int:
    """Remove what is kept, by name or with --all. What a run is using stays."""
    from vitft.quantities import size_text

    if bool(names) == everything:
        raise UsageError("say what to remove", allowed="names, or --all", hint="vitft cache ls; vitft cache rm --all")
    found = {each.folder.name: (cache, each) for cache in _caches() for each in cache.stores()}
    for name in names or ():
        if name not in found:
            guess = did_you_mean(name, found) or "vitft cache ls"
            raise UsageError(f"nothing with the name {name!r} is kept", hint=guess)
    freed, stay = 0, []
    for name in names or found:
        cache, each = found[name]
        if cache.remove(name):
            freed += each.num_bytes
            print(shown(f"{name}  {size_text(each.num_bytes)}"))
        else:
            stay.append(name)
    print(f"{size_text(freed)} freed", file=sys.stderr)
    if stay:
        raise UsageError(f"in use by a run, or not removable: {', '.join(stay)}", hint="try again when it has ended")
    return 0


def _caches() -> list[Cache]:
    from vitft.data.cache import Cache, disk_folder, memory_folder

    return [Cache(folder) for folder in (disk_folder(), memory_folder()) if folder is not None]


def _table(found: list[Kept]) -> str:
    from vitft.data.cache import disk_folder
    from vitft.names import last_part
    from vitft.quantities import count_text, duration_text, size_text

    if not found:
        return f"nothing is kept in {disk_folder()}"
    rows = [("name", "dataset", "what", "model", "rows", "size", "last used")]
    for each in found:
        used = "in use" if each.is_in_use else f"{duration_text(each.seconds_since_use)} ago"
        model = "/".join(each.model.rstrip("/").split("/")[-2:])  # a Hub id, or the end of a path: flowers/model
        about = (printable(last_part(each.dataset)), printable(each.what), printable(model) or "-")
        rows.append((each.folder.name, *about, count_text(each.num_filled), size_text(each.num_bytes), used))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([*lines, "", f"{size_text(sum(each.num_bytes for each in found))} in {_places(found)}"])


def _places(found: list[Kept]) -> str:
    return " and ".join(dict.fromkeys(str(each.folder.parent) for each in found))


def _plain(each: Kept) -> dict[str, object]:
    return {
        "name": each.folder.name,
        "folder": str(each.folder),
        "dataset": each.dataset,
        "what": each.what,
        "model": each.model or None,
        "rows": each.num_filled,
        "bytes": each.num_bytes,
        "last_used": each.last_used,
        "in_use": each.is_in_use,
    }

"""The README keeps up with the code: its table, its tree, its recipes and its flags.

``VITFT_UPDATE=1 pytest tests/test_readme.py`` writes the generated table anew.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from typer.main import get_command

from vitft.builtin import recipe_names
from vitft.cli import app
from vitft.recipe.recipe import Recipe, keys

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
TABLE = re.compile(r"(?<=<!-- recipe keys -->\n).*?(?=<!-- /recipe keys -->)", re.DOTALL)


def test_the_table_of_recipe_keys_is_the_generated_one():
    command = [sys.executable, "-m", "vitft", "recipes", "keys", "--format", "markdown"]
    generated = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if os.environ.get("VITFT_UPDATE"):
        README.write_text(TABLE.sub(lambda _: generated, TEXT), encoding="utf-8")
    [written] = TABLE.findall(README.read_text(encoding="utf-8"))
    assert written == generated, "VITFT_UPDATE=1 pytest tests/test_readme.py"


def test_the_table_has_every_key_once_with_its_default():
    rows = [line.split(" | ") for line in TABLE.findall(TEXT)[0].splitlines()[2:]]
    assert [row[0].strip("| `") for row in rows] == [key for key, _ in keys()]
    assert ["| `train.duration`", "`10 epochs`"] in [row[:2] for row in rows]


def test_the_tree_lists_exactly_the_modules():
    [block] = re.findall(r"```text\nvitft/\n(.*?)```", TEXT, re.DOTALL)
    listed, folders = [], []
    for line in block.splitlines():
        name, _, note = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 4
        folders = [*folders[: depth - 1], name.rstrip("/")]
        assert note.strip(), f"{name} has no note"
        if not name.endswith("/"):
            listed.append("/".join(folders))
    source = ROOT / "vitft"
    modules = [path for path in source.rglob("*.py") if path.stat().st_size]
    assert sorted(listed) == sorted(path.relative_to(source).as_posix() for path in modules)


def test_every_recipe_that_is_named_ships():
    named = set(re.findall(r"--recipe ([\w-]+)(?![\w./-])", TEXT))
    named |= set(re.findall(r"recipes (?:show|cp) ([\w-]+)", TEXT))
    named |= set(re.findall(r"Recipe\.load\(\"([\w-]+)\"", TEXT))
    assert named
    assert named <= set(recipe_names())


def test_every_flag_that_is_named_exists():
    group = get_command(app)
    commands = [*group.commands.values(), *group.commands["recipes"].commands.values(), group]
    known = {flag for command in commands for each in command.params for flag in each.opts}
    known |= {"--help", "--multi_gpu", "--num_processes", "--nproc-per-node", "--num_machines"}
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    for line in "\n".join(blocks).splitlines():
        flags = re.findall(r"(?<!\S)--[a-z][\w-]*", line.split("#")[0])
        assert set(flags) <= known, line


def test_every_key_that_is_set_exists():
    known = set(Recipe().flat())
    assert set(re.findall(r"--set '?([a-z_]+\.[a-z_]+)=", TEXT)) <= known

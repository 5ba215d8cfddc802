"""README and docs keep up with the code: flags, keys, recipes, links, generated pages, the tree, and what they run.

``VITFT_UPDATE=1 pytest tests/test_docs.py`` writes the generated parts anew.
"""

import ast
import contextlib
import io
import json
import os
import re
import shlex
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from vitft.builtin import digits, recipe_names
from vitft.cli import app
from vitft.reading import opening
from vitft.recipe.recipe import Recipe, keys

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
}
GENERATED = ("docs/commands.md", "docs/data-layouts.md", "docs/families.md")  # by programs, which have tests
WRITTEN = {name: text for name, text in PAGES.items() if name not in GENERATED}
PROGRAM = get_command(app)
AGAIN = "VITFT_UPDATE=1 pytest tests/test_docs.py"


# --- what a page says ---------------------------------------------------------------------------------------


def blocks(text, language):
    """Yield the code blocks of a language that are not marked as not to be run."""
    for mark, block in re.findall(rf"(<!-- not run[^\n]*-->\n)?```{language}\n(.*?)```", text, re.DOTALL):
        if not mark:
            yield block


def shell_lines(text):
    """Yield the simple commands of ```sh blocks, as words; what stands behind # is left out."""
    for block in blocks(text, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = next((place for place, word in enumerate(words) if word in ("&&", "|", ";")), len(words))
                yield words[:end]
                words = words[end + 1 :]


def calls(text):
    """Yield (command, the words behind it) for each call of vitft in the ```sh blocks of a page."""
    for words in shell_lines(text):
        if "vitft" not in words:
            continue
        rest, command, name = words[words.index("vitft") + 1 :], PROGRAM, []
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest[0]]
            name.append(rest.pop(0))
        yield " ".join(name), command, rest


def _before(words, mark):
    return words[: words.index(mark)] if mark in words else words


def flags_of(command):
    return {flag for each in command.params for flag in each.opts} | {"--help", "-h"}


def arguments_of(command, words):
    """Return the words that are neither flags nor their values."""
    takes = {flag for each in command.params for flag in each.opts if not getattr(each, "is_flag", True)}
    found, is_value = [], False
    for word in words:
        if not is_value and not word.startswith("-"):
            found.append(word)
        is_value = not is_value and word in takes | {"--from"}
    return found


def commands(parser=PROGRAM, name=()):
    """Yield the name of every command, groups before their commands."""
    for each in parser.commands:
        yield (*name, each)
        if hasattr(parser.commands[each], "commands"):
            yield from commands(parser.commands[each], (*name, each))


@pytest.mark.parametrize("page", WRITTEN)
def test_commands_and_their_flags_exist(page):
    for name, command, rest in calls(WRITTEN[page]):
        own = _before(rest, "--")
        flags = {word.partition("=")[0] for word in own if re.match(r"--?[a-z]", word)}
        assert name or not rest or rest[0].startswith("-"), f"vitft {rest[0]}"
        unknown = flags - flags_of(command)
        assert not unknown, f"vitft {name} has no {', '.join(unknown)}"
        places = [each.nargs for each in command.params if each.param_type_name == "argument"]
        assert -1 in places or len(arguments_of(command, _before(own, ">"))) <= len(places), (name, own)


def test_flags_that_the_text_names_exist():
    known = {"--version", "--install-completion", "--show-completion"}
    for name in commands():
        command = PROGRAM
        for word in name:
            command = command.commands[word]
        known |= flags_of(command)
    known |= {"--config_file", "--shm-size", "--signal", "--strict"}  # of other programs
    for page, text in WRITTEN.items():
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        named = {flag for span in spans for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
        assert named <= known, (page, named - known)


def test_every_recipe_that_is_named_ships():
    named = set()
    for text in WRITTEN.values():
        named |= set(re.findall(r"--recipe ([\w-]+)(?![\w./-])", text)) - {"RECIPE"}
        named |= set(re.findall(r"recipes (?:show|cp) ([a-z][\w-]+)", text))
        named |= set(re.findall(r"Recipe\.load\(\"([\w-]+)\"", text))
    assert named
    assert named <= set(recipe_names())
    chosen = PAGES["docs/models-and-recipes.md"]
    assert all(f"`{name}`" in chosen for name in recipe_names())


def test_every_recipe_key_that_is_named_exists():
    known = set(Recipe().flat())
    sections = "|".join(sorted({key.split(".")[0] for key in known} - {"run"}))
    for page, text in WRITTEN.items():
        named = set(re.findall(r"--set '?([a-z_]+\.[a-z_.]+)=", text))
        named |= set(re.findall(rf"`((?:{sections})\.[a-z_.]+)[`=:]", text))
        named |= set(re.findall(r"\"([a-z]+\.[a-z_.]+)\": ", text))
        named -= {"section.key"}
        assert named <= known, (page, named - known)


# --- links --------------------------------------------------------------------------------------------------


def anchors(text):
    """Return what the headings of a page can be linked to as."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


def test_the_site_and_the_index_have_every_page():
    def pages(entries):
        for entry in entries:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages(value)

    nav = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(nav) == sorted(path.name for path in DOCS.glob("*.md"))
    assert set(nav) - {"index.md"} <= set(re.findall(r"\]\(([\w-]+\.md)\)", PAGES["docs/index.md"]))


def test_notebooks_link_to_pages_and_hold_no_outputs():
    for path in DOCS.glob("notebooks/*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") for cell in cells)
        for cell in cells:
            if cell["cell_type"] == "markdown":
                for target in re.findall(r"\]\((?!https?:)([^)]+)\)", "".join(cell["source"])):
                    assert (path.parent / target).exists(), target


def test_pages_name_no_machine_and_no_address_but_the_hub_and_papers():
    allowed = ("huggingface.co", "semver.org", "arxiv.org")
    for page, text in PAGES.items():
        hosts = re.findall(r"https?://([\w.-]+)", text)
        assert all(host in allowed for host in hosts), (page, hosts)
    picture = (DOCS / "images" / "quickstart.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://([\w.-]+)", picture)) <= {"www.w3.org", "www.textualize.io"}
    assert "url(" not in re.sub(r"url\(#", "", picture)  # nothing is loaded from elsewhere


# --- generated parts ----------------------------------------------------------------------------------------


def part(page, name, generated):
    """Return what a page has between the marks of a generated part; first write it, if that is asked for."""
    marks = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    if os.environ.get("VITFT_UPDATE"):
        text = marks.sub(lambda _: generated, text)
        path.write_text(text, encoding="utf-8")
    [written] = marks.findall(text)
    return written


def run(*arguments, cwd=None):
    """Return the exit code and stdout of a command line, run in this process."""
    out = io.StringIO()
    with contextlib.chdir(cwd or "."), contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
        from vitft.cli import main

        main(list(arguments))
    return end.value.code, out.getvalue()


def test_the_table_of_recipe_keys_is_the_generated_one():
    _, generated = run("recipes", "keys", "--format", "markdown")
    written = part("docs/recipe-keys.md", "recipe keys", generated)
    assert written == generated, AGAIN
    rows = [line.split(" | ") for line in written.splitlines()[2:]]
    assert [row[0].strip("| `") for row in rows] == [key for key, _ in keys()]
    assert ["| `train.duration`", "`10 epochs`"] in [row[:2] for row in rows]


def pinned(package):
    """Whether a package is installed as constraints.txt has it, by which help texts are laid out."""
    return f"{package}=={version(package)}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").split()


@pytest.mark.skipif(not pinned("typer"), reason="another typer lays help out in another way")
def test_the_page_of_commands_is_what_help_prints(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    sections = []
    for name in [(), *commands()]:
        code, text = run(*name, "--help")
        assert code == 0
        title = " ".join(("vitft", *name))
        sections.append(f"{'##' if len(name) < 2 else '###'} {title}\n\n```text\n{text.strip()}\n```\n")
    generated = "\n".join(sections)
    assert part("docs/commands.md", "commands", generated) == generated, AGAIN


def test_the_tree_lists_exactly_the_modules():
    [block] = re.findall(r"```text\nvitft/\n(.*?)```", PAGES["docs/architecture.md"], re.DOTALL)
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


# --- troubleshooting ----------------------------------------------------------------------------------------


def spoken():
    """Return every text of the package, with … for what is filled in."""
    texts = []
    for path in (ROOT / "vitft").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if id(node) in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def test_troubleshooting_quotes_errors_as_they_are_printed():
    texts = spoken()
    columns = re.findall(r"^\| (`.*?) \| ", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    quotes = [quote for column in columns for quote in re.findall(r"`([^`]+)`", column)]
    assert len(quotes) >= 40
    pieces = {quote: [piece.strip() for piece in quote.split("…")] for quote in quotes}
    unsaid = [quote for quote in quotes if not any(all(piece in text for piece in pieces[quote]) for text in texts)]
    assert not unsaid, unsaid


def test_exit_codes_stand_in_each_place():
    codes = {
        code for code, _ in re.findall(r"^\| (\d+) \| (\w+)", PAGES["docs/stopping-and-resuming.md"], re.MULTILINE)
    }
    assert codes == {"0", "1", "2", "3", "75", "130"}
    assert codes - {"0"} == set(re.findall(r"\(exit code (\d+)\)", PAGES["docs/troubleshooting.md"]))


# --- what really runs ---------------------------------------------------------------------------------------


def is_cheap(name, rest):
    """Whether a documented call needs neither training nor a network, nor files that are not there."""
    if name == "recipes validate":
        return True
    return name in ("recipes ls", "recipes show", "recipes cp", "runs", "runs ls", "runs clean") or "--version" in rest


def test_cheap_commands_run(tmp_path):
    done = set()
    for text in WRITTEN.values():
        for name, _, rest in calls(text):
            line = (*name.split(), *(word for word in rest if word != ">"))
            if is_cheap(name, rest) and "NAME" not in rest and line not in done:
                done.add(line)
                code, _ = run(*line, cwd=tmp_path)
                assert code == 0, line
    assert {line[:2] for line in done} >= {("recipes", "ls"), ("recipes", "cp"), ("recipes", "validate"), ("runs",)}
    code, text = run("data", "builtin:digits", cwd=tmp_path)
    assert code == 0 and "1,293 images" in text


SMALL = {
    "data.max_train_samples": 60, "train.duration": "2 steps", "train.evaluate_every": "1 epoch",
    "run.pictures": "off", "optim.warmup": "1 steps",
}  # fmt: skip


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder for examples, in which recipes and digits are small."""
    load, whole = Recipe.load.__func__, digits.load_digits()
    few = {name: rows.select(range(size)) for (name, rows), size in zip(whole.items(), (300, 40), strict=True)}

    def loaded(cls, base=None, changes=None):
        return load(cls, base, {**(changes or {}), **SMALL})

    monkeypatch.setattr(Recipe, "load", classmethod(loaded))
    for module in (digits, opening):
        monkeypatch.setattr(module, "load_digits", lambda: type(whole)(few))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_page_runs(small):
    from PIL import Image

    Image.new("L", (8, 8), 128).save("seven.png")
    program = "\n".join(blocks(PAGES["docs/python.md"], "python"))
    names = {}
    exec(compile(program, "docs/python.md", "exec"), names)
    assert names["result"].run_dir.is_dir()
    assert (small / "inside" / "index.html").is_file() and (small / "digits-48" / "config.json").is_file()
    assert len(list((small / "runs").iterdir())) == 2  # the run, and the one that goes on from it


def test_the_notebook_runs(small):
    import matplotlib

    matplotlib.use("Agg")
    cells = json.loads((DOCS / "notebooks" / "first-model.ipynb").read_text(encoding="utf-8"))["cells"]
    names = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "first-model.ipynb", "exec"), names)
    assert names["answer"]["predictions"] and names["seen"].pictures["rollout"].is_file()

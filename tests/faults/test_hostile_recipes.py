"""Recipe files that nobody would write: each is a recipe, or one RecipeError of bounded length in little time."""

import os
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vitft.builtin import recipe_names, recipe_path
from vitft.cli import main
from vitft.errors import RecipeError
from vitft.outside import printable
from vitft.recipe.recipe import Recipe, keys, overlay, parse_recipe, validate
from vitft.recipe.yaml12 import parse_yaml

EXAMPLES = 2_500 if os.environ.get("VITFT_SLOW") == "1" else 500  # of each of the four kinds
KEYS = [key for key, _ in keys()]
SHIPPED = [recipe_path(name).read_text(encoding="utf-8") for name in recipe_names()]

often = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,  # the same in every run of CI; the long run looks further
    database=None,
    suppress_health_check=list(HealthCheck),
)


def judge(text):
    """Read a recipe; return it, or None if it was refused as it should be."""
    begun = time.process_time()
    recipe = None
    try:
        recipe = validate(parse_recipe(text, "FILE"), "FILE")
    except RecipeError as error:
        assert 0 < len(str(error)) < 15_000
        assert printable(str(error), lines=True) == str(error)
    assert time.process_time() - begun < 5
    return recipe


def reads_back(recipe):
    """Whether a recipe is the same when it is written and read again; one that was refused is not written."""
    return recipe is None or Recipe.model_validate(parse_yaml(recipe.dump(), "DUMP")) == recipe


# Each broke reading, or made it cost seconds or gigabytes, once.
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(9 * [f'*{a}'])}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
WAYS = {
    "a list as a key": "{[a]: 1}",
    "a mapping as a key": "{{a: 1}: 1}",
    "an integer that is none": "train: {seed: !!int abc}",
    "a float that is none": "train: {seed: !!float abc}",
    "a truth that is none": "train: {seed: !!bool maybe}",
    "a time that is none": "!!timestamp x",
    "bytes": "!!binary x",
    "a set": "!!set {a, b}",
    "an object": "!!python/object/apply:os.system [true]",
    "many brackets": "[" * 500,
    "many braces": "{a: " * 500,
    "many dashes": "- " * 500 + "a",
    "many indents": "".join(f"{' ' * depth}a:\n" for depth in range(400)),
    "a number of 5,000 digits": "train: {seed: " + "9" * 5000 + "}",
    "a number of 5,000 digits of an hour": "train: {time_limit: " + "9" * 5000 + " h}",
    "a number that overflows": "optim: {lr: 1e999}",
    "base 60": "train: {seed: 1:1:1:1}",
    "an alias bomb": BOMB,
    "an alias bomb in a section": "run: {track: " + "*a" + "}\n" + BOMB,
    "a bomb of long words": f"a: &a {'x' * 50_000}\nb: [{','.join(9000 * ['*a'])}]",
    "a bomb of merges": "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [*{a}, *{a}]}}\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    "itself": "&a [*a]",
    "itself as a section": "run: &a {name: *a}",
    "an alias of nothing": "*a",
    "many unknown keys": "".join(f"key_{number}: 1\n" for number in range(5000)),
    "many unknown keys of a section": "run:\n" + "".join(f"  nam{number}: 1\n" for number in range(5000)),
    "a long key": f"{'k' * 90_000}: 1",
    "a long value": f"train: {{seed: {'k' * 90_000}}}",
    "a long list": f"run: {{track: [{','.join(['x'] * 20_000)}]}}",
    "too much": "# " + "x" * 200_000,
    "two documents": "a: 1\n---\nb: 2",
    "escapes": '"\\e[2J": "\\e[2J\\u202e"',
    "null": 'data: {dataset: "a\\0b"}',
    "equals": "train: {seed: =}",
    "a key that is no text": "1: 2\nnull: 3\ntrue: 4\n1.5: 6\n.nan: 1\n.inf: 2",
    "infinity": "optim: {lr: .inf, eps: .nan, betas: [.nan, 1]}",
    "a tab": "run:\n\tname: a",
    "a directive": "%YAML 9.9\n--- a",
    "controls": "a: \x00\x1b\x9b",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_known_attack_is_refused_at_once(way):
    begun = time.process_time()
    assert judge(WAYS[way]) is None or way in ("null", "controls")
    assert time.process_time() - begun < 3


def test_an_alias_bomb_takes_no_memory(tmp_path):
    code = (
        "import resource, sys; from vitft.recipe.recipe import Recipe; from vitft.errors import RecipeError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: Recipe.load(sys.argv[1])\n"
        "except RecipeError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    (tmp_path / "bomb.yaml").write_text(BOMB)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(tmp_path / "bomb.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert int(done.stdout) < 20_000, done.stderr  # kilobytes


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.duration", f"{'9' * 400} steps"),
        ("train.duration", "2000000000 epochs"),
        ("optim.betas", [1, 1]),
        ("optim.lr", 1e300),
        ("augment.mixup_alpha", 1e300),
        ("augment.crop_ratio", [1e-300, 1e300]),
        ("train.batch_size", 10**30),
        ("train.keep_checkpoints", 10**5000),
        ("data.workers", 100_000),
        ("data.shuffle_buffer", 10**12),
        ("data.max_pixels", 10**12),
        ("data.max_pixels", 0),
        ("train.device", "cuda:99999999999999999999"),
        ("model.train", "last:99999999999999999999"),
        ("run.name", "n" * 300),
        ("data.dataset", "n" * 10_000),
        ("model.image_size", 10**9),
        ("model.allow_new", ["n" * 10_000]),
        ("data.dataset", "no utf-8 \udce9"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "value",
)
def test_a_value_that_would_break_later_is_refused(key, value):
    with pytest.raises(RecipeError) as raised:
        Recipe.load(None, {key: value})
    assert key in str(raised.value)
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize("name", ["\x1b[2J", "a\u202eb", "x\ny", "é海", "null", "1e5"])
def test_a_recipe_that_is_written_hides_nothing_and_reads_back_the_same(name, tmp_path, capsys):
    recipe = Recipe.load(None, {"data.dataset": name, "run.output_dir": name})
    assert printable(recipe.dump(), lines=True) == recipe.dump()
    (tmp_path / "a.yaml").write_text(f"# \u202e\n{recipe.dump()}", encoding="utf-8")
    assert Recipe.load(tmp_path / "a.yaml") == recipe
    with pytest.raises(SystemExit):
        main(["recipes", "show", str(tmp_path / "a.yaml")])
    said = capsys.readouterr().out
    assert printable(said, lines=True) == said
    assert validate(parse_recipe(said, "SAID"), "SAID") == recipe


texts = st.text(st.characters() | st.sampled_from(list("[]{}:,-&*!|>'\"%@`#?\n \t=0123456789eE.~")), max_size=200)


@often
@given(texts)
@example("? a")
def test_any_text_is_a_recipe_or_refused(text):
    assert reads_back(judge(text))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
scalars |= st.sampled_from(["auto", "10 epochs", "5%", "1 h", "224", "384x512", "all", "last:2", "cpu", "1e-4", "no"])


def _several(inner):
    return st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4)


values = st.recursive(scalars, _several, max_leaves=8)


@often
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=30), values, max_size=5))
def test_any_values_of_keys_are_a_recipe_or_refused(changes):
    nested = overlay({}, changes)
    try:
        text = yaml.safe_dump(nested, allow_unicode=True)
    except yaml.YAMLError:
        return
    assert reads_back(judge(text))
    with suppress(RecipeError):
        Recipe.load(None, changes)


@often
@given(st.sampled_from(SHIPPED), st.lists(st.tuples(st.integers(0, 3000), texts, st.integers(0, 40)), max_size=4))
def test_a_damaged_recipe_is_a_recipe_or_refused(text, wounds):
    for place, inserted, removed in wounds:
        text = text[:place] + inserted + text[place + removed :]
    assert reads_back(judge(text))


tokens = st.sampled_from([
    "[", "]", "{", "}", ": ", ", ", "- ", "\n", "\n  ", "&a ", "*a", "!!int ", "!!str ", "!x ", "<<: *a", "? ", "| ",
    "> ", "'", '"', "# ", "run", "train", "seed", "1", "null", "true", "1e5", ".inf", "---\n", "...\n", "%TAG ! x\n",
    "\t", "\\",
])  # fmt: skip


@often
@given(st.lists(tokens, max_size=40))
def test_any_words_of_yaml_are_a_recipe_or_refused(words):
    assert reads_back(judge("".join(words)))

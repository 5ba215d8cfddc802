"""YAML 1.2's core schema on PyYAML, which follows 1.1: ``1e-4`` is a number, ``no`` is a word.

A small untrusted file can expand to something huge, with nested lists and aliases that repeat them. The expanded size
is counted before anything is built.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from vitft.errors import RecipeError
from vitft.outside import printable, shortened

MOST_CHARACTERS = 100_000
"""The longest text that is read; the longest recipe that ships has 3,000."""
_DEEPEST = 20  # nested lists and mappings
_MOST_NODES = 20_000  # values, counted each time an alias refers to them
_MOST_EXPANDED = 1_000_000  # characters of all of them together
_MOST_DIGITS = 30


def parse_yaml(text: str, source: str) -> Any:
    """Read YAML by the rules of YAML 1.2: 1e-4 is a number, ``no`` is a word, a repeated key is an error.

    Raises:
        RecipeError: if it is not such YAML, or larger than any recipe.
    """
    if len(text) > MOST_CHARACTERS:
        raise _error(source, f"it has {len(text):,} characters; the limit is {MOST_CHARACTERS:,}")
    try:
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise _error(source, str(error)) from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        # PyYAML's constructors raise these for a value that does not match its tag.
        raise _error(source, str(error) or type(error).__name__) from error


def write_yaml(value: object, **options: Any) -> str:
    """Return a value as YAML that reads back the same, with unprintable characters escaped.

    Args:
        value: plain values.
        options: for ``yaml.dump``.
    """
    text: str = yaml.dump(value, Dumper=_Dumper, allow_unicode=True, **options)
    if printable(text, lines=True) == text:
        return text
    return str(yaml.dump(value, Dumper=_Dumper, allow_unicode=False, **options))


def parse_setting(text: str) -> tuple[str, object]:
    """Split ``section.key=value`` as given to ``--set``; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        wrong = f"--set {shortened(text, 200)!r} has no '='"
        raise RecipeError(wrong, allowed="section.key=value", hint="--set optim.lr=3e-4")
    return key.strip(), parse_yaml(value, f"the value of --set {shortened(key.strip(), 80)}")


def _error(source: str, reason: str) -> RecipeError:
    said = shortened(printable(" ".join(reason.split())), 500)
    return RecipeError(f"{shortened(source, 300)} is not valid YAML: {said}")


_CORE = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema on PyYAML, which follows 1.1."""

    depth = 0

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _measure(node, {}, set())
        return node

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > _DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"more than {_DEEPEST} nested levels", mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "keys are words or numbers", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                wrong = f"the key {shortened(repr(key), 80)} appears twice"
                raise yaml.constructor.ConstructorError(None, None, wrong, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _measure(node: yaml.Node, known: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Return how many values and characters a node expands to, aliases included.

    Args:
        node: of the composed text.
        known: the results for other nodes, by identity; each node is measured once.
        above: the nodes around this one.
    """
    if id(node) in known:
        return known[id(node)]
    if id(node) in above:
        raise yaml.composer.ComposerError(None, None, "a value contains itself", node.start_mark)
    if node.tag not in _CORE:
        wrong = f"the tag {shortened(node.tag, 80)!r} is not allowed in a recipe"
        raise yaml.constructor.ConstructorError(None, None, wrong, node.start_mark)
    if isinstance(node, yaml.ScalarNode):
        if node.tag.endswith((":int", ":float")) and len(node.value) > _MOST_DIGITS:
            wrong = f"a number with {len(node.value):,} digits; the limit is {_MOST_DIGITS}"
            raise yaml.constructor.ConstructorError(None, None, wrong, node.start_mark)
        return 1, len(node.value)
    children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    sizes = [_measure(child, known, above | {id(node)}) for child in children]
    known[id(node)] = values, characters = 1 + sum(size[0] for size in sizes), sum(size[1] for size in sizes)
    if values > _MOST_NODES or characters > _MOST_EXPANDED:
        wrong = "with its aliases expanded, it is larger than any recipe"
        raise yaml.composer.ComposerError(None, None, wrong, node.start_mark)
    return values, characters


_OF_YAML_1_1 = (":bool", ":float", ":timestamp", ":int", ":value")
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_OF_YAML_1_1)]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|nan))$"),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Quotes words that our loader would read as numbers; to PyYAML, ``1e5`` is a word."""


_Dumper.yaml_implicit_resolvers = {
    letter: [*resolvers, *(each for each in yaml.SafeDumper.yaml_implicit_resolvers.get(letter, ()))]
    for letter, resolvers in _Loader.yaml_implicit_resolvers.items()
}

"""YAML 1.2's core schema on PyYAML, which follows 1.1: ``1e-4`` is a number, ``no`` is a word."""

from __future__ import annotations

import re
from typing import Any

import yaml

from vitft.errors import RecipeError


def parse_yaml(text: str, source: str) -> Any:
    """Read YAML by the rules of YAML 1.2: 1e-4 is a number, ``no`` is a word, a repeated key is an error."""
    try:
        return yaml.load(text, Loader=_Loader)  # _Loader is a SafeLoader
    except yaml.YAMLError as error:
        raise RecipeError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error


def parse_setting(text: str) -> tuple[str, object]:
    """Split ``section.key=value`` as given to ``--set``; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {text!r} has no '='", allowed="section.key=value", hint="--set optim.lr=3e-4")
    return key.strip(), parse_yaml(value, f"the value of --set {key.strip()}")


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema on PyYAML, which follows 1.1."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                wrong = f"the key {key!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, wrong, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_OF_YAML_1_1 = (":bool", ":float", ":timestamp", ":int")
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

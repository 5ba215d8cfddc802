"""YAML by the rules of 1.2, in a file and in --set."""

import pytest

from vitft.errors import RecipeError
from vitft.recipe.yaml12 import parse_setting, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("3E2", 300.0), ("-1.5e+3", -1500.0), (".5", 0.5), ("7", 7), ("-7", -7),
        ("no", "no"), ("on", "on"), ("Yes", "Yes"), ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None), ("0o17", "0o17"), ("1_000", "1_000"), ("12:30", "12:30"),
        ("2026-11-22", "2026-11-22"), ("5%", "5%"), ("[1, 2e0, x]", [1, 2.0, "x"]), ("1.2.3", "1.2.3"),
    ],
)  # fmt: skip
def test_yaml_follows_the_rules_of_1_2(text, value):
    parsed = parse_yaml(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


def test_set_splits_at_the_first_equals_sign_and_reads_yaml():
    assert parse_setting("optim.lr=3e-4") == ("optim.lr", 3e-4)
    assert parse_setting("data.dataset=a=b") == ("data.dataset", "a=b")
    assert parse_setting("augment.crop_scale=[0.1, 1]") == ("augment.crop_scale", [0.1, 1])
    assert parse_setting("optim.max_grad_norm=null") == ("optim.max_grad_norm", None)


@pytest.mark.parametrize("text", ["optim.lr", "optim.lr 3e-4", "=3e-4", ""])
def test_set_without_a_key_or_a_value_is_refused(text):
    with pytest.raises(RecipeError, match="has no '='") as caught:
        parse_setting(text)
    assert "--set optim.lr=3e-4" in str(caught.value)

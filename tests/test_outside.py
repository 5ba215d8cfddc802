"""Text from outside: nothing is hidden, nothing is obeyed, no secret is told."""

import sys
import unicodedata

import pytest

from vitft.errors import VitftError, one_line
from vitft.outside import cell, printable, quoted, shortened, shown, without_secrets

ESCAPE = "\x1b[2J\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ESCAPE, r"\x1b[2J\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("photo\u202egpj.exe", r"photo\u202egpj.exe"),
        ("a\u2066b\u2069\ufeff\u200b\u00ad", r"a\u2066b\u2069\ufeff\u200b\xad"),
        ("line\u2028next\u2029\x85", r"line\u2028next\u2029\x85"),
        ("not utf-8 \udcff", r"not utf-8 \udcff"),
        ("\U000e0041tag", r"\U000e0041tag"),
    ],
)
def test_what_does_not_print_is_written_as_an_escape(text, expected):
    assert printable(text) == expected


@pytest.mark.parametrize(
    "text", ["plain", "café", "日本\u3000語", "می\u200cخواهم", "👩\u200d🔬", "a b\u00a0c", "\\x1b", ""]
)
def test_what_prints_stays_as_it_is(text):
    assert printable(text) == text


def test_no_character_of_unicode_is_obeyed():
    every = "".join(map(chr, range(sys.maxunicode + 1)))
    left = {unicodedata.category(each) for each in set(printable(every))}
    assert not left & {"Cc", "Cs", "Zl", "Zp"}
    assert {each for each in printable(every) if unicodedata.category(each) == "Cf"} == {"\u200c", "\u200d"}


def test_a_message_keeps_its_lines():
    assert shown("one\n  two\x1b") == "one\n  two\\x1b"


@pytest.mark.parametrize(
    "text",
    [
        "https://user:TOKEN@host/x",
        "https://TOKEN@host",
        "https://:TOKEN@host",
        "https:/user:TOKEN@host/x",  # as a path writes it
        "https://user:p@TOKEN@host",
        "https://user:p/TOKEN@host",
        "git+ssh://git:TOKEN@host",
        "s3://AKIAIOSFODNN7EXAMPLE:TOKEN@bucket",
        "'https://user:TOKEN@host', 'b'",
        "https://host/a?x=1&token=TOKEN",
        "https://host/a?X-Amz-Signature=TOKEN&x=1",
        "https://host/a?X-Amz-Security-Token=TOKEN",
        "https://host/a?AWSAccessKeyId=TOKEN",
        "https://host/a?sv=1&sig=TOKEN",
        "https://host/a#access_token=TOKEN",
        "https://host/a?api_key=TOKEN;x=2",
        "https://host/a?password=TOKEN",
        "Authorization: Bearer TOKEN0123456789",
        "{'authorization': 'Basic TOKENTOKEN=='}",
        "hf_TOKENTOKENTOKENTOKENTOKEN",
    ],
)
def test_a_secret_is_taken_out(text):
    assert "TOKEN" not in without_secrets(text)
    assert "***" in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/x@main",
        "https://host/x@main",
        "me@host.org",
        "/home/a@b/c",
        "C:/photos/x@2x.png",
        "file:///a/b@c",
        "https://host/a?page=2&keyboard=us",
        "basic classification of bearer animals",
        "hf_internal_testing",
        "timm/vit_small_patch16_224.augreg_in21k",
    ],
)
def test_what_is_no_secret_stays(text):
    assert without_secrets(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "-photo.jpg"])
def test_no_cell_is_a_formula(text):
    assert cell(text).startswith("'")


def test_other_cells_stay_as_they_are():
    assert [cell(value) for value in ("a=b", "", -0.5, 3, None)] == ["a=b", "", -0.5, 3, None]


def test_a_long_text_is_cut_and_says_how_long_it_was():
    assert shortened("a" * 300) == "a" * 300
    assert len(shortened("a" * 5000)) == 300
    assert shortened("a" * 5000).endswith("... (5,000 characters)")


def test_an_error_of_ours_holds_neither_escapes_nor_secrets():
    error = VitftError(f"no {ESCAPE}", allowed="\u202e", hint="--dataset https://user:TOKEN@host")
    for text in (str(error), repr(error), error.wrong, str(error.allowed), str(error.hint)):
        assert printable(text, lines=True) == text
        assert "TOKEN" not in text


def test_an_error_of_ours_is_bounded():
    assert len(str(VitftError("x" * 10**6, hint="y" * 10**6))) < 50_000


def test_the_message_of_another_is_cleaned_too():
    assert one_line(ValueError(f"{ESCAPE} https://u:TOKEN@h")) == r"\x1b[2J\x1b]0;owned\x07 https://***@h"


def test_a_value_is_quoted_in_a_line_whatever_it_is():
    assert [quoted(value) for value in (1, "a", [1, 2], None)] == ["1", "'a'", "[1, 2]", "None"]
    for value in ("x" * 10**6, [["x"] * 1000] * 1000, {"a": {"b": {"c": {"d": 1}}}}, 10**5000, "\x1b"):
        assert 0 < len(quoted(value)) < 1000
        assert printable(quoted(value)) == quoted(value)

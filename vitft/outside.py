"""Text that came from outside (names, labels, messages of others), made fit to be shown.

Class names, file names and error texts are data. On a terminal an escape code among them would be obeyed, a
direction override would show other words than those that are there, and an address may hold a password.
"""

from __future__ import annotations

import re
import reprlib
import unicodedata

_JOINERS = "\u200c\u200d"  # Persian words and emoji are written with them
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats and direction overrides, lone surrogates, separators
_FORMULA = "=+-@\t\r\n＝＋－＠"  # what makes a spreadsheet calculate; the wide ones in its East Asian editions

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 100, 100, 60

_SECRET_NAME = (
    r"[\w.\-]*(?:token|secret|passw(?:or)?d|passwd|pwd|signature|credentials?|api[_\-]?key|access[_\-]?key(?:[_\-]?id)?"
    r"|private[_\-]?key|session[_\-]?id|security)[\w\-]*|(?:key|sig|auth|authorization|jwt|pass)"
)
# A path drops one of two slashes, and some addresses have no host; a port is no password, and C:/ no address.
_LOGIN = re.compile(r"(?<![\w+.\-])([A-Za-z][\w+.\-]+:/+)(?:[^\s/\"'<>]+|[^\s/@:\"'<>]+:(?!\d+/)[^\s\"'<>]*)@")
_QUERY = re.compile(rf"([?&;#](?:{_SECRET_NAME})=)[^\s&;#\"'<>]+", re.IGNORECASE)
_HEADER = re.compile(
    r"(\bAuthorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?|\bBearer\s+(?=\S*\d))[\w.~+/=\-]{8,}", re.IGNORECASE
)
_TOKEN = re.compile(
    r"\b(?:(?:hf_|api_org_|ghp_)[A-Za-z0-9]{20,}|(?:github_pat_|glpat-)[\w\-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16})\b"
)


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return a text in which nothing is hidden and nothing is obeyed: what does not print is written as an escape.

    Args:
        text: from outside; anything else is made a text first.
        lines: whether line breaks stay, as in a message of several lines; else they become ``\n``.
    """
    text = str(text)
    if text.isprintable():  # almost every text
        return text
    return "".join(each if _is_plain(each) or (lines and each == "\n") else _escaped(each) for each in text)


def without_secrets(text: object) -> str:
    """Return a text whose addresses hold no login, no token and no signature; ``***`` stands in their place."""
    text = str(text)
    text = _LOGIN.sub(r"\1***@", text)
    text = _QUERY.sub(r"\1***", text)
    return _TOKEN.sub("***", _HEADER.sub(r"\1***", text))


def shown(text: object) -> str:
    """Return a message, which may have several lines, as it may be printed or written down."""
    return printable(without_secrets(text), lines=True)


def cell(value: object) -> object:
    """Return a cell of a CSV file that no spreadsheet takes for a formula; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.lstrip(" ").startswith(tuple(_FORMULA)) else printable(value)


def shortened(text: str, most: int = 300) -> str:
    """Return a text of at most ``most`` characters; where it was cut it says how long it was."""
    if len(text) <= most:
        return text
    end = f"... ({len(text):,} characters)"
    return text[: max(most - len(end), 0)] + end


def quoted(value: object) -> str:
    """Return a value as Python writes it, short enough for a line; that of a large one is not even made."""
    try:
        return printable(_SHORT.repr(value))
    except ValueError:  # an integer of more digits than Python writes
        return f"a {type(value).__name__} that is too long to be shown"


def _is_plain(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _HIDDEN


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

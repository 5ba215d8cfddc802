"""Make text from outside (names, labels, other libraries' messages) safe to show.

Class names, file names and error texts are data. In a terminal, an escape code in them would take effect and a
direction override would show different words; an address may contain a password.
"""

from __future__ import annotations

import re
import reprlib
import unicodedata

_JOINERS = "\u200c\u200d"  # Persian words and emoji are written with them
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats and direction overrides, lone surrogates, separators
_FORMULA = "=+-@\t\r\n＝＋－＠"  # these start a formula in a spreadsheet; the wide ones in East Asian editions

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 100, 100, 60

_SECRET_NAME = (
    r"[\w.\-]*(?:token|secret|passw(?:or)?d|passwd|pwd|signature|credentials?|api[_\-]?key|access[_\-]?key(?:[_\-]?id)?"
    r"|private[_\-]?key|session[_\-]?id|security)[\w\-]*|(?:key|sig|auth|authorization|jwt|pass)"
)
# pathlib drops one of two slashes, and some addresses have no host. A port is not a password, nor C:/ an address.
_LOGIN = re.compile(r"(?<![\w+.\-])([A-Za-z][\w+.\-]+:/+)(?:[^\s/\"'<>]+|[^\s/@:\"'<>]+:(?!\d+/)[^\s\"'<>]*)@")
_QUERY = re.compile(rf"([?&;#](?:{_SECRET_NAME})=)[^\s&;#\"'<>]+", re.IGNORECASE)
_HEADER = re.compile(
    r"(\bAuthorization[\"']?\s*[:=]\s*[\"']?(?:\w+\s+)?|\bBearer\s+(?=\S*\d))[\w.~+/=\-]{8,}", re.IGNORECASE
)
_TOKEN = re.compile(
    r"\b(?:(?:hf_|api_org_|ghp_)[A-Za-z0-9]{20,}|(?:github_pat_|glpat-)[\w\-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16})\b"
)


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return a text with unprintable characters escaped, so that nothing is hidden and no terminal code works.

    Args:
        text: from outside; other objects are converted with ``str``.
        lines: keep line breaks, for messages of several lines; otherwise they become ``\n``.
    """
    text = str(text)
    if text.isprintable():  # almost every text
        return text
    return "".join(each if _is_plain(each) or (lines and each == "\n") else _escaped(each) for each in text)


def without_secrets(text: object) -> str:
    """Return a text with logins, tokens and signatures replaced by ``***``."""
    text = str(text)
    text = _LOGIN.sub(r"\1***@", text)
    text = _QUERY.sub(r"\1***", text)
    return _TOKEN.sub("***", _HEADER.sub(r"\1***", text))


def shown(text: object) -> str:
    """Return a message of one or more lines, made safe to print or store."""
    return printable(without_secrets(text), lines=True)


def cell(value: object) -> object:
    """Return a CSV cell that no spreadsheet reads as a formula; numbers stay numbers."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value.lstrip(" ").startswith(tuple(_FORMULA)) else printable(value)


def shortened(text: str, most: int = 300) -> str:
    """Cut a text to at most ``most`` characters; a cut text ends with its original length."""
    if len(text) <= most:
        return text
    end = f"... ({len(text):,} characters)"
    return text[: max(most - len(end), 0)] + end


def quoted(value: object) -> str:
    """Return the ``repr`` of a value, short enough for a line; large values are never written out in full."""
    try:
        return printable(_SHORT.repr(value))
    except ValueError:  # an integer with more digits than Python converts
        return f"a {type(value).__name__} that is too long to show"


def _is_plain(character: str) -> bool:
    return character in _JOINERS or unicodedata.category(character) not in _HIDDEN


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

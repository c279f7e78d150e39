"""Distinguished names (RFC 4514): many spellings, one name.  Pure.

A rule and a directory each spell the name of a group in their own way.  Names are compared in
the canonical spelling that is made here: as caseIgnoreMatch prepares values (RFC 4518: compatible
forms, case and runs of blanks count as equal), attribute types in lower case, and everything that
is special escaped in hexadecimal, so that a comma is always a comma between two parts.
"""

from __future__ import annotations

import re
import unicodedata

Part = tuple[tuple[str, str], ...]
"""One RDN: its attribute types (in lower case) and values (as spelled, without escapes)."""

_attribute = re.compile(r" *([A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+) *=").match
# RFC 4514 section 3: pairs, hexadecimal pairs, and anything that is not special.  A blank is
# trimmed at the ends unless it is escaped.
_value = re.compile(r'(?:\\[0-9A-Fa-f]{2}|\\[ "#+,;<=>\\]|[^"+,;<>\\\x00])*').match
_escapes = re.compile(r"(?:\\[0-9A-Fa-f]{2})+|\\.")
_trailing_blanks = re.compile(r"(?<!\\) +$")
_special = re.compile(r'["#+,;<=>\\]')


def parse(text: str) -> tuple[Part, ...]:
    """Take a name apart, the entry's own part first.

    :raises ValueError: when it is no distinguished name; the message says from where on.
    """
    parts: list[Part] = []
    pairs: list[tuple[str, str]] = []
    at = 0
    while True:
        attribute = _attribute(text, at)
        if attribute is None:
            raise ValueError(f"no distinguished name (RFC 4514) from {text[at:]!r} on")
        value = _value(text, attribute.end())
        assert value is not None  # it matches nothing, too
        pairs.append((attribute[1].lower(), _unescaped(value[0])))
        at = value.end()
        if text[at : at + 1] == "+":
            at += 1
            continue
        parts.append(tuple(pairs))
        pairs = []
        if at == len(text):
            return tuple(parts)
        if text[at] != ",":
            raise ValueError(f"no distinguished name (RFC 4514) from {text[at:]!r} on")
        at += 1


def _unescaped(spelled: str) -> str:
    spelled = _trailing_blanks.sub("", spelled.lstrip(" "))
    if spelled.startswith("#"):
        # Octets of a value that is no text: no group is named like that.
        raise ValueError(f"{spelled!r} is a value in octets: write it as text")
    try:
        return _escapes.sub(_unescape, spelled)
    except UnicodeDecodeError:
        raise ValueError(f"no distinguished name: {spelled!r} is not UTF-8") from None


def _unescape(match: re.Match[str]) -> str:
    escape = match[0]
    if len(escape) == 2:
        return escape[1]
    return bytes.fromhex(escape.replace("\\", "")).decode("utf-8")


def canonical(text: str) -> str:
    """The one spelling of a name.

    :raises ValueError: when it is no distinguished name.
    """
    return ",".join(
        "+".join(sorted(f"{attribute}={_folded(value)}" for attribute, value in part))
        for part in parse(text)
    )


def _folded(value: str) -> str:
    folded = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    return _special.sub(lambda match: f"\\{ord(match[0]):02x}", folded)


def is_below(name: str, base: str) -> bool:
    """Whether an entry stands somewhere below another; both in the canonical spelling."""
    return name.endswith("," + base)

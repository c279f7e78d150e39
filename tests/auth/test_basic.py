"""regguard.auth.basic: one credential, one spelling."""

from __future__ import annotations

import unicodedata
from base64 import b64encode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regguard.auth.basic import LIMIT, decode_basic
from regguard.auth.interfaces import Unauthenticated


def basic(credentials: str | bytes) -> bytes:
    raw = credentials if isinstance(credentials, bytes) else credentials.encode("utf-8")
    return b"Basic " + b64encode(raw)


@pytest.mark.parametrize(
    ("header", "credentials"),
    [
        (basic("ci:secret"), ("ci", "secret")),
        (basic("ci:se:cr:et"), ("ci", "se:cr:et")),  # E08
        (basic("ci::"), ("ci", ":")),
        (basic("a b/c:p w"), ("a b/c", "p w")),
        (basic("Jürgen:Öl€"), ("Jürgen", "Öl€")),
        (b"basic Y2k6c2VjcmV0", ("ci", "secret")),  # E03
        (b"BASIC   Y2k6c2VjcmV0", ("ci", "secret")),
    ],
)
def test_e03_e08_good_credentials_are_read(header: bytes, credentials: tuple[str, str]) -> None:
    """The scheme comes in any case, the name ends at the first colon, the text is UTF-8."""
    assert decode_basic(header) == credentials


@pytest.mark.parametrize(
    "header",
    [
        b"Basic Y2k6c2VjcmV0!", b"Basic Y2k6 c2VjcmV0", b"Basic Y2k6c2VjcmV0 ", b"Basic Y2k6\n",
        b"Basic Y2k6c2VjcmV0=", b"Basic Y2k6c2VjcmV0==", b"Basic Y2k6cA", b"Basic Y2k6cA=",
        b"Basic Y2k6cA==x", b"Basic Y2k6cA==Y2k6cA==", b"Basic Y2k6cB==", b"Basic Y2k6cHA",
        b"Basic Y2k6c2Vj-mV_", b"Basic =", b"Basic ====", b"Basic Y2k6cA===", b"Basic Y",
    ],
)  # fmt: skip
def test_e01_only_canonical_base64_is_read(header: bytes) -> None:
    """Junk, wrong or missing padding, stray bits and the URL alphabet are refused."""
    with pytest.raises(Unauthenticated):
        decode_basic(header)


@pytest.mark.parametrize("text", ["ci", ":pw", "ci:", ":", ""])
def test_e02_name_and_password_are_both_there(text: str) -> None:
    """No colon, no name or no password: no credentials."""
    with pytest.raises(Unauthenticated):
        decode_basic(basic(text))


@pytest.mark.parametrize(
    "header",
    [b"", b"Basic", b"Basic ", b"Bearer Y2k6c2VjcmV0", b"Digest username=ci", b"BasicY2k6c2VjcmV0",
     b"Basic\tY2k6c2VjcmV0", b" Basic Y2k6c2VjcmV0", b"Basic Y2k6c2VjcmV0, Basic Y2k6c2VjcmV0",
     b"Basic Y2k6c2VjcmV0,Y2k6c2VjcmV0"],
)  # fmt: skip
def test_e03_e04_other_schemes_and_joined_headers_are_refused(header: bytes) -> None:
    """Only one Basic credential after at least one space is understood."""
    with pytest.raises(Unauthenticated):
        decode_basic(header)


def test_e05_long_credentials_are_refused() -> None:
    """What is longer than a header line may be is not even decoded."""
    fits = basic("ci:" + "x" * (LIMIT // 4 * 3 - 16))
    assert len(fits) <= LIMIT
    assert decode_basic(fits)[0] == "ci"

    with pytest.raises(Unauthenticated, match="too long"):
        decode_basic(basic("ci:" + "x" * LIMIT))


@pytest.mark.parametrize("text", ["ci:se\0cret", "c\0i:secret", "ci:a\r\nb", "c\x1bi:x", "ci:\x7f"])
def test_e07_control_characters_are_refused(text: str) -> None:
    """RFC 7617 section 2 has none in names and passwords; NUL would cut a password."""
    with pytest.raises(Unauthenticated, match="control"):
        decode_basic(basic(text))


def test_e09_characters_are_utf_8_and_stay_as_they_come() -> None:
    """Latin-1 is refused; NFC and NFD are two passwords, since clients normalize, not servers."""
    composed, decomposed = (unicodedata.normalize(form, "ci:pässwörd") for form in ("NFC", "NFD"))

    assert decode_basic(basic(composed)) != decode_basic(basic(decomposed))
    for raw in (composed.encode("latin-1"), b"ci:\xc0\xaf", b"ci:\xed\xa0\x80", b"\xff:x"):
        with pytest.raises(Unauthenticated):
            decode_basic(basic(raw))


@pytest.mark.parametrize("raw", [b"ci:\xffcanary", b"canary", b":canary", b"ci:canary\0"])
def test_f01_no_refusal_repeats_the_credentials(raw: bytes) -> None:
    """Neither the message nor a chained exception carries what was sent."""
    with pytest.raises(Unauthenticated) as caught:
        decode_basic(basic(raw))

    assert "canary" not in f"{caught.value!r} {caught.value} {caught.value.__dict__}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_nothing_but_unauthenticated_is_raised(token: bytes) -> None:
    """Any bytes either are a credential that encodes to itself, or are refused."""
    for header in (token, b"Basic " + token, basic(token)):
        try:
            name, password = decode_basic(header)
        except Unauthenticated:
            continue
        assert basic(f"{name}:{password}").lower()[6:] == header.lower()[6:].lstrip(b" ")

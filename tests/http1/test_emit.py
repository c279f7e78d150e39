"""regguard.http1.emit: what is written is what a strict parser reads."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regguard.http1 import (
    LAST_CHUNK,
    ChunkedBody,
    chunk,
    field,
    parse_request_head,
    parse_response_head,
    request_head,
    response_head,
    text,
)
from tests.http1.messages import TOKEN, VISIBLE, octets

tokens = octets(TOKEN, 1, 12)
obs_text = bytes(range(0x80, 0x100))
plain_values = octets(b" \t" + VISIBLE + obs_text, 0, 20).map(lambda value: value.strip(b" \t"))
plain_fields = st.lists(st.tuples(tokens.map(lambda name: b"X-" + name), plain_values), max_size=5)


@given(
    st.sampled_from([b"GET", b"HEAD", b"PUT", b"POST", b"PATCH", b"DELETE"]),
    octets(VISIBLE.replace(b"#", b""), 0, 20).map(lambda rest: b"/" + rest),
    plain_fields,
)
def test_a_request_head_parses_back(
    method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    """Octet for octet, to its very end."""
    lines = [field(b"Host", b"a"), *(field(name, value) for name, value in fields)]

    head = parse_request_head(request_head(method, target, lines))

    assert (head.method, head.target, head.minor_version) == (method, target, 1)
    assert [(name, value) for name, _, value in head.fields] == [(b"Host", b"a"), *fields]


@given(
    st.integers(100, 599).filter(lambda status: status != 101),  # an upgrade is never asked for
    octets(b" \t" + VISIBLE + obs_text, 0, 20),
    plain_fields,
)
def test_a_response_head_parses_back(
    status: int, reason: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    """Without any field, too."""
    written = response_head(status, reason, [field(name, value) for name, value in fields])

    assert written.index(b"\r\n\r\n") + 4 == len(written)
    head = parse_response_head(written)
    assert (head.status, head.reason) == (status, reason)
    assert [(name, value) for name, _, value in head.fields] == fields


@pytest.mark.parametrize("status", set(HTTPStatus) - {HTTPStatus.SWITCHING_PROTOCOLS})
def test_statuses_have_their_registered_phrase(status: HTTPStatus) -> None:
    """For answers of regguard's own."""
    head = parse_response_head(response_head(status, None, [b"Date: x"]))

    assert (head.status, head.reason) == (status.value, status.phrase.encode())


@pytest.mark.parametrize(
    "head",
    [request_head(b"GET", b"/", []), response_head(200, b"OK", []), response_head(200, None, [])],
)
def test_a_head_without_fields_ends_with_one_empty_line(head: bytes) -> None:
    """A second one would be the start of the body, or of the next message."""
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n") == 2


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_chunks_parse_back(parts: list[bytes]) -> None:
    """An empty piece is no chunk: it would end the body."""
    body = ChunkedBody()

    out = body.feed(b"".join(map(chunk, parts)) + LAST_CHUNK + b"next")

    assert out == (b"".join(parts), b"next")
    assert body.complete


@pytest.mark.parametrize("octet", [*range(9), *range(10, 32), 0x7F])
def test_f02_a_field_holds_no_control_octets(octet: int) -> None:
    """CR and LF would begin another field, and NUL ends a string in C."""
    for value in (bytes([octet]), b"a" + bytes([octet]), bytes([octet]) + b"a"):
        with pytest.raises(ValueError, match="X-Name"):
            field(b"X-Name", value)


def test_f01_a_refused_value_is_not_quoted() -> None:
    """It may hold a secret."""
    with pytest.raises(ValueError, match="unsafe") as caught:
        field(b"Authorization", b"canary\n")
    assert "canary" not in str(caught.value)


@given(st.text())
def test_text_comes_back(value: str) -> None:
    """A user name of any script goes through a header and is the same behind it."""
    written = text(value)

    assert unquote(written.decode("ascii")) == value
    assert set(written) <= set(VISIBLE)
    assert field(b"X-Forwarded-User", written)


@pytest.mark.parametrize(
    ("value", "written"),
    [("alice", b"alice"), ("a@b.c", b"a@b.c"), ("100%", b"100%25"), ("a b\r\n", b"a%20b%0D%0A"),
     ("ü", b"%C3%BC"), ("", b"")],
)  # fmt: skip
def test_text_keeps_visible_ascii(value: str, written: bytes) -> None:
    """Ordinary names stay readable."""
    assert text(value) == written

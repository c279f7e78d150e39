"""regguard.relay.references: where the registry's answers lead a client."""

from __future__ import annotations

import pytest

from regguard.relay.headers import Origin
from regguard.relay.references import Misleading, References

TOLD = Origin(b"https", b"r.example")
REGISTRIES = (
    Origin(b"http", b"127.0.0.1:5000"),
    Origin(b"https", b"other.internal"),
    Origin(b"http", b"registry:80"),
)
STORAGE = b"https://bucket.s3.example/x?X-Amz-Signature=abc%2F&b=http://127.0.0.1:5000/"


def location(
    value: bytes,
    *,
    told: Origin = TOLD,
    public: Origin | None = None,
    may_leave: bool = False,
) -> bytes:
    """What the client gets for a Location."""
    return References(REGISTRIES, public).location(value, told, may_leave=may_leave)


def link(value: bytes, *, told: Origin = TOLD, public: Origin | None = None) -> bytes:
    """What the client gets for a Link."""
    return References(REGISTRIES, public).link(value, told)


UPLOAD = b"/v2/a/blobs/uploads/1?_state=x%2F_-=="

# -- Location --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        b"http://127.0.0.1:5000",
        b"HTTP://127.0.0.1:5000",
        b"https://other.internal",
        b"https://other.internal:443",
        b"https://other.internal:",
        b"https://OTHER.internal",
        b"http://registry",
        b"http://registry:80",
        b"http://REGISTRY:80",
    ],
)
def test_d19_the_address_of_any_registry_becomes_a_path(origin: bytes) -> None:
    """Clients can't reach it; with or without the default port it is the same (RFC 9110 4.2.3)."""
    assert location(origin + UPLOAD) == UPLOAD
    assert location(origin) == b"/"
    assert location(origin + b"?a") == b"/?a"


def test_d19_a_public_origin_stands_in_for_a_registrys() -> None:
    """--public-url is what clients use, so it is what they are told."""
    public = Origin(b"https", b"hub.example:8443")

    assert (
        location(b"http://registry" + UPLOAD, told=public, public=public)
        == b"https://hub.example:8443" + UPLOAD
    )


@pytest.mark.parametrize("may_leave", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        b"/",
        UPLOAD,
        UPLOAD + b"#x",
        b"uploads/1",
        b"?_state=x",
        b"https://r.example" + UPLOAD,
        b"https://r.example:443" + UPLOAD,
        b"https://R.example" + UPLOAD,
    ],
)
def test_what_leads_back_here_is_left_alone(value: bytes, may_leave: bool) -> None:
    """A path, and the name that we gave the registry for us; no octet is changed."""
    assert location(value, may_leave=may_leave) == value


@pytest.mark.parametrize("authority", [b"r.example:5043", b"localhost:5043", b"[::1]:5043"])
def test_a_registry_that_does_not_know_of_tls_is_corrected(authority: bytes) -> None:
    """It uses our Host but not our scheme; docker would speak http to a TLS port."""
    told = Origin(b"https", authority)

    assert location(b"http://" + authority + UPLOAD, told=told) == UPLOAD
    assert location(b"http://" + authority + UPLOAD, told=told, public=told) == (
        b"https://" + authority + UPLOAD
    )


@pytest.mark.parametrize("scheme", [b"http", b"https"])
def test_a_registry_that_does_not_know_of_tls_repeats_the_clients_port(scheme: bytes) -> None:
    """Whoever asks for r.example:443 is told of http://r.example:443."""
    told = Origin(scheme, b"r.example:443" if scheme == b"https" else b"r.example:80")
    other = b"http" if scheme == b"https" else b"https"

    assert location(other + b"://" + told.authority + UPLOAD, told=told) == UPLOAD


def test_d19_a_path_of_two_slashes_does_not_become_another_host() -> None:
    """http://upstream//evil/x cut to //evil/x would lead clients to the host evil."""
    assert location(b"http://127.0.0.1:5000//evil/x") == b"/evil/x"
    assert location(b"http://127.0.0.1:5000///evil/x") == b"/evil/x"


def test_d22_a_download_may_be_at_a_storage_service() -> None:
    """A 307 to storage carries a signature over every octet."""
    assert location(STORAGE, may_leave=True) == STORAGE


@pytest.mark.parametrize(
    "value",
    [
        STORAGE,
        b"https://evil.example" + UPLOAD,
        b"http://evil" + UPLOAD,
        b"https://r.example:444" + UPLOAD,
        b"https://r.example.evil" + UPLOAD,
        b"https://evil/r.example" + UPLOAD,
        b"http://127.0.0.1:50001" + UPLOAD,
        b"http://registry:443" + UPLOAD,
    ],
)
def test_d20_an_upload_goes_on_nowhere_else(value: bytes) -> None:
    """A client would send the layer there, and maybe its password."""
    with pytest.raises(Misleading, match=r"leads to https?://[a-z0-9.:]+, .* --public-url$"):
        location(value)


@pytest.mark.parametrize("may_leave", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"//evil/x",
        b"//r.example/x",
        b"///evil/x",
        b"javascript:alert(1)",
        b"javascript://r.example/%0aalert(1)",
        b"JavaScript:x",
        b"data:text/html,x",
        b"ftp://r.example/x",
        b"https:/evil/x",
        b"https:evil",
        b"http:///v2/",
        b"https://:443/",
        b"https://u@r.example/v2/",
        b"https://u:p@evil/v2/",
        b"http://127.0.0.1:5000@evil/v2/",
        b"https://r.example:99999999/",
        b"https://r.example:x/",
        b"http://127.0.0.1:5000.evil/",
        b"https://r.example,evil/",
        b"https://[::1/",
        b"https://r%2eexample/",
        b"https://r.example\\@evil/",
        b"/\\evil/x",
        b"\\\\evil/x",
        b"1http://evil/",
        b" /v2/",
        b"/v2/ x",
        b"/v2/\tx",
        b"/v2/\x7f",
        b"/v2/\xe9",
        b"/v2/\r\nX: y",
        b"/v2/\n",
        b"ht\ttps://evil",
    ],
)
def test_d20_what_is_no_plain_http_reference_leads_nobody(value: bytes, may_leave: bool) -> None:
    """Neither a foreign scheme, nor a host without one, a user, a line end, or a broken host."""
    with pytest.raises(Misleading):
        location(value, may_leave=may_leave)


# -- Link ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'</v2/_catalog?last=b&n=2>; rel="next"', b'</v2/_catalog?last=b&n=2>; rel="next"'),
        (b'<http://registry/v2/_catalog?n=2>; rel="next"', b'</v2/_catalog?n=2>; rel="next"'),
        (b"<http://registry:80/v2/x>;rel=next", b"</v2/x>;rel=next"),
        (
            b'<http://127.0.0.1:5000/a>; rel="prev", <https://other.internal/b>; rel="next"',
            b'</a>; rel="prev", </b>; rel="next"',
        ),
        (
            b'<https://docs.example/>; rel="help", </b>; rel="next"',
            b'<https://docs.example/>; rel="help", </b>; rel="next"',
        ),
        (b'<mailto:me@example.org>; rel="author"', b'<mailto:me@example.org>; rel="author"'),
        (b"no link at all", b"no link at all"),
    ],
)
def test_d21_a_link_to_a_registry_becomes_a_path(value: bytes, expected: bytes) -> None:
    """The next page of a list must be reachable, too; what nobody follows may lead anywhere."""
    assert link(value) == expected


def test_d21_a_link_gets_the_public_origin() -> None:
    """As a Location does."""
    public = Origin(b"https", b"hub.example")

    assert link(b"<http://registry/v2/x>; rel=next", told=public, public=public) == (
        b"<https://hub.example/v2/x>; rel=next"
    )


@pytest.mark.parametrize("parameters", [b'; rel="next"', b";rel=next", b'; rel="prev next"'])
@pytest.mark.parametrize(
    "url",
    [b"https://evil.example/v2/x", b"//evil/x", b"javascript:x", b"", b"https://u@r.example/"],
)
def test_d20_d21_the_next_page_is_nowhere_else(url: bytes, parameters: bytes) -> None:
    """To leave it out would make a list look whole that is not."""
    with pytest.raises(Misleading):
        link(b"<" + url + b">" + parameters)

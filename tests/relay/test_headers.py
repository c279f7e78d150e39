"""regguard.relay.headers: which fields go on, which end here, which are ours."""

from __future__ import annotations

import pytest

from regguard.http1 import ResponseHead, parse_request_head, parse_response_head
from regguard.relay.headers import Origin, client_fields, origin_of, upstream_request
from tests.relay.world import Received, read_request

TARGET = b"/v2/team/app/manifests/v1"
OWN = [
    (b"x-real-ip", b"192.0.2.7"),
    (b"x-forwarded-for", b"192.0.2.7"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"r.example"),
    (b"x-forwarded-user", b"alice"),
]


def relayed(
    *lines: bytes,
    method: bytes = b"GET",
    client: str = "192.0.2.7",
    user_name: str = "alice",
    is_upload: bool = False,
    origin: Origin | None = None,
    credential: bytes | None = None,
    secure: bool = True,
    authority: bytes = b"r.example",
) -> Received:
    """What the registry gets of a request with these field lines."""
    raw = b"\r\n".join([method + b" /raw HTTP/1.1", b"Host: r.example", *lines, b"", b""])
    return read_request(
        upstream_request(
            parse_request_head(raw),
            TARGET,
            client=client,
            secure=secure,
            authority=authority,
            user_name=user_name,
            is_upload=is_upload,
            origin=origin,
            registry=Origin(b"http", b"127.0.0.1:5000"),
            credential=credential,
        )
    )


def answered(*lines: bytes, status: bytes = b"200 OK") -> list[bytes]:
    """The field lines for the client of a response with these."""
    raw = b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", b""])
    return client_fields(parse_response_head(raw), as_it_is)


def as_it_is(head: ResponseHead, key: bytes, value: bytes) -> bytes:
    """Leads the client where the registry does."""
    return value


# -- requests --------------------------------------------------------------------------------


def test_the_authorized_target_goes_up_and_not_the_raw_one() -> None:
    """The request line holds the canonical target that was decided on."""
    request = relayed()

    assert (request.method, request.target) == (b"GET", TARGET)
    assert request.headers == [(b"host", b"r.example"), *OWN]


@pytest.mark.parametrize("own", OWN, ids=lambda own: own[0].decode())
@pytest.mark.parametrize("option", [b"%s", b"close, %s", b"close ,\t%s , x"])
def test_b01_connection_cannot_take_away_our_own_fields(
    own: tuple[bytes, bytes], option: bytes
) -> None:
    """What a client lists in Connection is its own, never what we add (CVE-2022-31813)."""
    name, value = own
    request = relayed(name + b": evil", b"Connection: " + option % name)

    assert request.all(name) == [value]


@pytest.mark.parametrize(
    "option",
    [b"Authorization", b"Host", b"Content-Length", b"Content-Range", b"X-Forwarded-User"],
)
def test_b02_connection_listed_names_do_not_change_host_or_framing(option: bytes) -> None:
    """Listing Host or Content-Length takes nothing from what the registry frames by."""
    request = relayed(
        b"Content-Length: 3", b"Content-Range: 0-2", b"Connection: " + option, method=b"PATCH"
    )

    assert request[b"content-length"] == b"3"
    assert request[b"host"] == b"r.example"


def test_b02_connection_listed_transfer_encoding_keeps_the_framing() -> None:
    """A chunked body goes on chunked whatever Connection says."""
    request = relayed(
        b"Transfer-Encoding: chunked", b"Connection: transfer-encoding", method=b"PATCH"
    )

    assert request[b"transfer-encoding"] == b"chunked"
    assert request.all(b"content-length") == []


@pytest.mark.parametrize(
    "line",
    [
        b"TE: trailers",
        b"Trailer: X",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authorization: Basic YTpi",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Connection: keep-alive",
        b"Upgrade: h2c",
        b"Connection: keep-alive",
    ],
)
def test_b03_hop_by_hop_fields_of_requests_end_here(line: bytes) -> None:
    """RFC 9110 section 7.6.1: they belong to the client's connection."""
    assert relayed(line).headers == [(b"host", b"r.example"), *OWN]


def test_b03_what_connection_lists_ends_here_in_every_line() -> None:
    """All Connection fields count, in any case and with any blanks."""
    request = relayed(
        b"X-A: 1",
        b"X-B: 1",
        b"X-C: 1",
        b"X-D: 1",
        b"Connection: close, x-a",
        b"connection: X-B \t,,X-C",
    )

    assert request.headers == [(b"host", b"r.example"), (b"x-d", b"1"), *OWN]


FORGED = [
    b"X-Forwarded-For",
    b"X-Forwarded-Host",
    b"X-Forwarded-Proto",
    b"X-Forwarded-Port",
    b"X-Forwarded-Prefix",
    b"X-Forwarded-Uri",
    b"X-Forwarded-User",
    b"X-Forwarded-Server",
    b"X-Forwarded-Anything",
    b"Forwarded",
    b"X-Real-IP",
    b"X-Remote-User",
    b"Remote-User",
    b"X-Original-URL",
    b"X-Rewrite-URL",
    b"Via",
]


@pytest.mark.parametrize("name", FORGED, ids=bytes.decode)
@pytest.mark.parametrize("change", [bytes, bytes.lower, bytes.upper], ids=["as", "low", "up"])
def test_b04_what_a_client_says_about_itself_is_dropped(name: bytes, change: object) -> None:
    """Only our word counts; distribution would believe Forwarded from anyone."""
    assert callable(change)
    request = relayed(change(name) + b": host=evil;proto=javascript")

    assert request.headers == [(b"host", b"r.example"), *OWN]


@pytest.mark.parametrize(
    "name",
    [
        b"X_Forwarded_User",
        b"X-Forwarded_For",
        b"x.forwarded.user",
        b"X_Real_IP",
        b"Content_Length",
        b"Transfer_Encoding",
        b"Host_",
    ],
    ids=bytes.decode,
)
def test_b05_names_that_are_other_names_doubles_are_dropped(name: bytes) -> None:
    """Underscores and dots become dashes in CGI-like servers (CVE-2025-64484)."""
    assert relayed(name + b": evil").headers == [(b"host", b"r.example"), *OWN]


def test_b06_own_fields_arrive_exactly_once_however_often_they_were_forged() -> None:
    """Duplicates of any of them leave one line upstream: ours."""
    request = relayed(*[name + b": evil" for name in FORGED for _ in range(3)])

    assert request.headers == [(b"host", b"r.example"), *OWN]


@pytest.mark.parametrize(
    "name", [b"X-HTTP-Method-Override", b"X-HTTP-Method", b"X-Method-Override"], ids=bytes.decode
)
def test_b08_method_override_has_no_effect(name: bytes) -> None:
    """The method that was decided on goes up, and nothing that says otherwise."""
    request = relayed(name + b": DELETE")

    assert request.method == b"GET"
    assert request.headers == [(b"host", b"r.example"), *OWN]


def test_b09_authorization_never_goes_up() -> None:
    """The registry must not see a user's password."""
    assert relayed(b"Authorization: Basic YWxpY2U6cGFzcw==").all(b"authorization") == []


def test_b09_regguards_own_credential_goes_up_once_instead_of_the_users() -> None:
    """An upstream of https://user:pass@ gets that pair, whatever the client sent."""
    request = relayed(
        b"Authorization: Basic YWxpY2U6cGFzcw==",
        b"Connection: Authorization",
        credential=b"Basic cmc6c2VjcmV0",
    )

    assert request[b"authorization"] == b"Basic cmc6c2VjcmV0"


def test_b10_accept_lines_arrive_in_order_and_separate() -> None:
    """skopeo sends six Accept lines; the registry answers 404 without the right one."""
    accepts = [
        b"application/vnd.docker.distribution.manifest.v2+json",
        b"application/vnd.docker.distribution.manifest.v1+prettyjws",
        b"application/vnd.docker.distribution.manifest.v1+json",
        b"application/vnd.docker.distribution.manifest.list.v2+json",
        b"application/vnd.oci.image.index.v1+json",
        b"application/vnd.oci.image.manifest.v1+json",
    ]

    assert relayed(*[b"Accept: " + each for each in accepts]).all(b"accept") == accepts


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (b"Range: bytes=5-", b"range", b"bytes=5-"),
        (b"If-Range: \"e\"", b"if-range", b'"e"'),
        (b"If-None-Match: *", b"if-none-match", b"*"),
        (b"Accept-Encoding: zstd,gzip,deflate", b"accept-encoding", b"zstd,gzip,deflate"),
        (b"Content-Range: 0-99", b"content-range", b"0-99"),
        (b"OCI-Chunk-Min-Length: 1", b"oci-chunk-min-length", b"1"),
        (b"User-Agent: docker/20 (a \xe9)", b"user-agent", b"docker/20 (a \xe9)"),
        (b"Docker-Distribution-Api-Version: registry/2.0", b"docker-distribution-api-version",
         b"registry/2.0"),
    ],
)  # fmt: skip
def test_b10_what_the_registry_acts_on_survives(line: bytes, name: bytes, value: bytes) -> None:
    """Ranges, conditions, encodings and OCI's fields go on unchanged."""
    assert relayed(line)[name] == value


def test_b10_the_content_type_of_a_manifest_survives() -> None:
    """A manifest's type is part of what it is (CVE-2021-41190)."""
    request = relayed(
        b"Content-Type: application/vnd.oci.image.manifest.v1+json",
        b"Content-Length: 2",
        method=b"PUT",
    )

    assert request[b"content-type"] == b"application/vnd.oci.image.manifest.v1+json"


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Content-Type: application/x-www-form-urlencoded",),
        (b"content-type: multipart/form-data; boundary=x",),
        (b"Content-Type: application/octet-stream", b"CONTENT-TYPE: multipart/form-data"),
        (b"Content-Type: application/octet-stream", b"Connection: Content-Type"),
    ],
)
def test_d02_d03_an_upload_is_never_a_form(lines: tuple[bytes, ...]) -> None:
    """Go reads mount and from out of a form body: so there is none."""
    request = relayed(*lines, b"Content-Length: 3", method=b"POST", is_upload=True)

    assert request[b"content-type"] == b"application/octet-stream"


def test_a23_expect_ends_here() -> None:
    """Who may send a body is regguard's decision, not the registry's."""
    request = relayed(b"Expect: 100-continue", b"Content-Length: 3", method=b"PUT")

    assert request.all(b"expect") == []


@pytest.mark.parametrize("length", [b"0", b"1", b"4294967297"])
def test_a_length_goes_on_as_a_length(length: bytes) -> None:
    """Content-Length goes up once, 0 of a POST among them."""
    assert relayed(b"Content-Length: " + length, method=b"POST")[b"content-length"] == length


def test_the_public_origin_wins_over_host() -> None:
    """With --public-url the registry builds its Location from that."""
    request = relayed(origin=Origin(b"https", b"hub.example:8443"), secure=False)

    assert request[b"host"] == b"hub.example:8443"
    assert request[b"x-forwarded-host"] == b"hub.example:8443"
    assert request[b"x-forwarded-proto"] == b"https"


def test_plain_http_is_called_so() -> None:
    """Without TLS the registry is told http."""
    assert relayed(secure=False)[b"x-forwarded-proto"] == b"http"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alice", b"alice"),
        ("a b", b"a%20b"),
        ("50%", b"50%25"),
        ("jürgen", b"j%C3%BCrgen"),
        ("a\r\nX: y", b"a%0D%0AX:%20y"),
        ("\u202e", b"%E2%80%AE"),
        ("a,b;c=\"d\"", b'a,b;c="d"'),
    ],
)  # fmt: skip
def test_a_user_name_is_one_line_of_ascii(name: str, value: bytes) -> None:
    """Whatever a checker calls a user, the field stays one line and can be decoded."""
    assert relayed(user_name=name)[b"x-forwarded-user"] == value


@pytest.mark.parametrize("client", ["2001:db8::1", "fe80::1%eth0", "unix:"])
def test_the_address_of_any_kind_of_client_goes_up(client: str) -> None:
    """IPv6, zones and UNIX sockets, too."""
    request = relayed(client=client)

    assert request[b"x-real-ip"] == request[b"x-forwarded-for"] == client.encode()


def test_an_address_with_a_line_end_is_refused() -> None:
    """A PROXY line or a bug may hand us anything: no field line is made of it."""
    with pytest.raises(ValueError, match="unsafe"):
        relayed(client="1.2.3.4\r\nX: y")


# -- responses -------------------------------------------------------------------------------

API = b"Docker-Distribution-Api-Version: registry/2.0"


def test_the_api_version_is_there_exactly_once() -> None:
    """The registry's own is replaced, not doubled."""
    assert answered(API, b"docker-distribution-api-version: registry/2.0", b"Server: x") == [
        API,
        b"Server: x",
    ]
    assert answered() == [API]


def test_the_api_version_cannot_be_taken_away() -> None:
    """Not even by a Connection field of the registry."""
    assert answered(b"Connection: Docker-Distribution-Api-Version", API) == [API]


@pytest.mark.parametrize(
    "line",
    [
        b"Connection: keep-alive",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Connection: close",
        b"TE: trailers",
        b"Trailer: X",
        b"Transfer-Encoding: chunked",
        b"Upgrade: h2c",
        b"WWW-Authenticate: Bearer realm=\"https://evil/\"",
        b"Alt-Svc: h2=\":443\"",
    ],
)  # fmt: skip
def test_b03_b09_hop_by_hop_fields_and_challenges_of_responses_end_here(line: bytes) -> None:
    """They are the registry's word about its own connection and its own users."""
    assert answered(line) == [API]


def test_b03_what_the_registrys_connection_lists_ends_here() -> None:
    """Connection works the same way in both directions."""
    assert answered(b"Connection: X-A , close", b"X-A: 1", b"X-B: 2") == [API, b"X-B: 2"]


@pytest.mark.parametrize(
    "line",
    [
        b"Docker-Content-Digest: sha256:aa",
        b"Docker-Upload-UUID: 1-2",
        b"Range: 0-99",
        b"Content-Range: bytes 0-9/100",
        b"OCI-Subject: sha256:aa",
        b"OCI-Filters-Applied: artifactType",
        b"OCI-Tag: v1",
        b"OCI-Chunk-Min-Length: 5",
        b"Warning: 299 - \"x\"",
        b"ETag: \"sha256:aa\"",
        b"Cache-Control: max-age=31536000",
        b"Content-Type: application/vnd.oci.image.index.v1+json",
        b"Content-Encoding: gzip",
        b"Accept-Ranges: bytes",
        b"Retry-After: 5",
        b"Link: </v2/_catalog?last=b&n=2>; rel=\"next\"",
        b"Date: Tue, 15 Nov 1994 08:12:31 GMT",
    ],
)  # fmt: skip
def test_b10_what_clients_act_on_survives(line: bytes) -> None:
    """Digests, ranges, tags and lists come back byte for byte."""
    assert answered(line) == [API, line]


def test_lines_of_one_name_stay_apart_and_in_order() -> None:
    """Nothing is joined: a Warning or a Set-Cookie can't be."""
    lines = [b"Warning: 299 - \"a\"", b"X: 1", b"Warning: 299 - \"b\""]  # fmt: skip

    assert answered(*lines) == [API, *lines]


@pytest.mark.parametrize(
    ("status", "kept"),
    [(b"200 OK", True), (b"304 Not Modified", True), (b"206 P", True), (b"204 No Content", False)],
)
def test_the_content_length_comes_back_but_for_204(status: bytes, kept: bool) -> None:
    """RFC 9110 section 8.6: never with 204; 304 may say what 200 would have."""
    lines = answered(b"Content-Length: 0", status=status)

    assert lines == ([API, b"Content-Length: 0"] if kept else [API])


@pytest.mark.parametrize("name", [b"Location", b"link", b"LINK"])
def test_d19_d21_where_a_client_is_led_is_decided_elsewhere(name: bytes) -> None:
    """``lead`` is asked for Location and Link, however they are spelled, and for nothing else."""
    raw = b"HTTP/1.1 202 Accepted\r\nX: 1\r\n" + name + b": /a\r\n\r\n"
    head = parse_response_head(raw)
    asked: list[tuple[bytes, bytes]] = []

    def lead(of: ResponseHead, key: bytes, value: bytes) -> bytes:
        assert of is head
        asked.append((key, value))
        return b"/b"

    assert client_fields(head, lead) == [API, b"X: 1", name + b": /b"]
    assert asked == [(name.lower(), b"/a")]


# -- origins ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "scheme", "authority"),
    [
        ("https://hub.example", b"https", b"hub.example"),
        ("https://hub.example:8443/", b"https", b"hub.example:8443"),
        ("http://[::1]:5043", b"http", b"[::1]:5043"),
    ],
)
def test_a_public_url_is_an_origin(url: str, scheme: bytes, authority: bytes) -> None:
    """Scheme, host and port, with or without the last slash."""
    assert origin_of(url) == Origin(scheme, authority)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("hub.example", "http:// or https://"),
        ("ftp://hub.example", "http:// or https://"),
        ("https://", "names no host"),
        ("https://:8443", "names no host"),
        ("https://u:p@hub.example", "user or password"),
        ("https://@hub.example", "user or password"),
        ("https://hub.example/registry", "end after the host and port"),
        ("https://hub.example?x", "end after the host and port"),
        ("https://hub.example#x", "end after the host and port"),
        ("https://hüb.example", "ASCII"),
        ("https://hub.example:99999", "port"),
        ("https://hub.example:0", "port"),
        ("https://hub.example:x", "port"),
        ("https://hub example", "host"),
        ("https://hub.example,evil", "host"),
        ("https://[::1", "host"),
        ("https://a\u2100b", "ASCII"),
    ],
)
def test_a_url_that_is_no_origin_is_refused_with_the_reason(url: str, reason: str) -> None:
    """It would stand in every request's Host."""
    with pytest.raises(ValueError, match=reason):
        origin_of(url)

"""Answers that registry 2.8.2 does not give, and others do: of OCI 1.1, of storage, and odd ones.

Each is sent as it stands by a scripted registry. It must pass regguard as it is; or, where
regguard changes it on purpose, come as another one would, which stands beside it with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.e2e.exchanges import Ask, Script
from tests.e2e.traced_registry import digest_of

DATE = b"Date: Sun, 22 Nov 2026 03:04:05 GMT"
JSON = b"Content-Type: application/json"
DIGEST = digest_of(b"a blob")
UPLOAD = "5eeded00-0000-4000-8000-000000000001"


def _said(
    status: bytes, *lines: bytes, body: bytes | None = b"{}", version: bytes = b"1.1"
) -> bytes:
    """An answer; ``body`` None leaves it and its length to the lines."""
    head = [b"HTTP/%b %b" % (version, status), DATE, *lines]
    if body is not None:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*head, b"\r\n"]) + (body or b"")


@dataclass(frozen=True)
class OddAnswer:
    """An answer to ``method`` on the rest of a repository's path, and how it comes through.

    ``as_if`` is the answer that regguard gives instead, for the ``reason``.
    """

    name: str
    method: str
    rest: str
    script: Script
    as_if: Script | None = None
    reason: str = ""

    @property
    def ask(self) -> Ask:
        return self._asking(self.script, self.name)

    @property
    def direct(self) -> Ask:
        """What to ask directly to see what should come through."""
        return self.ask if self.as_if is None else self._asking(self.as_if, f"{self.name}.as-if")

    def _asking(self, script: Script, name: str) -> Ask:
        joint = "&" if "?" in self.rest else "?"
        # The last one: interim answers stand before it.
        status = script.octets.split(b"HTTP/1.")[-1][2:5]
        return Ask(
            self.method,
            f"/v2/odd/{self.rest}{joint}case={name}",
            int(status) if status.isdigit() else 0,
        )

    def scripts(self) -> Iterator[tuple[str, Script]]:
        """Both answers, each with the name by which it is asked for."""
        yield self.name, self.script
        if self.as_if is not None:
            yield f"{self.name}.as-if", self.as_if


def _passes(name: str, method: str, rest: str, *pieces: bytes, ends: bool = False) -> OddAnswer:
    return OddAnswer(name, method, rest, Script(pieces, ends))


def _becomes(
    reason: str,
    name: str,
    said: bytes,
    as_if: bytes,
    *,
    rest: str = "manifests/v1",
    ends: bool = False,
    method: str = "GET",
) -> OddAnswer:
    return OddAnswer(name, method, rest, Script((said,), ends), Script((as_if,)), reason)


_INDEX = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
_INDEX_TYPE = b"Content-Type: application/vnd.oci.image.index.v1+json"
_SIGNED = (
    b"Location: https://bucket.s3.example/docker/registry/v2/blobs/sha256/ab/abcd/data"
    b"?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=abc%2Fdef%3D&x-id=GetObject"
)
_STARTED = (b"Docker-Upload-Uuid: " + UPLOAD.encode(), b"Range: 0-0")
_LOCATION = b"Location: /v2/odd/blobs/uploads/" + UPLOAD.encode() + b"?_state=abc%3D"

_OCI = [
    _passes(
        "warning",
        "GET",
        "manifests/v1",
        _said(b"200 OK", JSON, b'Warning: 299 - "old base image"', b'Warning: 299 - "gone soon"'),
    ),
    _passes(
        "warning-in-utf-8",
        "HEAD",
        "manifests/v1",
        _said(
            b"200 OK",
            JSON,
            'Warning: 299 - "veraltet: schlüssel"'.encode(),
            b"Content-Length: 9",
            body=None,
        ),
    ),
    _passes(
        "warning-with-a-push",
        "PUT",
        "manifests/v1",
        _said(
            b"201 Created",
            b"Location: /v2/odd/manifests/v1",
            b'Warning: 299 - "' + b"w" * 4000 + b'"',
            b"Docker-Content-Digest: " + DIGEST.encode(),
            body=b"",
        ),
    ),
    _passes(
        "subject",
        "PUT",
        f"manifests/{DIGEST}",
        _said(
            b"201 Created",
            b"Location: /v2/odd/manifests/" + DIGEST.encode(),
            b"OCI-Subject: " + DIGEST.encode(),
            body=b"",
        ),
    ),
    _passes(
        "tags",
        "PUT",
        f"manifests/{DIGEST}?tag=a&tag=b",
        _said(
            b"201 Created",
            b"Location: /v2/odd/manifests/" + DIGEST.encode(),
            b"OCI-Tag: a",
            b"OCI-Tag: b",
            body=b"",
        ),
    ),
    _passes(
        "chunk-min-length",
        "POST",
        "blobs/uploads/",
        _said(b"202 Accepted", _LOCATION, b"OCI-Chunk-Min-Length: 5242880", *_STARTED, body=b""),
    ),
    _passes(
        "session-of-a-mount",
        "POST",
        f"blobs/uploads/?mount={DIGEST}&from=other",
        _said(b"202 Accepted", _LOCATION, *_STARTED, body=b""),
    ),
    _passes(
        "posted-whole",
        "POST",
        f"blobs/uploads/?digest={DIGEST}",
        _said(b"201 Created", b"Location: /v2/odd/blobs/" + DIGEST.encode(), body=b""),
    ),
    _passes(
        "algorithm",
        "POST",
        "blobs/uploads/?digest-algorithm=sha512",
        _said(b"202 Accepted", _LOCATION, body=b""),
    ),
    _passes(
        "out-of-order",
        "PATCH",
        f"blobs/uploads/{UPLOAD}",
        _said(
            b"416 Requested Range Not Satisfiable",
            _LOCATION,
            b"Range: 0-999",
            JSON,
            body=b'{"errors":[{"code":"RANGE_INVALID","message":"invalid content range"}]}\n',
        ),
    ),
    _passes(
        "accepted",
        "PATCH",
        f"blobs/uploads/{UPLOAD}",
        _said(b"202 Accepted", _LOCATION, b"Range: 0-1023", body=b""),
    ),
    _passes(
        "status",
        "GET",
        f"blobs/uploads/{UPLOAD}",
        _said(b"204 No Content", _LOCATION, b"Range: 0-1023", body=None),
    ),
    _passes("cancelled", "DELETE", f"blobs/uploads/{UPLOAD}", _said(b"204 No Content", body=None)),
    _passes("referrers", "GET", f"referrers/{DIGEST}", _said(b"200 OK", _INDEX_TYPE, body=_INDEX)),
    _passes(
        "referrers-filtered",
        "GET",
        f"referrers/{DIGEST}?artifactType=application%2Fspdx",
        _said(
            b"200 OK",
            _INDEX_TYPE,
            b"OCI-Filters-Applied: artifactType",
            b"Link: </v2/odd/referrers/" + DIGEST.encode() + b'?n=1&last=a>; rel="next"',
            body=_INDEX,
        ),
    ),
    _passes(
        "referrers-head",
        "HEAD",
        f"referrers/{DIGEST}",
        _said(b"200 OK", _INDEX_TYPE, b"Content-Length: %d" % len(_INDEX), body=None),
    ),
    _passes(
        "namespace",
        "GET",
        "manifests/v1?ns=docker.io",
        _said(b"200 OK", JSON, b"OCI-Namespace: docker.io"),
    ),
    _passes(
        "link",
        "GET",
        "tags/list?n=1",
        _said(b"200 OK", JSON, b'Link: </v2/odd/tags/list?n=1&last=a>; rel="next"'),
    ),
    _passes(
        "link-elsewhere",
        "GET",
        "tags/list?n=1",
        _said(b"200 OK", JSON, b'Link: <https://docs.example/>; rel="help"'),
    ),
]

_STORAGE = [
    _passes(
        "storage",
        "GET",
        f"blobs/{DIGEST}",
        _said(
            b"307 Temporary Redirect",
            _SIGNED,
            b"Docker-Content-Digest: " + DIGEST.encode(),
            body=b'<a href="x">Temporary Redirect</a>.\n\n',
        ),
    ),
    _passes(
        "storage-head",
        "HEAD",
        f"blobs/{DIGEST}",
        _said(b"307 Temporary Redirect", _SIGNED, b"Content-Length: 0", body=None),
    ),
    _passes(
        "storage-without-tls",
        "GET",
        f"blobs/{DIGEST}",
        _said(b"307 Temporary Redirect", b"Location: http://minio:9000/b?sig=a%2Bb", body=b""),
    ),
    _passes(
        "moved",
        "GET",
        "manifests/v1",
        _said(b"308 Permanent Redirect", b"Location: /v2/new/manifests/v1", body=b""),
    ),
]

_ERRORS = [
    _passes(
        f"status-{status.split()[0].decode()}",
        "GET",
        "manifests/v1",
        _said(status, *lines, JSON, body=b'{"errors":[{"code":"X","message":"y"}]}'),
    )
    for status, lines in (
        (b"400 Bad Request", ()),
        (b"403 Forbidden", (b"X-Reason: quota",)),
        (b"404 Not Found", ()),
        (b"409 Conflict", ()),
        (b"410 Gone", ()),
        (b"413 Request Entity Too Large", ()),
        (b"418 I'm a teapot", ()),
        (b"429 Too Many Requests", (b"Retry-After: 30",)),
        (b"451 Unavailable For Legal Reasons", ()),
        (b"500 Internal Server Error", ()),
        (b"501 Not Implemented", ()),
        (b"502 Bad Gateway", ()),
        (b"503 Service Unavailable", (b"Retry-After: Sun, 22 Nov 2026 03:05:05 GMT",)),
        (b"507 Insufficient Storage", ()),
        # Whom docker shows no body, it shows the reason (registry-protocol 1.10).
        (b"599 The disk is full, please ask ops@example.com", ()),
        (b"299 ", ()),
        (b"298 Gr\xc3\xbc\xc3\x9fe", ()),
    )
]

_CHUNKED = b"Transfer-Encoding: chunked"
_FRAMINGS = [
    _passes(
        "no-reason",
        "GET",
        "manifests/v1",
        b"HTTP/1.1 200 \r\n%b\r\nContent-Length: 2\r\n\r\n{}" % DATE,
    ),
    _passes(
        "no-space-behind-the-status",
        "GET",
        "manifests/v1",
        b"HTTP/1.1 200\r\n%b\r\nContent-Length: 2\r\n\r\n{}" % DATE,
    ),
    _passes("empty", "GET", "manifests/v1", _said(b"200 OK", body=b"")),
    _passes(
        "empty-chunked", "GET", "manifests/v1", _said(b"200 OK", _CHUNKED, body=None) + b"0\r\n\r\n"
    ),
    _passes(
        "empty-head", "HEAD", f"blobs/{DIGEST}", _said(b"200 OK", b"Content-Length: 0", body=None)
    ),
    _passes("length-unknown-head", "HEAD", "manifests/v1", _said(b"200 OK", body=None)),
    _passes("chunked-head", "HEAD", "manifests/v1", _said(b"200 OK", _CHUNKED, body=None)),
    _passes(
        "large-head",
        "HEAD",
        f"blobs/{DIGEST}",
        _said(b"200 OK", b"Content-Length: 999999999999999999", body=None),
    ),
    _passes(
        "not-modified",
        "GET",
        f"blobs/{DIGEST}",
        _said(b"304 Not Modified", b'ETag: W/"a"', b"Content-Length: 70000", body=None),
    ),
    _passes(
        "one-chunk",
        "GET",
        "manifests/v1",
        _said(b"200 OK", _CHUNKED, body=None) + b"2\r\n{}\r\n0\r\n\r\n",
    ),
    _passes(
        "chunks-of-one",
        "GET",
        "manifests/v1",
        _said(b"200 OK", _CHUNKED, body=None),
        *(b"1\r\n%c\r\n" % octet for octet in b"octet by octet"),
        b"0\r\n\r\n",
    ),
    _passes(
        "chunks-cut-anywhere",
        "GET",
        "manifests/v1",
        _said(b"200 OK", _CHUNKED, body=None),
        b"0",
        b"0b",
        b"\r",
        b"\nhello",
        b" worl",
        b"d\r\n0",
        b"\r\n",
        b"\r",
        b"\n",
    ),
    _passes(
        "capital-chunked",
        "GET",
        "manifests/v1",
        _said(b"200 OK", b"transfer-encoding:CHUNKED", body=None) + b"A\r\n0123456789\r\n0\r\n\r\n",
    ),
    _passes(
        "octet-by-octet",
        "GET",
        "manifests/v1",
        *(b"%c" % octet for octet in _said(b"200 OK", JSON, b"OCI-Tag: a")),
    ),
    _passes(
        "head-and-body-apart",
        "GET",
        f"blobs/{DIGEST}",
        _said(b"200 OK", b"Content-Length: 6", body=None),
        b"a b",
        b"lob",
    ),
    _passes(
        "until-close",
        "GET",
        "manifests/v1",
        _said(b"200 OK", body=None),
        b"until the ",
        b"end",
        ends=True,
    ),
    _passes(
        "cut",
        "GET",
        f"blobs/{DIGEST}",
        _said(b"200 OK", b"Content-Length: 100", body=None),
        b"not a hundred",
        ends=True,
    ),
    _passes(
        "partial",
        "GET",
        f"blobs/{DIGEST}",
        _said(
            b"206 Partial Content",
            b"Content-Range: bytes 2-5/6",
            b"Accept-Ranges: bytes",
            body=b"blob",
        ),
    ),
]

_FIELDS = [
    _passes(
        "blanks",
        "GET",
        "manifests/v1",
        _said(
            b"200 OK", b"X-None:", b"X-Blank: ", b"X-Tight:a", b"X-Wide:  \t b \t ", b"X-In: a \t b"
        ),
    ),
    _passes(
        "names",
        "GET",
        "manifests/v1",
        _said(
            b"200 OK", b'eTaG: "a"', b"x_under: 1", b"X.Dot: 1", b"!#$%&'*+-.^_`|~: 1", b"X-9: 1"
        ),
    ),
    _passes(
        "order",
        "GET",
        "manifests/v1",
        _said(b"200 OK", b"X-A: 1", b"X-B: 2", b"X-A: 3", b"x-a: 4", b"X-B: 2"),
    ),
    _passes(
        "cookies",
        "GET",
        "manifests/v1",
        _said(b"200 OK", b"Set-Cookie: a=1, b; Path=/", b"Set-Cookie: c=2; Secure"),
    ),
    _passes("long", "GET", "manifests/v1", _said(b"200 OK", b"X-Long: " + b"l" * 20_000)),
    _passes(
        "many",
        "GET",
        "manifests/v1",
        _said(b"200 OK", *(b"X-Field-%d: %d" % (number, number) for number in range(90))),
    ),
    _passes("colons", "GET", "manifests/v1", _said(b"200 OK", b"X-Url: http://a:1/b?c=d;e, f:g")),
    _passes(
        "of-the-web",
        "GET",
        "manifests/v1",
        _said(
            b"200 OK",
            b"Content-Encoding: gzip",
            b"Vary: Accept",
            b'ETag: "a"',
            b"Age: 1",
            b"Last-Modified: Mon, 02 Jan 2006 15:04:05 GMT",
            b"Cache-Control: no-store",
            b"Content-Disposition: attachment",
            b"Content-Language: en",
            b"Server: x/1",
            b"Strict-Transport-Security: max-age=1",
            b'Content-Type: text/plain;charset="utf-8"',
            b"Via: 1.1 mirror",
            b"X-Frame-Options: DENY",
            b"Access-Control-Allow-Origin: *",
        ),
    ),
]

_HOP = "speaks of the connection to the registry alone (RFC 9110 section 7.6.1)"
_API = b"Docker-Distribution-Api-Version: registry/2.0"
_PLAIN = _said(b"200 OK", JSON)
_FAILED = b'{"errors":[{"code":"UNAVAILABLE","message":"%b"}]}\n'


def _failed(message: bytes) -> bytes:
    lines = (JSON, _API, b"X-Content-Type-Options: nosniff")
    return _said(b"502 Bad Gateway", *lines, body=_FAILED % message)


OTHERWISE = [
    _becomes(_HOP, "close", _said(b"200 OK", JSON, b"Connection: close"), _PLAIN, ends=True),
    _becomes(
        _HOP,
        "keep-alive",
        _said(b"200 OK", JSON, b"Connection: keep-alive", b"Keep-Alive: timeout=5"),
        _PLAIN,
    ),
    _becomes(
        _HOP,
        "listed",
        _said(b"200 OK", JSON, b"X-Hop: 1", b"Connection: X-Hop, keep-alive"),
        _PLAIN,
    ),
    _becomes(
        _HOP, "upgrade", _said(b"200 OK", JSON, b"Upgrade: h2c", b"Proxy-Connection: close"), _PLAIN
    ),
    _becomes(_HOP, "of-old", _said(b"200 OK", JSON, version=b"1.0"), _PLAIN, ends=True),
    _becomes(
        "nobody asked for another protocol, and regguard speaks none",
        "alternatives",
        _said(b"200 OK", JSON, b'Alt-Svc: h3=":443"'),
        _PLAIN,
    ),
    _becomes(
        "said once, as clients expect it",
        "version-twice",
        _said(b"200 OK", JSON, _API, b"docker-distribution-api-version: registry/2.0"),
        _PLAIN,
    ),
    _becomes(
        "RFC 9110 section 8.6: never with 204",
        "length-of-nothing",
        _said(b"204 No Content", body=b""),
        _said(b"204 No Content", body=None),
        rest=f"blobs/uploads/{UPLOAD}",
        method="DELETE",
    ),
    _becomes(
        "an interim answer is between two hops; only regguard's own 100 is asked for",
        "early-hints",
        _said(b"103 Early Hints", b"Link: </a>; rel=preload", body=None) + _PLAIN,
        _PLAIN,
    ),
    _becomes("the same", "continue", b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + _PLAIN, _PLAIN),
    _becomes(
        "recipients may drop trailers, and registries have none (RFC 9110 section 6.5.1)",
        "trailers",
        _said(b"200 OK", JSON, _CHUNKED, b"Trailer: X-Sum", body=None)
        + b'2;name="value";other\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n',
        _said(b"200 OK", JSON, _CHUNKED, body=None) + b"2\r\n{}\r\n0\r\n\r\n",
    ),
    _becomes(
        "it would send passwords to whom it names (CVE-2026-33540)",
        "challenge",
        _said(b"401 Unauthorized", b'WWW-Authenticate: Bearer realm="https://evil.example"', JSON),
        _failed(b"the registry asks regguard for credentials"),
    ),
    _becomes(
        "the same",
        "challenge-with-another-status",
        _said(b"403 Forbidden", JSON, b'WWW-Authenticate: Bearer realm="https://evil.example"'),
        _said(b"403 Forbidden", JSON),
    ),
    _becomes(
        "no HTTP/1.1",
        "no-http",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        _failed(b"the registry's answer is broken: malformed status line"),
        ends=True,
    ),
]
"""Where regguard's answer is another one on purpose."""

ODD_ANSWERS = [*_OCI, *_STORAGE, *_ERRORS, *_FRAMINGS, *_FIELDS, *OTHERWISE]

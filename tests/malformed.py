"""Requests that must go no further, by their numbers in the list of cases.

``AUTHORIZATION`` in them stands for the credential of a user who may do everything: what is refused
is refused for its form alone.
"""

from __future__ import annotations

from dataclasses import dataclass

AUTHORIZATION = b"@credential@"
TARGET = b"/v2/team/app/manifests/v1"
HOST = b"Host: r.example"
CREDENTIAL = b"Authorization: " + AUTHORIZATION


def head(
    *lines: bytes,
    method: bytes = b"PUT",
    target: bytes = TARGET,
    version: bytes = b"HTTP/1.1",
    start: bytes | None = None,
    host: tuple[bytes, ...] = (HOST,),
) -> bytes:
    """A request head with a good credential; ``start`` is a request line of one's own."""
    first = b"%s %s %s" % (method, target, version) if start is None else start
    return b"\r\n".join((first, *host, CREDENTIAL, *lines, b"", b""))


SECRET = b"/v2/secret/repo/manifests/v1"
NEXT = head(b"Connection: close", method=b"GET", target=SECRET)
"""What an attacker would have taken for a request of its own."""


@dataclass(frozen=True)
class Malformed:
    """Octets that are no request: one answer with one of these statuses, and then the end."""

    name: str
    octets: bytes
    statuses: tuple[int, ...] = (400,)


def _each(case: str, what: str, values: tuple[bytes, ...], *statuses: int) -> list[Malformed]:
    return [
        Malformed(f"{case}-{number}", head(what.encode() + value), statuses or (400,))
        for number, value in enumerate(values)
    ]


_LENGTH, _CHUNKED = b"Content-Length: 5", b"Transfer-Encoding: chunked"
_END = b"0\r\n\r\n"
_GET = b"GET /v2/ HTTP/1.1"


def _framing() -> list[Malformed]:
    return [
        Malformed("a01", head(_LENGTH, _CHUNKED) + _END),
        Malformed("a02", head(_CHUNKED, _LENGTH) + _END),
        Malformed("a02-inner", head(_CHUNKED, b"Content-Length: 0") + _END + NEXT),
        Malformed("a03-same", head(_LENGTH, _LENGTH) + b"hello"),
        Malformed("a03-other", head(_LENGTH, b"Content-Length: 6") + b"hello!"),
        Malformed("a03-list", head(b"Content-Length: 5, 5") + b"hello"),
        *_each(
            "a04",
            "Content-Length: ",
            (
                *(b"+5", b"-5", b"-0", b"0x5", b"0o5", b"1_0", b'"5"', b"5; 1e3", b"1e3", b""),
                *(b"5 5", b"5\t5", b"\x0b5", b"5\x0b", b"\xef\xbc\x95", b"\x855", b"5\x85"),
                *(b"\xa05", b"5\xa0", b"5,", b"5.0"),
            ),
        ),
        *_each("a05", "Content-Length: ", (b"010", b"00", b"005")),
        *_each("a06", "Content-Length: ", (b"%d" % 2**63, b"%d" % 2**64, b"9" * 5000), 400, 413),
        *_each(
            "a08",
            "Transfer-Encoding: ",
            (
                *(b"xchunked", b"identity", b"identity\r\nContent-Length: 5", b"gzip, chunked"),
                *(b"chunked, identity", b"chunked, chunked", b",chunked", b"chunked,"),
                *(b"chunked;a=b", b'"chunked"', b"", b"\x0bchunked", b"\x0cchunked"),
                *(b"\xa0chunked", b"chunked\x00"),
            ),
            *(400, 501),
        ),
        Malformed("a09-same", head(_CHUNKED, _CHUNKED) + _END),
        Malformed("a09-other", head(_CHUNKED, b"Transfer-Encoding: identity") + _END, (400, 501)),
        Malformed("a10", head(_CHUNKED, version=b"HTTP/1.0") + _END),
    ]


def _lines() -> list[Malformed]:
    return [
        *_each(
            "a11",
            "",
            (
                *(b"X: a\r\n b", b"X: a\r\n\tb", b"X:\r\n b", b"Transfer-Encoding:\r\n chunked"),
                *(b"Content-Length:\r\n 5", b"Authorization: Basic\r\n dTpw"),
            ),
        ),
        *_each(
            "a12",
            "",
            (
                *(b"Transfer-Encoding : chunked", b"Content-Length : 5", b"Content-Length\t: 5"),
                *(b"Transfer Encoding: chunked",),
            ),
        ),
        Malformed("a12-first", head(host=(b" X: 1", HOST))),
        Malformed("a13", head(method=b"GET").replace(b"\r\n", b"\n"), (400, 408)),
        Malformed("a13-first-line", head(start=_GET + b"\nX: 1"), (400, 408)),
        Malformed("a13-last-line", head(b"X: 1\n", method=b"GET"), (400, 408)),
        Malformed("a14", head(b"X: a\nContent-Length: 44")),
        *_each("a15", "", (b"X: a\rb", b"X: a\r", b"X: a\r\r\nContent-Length: 5")),
        Malformed("a15-cr-only", head(method=b"GET").replace(b"\r\n", b"\r")[:-2] + b"\r\n\r\n"),
        Malformed("a15-first-line", head(start=_GET + b"\rX: 1")),
        *[
            Malformed(f"a16-{octet:02x}", head(b"X: a%cb" % octet))
            for octet in (*range(9), 0x0B, 0x0C, *range(0x0E, 0x20), 0x7F)
        ],
        *_each("a17", "", (b"no colon", b": x", b"b ad: 1", b"X[]: 1", b"\xe9: 1", b":")),
        *[
            Malformed(f"a24-{number}", head(start=line), (400, 505))
            for number, line in enumerate(
                (
                    *(b"GET  /v2/ HTTP/1.1", b"GET /v2/  HTTP/1.1", b"GET\t/v2/ HTTP/1.1"),
                    *(b"GET /v2/\tHTTP/1.1", b" GET /v2/ HTTP/1.1", b"GET /v2/ http/1.1"),
                    *(b"GET /v2/ HTTP/1.2", b"GET /v2/ HTTP/1.10", b"GET /v2/ HTTP/01.1"),
                    *(b"GET /v2/ HTTP/2.0", b"GET /v2/", b"GET /v2/ HTTP/1.1 ", b"GET"),
                )
            )
        ],
        Malformed("a25-missing", head(method=b"GET", host=())),
        Malformed("a25-twice", head(method=b"GET", host=(HOST, HOST))),
        Malformed("a25-two", head(method=b"GET", host=(HOST, b"Host: evil"))),
        *[
            Malformed(f"a25-{number}", head(method=b"GET", host=(b"Host: " + host,)))
            for number, host in enumerate(
                (b"a, b", b"u@a", b"a/b", b"", b"a:99999", b"[::1", b"a\xe9", b"a:", b"a b")
            )
        ],
        Malformed("a31", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 505)),
        Malformed("a31-authorized", head(start=b"PRI * HTTP/2.0"), (400, 505)),
        Malformed("a34-two", b"\r\n\r\n" + head(method=b"GET")),
        *_each("a23", "Content-Length: 5\r\nExpect: ", (b"200-ok", b"y 100-continue"), 417),
        *[
            Malformed(f"c09-{octet:02x}", head(method=b"GET", target=b"/v2/a%cb/" % octet))
            for octet in (0x00, 0x01, 0x1B, 0x7F, 0x80, 0xB0, 0xFF)
        ],
        *[
            Malformed(f"d16-{number}", head(method=method))
            for number, method in enumerate((b"put", b"PUTx", b"Get"))
        ],
        Malformed("e04-two", head(CREDENTIAL, method=b"GET")),
        Malformed(
            "e04-joined", head(method=b"GET").replace(CREDENTIAL, CREDENTIAL + b", Basic dTpw")
        ),
    ]


MALFORMED = [*_framing(), *_lines()]

LONG = [
    Malformed("h04-501-fields", head(*[b"X: y"] * 501, method=b"GET"), (431,)),
    Malformed("h04-64-kib", head(b"X: " + b"y" * 65_536, method=b"GET"), (431,)),
    Malformed("h04-target", head(method=b"GET", target=b"/v2/" + b"x" * 17_000), (414,)),
    Malformed("c13-target", head(method=b"GET", target=b"/v2/" + b"x" * 16_384), (414,)),
    Malformed("d16-method", head(method=b"A" * 100_000), (400, 414)),
]
"""What is refused for its size; too long to be cut at every octet."""


@dataclass(frozen=True)
class Elsewhere:
    """A good request that regguard answers by itself, and then the next one."""

    name: str
    octets: bytes
    status: int


def _target(name: str, target: bytes, status: int, method: bytes = b"GET") -> Elsewhere:
    return Elsewhere(name, head(method=method, target=target), status)


_M = b"/manifests/v1"
_NOT_CANONICAL = {
    "c01": (b"/v2/secret%2Frepo" + _M, b"/v2/secret%2frepo" + _M),
    "c02": (b"/v2/%73ecret/repo" + _M,),
    "c03": (b"/%76%32/secret/repo" + _M,),
    "c04": (
        *(b"/v2/mine/../secret" + _M, b"/v2/mine/%2e%2e/secret" + _M),
        *(b"/v2/mine/.%2e/secret" + _M, b"/v2/./x" + _M, b"/x/../v2/secret" + _M, b"/v2/.."),
    ),
    "c05": (b"//v2/secret" + _M, b"/v2//x" + _M, b"/v2/secret//repo" + _M),
    "c07": tuple(b"/v2/a%cb" % octet + _M for octet in b";,\\|<"),
    "c08": (b"/v2/secret" + _M + b"#frag", b"/v2/#frag", b"/v2/?a#b"),
    "c09": tuple(b"/v2/a" + code + _M for code in (b"%00", b"%0d%0a", b"%ff", b"%c0%af")),
    "c10": tuple(b"/v2/" + code for code in (b"%", b"%1", b"%zz")),
    "c11": tuple(
        b"/v2/" + name + _M
        for name in (b"Team/app", b"host:5000/x", b"a..b", b"-a", b"a" * 256, b"a/" * 128 + b"a")
    ),
    "a26": (b"http://other/v2/", b"http://u:p@h/", b"http://r.example" + SECRET),
    "a27": (b"*", b"*/x"),
    "c15": tuple(
        b"/v2/_catalog?" + query
        for query in (b"n=1000000000", b"n=-1", b"last=%00", b"n=1&n=9999", b"n=%31")
    ),
}
_NOWHERE = {
    "c05": (b"/v2/secret" + _M + b"/",),
    "c06": (*(b"/v2foo", b"/V2/", b"/metrics", b"/debug/pprof", b"/_ping", b"/v1/", b"/v1/_ping"),),
    "c14": (b"/v2/a/manifests/" + b"t" * 129, b"/v2/a/blobs/sha512"),
}
_NO_DIGESTS = tuple(
    b"/v2/a/" + rest
    for rest in (b"blobs/sha256:short", b"blobs/sha512:", b"manifests/sha256:short")
)
_DOTS = (b"/v2/a/manifests/.", b"/v2/a/manifests/..", b"/v2/a/blobs/uploads/..")

ELSEWHERE = [
    *[
        _target(f"{case}-{number}", target, 400)
        for case, targets in _NOT_CANONICAL.items()
        for number, target in enumerate(targets)
    ],
    *[
        _target(f"{case}-nowhere-{number}", target, 404)
        for case, targets in _NOWHERE.items()
        for number, target in enumerate(targets)
    ],
    *[_target(f"c14-digest-{number}", target, 400) for number, target in enumerate(_NO_DIGESTS)],
    *[_target(f"c14-dots-{number}", target, 400) for number, target in enumerate(_DOTS)],
    _target("c06-root", b"/", 200),
    _target("a27-options", b"*", 405, b"OPTIONS"),
    _target("a28", b"registry.example:443", 405, b"CONNECT"),
    _target("a28-path", b"/v2/", 405, b"CONNECT"),
    _target("a29", b"/v2/", 405, b"TRACE"),
    _target("d16-options", TARGET, 405, b"OPTIONS"),
    _target("d16-propfind", TARGET, 405, b"PROPFIND"),
    _target("d16-link", TARGET, 405, b"LINK"),
]


@dataclass(frozen=True)
class Broken:
    """A body that breaks after a head that is good."""

    name: str
    octets: bytes


_UPLOAD = head(
    _CHUNKED, method=b"PATCH", target=b"/v2/team/app/blobs/uploads/12345678-0000-0000-0000-000000"
)
BROKEN = [
    *[
        Broken(f"a18-{number}", _UPLOAD + size + b"\r\nhello\r\n" + _END)
        for number, size in enumerate(
            (
                *(b"0x5", b"+5", b"-5", b" 5", b"5 ", b"5_0", b"", b"g", b"0" * 16 + b"5"),
                *(b"f" * 17, b"\t5", b"5\x0b", b"5\x00"),
            )
        )
    ],
    *[
        Broken(f"a19-{number}", _UPLOAD + line + b"\r\nhello\r\n" + _END)
        for number, line in enumerate(
            (
                *(b"5;", b"5;a\nb", b"5;a\rb", b"5;a\x00b", b"5 ;a", b"5; a", b"5\n"),
                b"5;" + b"a" * 16_384,
            )
        )
    ],
    Broken("a20-no-end", _UPLOAD + b"5\r\nhelloXX\r\n" + _END),
    Broken("a20-spill", _UPLOAD + b"5\r\nhello!\r\n" + _END),
    Broken("a20-lf", _UPLOAD + b"5\r\nhello\n" + _END),
    *[
        Broken(f"a21-{number}", _UPLOAD + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n")
        for number, trailer in enumerate(
            (b"no colon", b"X : 1", b": 1", b"X: a\r\n b", b"X: \0", b"X: " + b"a" * 9000)
        )
    ],
]
"""The head is granted; the body turns out to be none."""

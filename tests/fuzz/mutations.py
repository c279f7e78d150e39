"""What can be wrong with a request: tricks on its parts, accidents on its octets, odd segments.

The tables are those of group A and B of the case list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from random import Random

from tests.fuzz.exchanges import HOST, Message
from tests.guard.world import D, credential

ODD = (
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b'"',
    b"#",
    b"%",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\x80",
    b"\xa0",
    b"\xff",
    b"0",
    b"\r\n ",
    b"\r\n0\r\n\r\n",
)

_LENGTHS = (
    *(b"+5", b"-5", b"-0", b"0x5", b"0o5", b"1_0", b'"5"', b"5;", b"1e3", b"", b"5 5", b"\x0b5"),
    *(b"010", b"00", b"5, 5", b"5,6", b"9223372036854775808", b"9" * 500, b"5\x85", b"\xa05"),
    *(b"0", b"1", b"5", b"65", b"100"),
)
_ENCODINGS = (
    *(b"xchunked", b"identity", b"gzip, chunked", b"chunked, identity", b"chunked, chunked"),
    *(b",chunked", b"chunked,", b"chunked;a=b", b'"chunked"', b"", b"\x0bchunked", b"\x0cchunked"),
    *(b"\xa0chunked", b"chunked\x00", b"Chunked", b"CHUNKED", b" chunked \t", b"chunked"),
)
_LINES = (
    *(b"X: a\nContent-Length: 44", b"X: a\rTransfer-Encoding: chunked", b" folded", b"\tfolded"),
    *(b"no colon", b": x", b"b ad: 1", b"X[]: 1", b"X-\xe9: 1", b"X: \0", b"X: \x01", b"X: \x7f"),
    *(b"X: \xe9", b"X:", b"X: \t \t", b"x.forwarded.user: writer", b"X_Forwarded_User: writer"),
    *(b"X-Forwarded-User: writer", b"X-Forwarded-For: 10.0.0.1", b"Forwarded: host=evil"),
    *(b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: javascript", b"X-Real-IP: 10.0.0.1"),
    *(b"X-Remote-User: writer", b"X-Original-URL: /v2/secret/app/tags/list", b"Via: 1.1 x"),
    *(b"X-HTTP-Method-Override: DELETE", b"Proxy-Authorization: Basic eDp5", b"TE: trailers"),
    *(b"Upgrade: h2c", b"Upgrade: websocket", b"HTTP2-Settings: AAMAAABkAAQAAP__", b"Trailer: X"),
    *(b"Keep-Alive: 5", b"Proxy-Connection: close", b"Host: evil", HOST, b"Host: a, b"),
    *(b"Host: u@a", b"Host: a/b", b"Host:", b"Host: a:99999", b"Host: [::1", b"Host : a"),
    *(b"Expect: 100-continue", b"Expect: 200-ok", b"Expect: y 100-continue", b"X: " + b"y" * 9000),
    *(b"Authorization: " + credential(user) for user in ("reader", "writer")),
    *(b"Authorization: Basic " + junk for junk in (b"", b"eDp5", b"e D p5", b"cmVhZGVyOg==")),
    b"Content-Type: application/x-www-form-urlencoded",
    b"User-Agent: docker/1.5.0",
    b"User-Agent: Go 1.1 package http",
)
_CONNECTIONS = (
    *(b"close", b"keep-alive", b"Close", b"keep-alive, close", b"foo,close", b"Upgrade", b"", b","),
    *(b"close, X-Forwarded-For, X-Forwarded-Proto, X-Real-IP", b"Authorization", b"Host"),
    *(b"Content-Length", b"Transfer-Encoding", b"Content-Range, X-Forwarded-User", b"TE, Trailer"),
    *(b"keep-alive\x0b", b"Content-Type, Accept", b"upgrade, http2-settings"),
)
_TARGETS = (
    *(b"*", b"/", b"", b"/v2", b"/v2?x=1", b"/v2/?", b"/V2/", b"/v2foo", b"//v2/", b"/v2//"),
    *(
        b"/v2/secret%2Fapp/tags/list",
        b"/v2/%73ecret/app/tags/list",
        b"/%76%32/secret/app/tags/list",
    ),
    *(b"/v2/a/../secret/app/tags/list", b"/v2/a/%2e%2e/secret/app/tags/list", b"/v2/./a/tags/list"),
    *(
        b"http://r.example/v2/",
        b"http://u:p@h/v2/a/tags/list",
        b"r.example:443",
        b"/v2/#f",
        b"/ v2/",
    ),
    *(b"/v2/a/tags/list\x7f", b"/v2/a/tags/list\x80", b"/v2/a/manifests/..", b"/v2/a/tags/list/"),
    *(b"/v2/_catalog?n=1000000000", b"/v2/_catalog?last=%00", b"/v2/" + b"a" * 9000, b"/" * 17000),
    b"/v2/a/blobs/uploads/?mount=" + D + b"&from=secret/app&from=a",
    b"/v2/a/blobs/uploads/?%6dount=" + D + b"&%66rom=secret%2Fapp",
    b"/v2/a/blobs/uploads/?mount=" + D + b";from=secret/app",
    b"/v2/a/blobs/uploads/?mount=" + D + b"&from=team/app&x=1",
    b"/v2/a/blobs/uploads/?mount=" + D,
    b"/v2/kept/app/manifests/" + D + b"?tag=v1&tag=v2",
)


def _number(size: bytes) -> int:
    try:
        return int(size, 16)
    except ValueError:
        return 0  # bent before


_SIZES: tuple[Callable[[bytes], bytes], ...] = (
    *(lambda s: b"0x" + s, lambda s: b"+" + s, lambda s: b"-" + s, lambda s: b" " + s),
    *(lambda s: s + b" ", lambda s: s + b"\t", lambda s: s + b"_0", lambda _: b"", lambda _: b"g"),
    *(lambda s: b"0" + s, lambda s: s.upper(), lambda s: b"0" * 14 + s, lambda s: b"0" * 900 + s),
    *(lambda s: s + b";a=b", lambda s: s + b';a="b;\\"c"', lambda s: s + b";", lambda s: s + b";a"),
    *(lambda s: s + b";\n", lambda s: s + b";a\r", lambda s: s + b";a=\0", lambda s: s + b" ;a"),
    *(lambda s: s + b";" + b"a" * 1100, lambda s: b"%x" % (_number(s) + 1), lambda _: b"0"),
    *(lambda s: b"%x" % max(0, _number(s) - 1), lambda _: b"f" * 16, lambda _: b"1" + b"0" * 16),
)
_TRAILERS = (
    *(b"Content-Length: 5\r\n", b"Host: evil\r\n", b"Transfer-Encoding: chunked\r\n", b"bad\r\n"),
    *(
        b"Authorization: Basic eDp5\r\n",
        b"X-Forwarded-User: writer\r\n",
        b"X: a\nY: b\r\n",
        b"\r\n",
    ),
    *(b"X: " + b"y" * 9000 + b"\r\n", b" folded\r\n", b"X: \0\r\n", b": x\r\n", b"X:\x80\r\n"),
)


def _field(rng: Random, message: Message, *, named: bytes = b"") -> int | None:
    """The place of some field line."""
    places = [i for i, line in enumerate(message.lines) if line.lower().startswith(named)]
    return rng.choice(places) if places else None


def _insert(rng: Random, message: Message, line: bytes) -> None:
    message.lines.insert(rng.randint(0, len(message.lines)), line)


# -- tricks on the parts -------------------------------------------------------------------------


def double_field(rng: Random, message: Message) -> None:
    """The same line twice, maybe with the second one's value bent."""
    at = _field(rng, message)
    if at is not None:
        line = message.lines[at]
        _insert(rng, message, line if rng.random() < 0.6 else line[:-1])


def split_field(rng: Random, message: Message) -> None:
    """One line's value over two lines, or folded."""
    at = _field(rng, message)
    if at is not None:
        name, _, value = message.lines[at].partition(b": ")
        cut = rng.randint(0, len(value))
        joint = rng.choice(
            (b"\r\n ", b"\r\n\t", b"\r\n" + name + b": ", b"\n ", b"\r\n" + name + b":")
        )
        message.lines[at] = name + b": " + value[:cut] + joint + value[cut:]


def merge_fields(rng: Random, message: Message) -> None:
    """Two lines as one, by a comma or without a line's end."""
    if len(message.lines) > 1:
        at = rng.randrange(len(message.lines) - 1)
        joint = rng.choice((b", ", b",", b"; ", b"\r", b"\n", b"\r\r\n", b""))
        message.lines[at : at + 2] = [message.lines[at] + joint + message.lines[at + 1]]


def respell_field(rng: Random, message: Message) -> None:
    """Another case of the name, blanks around name and value, no name, an underscore in it."""
    at = _field(rng, message)
    if at is not None:
        name, _, value = message.lines[at].partition(b":")
        respelled = (
            name.upper() + b":" + value,
            name.lower() + b":" + value,
            name.swapcase() + b":" + value.strip(),
            name + b" :" + value,
            name + b"\t:" + value,
            b" " + name + b":" + value,
            name + b":\t" + value + b" \t ",
            name + b":\x0b" + value,
            name + b"\x00:" + value,
            name.replace(b"-", b"_") + b":" + value,
            name.replace(b"-", b".") + b":" + value,
            b":" + value,
            name + value,
        )
        message.lines[at] = rng.choice(respelled)


def drop_field(rng: Random, message: Message) -> None:
    """A line less."""
    at = _field(rng, message)
    if at is not None:
        del message.lines[at]


def swap_fields(rng: Random, message: Message) -> None:
    """The lines in another order."""
    rng.shuffle(message.lines)


def add_line(rng: Random, message: Message) -> None:
    """A line that should change nothing, or should end everything."""
    _insert(rng, message, rng.choice(_LINES))


def many_lines(rng: Random, message: Message) -> None:
    """About as many lines as a head may have."""
    message.lines += [b"X-%d: y" % n for n in range(rng.choice((90, 95, 100, 101, 500)))]


def frame(rng: Random, message: Message) -> None:
    """Another framing than the body has: instead of the right one, or beside it."""
    kind = rng.choice((b"content-length", b"transfer-encoding"))
    at = _field(rng, message, named=kind)
    if kind == b"content-length":
        line = b"Content-Length: " + rng.choice(_LENGTHS)
    else:
        line = b"Transfer-Encoding: " + rng.choice(_ENCODINGS)
    if at is not None and rng.random() < 0.7:
        message.lines[at] = line
    else:
        _insert(rng, message, line)


def connection(rng: Random, message: Message) -> None:
    """What should go no further, or end the connection."""
    _insert(rng, message, b"Connection: " + rng.choice(_CONNECTIONS))


def target(rng: Random, message: Message) -> None:
    """Another spelling of a path, or no path."""
    message.target = rng.choice(_TARGETS)


def respell_target(rng: Random, message: Message) -> None:
    """An octet of the target encoded, doubled or replaced."""
    octets = message.target
    at = rng.randrange(len(octets)) if octets else 0
    one = octets[at : at + 1] or b"/"
    new = rng.choice((b"%%%02x" % one[0], one + one, b"..", b"/./", b";", b"?", b"&", b"%", b"\\"))
    message.target = octets[:at] + new + octets[at + 1 :]


def start_line(rng: Random, message: Message) -> None:
    """Another method, version or separator."""
    kind = rng.randrange(4)
    if kind == 0:
        message.method = rng.choice(
            (
                b"get",
                b"GET",
                b"PUTx",
                b"CONNECT",
                b"TRACE",
                b"OPTIONS",
                b"PRI",
                b"HEAD",
                b"",
                b"POST",
            )
        )
    elif kind == 1:
        message.version = rng.choice(
            (
                b"HTTP/1.0",
                b"HTTP/1.2",
                b"http/1.1",
                b"HTTP/2.0",
                b"HTTP/1.10",
                b"HTTP/0.9",
                b"",
                b"1.1",
            )
        )
    elif kind == 2:
        message.space = rng.choice((b"  ", b"\t", b"", b" \t"))
    else:
        message.line_end = rng.choice((b"\n", b"\r\r\n", b"\r"))


def _chunks(message: Message) -> list[int]:
    """The places of the sizes of chunks, the last one's included."""
    if not any(line.lower().startswith(b"transfer-encoding") for line in message.lines):
        return []
    return list(range(0, len(message.body) - 1, 4))


def chunk_size(rng: Random, message: Message) -> None:
    """A chunk's size in other words, with an extension, or wrong."""
    places = _chunks(message)
    if places:
        at = rng.choice(places)
        message.body[at] = rng.choice(_SIZES)(message.body[at])


def chunk_ends(rng: Random, message: Message) -> None:
    """Line ends missing or of another kind, data that spills over, an end in the middle."""
    places = _chunks(message)
    if places:
        at = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0:
            message.body[at + 1] = rng.choice((b"\n", b"\r", b"", b"\r\r\n", b" \r\n"))
        elif kind == 1 and at + 3 < len(message.body):
            message.body[at + 3] = rng.choice((b"\n", b"\r", b"", b"\n\r", b"XX", b"X\r\n"))
        elif kind == 2 and at + 3 < len(message.body):
            message.body[at + 2] += rng.choice((b"X", b"\r\n", b"0\r\n\r\n"))
        elif kind == 3:
            message.body[at:at] = [b"0", b"\r\n", b"\r\n", b""]
        else:
            del message.body[rng.randrange(len(message.body)) :]


def trailers(rng: Random, message: Message) -> None:
    """Trailers that must mean nothing."""
    if _chunks(message):
        message.body.insert(len(message.body) - 1, rng.choice(_TRAILERS))


def length_off(rng: Random, message: Message) -> None:
    """A body of another length than was said."""
    if message.body:
        if rng.random() < 0.5:
            message.body.append(rng.choice((b"X", b"\r\n", b"GET / HTTP/1.1\r\n\r\n")))
        else:
            message.body[-1] = message.body[-1][:-1]


TRICKS: tuple[Callable[[Random, Message], None], ...] = (
    double_field,
    split_field,
    merge_fields,
    respell_field,
    drop_field,
    swap_fields,
    add_line,
    add_line,
    add_line,
    many_lines,
    frame,
    frame,
    connection,
    connection,
    target,
    respell_target,
    start_line,
    chunk_size,
    chunk_size,
    chunk_size,
    chunk_ends,
    chunk_ends,
    trailers,
    trailers,
    length_off,
)


# -- accidents on the octets ---------------------------------------------------------------------


def delete(rng: Random, stream: bytes, at: int) -> bytes:
    """Some octets less."""
    return stream[:at] + stream[at + rng.choice((1, 1, 2, 3, 20)) :]


def replace(rng: Random, stream: bytes, at: int) -> bytes:
    """Another octet."""
    return stream[:at] + rng.choice((*ODD, rng.randbytes(1))) + stream[at + 1 :]


def insert(rng: Random, stream: bytes, at: int) -> bytes:
    """Some octets more."""
    return stream[:at] + rng.choice((*ODD, rng.randbytes(1))) + stream[at:]


def flip(rng: Random, stream: bytes, at: int) -> bytes:
    """One bit."""
    if at >= len(stream):
        return stream
    return stream[:at] + bytes((stream[at] ^ 1 << rng.randrange(8),)) + stream[at + 1 :]


def double_line(_: Random, stream: bytes, at: int) -> bytes:
    """A line twice."""
    start, end = stream.rfind(b"\n", 0, at) + 1, stream.find(b"\n", at) + 1
    return stream[:end] + stream[start:end] + stream[end:] if end else stream


def move(rng: Random, stream: bytes, at: int) -> bytes:
    """Some octets at another place."""
    end = at + rng.randint(1, 30)
    rest = stream[:at] + stream[end:]
    to = rng.randint(0, len(rest))
    return rest[:to] + stream[at:end] + rest[to:]


def cut(_: Random, stream: bytes, at: int) -> bytes:
    """Nothing after some octet."""
    return stream[:at]


def join(rng: Random, stream: bytes, at: int) -> bytes:
    """Go on somewhere else in the same stream."""
    return stream[:at] + stream[rng.randint(0, len(stream)) :]


ACCIDENTS: tuple[Callable[[Random, bytes, int], bytes], ...] = (
    delete,
    replace,
    insert,
    flip,
    double_line,
    move,
    cut,
    join,
)


def segments(rng: Random, stream: bytes) -> list[bytes]:
    """The stream as it arrives: mostly in one or a few pieces, cut anywhere."""
    kind = rng.random()
    if kind < 0.45 or len(stream) < 2:
        return [stream]
    if kind < 0.85:
        cuts = [rng.randint(1, len(stream) - 1) for _ in range(rng.choice((1, 1, 2, 3, 6)))]
    elif kind < 0.95:
        # Where parsers hold their breath.
        ends = [at for at in range(1, len(stream)) if stream[at - 1] in b"\r\n"]
        cuts = rng.sample(ends, min(len(ends), 4))
    else:
        start = rng.randint(1, len(stream) - 1)
        cuts = list(range(start, min(start + 16, len(stream))))
    edges = [0, *sorted(set(cuts)), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]

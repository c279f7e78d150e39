"""Requests that no client sends: targets from the API's grammar, bent in every way we know.

Each kind is a way of bending; what comes out is one request line, so that every server reads one
request (spaces, line ends and NUL would make something else of it).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from tests.e2e.traced_registry import HELD, PUSHED, REPOSITORIES, TAG, Held, digest_of

_NOT_HELD = ("nothing", "mine/c", "secret/repo/x", "a/b/c/d", "a-b_c.d__e", "catalog", "referrers",
             "example.com/app", "0", "x" * 255, "Secret/Repo", "host:5000/secret/repo", "_catalog",
             "x" * 256)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Generated:
    """One request; ``kind`` says in which way it was bent."""

    kind: str
    method: bytes
    target: bytes


def generate(seed: int, number: int) -> Iterator[Generated]:
    """So many different requests; the same seed gives the same ones."""
    bender = _Bender(random.Random(seed))
    seen = set()
    for kind in itertools.cycle(KINDS):
        method, target = bender.bend(kind)
        if target and not _PARTS_LINES.intersection(target) and (method, target) not in seen:
            seen.add((method, target))
            yield Generated(kind, method, target)
            if len(seen) == number:
                return


_PARTS_LINES = frozenset(b"\0\r\n ")

_SEGMENTS = (
    "v2", "blobs", "uploads", "manifests", "tags", "list", "referrers", "_catalog", "latest",
    "mine", "b", "secret", "repo", "a", ".", "..", "", "v1", "_manifests", "link", "%2e%2e",
)  # fmt: skip
_DOTS = (".", "..", "%2e", "%2E", "%2e%2E", ".%2e", "%2E.", "...", "..;", ";..", ".;a=b", "%252e",
         "%252e%252e", "..%00", "..%2f..", "..%5c..", "%c0%ae%c0%ae")  # fmt: skip
_SLASHES = ("//", "///", "%2f", "%2F", "/%2f", "%2F/", "\\", "%5c", "/\\", "%252f", "%c0%af", "/;/")
_PREFIXES = (
    "", "/", "//", "/v1", "/V2", "/v2/v2", "/x/../v2", "/v2/.", "/v2;x", "/v2%2f", "/%76%32",
    "/v2/..", "/extensions/v2", "/v3/../v2", "*", "v2", "http://localhost/v2",
    "http://localhost:1/v2", "HTTP://LOCALHOST/v2", "http://u:p@localhost/v2", "http:/v2",
    "http:///v2", "http:v2", "https://localhost/v2", "//localhost/v2", "ftp://h/v2", "/http://h/v2",
    "/v2/http://localhost/v2", "/v2/localhost:5000", "/v2?/v2", "/v2#/v2", "/docker/registry/v2",
)  # fmt: skip
_ODD = b";#?%\\|<>\"^`{}[]@~!$&'()*+,=:/.-_%2f%2E%00\t\x7f\x80\xff"
_METHODS = (b"GET", b"HEAD", b"PUT", b"POST", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE", b"get",
            b"LINK")  # fmt: skip


class _Bender:
    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def bend(self, kind: str) -> tuple[bytes, bytes]:
        """A method and a target of this kind."""
        method, target = _STARTS.get(kind, _Bender._grammar)(self)
        raw = target.encode("latin-1")
        for bend in KINDS[kind]:
            raw = bend(self, raw)
        if self._chance.random() < 0.05:
            method = self._chance.choice(_METHODS)
        return method, raw

    # -- good requests, the start of everything --------------------------------------------

    def _grammar(self) -> tuple[bytes, str]:
        weights = (30, 25, 10, 10, 20, 5)
        return self._chance.choices(_ENDPOINTS, weights)[0](self)

    def _a_repository(self) -> str:
        if self._chance.random() < 0.2:
            return self._chance.choice(_NOT_HELD)
        return self._one().repository

    def _one(self) -> Held:
        return self._chance.choice(HELD)

    def _method(self, *methods: bytes) -> bytes:
        return self._chance.choice(methods)

    def _a_digest(self) -> str:
        held = self._one()
        digits = f"{self._chance.getrandbits(256):064x}"
        return self._chance.choice(
            (
                held.blob,
                held.manifest,
                digest_of(PUSHED),
                f"sha256:{digits}",
                f"sha512:{digits * 2}",
            )
        )

    def _manifest(self) -> tuple[bytes, str]:
        tag = f"{self._chance.choice('vVr_-.0')}{self._chance.randrange(1000)}"
        reference = self._chance.choice((TAG, TAG, tag, self._a_digest()))
        method = self._method(b"GET", b"GET", b"HEAD", b"PUT", b"DELETE")
        return method, f"/v2/{self._a_repository()}/manifests/{reference}"

    def _blob(self) -> tuple[bytes, str]:
        held = self._one()
        path = f"/v2/{held.repository}/blobs/{held.blob}"
        if self._chance.random() < 0.5:
            path = f"/v2/{self._a_repository()}/blobs/{self._a_digest()}"
        return self._method(b"GET", b"GET", b"HEAD", b"HEAD", b"DELETE"), path

    def _tags(self) -> tuple[bytes, str]:
        page = self._chance.choice(("", f"?n={self._chance.randrange(100)}&last=a"))
        return self._method(b"GET", b"HEAD"), f"/v2/{self._a_repository()}/tags/list{page}"

    def _start(self) -> tuple[bytes, str]:
        return b"POST", f"/v2/{self._a_repository()}/blobs/uploads/"

    def _upload(self) -> tuple[bytes, str]:
        """An upload that is under way, mostly with its own state."""
        held, other = self._one(), self._one()
        identifier = self._chance.choice((held.upload_id,) * 6 + (other.upload_id, "1", "a.b=c"))
        state = self._chance.choice((held.state,) * 6 + (other.state, "", held.state[:-4]))
        query = self._chance.choice(("", f"&digest={quote(self._a_digest(), safe='')}"))
        return (
            self._method(b"GET", b"HEAD", b"PATCH", b"PUT", b"DELETE"),
            f"/v2/{held.repository}/blobs/uploads/{identifier}?_state={quote(state)}{query}",
        )

    def _referrers(self) -> tuple[bytes, str]:
        return b"GET", f"/v2/{self._a_repository()}/referrers/{self._a_digest()}"

    def _mount(self) -> tuple[bytes, str]:
        """A mount, in the spellings of clients."""
        source, target = self._one(), self._a_repository()
        name = source.repository if self._chance.random() < 0.8 else self._a_repository()
        digest = source.blob if self._chance.random() < 0.8 else self._a_digest()
        safe = self._chance.choice(("", "/:"))
        pairs = [f"from={quote(name, safe=safe)}", f"mount={quote(digest, safe=safe)}"]
        if self._chance.random() < 0.2:
            pairs.append("origin=registry.example")
        self._chance.shuffle(pairs)
        return b"POST", f"/v2/{target}/blobs/uploads/?{'&'.join(pairs)}"

    def _catalog(self) -> tuple[bytes, str]:
        n = self._chance.choice((0, 1, 7, 100, 1000, 1001, 10**9, -1, "", "x", "0x1", "1e3", "+5"))
        last = self._chance.choice((self._a_repository(), "z", "%00", "..", "%2e", "A"))
        pairs = [f"n={n}", f"last={last}", f"{self._chance.choice('xNLn%')}={n}"]
        self._chance.shuffle(pairs)
        query = "&".join(pairs[: self._chance.randrange(4)])
        path = self._chance.choice(("/v2/_catalog",) * 5 + ("/v2/_catalog/", "/v2/a/_catalog"))
        return self._method(b"GET", b"HEAD"), f"{path}?{query}"

    def _words(self) -> tuple[bytes, str]:
        """Any of the API's words in any order."""
        words = [self._chance.choice(_SEGMENTS) for _ in range(self._chance.randrange(1, 7))]
        name = self._one().repository
        end = self._chance.choice(
            ("", f"/manifests/{TAG}", "/tags/list", f"/blobs/{self._one().blob}", "/blobs/uploads/")
        )
        words.insert(self._chance.randrange(len(words) + 1), name)
        method = b"POST" if end.endswith("uploads/") else self._method(b"GET", b"HEAD", b"DELETE")
        return method, f"/v2/{'/'.join(words)}{end}"

    def _prefixed(self) -> tuple[bytes, str]:
        method, path = self._grammar()
        return method, self._chance.choice(_PREFIXES) + path[self._chance.choice((0, 3, 3)) :]

    def _queried(self) -> tuple[bytes, str]:
        """An upload or a manifest with pairs that two readers could read differently."""
        method, path = self._chance.choices(
            (_Bender._mount, _Bender._start, _Bender._upload, _Bender._grammar), (50, 20, 20, 10)
        )[0](self)
        path, _, query = path.partition("?")
        pairs = query.split("&") if query else []
        for _ in range(self._chance.randrange(1, 5)):
            pairs.insert(self._chance.randrange(len(pairs) + 1), self._pair())
        joint = self._chance.choice(("&",) * 6 + ("&&", ";", "%26", "&amp;", "?"))
        return method, f"{path}?{joint.join(pairs)}"

    def _pair(self) -> str:
        """One more word for the registry, in a spelling that it reads or nearly reads."""
        held = self._one()
        values = {"mount": held.blob, "from": held.repository, "digest": held.blob,
                  "_state": quote(held.state), "n": "1", "last": "a", "tag": "v9"}  # fmt: skip
        key = self._chance.choice(("mount", "from", "mount", "from", *values))
        value = values[key]
        if self._chance.random() < 0.3:
            value = self._chance.choice((self._a_repository(), self._a_digest(), "", "%", "%zz"))
        if self._chance.random() < 0.3:
            at = self._chance.randrange(len(key))
            key = f"{key[:at]}%{ord(key[at]):02x}{key[at + 1 :]}"
        elif self._chance.random() < 0.15:
            key = self._chance.choice((key.upper(), f"{key}[]", f"+{key}", f"%00{key}", ""))
        return key + self._chance.choice(("=",) * 6 + ("", "==", "%3d", "=%20", "=+")) + value

    # -- ways of bending ------------------------------------------------------------------

    def _encode(self, target: bytes) -> bytes:
        """Percent-encode some characters, in any case; sometimes twice."""
        path, mark, query = target.partition(b"?")
        if not path or self._chance.random() < 0.1:
            path, mark, query = target, b"", b""
        spots = list(range(1, len(path)))
        if self._chance.random() < 0.4:
            spots = [i for i in spots if path[i] in b"/.%?:"] or spots
        share = self._chance.choice((1, 1, 2, 4, len(spots)))
        chosen = set(self._chance.sample(spots, min(share, len(spots))))
        twice = self._chance.random() < 0.1
        out = bytearray()
        for at, character in enumerate(path):
            if at in chosen:
                digits = f"{character:02x}"
                out += b"%25" if twice else b"%"
                out += (digits.upper() if self._chance.random() < 0.5 else digits).encode()
            else:
                out.append(character)
        return bytes(out) + mark + query

    def _slash(self, target: bytes) -> bytes:
        """Double slashes, spell them differently, put one at the end."""
        path, mark, query = target.partition(b"?")
        for _ in range(self._chance.randrange(1, 3)):
            spots = [i for i, character in enumerate(path) if character == ord("/")]
            if not spots or self._chance.random() < 0.2:
                path += self._chance.choice((b"/", b"//", b"%2f", b"/."))
                continue
            at = self._chance.choice(spots)
            path = path[:at] + self._chance.choice(_SLASHES).encode() + path[at + 1 :]
        return path + mark + query

    def _dot(self, target: bytes) -> bytes:
        """Put dot segments between the others, often so that they lead back to a good path."""
        path, mark, query = target.partition(b"?")
        for _ in range(self._chance.randrange(1, 3)):
            spots = [i for i, character in enumerate(path) if character == ord("/")] or [0]
            at = self._chance.choice(spots)
            dots = self._chance.choice(_DOTS)
            if self._chance.random() < 0.6:
                dots = f"{self._chance.choice((*_SEGMENTS, *REPOSITORIES))}/{dots}"
            path = path[:at] + b"/" + dots.encode() + path[at:]
        return path + mark + query

    def _cut(self, target: bytes) -> bytes:
        """Leave out the end, the beginning, or something between."""
        start = self._chance.randrange(len(target) + 1)
        end = self._chance.randrange(start, len(target) + 1)
        return self._chance.choice(
            (target[:start], target[:start], target[:start] + target[end:], b"/v2/" + target[end:])
        )

    def _change(self, target: bytes) -> bytes:
        """Insert, leave out, replace and swap single bytes."""
        raw = bytearray(target)
        for _ in range(self._chance.randrange(1, 4)):
            at = self._chance.randrange(len(raw) + 1)
            byte = self._chance.choice((self._chance.choice(_ODD), self._chance.randrange(256)))
            end = min(at + self._chance.randrange(2), len(raw))
            raw[at:end] = bytes([byte]) if self._chance.random() < 0.8 else b""
        return bytes(raw)

    def _any(self, target: bytes) -> bytes:
        bend = self._chance.choice(
            (_Bender._encode, _Bender._slash, _Bender._dot, _Bender._cut, _Bender._change)
        )
        return bend(self, target)


_Start = Callable[[_Bender], tuple[bytes, str]]
_ENDPOINTS: tuple[_Start, ...] = (
    _Bender._manifest,
    _Bender._blob,
    _Bender._tags,
    _Bender._start,
    _Bender._upload,
    _Bender._referrers,
)
_STARTS: dict[str, _Start] = {
    "mounts": _Bender._mount,
    "uploads": _Bender._upload,
    "catalog": _Bender._catalog,
    "words": _Bender._words,
    "prefixes": _Bender._prefixed,
    "queries": _Bender._queried,
    "mounts, bent": _Bender._mount,
    "uploads, bent": _Bender._upload,
    "words, bent": _Bender._words,
}
KINDS: dict[str, tuple[Callable[[_Bender, bytes], bytes], ...]] = {
    "good": (),
    "mounts": (),
    "uploads": (),
    "catalog": (),
    "words": (),
    "prefixes": (),
    "queries": (),
    "encoded": (_Bender._encode,),
    "slashes": (_Bender._slash,),
    "dots": (_Bender._dot,),
    "cut": (_Bender._cut,),
    "bytes": (_Bender._change,),
    "mounts, bent": (_Bender._any,),
    "uploads, bent": (_Bender._any,),
    "words, bent": (_Bender._any,),
    "bent twice": (_Bender._any, _Bender._any),
}
"""The kinds, and how each is made of a request that the API's grammar has."""

"""The registry's whole API as a list of requests, in the order of an OCI conformance suite.

Pull, push, content discovery, content management, and what may go wrong in each. Beside each
request stands the status by which registry 2.8.2 itself answers it, so that a request which no
longer reaches what it is about shows.
"""

from __future__ import annotations

import hashlib
import json

from tests.e2e.exchanges import Ask
from tests.e2e.traced_registry import digest_of

SCHEMA_2 = "application/vnd.docker.distribution.manifest.v2+json"
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"
OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCTETS = "Content-Type: application/octet-stream"

EMPTY = b""
CONFIG = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
LAYER = hashlib.shake_128(b"layer").digest(70_000)
LARGE = hashlib.shake_128(b"large").digest(700_000)
IN_CHUNKS = hashlib.shake_128(b"in chunks").digest(50_000)
STREAMED = hashlib.shake_128(b"streamed").digest(90_000)
NEVER = digest_of(b"never pushed")

SKOPEO_ACCEPTS = tuple(
    f"Accept: {kind}"
    for kind in (
        *(OCI, SCHEMA_2, SCHEMA_1, "application/vnd.docker.distribution.manifest.v1+json"),
        *(LIST, INDEX),
    )
)
"""The six lines that skopeo sends."""

ODD_ACCEPTS = tuple(f"Accept: application/vnd.example.v{number}+json" for number in range(20))


def _described(content: bytes, kind: str, **more: object) -> dict[str, object]:
    return {"mediaType": kind, "size": len(content), "digest": digest_of(content), **more}


def _manifest(kind: str, *layers: bytes, **more: object) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": _described(CONFIG, CONFIG_TYPE),
            "layers": [_described(layer, LAYER_TYPE) for layer in layers],
            **more,
        }
    ).encode()


MANIFEST = _manifest(SCHEMA_2, LAYER)
OCI_MANIFEST = _manifest(OCI, LAYER)
PLATFORM = {"architecture": "amd64", "os": "linux"}
MANIFEST_LIST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": LIST,
        "manifests": [_described(MANIFEST, SCHEMA_2, platform=PLATFORM)],
    }
).encode()
OCI_INDEX = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [_described(OCI_MANIFEST, OCI, platform=PLATFORM)],
    }
).encode()
WITH_SUBJECT = _manifest(OCI, EMPTY, subject=_described(OCI_MANIFEST, OCI))
WITHOUT_ITS_LAYER = _manifest(SCHEMA_2, b"never pushed")
DOOMED = _manifest(SCHEMA_2)


def _get(target: str, status: int, *lines: str) -> Ask:
    return Ask("GET", target, status, lines)


def _head(target: str, status: int, *lines: str) -> Ask:
    return Ask("HEAD", target, status, lines)


def _both(target: str, status: int, *lines: str) -> list[Ask]:
    return [_head(target, status, *lines), _get(target, status, *lines)]


def _start(query: str = "", status: int = 202, name: str = "{n}", keep: str = "upload") -> Ask:
    return Ask("POST", f"/v2/{name}/blobs/uploads/{query}", status, keep=keep)


def _patch(content: bytes, *lines: str, status: int = 202, chunked: bool = False) -> Ask:
    keep = "upload" if status == 202 else ""
    return Ask("PATCH", "{upload}", status, lines, content, chunked, keep)


def _close(digest: str, content: bytes = b"", *lines: str, status: int = 201) -> Ask:
    return Ask("PUT", "{upload}&digest=" + digest, status, lines, content)


def _put(reference: str, content: bytes, kind: str, status: int = 201, name: str = "{n}") -> Ask:
    lines = (f"Content-Type: {kind}",) if kind else ()
    return Ask("PUT", f"/v2/{name}/manifests/{reference}", status, lines, content)


def _delete(target: str, status: int) -> Ask:
    return Ask("DELETE", target, status)


def _blob(content: bytes, name: str = "{n}") -> str:
    return f"/v2/{name}/blobs/{digest_of(content)}"


def _content_range(start: int, end: int) -> str:
    return f"Content-Range: {start}-{end - 1}"


_LOGIN = [
    *_both("/v2/", 200),
    _get("/v2/?service=registry", 200),
    _get("/v2/", 200, "Accept-Encoding: gzip", "User-Agent: " + "a" * 8000),
    _get("/v2/", 200, *(f"X-Field-{number}: {number}" for number in range(80))),
]

_PUSH = [
    # end-4a, end-6: one PUT with the whole content.
    _start(),
    *_both("{upload}", 204),
    _close(digest_of(CONFIG), CONFIG, OCTETS),
    *_both(_blob(CONFIG), 200),
    # end-5 with a known length, as skopeo; status between.
    _start(),
    _patch(LAYER, OCTETS),
    *_both("{upload}", 204),
    _close(digest_of(LAYER)),
    _head(_blob(LAYER), 200),
    # end-5 chunked by HTTP, as docker.
    _start(),
    _patch(STREAMED, chunked=True),
    _get("{upload}", 204),
    _close(digest_of(STREAMED).replace(":", "%3A")),
    _head(_blob(STREAMED), 200),
    # In pieces with Content-Range, the last one with the PUT.
    _start(),
    _patch(IN_CHUNKS[:20_000], OCTETS, _content_range(0, 20_000)),
    _get("{upload}", 204),
    _patch(IN_CHUNKS[20_000:40_000], OCTETS, _content_range(20_000, 40_000)),
    _get("{upload}", 204),
    _close(digest_of(IN_CHUNKS), IN_CHUNKS[40_000:], OCTETS, _content_range(40_000, 50_000)),
    _get(_blob(IN_CHUNKS), 200),
    # Out of order, overlapping, malformed: 2.8.2 does not look, and appends.
    _start(),
    _patch(IN_CHUNKS[:1000], OCTETS, _content_range(1000, 2000)),
    _get("{upload}", 204),
    _patch(IN_CHUNKS[:1000], OCTETS, _content_range(500, 1500)),
    _patch(IN_CHUNKS[:1000], OCTETS, "Content-Range: bytes 1000-1999/*"),
    _patch(IN_CHUNKS[:1000], OCTETS, "Content-Range: nonsense"),
    _get("{upload}", 204),
    _close(digest_of(IN_CHUNKS[:1000] * 4)),
    # The same octets again, in a state that is behind the upload.
    _start(keep="behind"),
    Ask("PATCH", "{behind}", 202, (OCTETS,), CONFIG),
    Ask("PATCH", "{behind}", 404, (OCTETS,), CONFIG),
    _get("{behind}", 404),
    # What curl does with a large body.
    _start(),
    _patch(LARGE, "Expect: 100-continue"),
    _close(digest_of(LARGE)),
    # end-4b, which 2.8.2 takes for a start.
    _start(f"?digest={digest_of(CONFIG)}"),
    Ask("POST", f"/v2/{{n}}/blobs/uploads/?digest={digest_of(CONFIG)}", 202, (OCTETS,), CONFIG),
    # The blob of no octets, in each way.
    _start(),
    _close(digest_of(EMPTY)),
    _start(),
    _patch(EMPTY, OCTETS),
    _close(digest_of(EMPTY)),
    _start(),
    _patch(EMPTY, chunked=True),
    _close(digest_of(EMPTY)),
    *_both(_blob(EMPTY), 200),
    # A second upload of what is there.
    _start(),
    _close(digest_of(CONFIG), CONFIG, OCTETS),
    # Digests that are wrong, malformed or missing; each ends its upload or leaves it.
    _start(),
    _close(digest_of(LAYER), CONFIG, status=400),
    _start(),
    _close("sha256:short", CONFIG, status=400),
    _start(),
    _close("md5:" + "0" * 32, CONFIG, status=400),
    _start(),
    Ask("PUT", "{upload}", 400, (OCTETS,), CONFIG),
    # end-13 and end-14.
    _start(),
    _patch(CONFIG),
    _delete("{upload}", 204),
    *_both("{upload}", 404),
    _patch(CONFIG, status=404),
    _close(digest_of(CONFIG), CONFIG, status=404),
    _delete("{upload}", 404),
    # Uploads that never were, and states that belong to others.
    _get("/v2/{n}/blobs/uploads/5eeded00-0000-4000-8000-000000000000", 404),
    Ask("PATCH", "/v2/{n}/blobs/uploads/nothing", 404, (OCTETS,), CONFIG),
    _get("/v2/{n}/blobs/uploads/nothing?_state=nothing", 404),
    _start(keep="one"),
    _start(keep="other", name="{n}/other"),
    Ask("PATCH", "/v2/{n}/blobs/uploads/nothing?{one}", 404, (OCTETS,), CONFIG),
]

_MANIFESTS = [
    _put("v1", MANIFEST, SCHEMA_2),
    _put("v1", MANIFEST, SCHEMA_2),
    _put(digest_of(MANIFEST), MANIFEST, SCHEMA_2),
    Ask("PUT", "/v2/{n}/manifests/chunked", 201, (f"Content-Type: {SCHEMA_2}",), MANIFEST, True),
    _put("oci", OCI_MANIFEST, OCI),
    _put("list", MANIFEST_LIST, LIST),
    _put("index", OCI_INDEX, INDEX),
    _put("sha256-" + digest_of(OCI_MANIFEST)[7:], OCI_INDEX, INDEX),
    _put("subject", WITH_SUBJECT, OCI),
    *(_put(f"many-{number:02}-{'x' * 110}", MANIFEST, SCHEMA_2) for number in range(40)),
    # What is no manifest.
    _put("bad", b"{", SCHEMA_2, 400),
    _put("bad", b"", SCHEMA_2, 400),
    _put("bad", b"[]", OCI, 400),
    _put("bad", MANIFEST, OCI, 400),
    _put("bad", MANIFEST, "application/vnd.example.unknown+json", 400),
    _put("bad", MANIFEST, "text/plain; charset=utf-8", 400),
    _put("bad", MANIFEST, "", 400),
    _put("bad", WITHOUT_ITS_LAYER, SCHEMA_2, 400),
    _put(NEVER, MANIFEST, SCHEMA_2, 400),
    _put("bad", MANIFEST_LIST, LIST, 400, name="{n}/other"),
    _put("bad", b" " * (4 << 20) + b"{}", SCHEMA_2, 400),
    _put("v1", MANIFEST, SCHEMA_2, 400, name="{n}/other"),
]

_MOUNTS = [
    _start(f"?mount={digest_of(LAYER)}&from={{n}}", 201, name="{n}/other", keep=""),
    _head(_blob(LAYER, "{n}/other"), 200),
    _start(f"?from={{n}}&mount={digest_of(CONFIG)}&origin=docker.io", 201, "{n}/other", ""),
    _start(f"?mount={digest_of(LAYER)}&from={{n}}".replace(":", "%3A"), 201, "{n}/other", ""),
    _start(f"?mount={NEVER}&from={{n}}", name="{n}/other"),
    # skopeo cancels what a mount in vain has begun.
    _delete("{upload}", 204),
    _start(f"?mount={digest_of(LAYER)}&from={{n}}/unknown", name="{n}/other"),
    _start(f"?mount={digest_of(LAYER)}", name="{n}/other"),
    _start("?from={n}", name="{n}/other"),
    _start("?mount=nonsense&from={n}", name="{n}/other"),
    _start(f"?mount={digest_of(LAYER)}&from=NO/NAME", name="{n}/other"),
    _put("v1", MANIFEST, SCHEMA_2, name="{n}/other"),
]

_RANGES = (
    ("bytes=0-0", 206),
    ("bytes=0-9", 206),
    ("bytes=100-", 206),
    ("bytes=-5", 206),
    ("bytes=0-", 206),
    ("bytes=69999-69999", 206),
    ("bytes=69990-99999999", 206),
    ("bytes=-99999999", 206),
    ("bytes=0-99999999", 206),
    ("bytes=70000-", 416),
    ("bytes=99999999-", 416),
    ("bytes=70000-70010", 416),
    ("bytes=-0", 206),
    ("bytes=9-0", 416),
    ("bytes=a-b", 416),
    ("bytes=", 200),
    ("bytes", 416),
    ("octets=0-9", 416),
    ("bytes=0-18446744073709551616", 416),
    ("bytes= 0-9", 206),
    ("bytes=0-9,20-29", 206),
    ("bytes=0-9, 20-29 ,-10", 206),
    ("bytes=0-9,5-14", 206),
    ("bytes=0-9,99999999-", 206),
    ("bytes=88888888-,99999999-", 416),
    ("bytes=0-49999,10-69999", 200),
)

_ETAG = f'"{digest_of(LAYER)}"'

_BLOBS = [
    *_both(_blob(LAYER), 200),
    _get(_blob(LAYER), 200, "Accept-Encoding: zstd,gzip,deflate"),
    _get(_blob(LAYER) + "?ns=docker.io", 200),
    _get(_blob(LARGE), 200),
    *(ask for wanted, status in _RANGES for ask in _both(_blob(LAYER), status, f"Range: {wanted}")),
    _get(_blob(LAYER), 206, "Range: bytes=0-9", f"If-Range: {_ETAG}"),
    _get(_blob(LAYER), 200, "Range: bytes=0-9", 'If-Range: "other"'),
    _get(_blob(LAYER), 200, "Range: bytes=0-9", f"If-Range: W/{_ETAG}"),
    _get(_blob(LAYER), 200, "Range: bytes=0-9", "If-Range: Mon, 02 Jan 2006 15:04:05 GMT"),
    *_both(_blob(LAYER), 304, f"If-None-Match: {_ETAG}"),
    *_both(_blob(LAYER), 304, f'If-None-Match: "other", W/{_ETAG}'),
    *_both(_blob(LAYER), 304, "If-None-Match: *"),
    *_both(_blob(LAYER), 200, 'If-None-Match: "other"'),
    _get(_blob(LAYER), 304, f"If-None-Match: {_ETAG}", "Range: bytes=0-9"),
    *_both(_blob(LAYER), 200, f"If-Match: {_ETAG}"),
    *_both(_blob(LAYER), 412, 'If-Match: "other"'),
    _get(_blob(LAYER), 200, "If-Modified-Since: Mon, 02 Jan 2006 15:04:05 GMT"),
    _get(_blob(LAYER), 200, "If-Unmodified-Since: Mon, 02 Jan 2006 15:04:05 GMT"),
    # Of the blob without octets, too: a length of 0 is a length.
    *_both(_blob(EMPTY), 200),
    *_both(_blob(EMPTY), 416, "Range: bytes=0-0"),
    *_both(_blob(EMPTY), 206, "Range: bytes=-5"),
    *_both(_blob(EMPTY), 304, f'If-None-Match: "{digest_of(EMPTY)}"'),
    # What is not there.
    *_both(f"/v2/{{n}}/blobs/{NEVER}", 404),
    *_both(_blob(LAYER, "{n}/unknown"), 404),
    *_both(_blob(STREAMED, "{n}/other"), 404),
    *_both(f"/v2/{{n}}/blobs/sha512:{'0' * 128}", 404),
    *_both(f"/v2/{{n}}/blobs/sha256:{'0' * 63}", 400),
    *_both(f"/v2/{{n}}/blobs/md5:{'0' * 32}", 400),
]

_MANIFEST_ETAG = f'"{digest_of(MANIFEST)}"'

_PULL = [
    *(
        ask
        for tag, content, kind in (
            ("v1", MANIFEST, SCHEMA_2),
            ("oci", OCI_MANIFEST, OCI),
            ("list", MANIFEST_LIST, LIST),
            ("index", OCI_INDEX, INDEX),
            ("subject", WITH_SUBJECT, OCI),
        )
        for reference in (tag, digest_of(content))
        for lines in ((f"Accept: {kind}",), SKOPEO_ACCEPTS, (*ODD_ACCEPTS, f"Accept: {kind}"))
        for ask in _both(f"/v2/{{n}}/manifests/{reference}", 200, *lines)
    ),
    _get("/v2/{n}/manifests/oci", 200, "Accept: " + ", ".join(a[8:] for a in SKOPEO_ACCEPTS)),
    _get("/v2/{n}/manifests/oci", 200, f"Accept: {OCI};q=0.9,*/*;q=0.1"),
    *_both("/v2/{n}/manifests/oci", 404),
    *_both("/v2/{n}/manifests/oci", 404, f"Accept: {SCHEMA_2}"),
    *_both("/v2/{n}/manifests/index", 404, "Accept: */*"),
    *_both("/v2/{n}/manifests/list", 200, f"Accept: {SCHEMA_2}"),
    *_both(f"/v2/{{n}}/manifests/{digest_of(MANIFEST)}", 200),
    *_both("/v2/{n}/manifests/v1", 304, f"Accept: {SCHEMA_2}", f"If-None-Match: {_MANIFEST_ETAG}"),
    *_both("/v2/{n}/manifests/v1", 200, f"Accept: {SCHEMA_2}", 'If-None-Match: "other"'),
    *_both("/v2/{n}/manifests/v1", 200, f"Accept: {SCHEMA_2}", "Range: bytes=0-9"),
    *_both("/v2/{n}/manifests/unknown", 404),
    *_both(f"/v2/{{n}}/manifests/{NEVER}", 404),
    *_both("/v2/{n}/unknown/manifests/v1", 404),
    *_both(f"/v2/{{n}}/manifests/sha256:{'0' * 31}a", 500),
    *_both("/v2/{n}/manifests/" + "t" * 128, 404),
]

_LISTS = [
    _get("/v2/{n}/tags/list", 200),
    _get("/v2/{n}/tags/list?n=2", 200),
    _get("/v2/{n}/tags/list?n=2&last=list", 200),
    _get("/v2/{n}/tags/list?n=0", 200),
    _get("/v2/{n}/tags/list?n=-1", 200),
    _get("/v2/{n}/tags/list?n=nonsense", 200),
    _get("/v2/{n}/other/tags/list", 200),
    _get("/v2/{n}/unknown/tags/list", 404),
    _get("/v2/_catalog", 200),
    _get("/v2/_catalog?n=1", 200),
    _get("/v2/_catalog?n=1&last={n}", 200),
    _get("/v2/_catalog?n=1000", 200),
    _get("/v2/_catalog?last=zzz", 200),
    _head("/v2/{n}/tags/list", 405),
    _head("/v2/_catalog?n=1", 405),
    # end-12, which 2.8.2 does not have.
    *_both(f"/v2/{{n}}/referrers/{digest_of(OCI_MANIFEST)}", 404),
    _get(f"/v2/{{n}}/referrers/{digest_of(OCI_MANIFEST)}?artifactType=a%2Fb", 404),
]

_DELETE = [
    _put("doomed", DOOMED, SCHEMA_2),
    # By its tag, which 2.8.2 cannot do.
    _delete("/v2/{n}/manifests/doomed", 400),
    _delete(f"/v2/{{n}}/manifests/{digest_of(DOOMED)}", 202),
    _delete(f"/v2/{{n}}/manifests/{digest_of(DOOMED)}", 404),
    *_both(f"/v2/{{n}}/manifests/{digest_of(DOOMED)}", 404, f"Accept: {SCHEMA_2}"),
    _delete(f"/v2/{{n}}/manifests/{NEVER}", 404),
    _delete("/v2/{n}/unknown/manifests/v1", 400),
    _delete(f"/v2/{{n}}/manifests/{digest_of(MANIFEST)}", 202),
    *_both("/v2/{n}/manifests/v1", 404, f"Accept: {SCHEMA_2}"),
    _get("/v2/{n}/tags/list", 200),
    _delete(_blob(STREAMED), 202),
    _delete(_blob(STREAMED), 404),
    *_both(_blob(STREAMED), 404),
    _delete(f"/v2/{{n}}/blobs/{NEVER}", 404),
    _delete(_blob(LAYER, "{n}/unknown"), 404),
]

CHAPTERS: dict[str, list[Ask]] = {
    "login": _LOGIN,
    "push": _PUSH,
    "manifests": _MANIFESTS,
    "mounts": _MOUNTS,
    "blobs": _BLOBS,
    "pull": _PULL,
    "lists": _LISTS,
    "delete": _DELETE,
}
"""The requests, in an order in which each finds what it needs."""

"""The registry's API understood: method + request target -> :class:`Access`.

The rules this file obeys:

* One spelling for one thing. The registry matches the *decoded* path and redirects dot segments
  and doubled slashes, so a guard that lets several spellings through decides about one repository
  while the registry serves another. Here a path has no percent sign, no empty or dot segment and
  none but the grammar's characters, and what comes out parses to itself again.
* The repository is what stands before the *last* endpoint words: ``a/blobs``, ``x/manifests`` and
  ``tags/list`` are good repository names (distribution's router is greedy in the same way).
* A query means nothing but where a registry acts on it: on uploads, on the catalog, and on the
  writing of manifests. There it is read exactly as Go reads it, and whatever two readers could
  read differently is refused. Elsewhere it passes verbatim.

Endpoints: OCI distribution-spec 1.1 (end-1 to end-13), the cancelling of an upload and the tags of
a manifest that is put by digest (end-14 and end-7b of its main branch), and distribution's
``_catalog``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

Action = Literal["login", "pull", "push", "delete", "catalog"]


@dataclass(frozen=True, slots=True)
class Access:
    """One thing that one request would do to the registry.

    ``target`` is the canonical path and query, the only form that may go upstream.
    ``reference`` is the tag, digest or upload id. ``mount_source`` is set when the request would
    take a blob from another repository (OCI end-11): then ``target`` mounts, and
    ``target_without_mount`` starts the same upload empty. ``tags`` are those that the request would
    set or take away, by the path or by ``?tag=``. ``endpoint`` is the path's word: ``manifests``,
    ``blobs``, ``uploads``, ``tags``, ``referrers``; empty where there is no repository.
    """

    action: Action
    repository: str
    reference: str
    target: bytes
    is_upload: bool = False
    mount_source: str | None = None
    target_without_mount: bytes | None = None
    tags: tuple[str, ...] = ()
    endpoint: str = ""


class Refusal(Exception):
    """A request that is no access at all, whoever sends it.

    ``status`` is 400, 404 or 405; ``code`` an OCI error code; ``allow`` the Allow header's value,
    which a 405 must carry (RFC 9110 section 15.5.6).
    """

    def __init__(self, status: int, code: str, message: str, allow: bytes | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.allow = allow


class _Endpoint:
    """What may stand in an endpoint's last segment, and which action each method is."""

    __slots__ = ("actions", "allow", "is_reference", "is_upload", "word")

    def __init__(self, word: str, actions: Mapping[bytes, Action], reference: bytes = rb"") -> None:
        self.word = word
        self.actions = actions
        self.allow = b", ".join(actions)
        self.is_reference = re.compile(reference).fullmatch
        self.is_upload = word == "uploads"


# distribution reference/regexp.go without its optional domain ("host:5000/x"), which addresses a
# registry and has no place behind one. "-+" for its "[-]*": the same names, read in one way only.
_COMPONENT = rb"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_TAG = rb"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
# distribution asks for 32 or more hexadecimal digits, OCI for any of these characters.
_DIGEST = rb"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[A-Za-z0-9=_-]{32,}"
# distribution api/v2/descriptors.go takes dot segments here, too; a path has none.
_UPLOAD_ID = rb"(?!\.{1,2}\Z)[A-Za-z0-9_.=-]+"

# distribution reference.RepositoryNameTotalLengthMax
_NAME_LIMIT = 255

_is_name = re.compile(_COMPONENT + rb"(?:/" + _COMPONENT + rb")*").fullmatch
_is_digest = re.compile(_DIGEST).fullmatch
_is_tag = re.compile(_TAG).fullmatch
# Greedy, so that the last endpoint words of the path are the ones that count.
_split = re.compile(
    rb"/v2/([A-Za-z0-9._:=+/-]+)/(manifests|blobs|blobs/uploads|tags|referrers)/([^/]*)"
).fullmatch
_is_plain_path = re.compile(rb"/[A-Za-z0-9._:=+/-]*").fullmatch
_has_odd_segment = re.compile(rb"//|/\.{1,2}(?:/|\Z)").search

# RFC 3986 section 3.4, percent-encodings complete.
_QUERY_CHARACTERS = rb"[A-Za-z0-9._~!$&'()*+,;=:@/?-]*"
_is_query = re.compile(
    _QUERY_CHARACTERS + rb"(?:%[0-9A-Fa-f]{2}" + _QUERY_CHARACTERS + rb")*"
).fullmatch

_READ: Mapping[bytes, Action] = {b"GET": "pull", b"HEAD": "pull"}

_LOGIN = _Endpoint("", {b"GET": "login", b"HEAD": "login"})
_CATALOG = _Endpoint("", {b"GET": "catalog", b"HEAD": "catalog"})
_UPLOAD_START = _Endpoint("uploads", {b"POST": "push"})
# Reading an upload's state is a push as well: distribution 3 answers it with a fresh signed
# ``_state``, which is all that writing takes.
_UPLOAD = _Endpoint(
    "uploads", dict.fromkeys((b"GET", b"HEAD", b"PATCH", b"PUT", b"DELETE"), "push"), _UPLOAD_ID
)
_MANIFEST = _Endpoint(
    "manifests", {**_READ, b"PUT": "push", b"DELETE": "delete"}, _TAG + rb"|" + _DIGEST
)
_ENDPOINTS = {
    b"manifests": _MANIFEST,
    b"blobs": _Endpoint("blobs", {**_READ, b"DELETE": "delete"}, _DIGEST),
    b"blobs/uploads": _UPLOAD,
    b"tags": _Endpoint("tags", _READ, rb"list"),
    b"referrers": _Endpoint("referrers", _READ, _DIGEST),
}
_DIGEST_WORDS = ("manifests", "blobs", "referrers")
_METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE")

# What distribution takes from an upload's query (handlers/blobupload.go).
_UPLOAD_KEYS = frozenset((b"mount", b"from", b"digest", b"_state"))
# crane's third word of a mount; without the mount it says nothing.
_MOUNT_KEYS = frozenset((b"mount", b"from", b"origin"))

# distribution 3's catalog.maxentries; a greater n made 2.8.1 run out of memory (CVE-2023-2253).
_CATALOG_LIMIT = 1000
_is_page_size = re.compile(rb"[0-9]{1,4}").fullmatch
_is_page_start = re.compile(rb"[a-z0-9._/-]{0,255}").fullmatch


# A cluster pulls the same images from all its machines: few targets, many times each.  Long ones
# are uploads', which nobody asks for twice.  A megabyte and a half at most.
_REMEMBERED = 1024
_SHORT = 256


def is_repository(name: str) -> bool:
    """Whether a repository can have this name."""
    return len(name) <= _NAME_LIMIT and name.isascii() and bool(_is_name(name.encode()))


def parse_access(method: bytes, target: bytes) -> Access:
    """Say what a request would do.

    :param target: the raw request target as it stood in the request line.
    :raises Refusal: 405 for a method that no registry endpoint knows, whatever the target; 400
        for a target that is not canonical, or a digest that is none; 404 for one that names no
        endpoint (``/`` among them: the guard answers that itself); 405 for a method that this
        endpoint does not have.
    """
    return _remembered(method, target) if len(target) <= _SHORT else _parse(method, target)


def _parse(method: bytes, target: bytes) -> Access:
    if method not in _METHODS:
        raise _unknown_method(target)
    path, has_query, query = target.partition(b"?")
    endpoint, path, repository, reference = _locate(path)
    if has_query and not _is_query(query):
        raise _malformed("the query is not made of RFC 3986's characters")
    action = endpoint.actions.get(method)
    if action is None:
        raise _no_such_method(endpoint.allow)
    if query:
        if endpoint.is_upload:
            return _upload(endpoint, path, repository, reference, query)
        if endpoint is _CATALOG:
            _check_catalog_page(query)
        target = path + b"?" + query
    else:
        target = path
    tags = _tags(reference, query) if endpoint is _MANIFEST and action != "pull" else ()
    return Access(
        action, repository, reference, target, endpoint.is_upload, None, None, tags, endpoint.word
    )


_remembered = lru_cache(_REMEMBERED)(_parse)


def _locate(path: bytes) -> tuple[_Endpoint, bytes, str, str]:
    """Find the endpoint of a path: itself, the canonical path, repository and reference."""
    parts = _split(path)
    if parts is None:
        if path in (b"/v2/", b"/v2"):
            return _LOGIN, b"/v2/", "", ""
        if path == b"/v2/_catalog":
            return _CATALOG, path, "", ""
        raise _nowhere(path)
    name, words, reference = parts.groups()
    if len(name) > _NAME_LIMIT or not _is_name(name):
        raise _malformed("this is not a repository name")
    endpoint = _ENDPOINTS[words]
    if endpoint is _UPLOAD and not reference:
        return _UPLOAD_START, path, name.decode(), ""
    if not endpoint.is_reference(reference):
        refusal = _nowhere(path)
        if refusal.status == 404 and b":" in reference and endpoint.word in _DIGEST_WORDS:
            # OCI end-12 asks for 400; distribution's blobs have it, too.
            raise Refusal(400, "DIGEST_INVALID", "this is not a digest")
        raise refusal
    if words == b"tags":
        return endpoint, path, name.decode(), ""
    return endpoint, path, name.decode(), reference.decode()


def _upload(
    endpoint: _Endpoint, path: bytes, repository: str, reference: str, query: bytes
) -> Access:
    """Read the query of an upload as Go's ``url.ParseQuery`` and ``FormValue`` do.

    What is no part of a mount keeps its place and spelling: the registry checks a MAC in
    ``_state``. A mount that names no good repository or digest is no mount; crane, for one,
    sends names of other registries. Distribution ignores such, the registry need not see them.
    """
    others: list[bytes] = []
    origin: list[bytes] = []
    values: dict[bytes, bytes] = {}
    for pair in query.split(b"&"):
        if b";" in pair:
            # Go drops the pair, other readers split it there.
            raise _malformed("';' in the query of an upload")
        if not pair:
            continue
        raw_key, _, value = pair.partition(b"=")
        key = _unquote(raw_key)
        if key in _UPLOAD_KEYS:
            if raw_key != key:
                raise _malformed("an encoded spelling of a word that the upload is decided by")
            if key in values:
                raise _malformed("a word that the upload is decided by stands there twice")
            values[key] = value
        if key in _MOUNT_KEYS:
            if raw_key == b"origin":
                origin.append(pair)
            continue
        others.append(pair)
    plain = _with_query(path, others)
    if endpoint is _UPLOAD_START:
        digest = _unquote(values.get(b"mount", b""))
        source = _unquote(values.get(b"from", b""))
        if _is_digest(digest) and len(source) <= _NAME_LIMIT and _is_name(source):
            mount = [_pair(b"mount", digest), _pair(b"from", source)]
            target = _with_query(path, others + mount + origin)
            return Access(
                "push", repository, reference, target, True, source.decode(), plain, (), "uploads"
            )
    return Access("push", repository, reference, plain, True, None, None, (), "uploads")


def _tags(reference: str, query: bytes) -> tuple[str, ...]:
    """The tags that a manifest's writing or deletion is about (end-7a, end-7b, end-9).

    Go's ``Query()["tag"]`` takes every value; a tag needs no encoding, so an encoded one is there
    to be read in two ways.
    """
    tags = [] if ":" in reference else [reference]
    for pair in query.split(b"&") if query else ():
        raw_key, _, value = pair.partition(b"=")
        key = _unquote(raw_key)
        if b";" in pair or (key == b"tag" and raw_key != key):
            raise _malformed("an ambiguous query of a manifest")
        if key == b"tag":
            if not _is_tag(value):
                raise Refusal(400, "TAG_INVALID", "tag must be a tag, spelled without encoding")
            tags.append(value.decode())
    return tuple(dict.fromkeys(tags))


def _check_catalog_page(query: bytes) -> None:
    """Refuse a page that costs the registry too much, or that two readers read differently."""
    seen: set[bytes] = set()
    for pair in query.split(b"&"):
        raw_key, _, value = pair.partition(b"=")
        key = _unquote(raw_key)
        if b";" in pair or (key in (b"n", b"last") and (raw_key != key or key in seen)):
            raise _malformed("an ambiguous query of the catalog")
        seen.add(key)
        if key == b"n" and not (_is_page_size(value) and int(value) <= _CATALOG_LIMIT):
            raise Refusal(
                400,
                "PAGINATION_NUMBER_INVALID",
                f"n must be a number from 0 to {_CATALOG_LIMIT}",
            )
        if key == b"last" and not _is_page_start(_unquote(value)):
            raise _malformed("last must be a repository name")


def _unquote(word: bytes) -> bytes:
    return unquote_to_bytes(word.replace(b"+", b" "))


def _pair(key: bytes, value: bytes) -> bytes:
    # As Go's url.Values.Encode and hence docker write it.
    return key + b"=" + quote(value, safe="").encode()


def _with_query(path: bytes, pairs: list[bytes]) -> bytes:
    return path + b"?" + b"&".join(pairs) if pairs else path


def _malformed(why: str) -> Refusal:
    return Refusal(400, "NAME_INVALID", f"target not in canonical form: {why}")


def _nowhere(path: bytes) -> Refusal:
    """Tell apart what is no path in canonical form from one that leads to no endpoint."""
    if not _is_plain_path(path):
        return _malformed("the path holds a character that no repository, tag or digest has")
    if _has_odd_segment(path):
        return _malformed("the path holds an empty segment or a dot segment")
    if not path.startswith(b"/v2/"):
        return Refusal(404, "NAME_UNKNOWN", "nothing is served outside /v2/")
    return Refusal(404, "UNSUPPORTED", "the registry's API has no such endpoint")


def _unknown_method(target: bytes) -> Refusal:
    try:
        endpoint, *_ = _locate(target.partition(b"?")[0])
    except Refusal:
        return _no_such_method(b", ".join(_METHODS))
    return _no_such_method(endpoint.allow)


def _no_such_method(allow: bytes) -> Refusal:
    return Refusal(405, "UNSUPPORTED", f"allowed here: {allow.decode()}", allow)

"""regguard.access.target: one spelling for one thing, and every endpoint of the registry."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regguard.access import Access, Refusal, parse_access

D = "sha256:" + "0123456789abcdef" * 4
D512 = "sha512:" + "0123456789abcdef" * 8
QUOTED_D = D.replace(":", "%3A")
UPLOADS = "/v2/team/app/blobs/uploads/"
ID = "6f0a3a5c-1b2c-4d5e-8f90-a1b2c3d4e5f6"


def refusal(method: str, target: str | bytes) -> Refusal:
    """The refusal that parse_access raises."""
    raw = target if isinstance(target, bytes) else target.encode("utf-8")
    with pytest.raises(Refusal) as caught:
        parse_access(method.encode("utf-8"), raw)
    return caught.value


def access(method: str, target: str) -> Access:
    return parse_access(method.encode(), target.encode())


@pytest.mark.parametrize(
    ("methods", "target", "action", "repository", "reference"),
    [
        ("GET HEAD", "/v2/", "login", "", ""),
        ("GET HEAD", "/v2/_catalog", "catalog", "", ""),
        ("GET HEAD", "/v2/team/app/manifests/v1.0", "pull", "team/app", "v1.0"),
        ("GET HEAD", f"/v2/app/manifests/{D}", "pull", "app", D),
        ("GET HEAD", f"/v2/app/manifests/{D512}", "pull", "app", D512),
        ("PUT", "/v2/app/manifests/latest", "push", "app", "latest"),
        ("DELETE", f"/v2/app/manifests/{D}", "delete", "app", D),
        ("GET HEAD", f"/v2/app/blobs/{D}", "pull", "app", D),
        ("DELETE", f"/v2/app/blobs/{D}", "delete", "app", D),
        ("GET HEAD", "/v2/app/tags/list", "pull", "app", ""),
        ("GET HEAD", f"/v2/app/referrers/{D}", "pull", "app", D),
    ],
)
def test_every_endpoint_asks_for_its_action(
    methods: str, target: str, action: str, repository: str, reference: str
) -> None:
    """Each endpoint of the API is one action on one repository, and goes upstream as it is."""
    for method in methods.split():
        found = access(method, target)

        assert (found.action, found.repository, found.reference) == (action, repository, reference)
        assert found.target == target.encode()
        assert not found.is_upload


def test_d16_head_is_judged_as_get() -> None:
    """A HEAD asks for exactly what the GET would."""
    target = f"/v2/app/blobs/{D}"

    assert access("HEAD", target) == access("GET", target)


@pytest.mark.parametrize(
    ("method", "target", "reference"),
    [("POST", UPLOADS, "")]
    + [(method, UPLOADS + ID, ID) for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE")],
)
def test_d09_every_method_on_an_upload_is_a_push(method: str, target: str, reference: str) -> None:
    """Upload URLs are for pushers only: even their status hands out a signed state."""
    found = access(method, target)

    assert (found.action, found.repository, found.reference) == ("push", "team/app", reference)
    assert found.is_upload


@pytest.mark.parametrize(
    ("method", "target", "word"),
    [
        ("GET", "/v2/", ""),
        ("GET", "/v2/_catalog", ""),
        ("PUT", "/v2/app/manifests/v1", "manifests"),
        ("DELETE", f"/v2/app/blobs/{D}", "blobs"),
        ("POST", UPLOADS, "uploads"),
        ("POST", f"{UPLOADS}?digest={QUOTED_D}", "uploads"),
        ("POST", f"{UPLOADS}?mount={QUOTED_D}&from=b", "uploads"),
        ("DELETE", UPLOADS + ID, "uploads"),
        ("GET", "/v2/app/tags/list", "tags"),
        ("GET", f"/v2/app/referrers/{D}", "referrers"),
        ("GET", "/v2/blobs/uploads/manifests/v1", "manifests"),
        ("GET", f"/v2/manifests/blobs/{D}", "blobs"),
    ],
)
def test_every_access_names_its_endpoint(method: str, target: str, word: str) -> None:
    """Tag rules tell a manifest from a blob by it; the last word of the path is the one."""
    assert access(method, target).endpoint == word


MANIFEST = "/v2/app/manifests/"


@pytest.mark.parametrize(
    ("method", "target", "tags"),
    [
        # end-7a and end-9: the path's own.
        ("PUT", f"{MANIFEST}v1", ("v1",)),
        ("DELETE", f"{MANIFEST}v1", ("v1",)),
        ("PUT", f"{MANIFEST}{D}", ()),
        ("DELETE", f"{MANIFEST}{D}", ()),
        # end-7b: those of the query, in its order, each once.
        ("PUT", f"{MANIFEST}{D}?tag=v1", ("v1",)),
        ("PUT", f"{MANIFEST}{D}?tag=v2&tag=v1&tag=v2", ("v2", "v1")),
        ("PUT", f"{MANIFEST}{D}?x=1&tag=v1&&y&tag=_a.b-C", ("v1", "_a.b-C")),
        ("PUT", f"{MANIFEST}{D}?tag={'x' * 128}", ("x" * 128,)),
        ("PUT", f"{MANIFEST}{D}?&", ()),
        ("PUT", f"{MANIFEST}{D}?", ()),
        # Whatever a registry makes of both, neither goes unseen.
        ("PUT", f"{MANIFEST}v1?tag=v2", ("v1", "v2")),
        ("PUT", f"{MANIFEST}v1?tag=v1", ("v1",)),
        ("DELETE", f"{MANIFEST}{D}?tag=v1", ("v1",)),
        ("DELETE", f"{MANIFEST}v1?tag=v2", ("v1", "v2")),
        # Go's keys have a case, and end where they end.
        ("PUT", f"{MANIFEST}{D}?Tag=v1&tags=v2&tag%20=v3&+tag=v4&atag=v5&tag%5B%5D=v6", ()),
        ("PUT", f"{MANIFEST}{D}?x=tag=v1&y=%26tag=v2", ()),
        # Reading sets no tag.
        ("GET", f"{MANIFEST}v1", ()),
        ("HEAD", f"{MANIFEST}v1?tag=v2", ()),
        ("DELETE", f"/v2/app/blobs/{D}?tag=v1", ()),
        ("PUT", f"{UPLOADS}{ID}?tag=v1", ()),
    ],
)  # fmt: skip
def test_a_writing_names_all_its_tags(method: str, target: str, tags: tuple[str, ...]) -> None:
    """The tags of path and query are seen as the registry will see them; the target is kept."""
    found = access(method, target)

    assert found.tags == tags
    if target.startswith(MANIFEST):
        assert found.target == target.removesuffix("?").encode()


@pytest.mark.parametrize(
    "query",
    ["t%61g=v1", "%74ag=v1", "ta%67=v1&tag=v1", "%74%61%67", "tag=v1;tag=v2", "x=1;tag=v2", ";",
     "a;b", "tag=v1&x=;"],
)  # fmt: skip
def test_d06_an_ambiguous_query_of_a_manifest_is_400(query: str) -> None:
    """What two readers could read as different tags is written by nobody."""
    for method in ("PUT", "DELETE"):
        for reference in (D, "v1"):
            found = refusal(method, f"{MANIFEST}{reference}?{query}")

            assert (found.status, found.code) == (400, "NAME_INVALID")
    # Where no tag is set a query means nothing, and passes.
    assert access("GET", f"{MANIFEST}v1?{query}").target == f"{MANIFEST}v1?{query}".encode()


@pytest.mark.parametrize(
    "query",
    ["tag", "tag=", "tag=v1&tag=", "tag=v%31", "tag=v1%00", "tag=v1%0A", "tag=a/b", "tag=a+b",
     "tag=.hidden", "tag=-x", f"tag={D}", "tag=v*", "tag=v1,v2", "tag==v1", "tag=v1=", "tag=v1?",
     f"tag={'x' * 129}"],
)  # fmt: skip
def test_c14_a_tag_in_a_query_is_a_tag(query: str) -> None:
    """A tag needs no encoding; what is none, or encoded, is 400 TAG_INVALID."""
    for method in ("PUT", "DELETE"):
        found = refusal(method, f"{MANIFEST}{D}?{query}")

        assert (found.status, found.code) == (400, "TAG_INVALID")


def test_c06_v2_without_slash_is_the_login_check() -> None:
    """/v2 is /v2/, and goes upstream as such."""
    assert access("GET", "/v2").target == b"/v2/"
    assert access("GET", "/v2?ns=docker.io").target == b"/v2/?ns=docker.io"


@pytest.mark.parametrize(
    "name",
    ["blobs", "uploads", "manifests", "tags", "list", "tags/list", "a/blobs", "a/blobs/uploads",
     "a/manifests", "v2", "v2/v2", "referrers", "a/tags/list/manifests", "a__b", "a--b", "a.b_c",
     "0/1", "catalog", "x" * 255],
)  # fmt: skip
def test_c11_names_may_be_made_of_endpoint_words(name: str) -> None:
    """The repository is what stands before the last endpoint words."""
    for target in (
        f"/v2/{name}/manifests/latest",
        f"/v2/{name}/blobs/{D}",
        f"/v2/{name}/tags/list",
        f"/v2/{name}/referrers/{D}",
    ):
        assert access("GET", target).repository == name
    assert access("POST", f"/v2/{name}/blobs/uploads/").repository == name
    assert access("PATCH", f"/v2/{name}/blobs/uploads/{ID}").repository == name


@pytest.mark.parametrize(
    "name",
    ["Team/app", "host:5000/app", "a..b", "-a", "a-", "a___b", "a_-b", ".a", "a/.b", "a/b.",
     "_a", "a+b", "a=b", "x" * 256, "a/" * 127 + "aaa"],
)  # fmt: skip
def test_c11_bad_names_are_refused(name: str) -> None:
    """A name outside distribution's grammar, or longer than 255, is 400 NAME_INVALID."""
    found = refusal("GET", f"/v2/{name}/manifests/latest")

    assert (found.status, found.code) == (400, "NAME_INVALID")


@pytest.mark.parametrize(
    "target",
    [
        # C01-C03: percent-encodings, which the registry would decode
        "/v2/secret%2Frepo/manifests/x", "/v2/secret%2frepo/manifests/x",
        "/v2/%73ecret/manifests/x", "/%76%32/secret/manifests/x", "/v2/a/manifests/%78",
        # C04: dot segments
        "/v2/mine/../secret/manifests/x", "/v2/mine/%2e%2e/secret/manifests/x",
        "/v2/mine/.%2e/secret/manifests/x", "/v2/./x/manifests/x", "/x/../v2/a/tags/list",
        "/v2/..", "/v2/.", "/v2/a/manifests/..", "/v2/a/manifests/.", "/..", "/.",
        "/v2/a/blobs/uploads/..", "/v2/a/blobs/uploads/.",
        # C05: empty segments
        "//v2/", "/v2//x/manifests/x", "/v2//", "/v2/x//manifests/x", "/v2/x/manifests//x", "//",
        # C07: characters that no name has
        "/v2/a;x/manifests/x", "/v2/a;x=y/manifests/x", "/v2/a,b/manifests/x",
        "/v2/a\\b/manifests/x", "/v2/a|b/manifests/x", "/v2/a<b/manifests/x", "/v2/a b/tags/list",
        "/v2/a@b/manifests/x", "/v2/a~b/manifests/x", "/v2/a*/manifests/x", "/v2/{a}/manifests/x",
        # C08: fragments
        "/v2/#frag", "/v2/a/manifests/x#/../secret", "/v2/?a#b",
        # C09, C10: control characters, 8-bit, broken escapes
        "/v2/a%00/manifests/x", "/v2/a%0d%0a/manifests/x", "/v2/a%ff/tags/list",
        "/v2/a%c0%af/tags/list", "/v2/%", "/v2/%1", "/v2/%zz", "/v2/a\x00/tags/list",
        "/v2/a\n/tags/list", "/v2/a/manifests/x\n", "/v2/\n", "/v2/a\x7f/tags/list",
        "/v2/\u00e9/tags/list", "/v2/a/manifests/\u0430",
        # neither origin-form nor anything else that has a path
        "", "*", "v2/", "http://other/v2/", "http://u:p@h/v2/", "?x", " /v2/",
    ],
)  # fmt: skip
def test_c01_to_c10_targets_not_in_canonical_form_are_400(target: str) -> None:
    """A target with a second spelling, or with characters of no grammar, is 400 NAME_INVALID."""
    found = refusal("GET", target)

    assert (found.status, found.code, found.allow) == (400, "NAME_INVALID", None)


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/", "NAME_UNKNOWN"), ("/v2foo", "NAME_UNKNOWN"), ("/V2/", "NAME_UNKNOWN"),
        ("/metrics", "NAME_UNKNOWN"), ("/debug/pprof", "NAME_UNKNOWN"), ("/_ping", "NAME_UNKNOWN"),
        ("/v1/", "NAME_UNKNOWN"), ("/v1/search?q=x", "NAME_UNKNOWN"),
        ("/x/v2/a/tags/list", "NAME_UNKNOWN"),
        ("/v2/a", "UNSUPPORTED"), ("/v2/a/", "UNSUPPORTED"), ("/v2/_catalog/", "UNSUPPORTED"),
        ("/v2/a/tags", "UNSUPPORTED"), ("/v2/a/tags/", "UNSUPPORTED"),
        ("/v2/a/tags/list/", "UNSUPPORTED"), ("/v2/a/tags/lists", "UNSUPPORTED"),
        ("/v2/a/blobs/uploads", "UNSUPPORTED"), ("/v2/a/manifests/x/", "UNSUPPORTED"),
        ("/v2/manifests/x", "UNSUPPORTED"), ("/v2/tags/list", "UNSUPPORTED"),
        ("/v2/blobs/uploads/", "UNSUPPORTED"), (f"/v2/blobs/{D}", "UNSUPPORTED"),
        (f"/extensions/v2/a/signatures/{D}", "NAME_UNKNOWN"),
        ("/v2/_oci/ext/discover", "UNSUPPORTED"),
    ],
)  # fmt: skip
def test_c06_what_leads_to_no_endpoint_is_404(target: str, code: str) -> None:
    """A path in canonical form that no endpoint has is 404, here and at once."""
    found = refusal("GET", target)

    assert (found.status, found.code) == (404, code)


@pytest.mark.parametrize(
    "target",
    ["/v2/a/manifests/" + "t" * 129, "/v2/a/manifests/.INVALID_MANIFEST_NAME",
     "/v2/a/manifests/-x", "/v2/a/manifests/", "/v2/a/blobs/latest", "/v2/a/blobs/",
     f"/v2/a/blobs/sha256-{'0' * 64}", "/v2/a/referrers/latest", "/v2/a/tags/sha256:short",
     "/v2/a/blobs/uploads/a:b", "/v2/a/blobs/uploads/a+b"],
)  # fmt: skip
def test_c14_what_is_no_reference_is_404(target: str) -> None:
    """A tag, digest or upload id outside its grammar names nothing (OCI conformance: 404)."""
    assert refusal("GET", target).status == 404


@pytest.mark.parametrize("word", ["manifests", "blobs", "referrers"])
@pytest.mark.parametrize("digest", ["sha256:short", "sha512:", ":", ":" + "0" * 64, "sha256:a:b"])
def test_c14_what_is_meant_for_a_digest_and_is_none_is_400(word: str, digest: str) -> None:
    """As the registry's blobs and OCI's referrers have it; a tag has no colon."""
    found = refusal("GET", f"/v2/a/{word}/{digest}")

    assert (found.status, found.code) == (400, "DIGEST_INVALID")


def test_c14_the_longest_tag_has_128_characters() -> None:
    """128 characters are a tag."""
    assert access("GET", "/v2/a/manifests/" + "t" * 128).reference == "t" * 128


@pytest.mark.parametrize(
    ("methods", "target", "allow"),
    [
        ("POST PUT PATCH DELETE OPTIONS", "/v2/", b"GET, HEAD"),
        ("POST PUT PATCH DELETE TRACE", "/v2/_catalog", b"GET, HEAD"),
        ("POST PATCH PROPFIND", "/v2/a/manifests/x", b"GET, HEAD, PUT, DELETE"),
        ("POST PUT PATCH LINK", f"/v2/a/blobs/{D}", b"GET, HEAD, DELETE"),
        ("POST PUT PATCH DELETE FOO", "/v2/a/tags/list", b"GET, HEAD"),
        ("POST PUT PATCH DELETE FOO", f"/v2/a/referrers/{D}", b"GET, HEAD"),
        ("GET HEAD PUT PATCH DELETE FOO", UPLOADS, b"POST"),
        ("POST FOO", UPLOADS + ID, b"GET, HEAD, PATCH, PUT, DELETE"),
    ],
)
def test_d16_a_method_that_the_endpoint_does_not_have_is_405(
    methods: str, target: str, allow: bytes
) -> None:
    """What an endpoint does not do is refused with the list of what it does."""
    for method in methods.split():
        found = refusal(method, target)

        assert (found.status, found.code, found.allow) == (405, "UNSUPPORTED", allow)


@pytest.mark.parametrize(
    ("method", "target"),
    [("OPTIONS", "*"), ("CONNECT", "example.com:443"), ("TRACE", "/"), ("get", "//"),
     ("put", "/v2/a%2Fb/x"), ("PUTx", "/"), ("G" * 100_000, "/v2/x"), ("PRI", "*"), ("", "/")],
)  # fmt: skip
def test_a27_to_a29_a_method_that_no_endpoint_has_is_405_whatever_the_target(
    method: str, target: str
) -> None:
    """An unknown method is answered as such before the target is looked at."""
    found = refusal(method, target)

    assert (found.status, found.allow) == (405, b"GET, HEAD, POST, PUT, PATCH, DELETE")


@pytest.mark.parametrize(
    "target",
    ["/v2/a/tags/list?n=10&last=v1", "/v2/a/manifests/latest?ns=docker.io",
     f"/v2/a/referrers/{D}?artifactType=application%2Fvnd.x%2Bjson",
     f"/v2/a/manifests/{D}?tag=a&tag=b", f"/v2/a/blobs/{D}?a;b=/?:@!$'()*,~-._", "/v2/?x"],
)  # fmt: skip
def test_a_query_without_meaning_passes_verbatim(target: str) -> None:
    """Where the registry decides nothing by the query, no byte of it is touched."""
    method = "PUT" if "tag=" in target else "GET"

    assert access(method, target).target == target.encode()


@pytest.mark.parametrize(
    "query", ["%", "a=%1", "a=%zz", "a b", "a\tb", "a#", 'a"', "a<", "a\\", "[", "^", "`", "\u00e9"]
)
def test_c08_to_c10_a_query_outside_rfc_3986_is_400(query: str) -> None:
    """Characters that a query cannot hold are refused on every endpoint."""
    assert refusal("GET", f"/v2/a/tags/list?{query}").status == 400
    assert refusal("POST", f"{UPLOADS}?{query}").status == 400


def test_a_question_mark_without_a_query_is_dropped() -> None:
    """An empty query is no query."""
    assert access("GET", "/v2/a/tags/list?").target == b"/v2/a/tags/list"
    assert access("POST", UPLOADS + "?").target == UPLOADS.encode()
    assert access("POST", UPLOADS + "?&&").target == UPLOADS.encode()


def test_an_upload_keeps_state_and_digest_as_they_are() -> None:
    """The registry checks a MAC in _state, so no other spelling of it may arrive."""
    query = f"_state=abc-_%3d%3D%2B~&digest={D}&X-Amz%2dThing=1&digest-algorithm=sha512&"

    found = access("PUT", f"{UPLOADS}{ID}?{query}")

    assert found.target == f"{UPLOADS}{ID}?{query[:-1]}".encode()
    assert found.mount_source is None
    assert found.target_without_mount is None


@pytest.mark.parametrize(
    "query",
    [f"mount={QUOTED_D}&from=secret%2Frepo", f"from=secret/repo&mount={D}",
     f"from=%73ecret%2frepo&mount={D}&", f"&&mount={D}&from=secret/repo"],
)  # fmt: skip
def test_d05_a_mount_names_its_source_however_it_is_encoded(query: str) -> None:
    """Encoded values are read as Go reads them, and go upstream in one spelling."""
    found = access("POST", f"{UPLOADS}?{query}")

    assert found.mount_source == "secret/repo"
    assert found.target == f"{UPLOADS}?mount={QUOTED_D}&from=secret%2Frepo".encode()
    assert found.target_without_mount == UPLOADS.encode()


def test_d01_without_its_mount_an_upload_keeps_the_rest() -> None:
    """Stripped are mount, from and crane's origin; what else was asked stays."""
    found = access("POST", f"{UPLOADS}?a=1&mount={D}&origin=gcr.io&from=x&digest-algorithm=sha512")

    assert found.target == (
        f"{UPLOADS}?a=1&digest-algorithm=sha512&mount={QUOTED_D}&from=x&origin=gcr.io".encode()
    )
    assert found.target_without_mount == f"{UPLOADS}?a=1&digest-algorithm=sha512".encode()


@pytest.mark.parametrize(
    "query",
    [f"mount={D}", "from=secret/repo", f"mount={D}&from=", "mount=&from=secret/repo",
     f"mount={D}&from=Secret/Repo", f"mount={D}&from=localhost:5000/a", f"mount={D}&from=a//b",
     f"mount={D}&from=../a", f"mount={D}&from=a+b", f"mount={D}&from={'x' * 256}",
     f"mount={D}&from=a%00", f"mount={D}&from=a%0A", "mount=latest&from=a", "mount=%00&from=a",
     f"mount={D}&from", f"mount={D}&origin=a", f"mount={D}&from=index.docker.io/A&origin=x"],
)  # fmt: skip
def test_d07_half_a_mount_is_no_mount(query: str) -> None:
    """Without a good source and a good digest the words of a mount do not go upstream."""
    found = access("POST", f"{UPLOADS}?k=1&{query}")

    assert found.target == f"{UPLOADS}?k=1".encode()
    assert found.mount_source is None


def test_a_mount_on_a_started_upload_is_stripped() -> None:
    """Only the start of an upload can mount; elsewhere the words are dropped."""
    found = access("PUT", f"{UPLOADS}{ID}?mount={D}&_state=s&from=secret")

    assert found.target == f"{UPLOADS}{ID}?_state=s".encode()
    assert found.mount_source is None


@pytest.mark.parametrize(
    "query",
    [f"from=a&from=b&mount={D}", f"mount={D}&mount={D}&from=a", f"digest={D}&digest={D}",
     "_state=a&_state=b", f"from=a&mount={D}&from=a", f"mount={D};from=a", f"mount={D}&from=a;b=c",
     "x;y", f"%6dount={D}&from=a", f"mount={D}&%66rom=a", f"di%67est={D}", "%5Fstate=x",
     f"mount={D}&fro%6D=a&from=b", f"mount={D}&from=a%", f"mount={D}&from=%zz", "from&from"],
)  # fmt: skip
def test_d05_d06_an_ambiguous_upload_query_is_400(query: str) -> None:
    """What two readers could read differently is refused on uploads."""
    assert refusal("POST", f"{UPLOADS}?{query}").status == 400
    assert refusal("PUT", f"{UPLOADS}{ID}?{query}").status == 400


@pytest.mark.parametrize("query", ["n=0", "n=1000", "n=7&last=team/app", "last=a%2Fb&n=1", "x=1"])
def test_c15_a_bounded_page_of_the_catalog_passes(query: str) -> None:
    """The catalog's own pagination goes through verbatim."""
    assert access("GET", f"/v2/_catalog?{query}").target == f"/v2/_catalog?{query}".encode()


@pytest.mark.parametrize(
    ("query", "code"),
    [("n=1000000000", "PAGINATION_NUMBER_INVALID"), ("n=1001", "PAGINATION_NUMBER_INVALID"),
     ("n=-1", "PAGINATION_NUMBER_INVALID"), ("n=", "PAGINATION_NUMBER_INVALID"),
     ("n=+1", "PAGINATION_NUMBER_INVALID"), ("n=1%30", "PAGINATION_NUMBER_INVALID"),
     ("n", "PAGINATION_NUMBER_INVALID"), ("n=0x10", "PAGINATION_NUMBER_INVALID"),
     ("n=1&n=100000", "NAME_INVALID"), ("%6e=100000", "NAME_INVALID"), ("n=1;n=9", "NAME_INVALID"),
     ("last=%00", "NAME_INVALID"), ("last=%0A", "NAME_INVALID"), ("last=A", "NAME_INVALID"),
     ("last=a&last=b", "NAME_INVALID"), (f"last={'a' * 256}", "NAME_INVALID")],
)  # fmt: skip
def test_c15_an_unbounded_or_ambiguous_page_of_the_catalog_is_400(query: str, code: str) -> None:
    """n stays within 1000 and last within a name, each stated once and plainly."""
    found = refusal("GET", f"/v2/_catalog?{query}")

    assert (found.status, found.code) == (400, code)


def test_c13_a_long_target_is_a_target() -> None:
    """8000 octets of upload state pass."""
    target = f"{UPLOADS}{ID}?_state={'s' * 8000}"

    assert access("PATCH", target).target == target.encode()


def test_c13_a_long_path_does_not_confuse_the_matcher() -> None:
    """Paths made to send a matcher back and forth are refused like any other (and at once)."""
    for unit in (b"a/", b"a-", b"a_", b"a", b"manifests/", b"blobs/uploads/"):
        assert refusal("GET", b"/v2/" + unit * (16_000 // len(unit)) + b"!").status == 400


WORDS = st.sampled_from(
    ["v2", "a", "team", "app", "blobs", "uploads", "manifests", "tags", "list", "referrers",
     "_catalog", "latest", D, ID, "", ".", "..", "%2F", "%2e", "A", "a;b", "a b", "\n", "é", "V2",
     "x" * 200, "a__b", "?", "#", "mount", "from"]
)  # fmt: skip
PAIRS = st.tuples(
    st.sampled_from(
        [
            "mount",
            "from",
            "digest",
            "_state",
            "n",
            "last",
            "origin",
            "%6dount",
            "x",
            "",
            "tag",
            "tag",
            "t%61g",
        ]
    ),
    st.sampled_from(["", "=", f"={D}", "=a", "=a%2Fb", "=A", "=%zz", "=1;2", "=9", "=9999", "=+"]),
).map("".join)
TARGETS = st.one_of(
    st.text(max_size=60),
    st.builds(
        lambda words, pairs: "/" + "/".join(words) + ("?" + "&".join(pairs) if pairs else ""),
        st.lists(WORDS, max_size=8),
        st.lists(PAIRS, max_size=4),
    ),
    st.builds(
        lambda words, end, pairs: (
            "/v2/" + "/".join(words) + end + ("?" + "&".join(pairs) if pairs else "")
        ),
        st.lists(WORDS, min_size=1, max_size=4),
        st.sampled_from(["/manifests/v1", f"/manifests/{D}", f"/blobs/{D}", "/blobs/uploads/",
                         f"/blobs/uploads/{ID}", "/tags/list", f"/referrers/{D}"]),
        st.lists(PAIRS, max_size=4),
    ),
)  # fmt: skip
METHODS = st.one_of(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]), st.text()
)


# A slow machine is no defect: timings gate nothing here.
@settings(max_examples=1000, deadline=None)
@given(METHODS, TARGETS)
@example("POST", f"/v2/a/blobs/uploads/?mount={D}&from=b&origin=c")
@example("PUT", f"/v2/a/manifests/{D}?tag=v1&x&tag=v2")
def test_c12_what_is_accepted_is_canonical(method: str, target: str) -> None:
    """Only Refusal is raised; what is accepted parses to itself and has one reading only."""
    try:
        found = access(method, target)
    except Refusal as refused:
        assert refused.status in (400, 404, 405)
        assert (refused.allow is not None) == (refused.status == 405)
        return

    path = found.target.partition(b"?")[0]
    assert parse_access(method.encode(), found.target) == found
    assert re.fullmatch(rb"/v2/[A-Za-z0-9._:=+/-]*", path)
    assert b"//" not in path
    assert not {b".", b".."} & set(path.split(b"/"))
    if found.tags:
        # Seen by another reader, who knows only Python's own rules.
        query = found.target.partition(b"?")[2].decode()
        read = [value for key, value in parse_qsl(query, True) if key == "tag"]
        own = [] if ":" in found.reference else [found.reference]
        assert set(found.tags) == {*own, *read}
        assert found.endpoint == "manifests"
    if found.action not in ("login", "catalog"):
        assert path.startswith(f"/v2/{found.repository}/".encode())
    if found.mount_source is None:
        assert found.target_without_mount is None
        if found.is_upload:
            assert b"mount=" not in found.target
    else:
        assert found.target_without_mount is not None
        plain = parse_access(method.encode(), found.target_without_mount)
        assert plain.mount_source is None
        assert plain.target == found.target_without_mount

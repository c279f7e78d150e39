"""regguard.guard: authenticate, authorize, relay, and regguard's own answers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from twisted.web.resource import IResource
from zope.interface.verify import verifyObject

from regguard import answers
from regguard.access import Policy, Who
from regguard.auth.interfaces import CheckerFailed, Overloaded, Unauthenticated, Undecided
from regguard.auth.realm import User
from tests.canary import CANARY
from tests.guard.world import READER, WRITER, D, Guarded, credential, request
from tests.relay.world import Answer, read_answers, read_request, refused

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHALLENGE = b'Basic realm="Registry", charset="UTF-8"'
MANIFEST = b"/v2/team/app/manifests/v1"


def check_own(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """What holds for every answer of regguard's own; the one error in it."""
    assert answer.status == status
    assert answer.whole
    assert answer[b"content-type"] == b"application/json"
    assert answer[b"x-content-type-options"] == b"nosniff"
    assert answer[b"docker-distribution-api-version"] == b"registry/2.0"
    assert int(answer[b"content-length"]) == len(answer.body)
    assert answer[b"date"].endswith(b" GMT")
    assert answer.body.isascii()
    body = json.loads(answer.body)
    [error] = body["errors"]
    assert set(body) == {"errors"}
    assert error["code"] == code
    assert isinstance(error["message"], str)
    assert isinstance(error, dict)
    return error


def test_the_guard_is_a_leaf_resource(guarded: Guarded) -> None:
    """It answers for all paths and takes no children."""
    guard = guarded.guard

    assert verifyObject(IResource, guard)
    assert guard.isLeaf
    assert guard.getChildWithDefault(b"x", None) is guard
    with pytest.raises(TypeError):
        guard.putChild(b"x", guard)


# -- the order of acts -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        (b"GET", b"/v2/a%2Fb/manifests/1", 400, "NAME_INVALID"),
        (b"GET", b"/v2/A/manifests/1", 400, "NAME_INVALID"),
        (b"GET", b"//v2/", 400, "NAME_INVALID"),
        (b"GET", b"/v2/a/../b/manifests/1", 400, "NAME_INVALID"),
        (b"GET", b"http://other/v2/", 400, "NAME_INVALID"),
        (b"POST", b"/v2/a/blobs/uploads/?mount=x&mount=y", 400, "NAME_INVALID"),
        (b"GET", b"/v1/_ping", 404, "NAME_UNKNOWN"),
        (b"GET", b"/metrics", 404, "NAME_UNKNOWN"),
        (b"GET", b"/v2/a/nowhere", 404, "UNSUPPORTED"),
        (b"GET", b"/v2/_catalog?n=100000", 400, "PAGINATION_NUMBER_INVALID"),
    ],
)
@pytest.mark.parametrize("user", [None, "nobody", "writer"])
def test_a_target_is_understood_before_anybody_is_asked_who_he_is(
    guarded: Guarded, method: bytes, target: bytes, status: int, code: str, user: str | None
) -> None:
    """A bad one is refused whoever sends it, and no password is checked."""
    check_own(guarded.ask(request(method, target, user=user)), status, code)

    assert guarded.authenticator.asked == []
    assert guarded.registry.connections == []


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        (b"OPTIONS", b"/v2/", b"GET, HEAD"),
        (b"POST", b"/v2/", b"GET, HEAD"),
        (b"PUT", b"/v2/a/tags/list", b"GET, HEAD"),
        (b"GET", b"/v2/a/blobs/uploads/", b"POST"),
        (b"TRACE", MANIFEST, b"GET, HEAD, PUT, DELETE"),
        (b"PROPFIND", b"/x", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
    ],
)
def test_d16_a_method_that_the_endpoint_has_not_is_405(
    guarded: Guarded, method: bytes, target: bytes, allow: bytes
) -> None:
    """With what it has; the credential is not echoed."""
    answer = guarded.ask(request(method, target))

    check_own(answer, 405, "UNSUPPORTED")
    assert answer[b"allow"] == allow
    assert credential("reader") not in answer.body
    assert guarded.authenticator.asked == []
    assert guarded.registry.connections == []


@pytest.mark.parametrize("user", [None, "stranger"])
@pytest.mark.parametrize(
    ("method", "target"),
    [
        (b"GET", b"/v2/"),
        (b"GET", b"/v2/_catalog"),
        (b"GET", MANIFEST),
        (b"PUT", MANIFEST),
        (b"DELETE", MANIFEST),
        (b"POST", b"/v2/a/blobs/uploads/"),
    ],
)
def test_nobody_is_authorized_before_he_is_known(
    guarded: Guarded, method: bytes, target: bytes, user: str | None
) -> None:
    """401 with the challenge, whatever the rules say, and nothing upstream."""
    answer = guarded.ask(request(method, target, user=user))

    check_own(answer, 401, "UNAUTHORIZED")
    assert answer[b"www-authenticate"] == CHALLENGE
    assert guarded.registry.connections == []


def test_d24_a_401_does_not_tell_which_repositories_exist(guarded: Guarded) -> None:
    """The same bytes for all of them, for no and for wrong credentials."""
    seen = set()
    for user in (None, "stranger"):
        for target in (b"/v2/", MANIFEST, b"/v2/other/tags/list", b"/v2/other/blobs/" + D):
            client = guarded.world.client()
            client.send(request(b"GET", target, user=user))
            seen.add(client.take())

    assert len(seen) == 1


@pytest.mark.parametrize(
    ("method", "target", "user", "body"),
    [
        (b"GET", b"/v2/", None, b""),
        (b"GET", b"/v2/A/tags/list", None, b""),
        (b"GET", b"/nowhere", None, b""),
        (b"GET", b"/", None, b""),
        (b"GET", b"/v2/_catalog", "reader", b""),
    ],
)
def test_head_gets_the_same_fields_and_no_body(
    method: bytes, target: bytes, user: str | None, body: bytes
) -> None:
    """RFC 9110 section 9.3.2, for regguard's own answers, too."""
    guarded = Guarded(Policy(catalog=Who.parse("nobody")))
    client = guarded.world.client()
    client.send(request(method, target, user=user))
    whole = client.take()
    client.send(request(b"HEAD", target, user=user))
    head, _, body = whole.partition(b"\r\n\r\n")

    assert body
    assert client.take() == head + b"\r\n\r\n"
    guarded.world.close()


def test_f01_the_log_gets_the_name_of_who_was_verified_only(guarded: Guarded) -> None:
    """A claimed name is no name."""
    guarded.ask(request(b"PUT", MANIFEST, user="reader"))
    guarded.ask(request(b"GET", MANIFEST, user="stranger"))

    assert [(e.status, e.user_name) for e in guarded.world.ended] == [(403, "reader"), (401, None)]


# -- denials ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "message", "rule"),
    [
        (
            b"PUT",
            MANIFEST,
            "user reader may pull but not push team/app: push needs group:pusher",
            "push = group:pusher",
        ),
        (
            b"POST",
            b"/v2/team/app/blobs/uploads/",
            "user reader may pull but not push team/app: push needs group:pusher",
            "push = group:pusher",
        ),
        (
            b"DELETE",
            MANIFEST,
            "user reader may pull but not delete team/app: delete needs group:pusher",
            "delete = group:pusher",
        ),
    ],
)
def test_d10_a_denial_names_user_action_repository_and_rule(
    guarded: Guarded, method: bytes, target: bytes, message: str, rule: str
) -> None:
    """docker prints the message of a 4xx; nothing went upstream."""
    error = check_own(guarded.ask(request(method, target)), 403, "DENIED")

    incident = error["detail"]["incident"]
    assert re.fullmatch("[0-9a-f]{8}", incident)
    assert error == {
        "code": "DENIED",
        "message": f"{message} (incident {incident})",
        "detail": {"rule": rule, "incident": incident},
    }
    assert guarded.registry.connections == []


@pytest.mark.parametrize("lines", [(), (b"Expect: 100-continue",)])
@pytest.mark.parametrize("user", [None, "reader"])
def test_a23_d10_a_refused_upload_is_answered_before_its_body(
    guarded: Guarded, lines: tuple[bytes, ...], user: str | None
) -> None:
    """With and without Expect: one final answer, no 100, no octet upstream."""
    client = guarded.world.client()
    client.send(request(b"PATCH", b"/v2/team/app/blobs/uploads/1", *lines,
                        b"Content-Length: 5000000000", user=user))  # fmt: skip

    octets = client.take()
    assert octets.startswith(b"HTTP/1.1 403" if user else b"HTTP/1.1 401")
    assert octets.count(b"HTTP/1.1 ") == 1
    client.send(bytes(1024 * 1024))
    assert guarded.registry.connections == []


def test_d01_a_mount_from_a_hidden_repository_is_an_upload_start() -> None:
    """mount and from are stripped, so the push goes on with 202."""
    guarded = Guarded(Policy(pull=Who.parse("user:boss")))
    client = guarded.world.client()
    client.send(
        request(
            b"POST",
            b"/v2/team/app/blobs/uploads/?mount=" + D + b"&from=secret",
            b"Content-Length: 0",
            user="writer",
        )
    )

    upstream = read_request(guarded.registry.last.take())
    assert upstream.target == b"/v2/team/app/blobs/uploads/"
    assert upstream[b"content-type"] == b"application/octet-stream"
    guarded.world.close()


def test_what_goes_up_is_the_canonical_target(guarded: Guarded) -> None:
    """/v2 is asked for, /v2/ goes up."""
    client = guarded.world.client()
    client.send(request(b"GET", b"/v2"))

    assert read_request(guarded.registry.last.take()).target == b"/v2/"


def test_b09_the_password_never_goes_up(guarded: Guarded, log_lines: list[str]) -> None:
    """And the name does."""
    client = guarded.world.client()
    client.send(request(b"GET", MANIFEST))
    octets = guarded.registry.last.take()
    guarded.registry.last.reset()

    assert credential("reader")[6:] not in octets
    assert read_request(octets)[b"x-forwarded-user"] == b"reader"
    assert not any(CANARY in line or "cmVhZGVy" in line for line in log_lines)


# -- / and old clients -----------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_the_root_welcomes_everybody(guarded: Guarded, method: bytes) -> None:
    """One friendly line for balancers' probes, without credentials."""
    answer = guarded.ask(request(method, b"/", user=None))

    assert answer.status == 200
    assert answer[b"content-type"] == b"text/plain; charset=utf-8"
    assert answer[b"x-content-type-options"] == b"nosniff"
    if method == b"GET":
        assert answer.body.count(b"\n") == 1
    assert guarded.authenticator.asked == []


AGENTS = [
    (b"docker/1.3", False),
    (b"docker/1.3.3 go/go1.3", False),
    (b"docker/1.4.1 go/go1.3.3 kernel/3.13", False),
    (b"docker/1.5.0", False),
    (b"docker/1.5.0-dev", True),
    (b"docker/1.5.1-dev go/x", True),
    (b"docker/1.6.0", True),
    (b"docker/1.13.1 go/go1.7.5", True),
    (b"docker/20.10.24+dfsg1 go/go1.19.8", True),
    (b"Go 1.1 package http", False),
    (b"Go-http-client/1.1", True),
    (b"containerd/1.6 docker/1.3", True),
    (b"skopeo/1.9", True),
    (b"", True),
]


@pytest.mark.parametrize(("agent", "welcome"), AGENTS)
def test_docker_before_1_6_gets_404(guarded: Guarded, agent: bytes, welcome: bool) -> None:
    """The nginx recipe's rule, before any password is looked at."""
    answer = guarded.ask(request(b"GET", b"/v2/", b"User-Agent: " + agent, user=None))

    if welcome:
        assert answer.status == 401
    else:
        error = check_own(answer, 404, "UNSUPPORTED")
        assert error["message"] == "docker before 1.6 is not supported"
        assert guarded.authenticator.asked == []


# -- deciding later --------------------------------------------------------------------------


def test_a_verification_may_take_its_time(guarded: Guarded) -> None:
    """The request waits, then goes up."""
    guarded.authenticator.later = []
    client = guarded.world.client()
    client.send(request(b"GET", MANIFEST))
    assert client.take() == b""
    assert guarded.registry.connections == []
    guarded.authenticator.later.pop().callback(READER)
    guarded.world.reactor.turn()

    guarded.registry.last.send(OK)
    assert guarded.answer_of(client).body == b"ok"


def test_a23_continue_waits_for_the_verification(guarded: Guarded) -> None:
    """And the body stays with the client meanwhile."""
    guarded.authenticator.later = []
    client = guarded.world.client()
    client.send(request(b"PUT", MANIFEST, b"Expect: 100-continue", b"Content-Length: 2"))
    assert client.take() == b""
    guarded.authenticator.later.pop().callback(WRITER)
    guarded.world.reactor.turn()
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hi")

    assert read_request(guarded.registry.last.take()).body == b"hi"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Unauthenticated("wrong user name or password", "reader"), 401, "UNAUTHORIZED"),
        (Overloaded(), 503, "UNAVAILABLE"),
        (CheckerFailed(), 503, "UNAVAILABLE"),
        (Undecided(), 503, "UNAVAILABLE"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("later", [True, False])
def test_e11_who_is_not_known_is_refused(
    guarded: Guarded, failure: Exception, status: int, code: str, later: bool
) -> None:
    """401 for who is not, 503 with Retry-After where there is no telling."""
    client = guarded.world.client()
    if later:
        guarded.authenticator.later = []
        client.send(request(b"GET", MANIFEST))
        guarded.authenticator.later.pop().errback(failure)
        guarded.world.reactor.turn()
    else:
        guarded.authenticator.failure = failure
        client.send(request(b"GET", MANIFEST))

    guarded.wait_for_held_answers()
    answer = guarded.answer_of(client)
    check_own(answer, status, code)
    assert answer.all(b"retry-after") == ([b"5"] if status == 503 else [])
    assert len(answer.all(b"www-authenticate")) == (status == 401)
    assert guarded.registry.connections == []


@pytest.mark.parametrize("failure", [RuntimeError("canary"), ValueError(), KeyError("x")])
@pytest.mark.parametrize("later", [True, False])
def test_an_error_on_the_way_to_a_decision_is_a_refusal(
    guarded: Guarded, logged: list[Any], failure: Exception, later: bool
) -> None:
    """500 that says nothing, a logged failure, and nothing upstream."""
    client = guarded.world.client()
    if later:
        guarded.authenticator.later = []
        client.send(request(b"GET", MANIFEST))
        guarded.authenticator.later.pop().errback(failure)
        guarded.world.reactor.turn()
    else:
        guarded.authenticator.failure = failure
        client.send(request(b"GET", MANIFEST))

    error = check_own(guarded.answer_of(client), 500, "UNKNOWN")
    assert error["message"] == "internal error"
    assert guarded.registry.connections == []
    assert [each.type for each in logged] == [type(failure)]
    logged.clear()


class BrokenPolicy(Policy):
    """Fails to decide."""

    __slots__ = ()

    def decide(self, *_: Any) -> Any:
        raise RuntimeError("no verdict")


class SilentPolicy(Policy):
    """Decides nothing."""

    __slots__ = ()

    def decide(self, *_: Any) -> Any:
        return None


@pytest.mark.parametrize("policy", [BrokenPolicy(), SilentPolicy()])
@pytest.mark.parametrize("later", [True, False])
def test_a_policy_that_fails_grants_nothing(logged: list[Any], policy: Policy, later: bool) -> None:
    """Nor does one without a verdict."""
    guarded = Guarded(policy)
    client = guarded.world.client()
    if later:
        guarded.authenticator.later = []
    client.send(request(b"GET", MANIFEST))
    if guarded.authenticator.later:
        guarded.authenticator.later.pop().callback(WRITER)
        guarded.world.reactor.turn()

    check_own(guarded.answer_of(client), 500, "UNKNOWN")
    assert guarded.registry.connections == []
    assert len(logged) == 1
    logged.clear()
    guarded.world.close()


@pytest.mark.parametrize("later", [True, False])
def test_i27_a_fault_in_the_relay_frees_everything(
    logged: list[Any], monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    """500 for the client, and no exchange or connection stays behind."""
    guarded = Guarded()
    guarded.authenticator.later = [] if later else None
    client = guarded.world.client()
    monkeypatch.setattr(guarded.world.upstream, "connect", lambda: 1 / 0)
    client.send(request(b"GET", MANIFEST))
    if guarded.authenticator.later:
        guarded.authenticator.later.pop().callback(READER)
        guarded.world.reactor.turn()

    check_own(guarded.answer_of(client), 500, "UNKNOWN")
    assert guarded.world.relay.exchanges == set()
    assert [each.type for each in logged] == [ZeroDivisionError]
    logged.clear()
    guarded.world.close()


@pytest.mark.parametrize("outcome", [READER, Unauthenticated("wrong"), Overloaded()])
@pytest.mark.parametrize("end", ["end", "reset"])
def test_a_client_that_leaves_while_it_is_verified_starts_nothing(
    guarded: Guarded, outcome: User | Exception, end: str
) -> None:
    """Whatever the verification says then; a half-closed one is still there."""
    guarded.authenticator.later = []
    client = guarded.world.client()
    client.send(request(b"GET", MANIFEST))
    getattr(client, end)()
    waiting = guarded.authenticator.later.pop()
    if not waiting.called:
        if isinstance(outcome, Exception):
            waiting.errback(outcome)
        else:
            waiting.callback(outcome)
    guarded.world.reactor.turn()

    if end == "reset":
        assert guarded.registry.connections == []
        assert client.take() == b""
    elif outcome is READER:
        guarded.registry.last.send(OK)
        assert guarded.answer_of(client).body == b"ok"
    else:
        guarded.wait_for_held_answers()
        assert guarded.answer_of(client).status in (401, 503)


def test_e11_a_client_that_leaves_gives_its_place_in_the_queue_back(guarded: Guarded) -> None:
    """A flood of wrong passwords whose senders are gone needs no hashing."""
    guarded.authenticator.later = []
    client = guarded.world.client()
    client.send(request(b"GET", MANIFEST))
    client.reset()

    assert guarded.authenticator.cancelled == 1
    assert guarded.registry.connections == []


def test_a_body_that_breaks_while_its_sender_is_verified_is_answered_once(
    guarded: Guarded,
) -> None:
    """400 from the door; the verification's outcome does not matter any more."""
    guarded.authenticator.later = []
    client = guarded.world.client()
    client.send(request(b"PUT", MANIFEST, b"Content-Length: 9"))
    client.end()
    waiting = guarded.authenticator.later.pop()
    if not waiting.called:
        waiting.callback(WRITER)
    guarded.world.reactor.turn()

    assert guarded.answer_of(client, b"PUT").status == 400
    assert guarded.registry.connections == []


def test_a_second_request_is_not_mistaken_for_the_first(guarded: Guarded) -> None:
    """A verdict for a request that is gone must not serve the next one on the connection."""
    guarded.authenticator.later = []
    client = guarded.world.client()
    client.send(request(b"GET", MANIFEST) + request(b"PUT", MANIFEST, b"Content-Length: 0"))
    assert len(guarded.authenticator.later) == 1
    guarded.authenticator.later[0].errback(Unauthenticated("wrong"))
    guarded.world.reactor.turn()
    assert len(guarded.authenticator.later) == 2
    guarded.authenticator.later[1].callback(READER)
    guarded.world.reactor.turn()

    answers = read_answers(client.take(), b"GET", b"PUT")
    assert [answer.status for answer in answers] == [401, 403]


def test_a32_pipelined_requests_are_authenticated_each_and_answered_in_order(
    guarded: Guarded,
) -> None:
    """A slow first and a quick second stay in order (CVE-2023-46137, CVE-2024-41671)."""
    client = guarded.world.client()
    client.send(
        request(b"GET", MANIFEST, user="reader")
        + request(b"GET", MANIFEST, user=None)
        + request(b"DELETE", MANIFEST, user="reader")
        + request(b"GET", b"/v2/x/tags/list", user="writer")
    )
    assert client.take() == b""
    first = guarded.registry.last
    assert read_request(first.take())[b"x-forwarded-user"] == b"reader"
    first.send(OK)
    assert read_request(first.take())[b"x-forwarded-user"] == b"writer"
    first.send(OK)

    answers = read_answers(client.take(), b"GET", b"GET", b"DELETE", b"GET")
    assert [answer.status for answer in answers] == [200, 401, 403, 200]
    assert guarded.authenticator.asked == [
        credential("reader"),
        None,
        credential("reader"),
        credential("writer"),
    ]


# -- the registry's failures -----------------------------------------------------------------


def test_i01_a_registry_that_is_down_is_unavailable(guarded: Guarded, log_lines: list[str]) -> None:
    """502 in words that docker's users can pass on, and one line for the operator in all."""
    guarded.registry.failure = refused()
    for _ in range(3):
        answer = guarded.ask(request(b"GET", MANIFEST))

        error = check_own(answer, 502, "UNAVAILABLE")
        assert error["message"] == "the registry refuses connections"
    assert log_lines == [
        "the registry http://127.0.0.1:5000 is down: Connection was refused by other side"
    ]


def test_i04_an_answer_that_is_no_http_is_a_line_each_time(
    guarded: Guarded, log_lines: list[str]
) -> None:
    """It concerns this request alone, so nothing else tells of it."""
    client = guarded.world.client()
    client.send(request(b"GET", MANIFEST))
    guarded.registry.last.send(b"SSH-2.0-OpenSSH_9.2\r\n")

    check_own(guarded.answer_of(client, b"GET"), 502, "UNAVAILABLE")
    assert log_lines == ["502 for reader: the registry's answer is broken: malformed status line"]


def test_h11_503_says_when_to_come_again(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where too much is under way."""
    monkeypatch.setattr("regguard.relay.exchange.MAX_EXCHANGES", 0)
    monkeypatch.setattr("regguard.relay.exchange.MAX_OF_ONE", 0)
    answer = guarded.ask(request(b"GET", MANIFEST))

    check_own(answer, 503, "UNAVAILABLE")
    assert answer[b"retry-after"] == b"5"


def test_before_there_is_a_relay_everything_granted_is_503() -> None:
    """And everything else is as ever."""
    guarded = Guarded()
    guarded.guard._relay = None

    assert guarded.ask(request(b"GET", MANIFEST))[b"retry-after"] == b"5"
    assert guarded.ask(request(b"PUT", MANIFEST)).status == 403
    guarded.world.close()


# -- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("realm", "value"),
    [
        ("Registry", b'Basic realm="Registry", charset="UTF-8"'),
        ('a "b" \\c', b'Basic realm="a \\"b\\" \\\\c", charset="UTF-8"'),
        ("Ünïcode", 'Basic realm="Ünïcode", charset="UTF-8"'.encode()),
    ],
)
def test_d24_the_challenge_quotes_its_realm(realm: str, value: bytes) -> None:
    """RFC 9110 section 5.6.4; one challenge."""
    guarded = Guarded(realm=realm)

    assert guarded.ask(request(b"GET", b"/v2/", user=None))[b"www-authenticate"] == value
    guarded.world.close()


@pytest.mark.parametrize("name", ["<script>", "jürgen", "\u202e", 'a"b', "\ud800"])
def test_f04_messages_are_json_of_ascii_never_html(name: str) -> None:
    """Whatever a user is called, and browsers are told not to guess."""
    answer = answers.error(403, "DENIED", f"user {name}", detail={"user": name})

    assert answer.body.isascii()
    assert json.loads(answer.body)["errors"] == [
        {"code": "DENIED", "message": f"user {name}", "detail": {"user": name}}
    ]
    assert b"Content-Type: application/json" in answer.fields
    assert b"X-Content-Type-Options: nosniff" in answer.fields


@pytest.mark.parametrize(
    "target", [b"/<script>alert(1)</script>", b"/v2/<b>/manifests/1", b"/v2/a/manifests/<b>"]
)
def test_f04_a_refusal_does_not_reflect_the_target(guarded: Guarded, target: bytes) -> None:
    """Raw input of a client has no place in an answer (CVE-2022-39348)."""
    answer = guarded.ask(request(b"GET", target))

    assert b"<" not in answer.body
    assert answer.status in (400, 404)

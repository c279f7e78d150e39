"""What happens to a request, in which order.

The order of acts is fixed: the head is parsed, the target understood, the caller authenticated
and authorized; only then comes ``100 Continue`` and the first octet upstream.  An error on the
way to a decision is a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from contextlib import ExitStack
from secrets import token_bytes, token_hex
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from regguard import answers
from regguard.access import Access, Denial, Grant, Policy, Refusal, parse_access
from regguard.auth.authenticator import Authenticator
from regguard.auth.interfaces import Throttled, Unauthenticated, Undecided
from regguard.auth.realm import User
from regguard.guard.catalog import catalog_page
from regguard.guard.missing import elsewhere, is_missing, no_such_repository
from regguard.guard.tags import (
    LARGEST_MANIFEST,
    MOST_OCTETS,
    MOST_OCTETS_OF_ONE,
    Turns,
    check_deletion,
    check_tags,
)
from regguard.relay import Allowance, BodyTooLong, Relay, UpstreamFailure, read_whole

T = TypeVar("T")

RETRY_AFTER = 5
"""Seconds after which a client should come again when too much is under way.  podman reads it;
docker's login gives up after 15."""

HOLD = 1.0
"""Seconds for which 429, and 503 to who is not known yet, are held back, so that a flood of tries
is as slow as it has connections.  containerd comes again at once, too, up to six times."""
_SPREAD = 100
"""Steps over which held answers spread between one and two of these times: two hundred clients
that were put off together would otherwise come back together."""

# The nginx recipe's rule: docker before 1.6 speaks another protocol to the same paths.
_OLD_DOCKER = re.compile(rb"docker/1\.(?:3|4|5(?!\.[0-9]-dev))|Go ")


@implementer(IResource)
class GuardResource:
    """The one leaf resource: decides on every request and hands the granted ones on."""

    isLeaf = True

    def __init__(
        self, authenticator: Authenticator, policy: Policy, realm: str, clock: IReactorTime
    ) -> None:
        self._clock = clock
        self._held = 0
        self._authenticator = authenticator
        self.policy = policy
        self._challenge = answers.challenge(realm)
        self._relay: Relay | None = None
        self._turns = Turns()
        self._allowance = Allowance(MOST_OCTETS, MOST_OCTETS_OF_ONE)
        self._key = token_bytes(16)
        self._log = Logger(namespace="regguard.guard")

    def relay_through(self, relay: Relay) -> None:
        """Set the relay; granted requests get 503 before."""
        self._relay = relay

    def getChildWithDefault(self, name: bytes, request: Any) -> GuardResource:
        """A leaf has no children; it answers for all paths."""
        return self

    def putChild(self, path: bytes, child: Any) -> None:
        """A leaf takes no children."""
        raise TypeError("GuardResource is a leaf")

    def render(self, request: Any) -> int:
        """Answer or relay ``request`` (a ``front.Request``)."""
        head = request.head
        if head.target == b"/" and head.method in (b"GET", b"HEAD"):
            request.answer(answers.welcome())
            return NOT_DONE_YET
        try:
            access = request.access = parse_access(head.method, head.target)
        except Refusal as refusal:
            more = () if refusal.allow is None else (b"Allow: " + refusal.allow,)
            request.answer(answers.error(refusal.status, refusal.code, refusal.message, *more))
            return NOT_DONE_YET
        if head.user_agent is not None and _OLD_DOCKER.match(head.user_agent):
            request.answer(answers.error(404, "UNSUPPORTED", "docker before 1.6 is not supported"))
            return NOT_DONE_YET
        if head.authorization is None and request.certified is not None:
            user = self._authenticator.certified(request.certified)
            self._authenticated(user, request, access)
            return NOT_DONE_YET
        try:
            who = self._authenticator.authenticate(head.authorization, request.client)
        except Unauthenticated:
            request.answer(self._challenge)
            return NOT_DONE_YET
        except Throttled as refusal:
            self._hold_back(request, answers.throttled(refusal.reason, refusal.retry_after))
            return NOT_DONE_YET
        except Undecided as undecided:
            self._hold_back(request, answers.busy(undecided.retry_after))
            return NOT_DONE_YET
        if isinstance(who, User):  # most often; Deferred is abstract, and slow to ask for
            self._authenticated(who, request, access)
        else:
            waiting: Deferred[User] = who
            # Whoever leaves gives up the place in the queue for verification.
            request.when_gone = lambda _: waiting.cancel()
            waiting.addCallbacks(
                self._authenticated, self._not_authenticated, (request, access), {}, (request,)
            )
            waiting.addErrback(self._fault, request)
        return NOT_DONE_YET

    def _authenticated(self, user: User, request: Any, access: Access) -> None:
        if not request.live:
            return
        request.user_name = user.name
        policy = self.policy
        verdict = policy.decide(user.name, user.groups, access)
        relay = self._relay
        if isinstance(verdict, Denial):
            self._deny(request, access, verdict)
        elif relay is None:
            request.answer(answers.busy(RETRY_AFTER))
        elif verdict.unchanged is not None:
            self._run(request, self._write_unchanged(relay, request, user, access, verdict))
        elif access.action == "catalog" and policy.visible(user.name, user.groups) != "all":
            self._run(request, self._catalog(relay, request, user, access))
        elif policy.hides and access.action == "pull":
            self._find(relay, request, access, access.repository, verdict.target)
        else:
            relay.send(request, verdict.target, user.name, access.is_upload)

    def _deny(self, request: Any, access: Access, denial: Denial) -> None:
        """Refuse, and let the user and the operator find each other by the incident's id."""
        hidden = " (hidden)" if denial.hidden else ""
        incident = self._note(request, f"{denial.message}; by {denial.rule}{hidden}")
        request.refused_by = denial.rule
        if not denial.hidden:
            message = f"{denial.message} (incident {incident})"
            detail = {"rule": denial.rule, "incident": incident}
            request.answer(answers.error(403, "DENIED", message, detail=detail))
        elif access.action != "pull":
            request.answer(no_such_repository(access.repository))
        elif self._relay is None:
            request.answer(answers.busy(RETRY_AFTER))
        else:
            self._find(self._relay, request, access, *elsewhere(access, self._key))

    def _note(self, request: Any, message: str) -> str:
        """Let the access log and the log tell of an incident; its id."""
        request.incident = incident = token_hex(4)
        # When the answer is out, so that nobody waits for it.
        request.when_over = lambda: self._log.info(
            "incident {incident}: {message}", incident=incident, message=message
        )
        return incident

    # -- what takes questions to the registry ----------------------------------------------

    def _run(self, request: Any, answering: Coroutine[Any, Any, None]) -> None:
        running: Deferred[None] = Deferred.fromCoroutine(answering)
        running.addErrback(self._not_answered, request)
        running.addErrback(self._fault, request)

    def _not_answered(self, failure: Failure, request: Any) -> None:
        if isinstance(failure.value, UpstreamFailure):
            self.upstream_failed(request, failure.value)
        elif not failure.check(CancelledError) or (request.live and request.when_gone):
            failure.raiseException()  # else by when_gone itself: nobody is there

    async def _catalog(self, relay: Relay, request: Any, user: User, access: Access) -> None:
        page = catalog_page(relay, user, self.policy, access)
        request.answer(await _while_there(request, page))

    def _find(
        self, relay: Relay, request: Any, access: Access, repository: str, target: bytes
    ) -> None:
        """Pull where some repositories are hidden; for those another ``repository`` stands in."""

        def missing() -> None:
            self._run(request, self._missing(relay, request, access, repository, target))

        relay.send(request, target, request.user_name, False, on_error=missing)

    async def _missing(
        self, relay: Relay, request: Any, access: Access, repository: str, target: bytes
    ) -> None:
        """Answer where the registry said an error, and another repository may be hidden."""
        user_name = request.user_name
        missing = await _while_there(request, is_missing(relay, user_name, repository))
        if repository != access.repository:
            request.answer(no_such_repository(access.repository))
        elif missing:
            # As for a hidden one: the next request must not tell by when it is answered whether
            # there was something to log.
            self._note(request, f"user {user_name} may pull {repository}, which is missing")
            request.answer(no_such_repository(repository))
        else:
            # The repository is there, and what it lacks the registry says best.  The body, if a
            # GET had one, is gone: to promise it again would swallow whatever comes next there.
            body = b"" if request.head.has_body else None
            relay.send(request, target, user_name, False, body=body)

    async def _write_unchanged(
        self, relay: Relay, request: Any, user: User, access: Access, grant: Grant
    ) -> None:
        """Relay a write unless an immutable tag would change by it."""
        unchanged = grant.unchanged
        assert unchanged is not None
        try:
            # Whole before its turn: a slow client must not keep the others waiting.
            reading = read_whole(request, LARGEST_MANIFEST, self._allowance)
            body = await _while_there(request, reading)
        except BodyTooLong as error:
            request.answer(answers.error(413, "SIZE_INVALID", str(error)))
            return
        # What is given back when the registry has the write, or nobody will send it.
        held = ExitStack()
        held.callback(self._allowance.give_back, user.name, len(body))
        try:
            turn = await _while_there(request, self._turns.take(access.repository))
            held.callback(turn.end)
            if unchanged.deletes is None:
                check = check_tags(relay, user.name, access, unchanged, body)
            else:
                check = check_deletion(relay, user.name, access, unchanged)
            denial = await _while_there(request, check)
            if denial is None:
                relay.send(request, grant.target, user.name, False, body=body, when_done=held.close)
            else:
                held.close()
                self._deny(request, access, denial)
        except BaseException:
            held.close()
            raise

    def _not_authenticated(self, failure: Failure, request: Any) -> None:
        if failure.check(CancelledError) and request.when_gone is None:
            pass  # by when_gone itself: nobody is there
        elif isinstance(failure.value, Undecided):
            self._hold_back(request, answers.busy(failure.value.retry_after))
        elif failure.check(Unauthenticated):
            request.answer(self._challenge)
        else:
            failure.raiseException()

    def _fault(self, failure: Failure, request: Any) -> None:
        self._log.failure("fault on the way to a decision", failure=failure)
        when_gone, request.when_gone = request.when_gone, None
        if when_gone is not None:
            when_gone("internal error")
        if request.live and not request.status:
            request.answer(answers.error(500, "UNKNOWN", "internal error"))
        elif request.live:
            request.abort()

    def _hold_back(self, request: Any, answer: answers.Answer) -> None:
        """Answer after a while, unless the client goes before."""
        self._held = (self._held + 1) % _SPREAD
        delay = HOLD * (1 + self._held / _SPREAD)
        held = self._clock.callLater(delay, request.answer, answer)
        request.when_gone = lambda reason: held.cancel()

    def upstream_failed(self, request: Any, failure: UpstreamFailure) -> None:
        """Answer a granted request whose response did not begin."""
        if not failure.is_logged:
            self._log.warn(
                "{status} for {user}: {reason}",
                status=failure.status,
                user=request.user_name,
                reason=failure.message,
            )
        if request.live:
            more = (b"Retry-After: %d" % RETRY_AFTER,) if failure.status == 503 else ()
            request.answer(answers.error(failure.status, "UNAVAILABLE", failure.message, *more))


async def _while_there(request: Any, awaited: Coroutine[Any, Any, T] | Deferred[T]) -> T:
    """Await something, and give it up when the client leaves.

    Where that ends in CancelledError, ``when_gone`` tells why: it is not set any more if the client
    has left.
    """
    waiting = awaited if isinstance(awaited, Deferred) else Deferred.fromCoroutine(awaited)
    request.when_gone = lambda _: waiting.cancel()
    return await waiting

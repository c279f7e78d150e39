"""What happens to a request, in which order.

The order of acts is fixed: the head is parsed, the target understood, the caller authenticated
and authorized; only then comes ``100 Continue`` and the first octet upstream.  An error on the
way to a decision is a refusal.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from secrets import token_hex
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
from regguard.guard.missing import ask_in_vain, is_missing, no_such_repository
from regguard.guard.tags import LARGEST_MANIFEST, Turns, check_deletion, check_tags
from regguard.relay import BodyTooLong, Relay, UpstreamFailure, read_whole

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
            access = parse_access(head.method, head.target)
        except Refusal as refusal:
            more = () if refusal.allow is None else (b"Allow: " + refusal.allow,)
            request.answer(answers.error(refusal.status, refusal.code, refusal.message, *more))
            return NOT_DONE_YET
        if head.user_agent is not None and _OLD_DOCKER.match(head.user_agent):
            request.answer(answers.error(404, "UNSUPPORTED", "docker before 1.6 is not supported"))
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
        if isinstance(who, Deferred):
            waiting: Deferred[User] = who
            # Whoever leaves gives up the place in the queue for verification.
            request.when_gone = lambda _: waiting.cancel()
            waiting.addCallbacks(
                self._authenticated, self._not_authenticated, (request, access), {}, (request,)
            )
            waiting.addErrback(self._fault, request)
        else:
            self._authenticated(who, request, access)
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
            relay.send(
                request,
                verdict.target,
                user.name,
                False,
                on_missing=lambda: self._run(
                    request, self._missing(relay, request, user, access, verdict)
                ),
            )
        else:
            relay.send(request, verdict.target, user.name, access.is_upload)

    def _deny(self, request: Any, access: Access, denial: Denial) -> None:
        """Refuse, and let the user and the operator find each other by the incident's id."""
        request.incident = incident = token_hex(4)
        self._log.info(
            "incident {incident}: {message}; by {rule}{hidden}",
            incident=incident,
            message=denial.message,
            rule=denial.rule,
            hidden=" (hidden)" if denial.hidden else "",
        )
        if not denial.hidden:
            message = f"{denial.message} (incident {incident})"
            detail = {"rule": denial.rule, "incident": incident}
            request.answer(answers.error(403, "DENIED", message, detail=detail))
        elif access.action == "pull" and self._relay is not None:
            self._run(request, self._hide(self._relay, request, access))
        else:
            request.answer(no_such_repository(access.repository))

    # -- what takes questions to the registry ----------------------------------------------

    def _run(self, request: Any, answering: Coroutine[Any, Any, None]) -> None:
        running: Deferred[None] = Deferred.fromCoroutine(answering)
        running.addErrback(self._not_answered, request)
        running.addErrback(self._fault, request)

    def _not_answered(self, failure: Failure, request: Any) -> None:
        if isinstance(failure.value, UpstreamFailure):
            self.upstream_failed(request, failure.value)
        elif not failure.check(_ClientGone):
            failure.raiseException()

    async def _catalog(self, relay: Relay, request: Any, user: User, access: Access) -> None:
        page = catalog_page(relay, user, self.policy, access)
        request.answer(await _while_there(request, page))

    async def _hide(self, relay: Relay, request: Any, access: Access) -> None:
        in_vain = ask_in_vain(relay, request.user_name, request.head.method, access)
        await _while_there(request, in_vain)
        request.answer(no_such_repository(access.repository))

    async def _missing(
        self, relay: Relay, request: Any, user: User, access: Access, grant: Grant
    ) -> None:
        """Answer where the registry said 404, and another repository may be hidden."""
        if await _while_there(request, is_missing(relay, user.name, access.repository)):
            request.answer(no_such_repository(access.repository))
        else:
            # The repository is there, and what it lacks the registry says best.  The body, if a
            # GET had one, is gone: to promise it again would swallow whatever comes next there.
            body = b"" if request.head.has_body else None
            relay.send(request, grant.target, user.name, False, body=body)

    async def _write_unchanged(
        self, relay: Relay, request: Any, user: User, access: Access, grant: Grant
    ) -> None:
        """Relay a write unless an immutable tag would change by it."""
        unchanged = grant.unchanged
        assert unchanged is not None
        body = None
        if unchanged.deletes is None:
            # Whole before its turn: a slow client must not keep the others waiting.
            try:
                body = await _while_there(request, read_whole(request, LARGEST_MANIFEST))
            except BodyTooLong as error:
                request.answer(answers.error(413, "SIZE_INVALID", str(error)))
                return
        await _while_there(request, self._turns.take(access.repository))
        try:
            if body is None:
                check = check_deletion(relay, user.name, access, unchanged)
            else:
                check = check_tags(relay, user.name, access, unchanged, body)
            denial = await _while_there(request, check)
        except BaseException:
            self._turns.give_back(access.repository)
            raise
        request.when_over = lambda: self._turns.give_back(access.repository)
        if denial is not None:
            self._deny(request, access, denial)
        else:
            relay.send(request, grant.target, user.name, False, body=body)

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
    """Await something, and give it up when the client leaves."""
    waiting = awaited if isinstance(awaited, Deferred) else Deferred.fromCoroutine(awaited)
    is_gone = False

    def give_up(reason: str) -> None:
        nonlocal is_gone
        is_gone = True
        waiting.cancel()

    request.when_gone = give_up
    try:
        return await waiting
    except CancelledError:
        if is_gone:
            raise _ClientGone from None
        raise
    finally:
        request.when_gone = None


class _ClientGone(Exception):
    """Nobody is there to be answered."""

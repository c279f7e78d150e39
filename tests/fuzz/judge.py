"""What has to hold for every stream.

1. What the registry got is what the guard granted, in its order, and what h11 reads in the client's
   stream: method, target, user, fields, body.  A request that h11 or regguard finds broken or cut
   is cut there, too.
2. Every request that was taken or refused got one answer, in order, and nothing follows the last.
3. Nothing was raised or logged as a fault.
4. No credential went upstream.
5. Nothing is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, unquote_to_bytes

from regguard.access import Access, Denial, Grant
from regguard.guard.missing import elsewhere
from tests.canary import CANARY, spellings
from tests.fuzz.reading import Answer, Head, Reading, Unreadable, read_answer, read_request
from tests.fuzz.world import SECRET, Ended, Received, Record
from tests.guard.world import credential

_CREDENTIALS = {credential(user).partition(b" ")[2]: user for user in ("reader", "writer", "late")}
_CANARIES = re.compile(b"|".join(map(re.escape, spellings(CANARY))))
# regguard's own, each of which stands there exactly once; framing is looked at by itself.
_OURS = (
    b"host",
    b"x-real-ip",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-forwarded-user",
)
_is_upload = re.compile(rb"/v2/[^?]+/blobs/uploads/[^/?]*(?:\?|\Z)").match
_FRAMING = (b"content-length", b"transfer-encoding")
# Groups B and C of the cases: what a client may send and the registry must never see.
_ENDS_HERE = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"upgrade authorization expect forwarded via x-remote-user remote-user x-original-url "
    b"x-rewrite-url http2-settings x-http-method-override x-method-override".split()
)
_GOES_ON = (b"accept", b"range", b"content-range", b"user-agent", b"if-none-match", b"referer")
"""What registries act on (B10): it must arrive, unless Connection lists it."""


class Violation(Exception):
    """``kind`` is the same for the same sort of finding."""

    def __init__(self, kind: str, detail: object = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind


@dataclass
class Verdict:
    """How a stream went, for the count."""

    taken: int = 0
    relayed: int = 0
    refused: int = 0
    cut: int = 0
    statuses: tuple[int, ...] = ()


def judge(record: Record) -> Verdict:
    """Look at everything; raises Violation for the first thing that does not hold."""
    if record.broken:
        raise Violation("upstream", record.broken)
    if record.left:
        raise Violation("left over", record.left)
    readings = _compare_heads(record)
    serials = _compare_answers(record)
    _look_for_lost_requests(record, readings)
    relayed = _compare_upstream(record, readings, serials)
    _look_for_credentials(record, readings)
    return Verdict(
        sum(ended.head is not None for ended in record.ended),
        relayed,
        sum(ended.head is None for ended in record.ended),
        sum(not received.whole for received in record.registry.received),
        tuple(ended.status for ended in record.ended),
    )


# -- the client's stream ---------------------------------------------------------------------------


def _compare_heads(record: Record) -> list[Reading]:
    """The requests that were taken are those that h11 reads, one behind the other."""
    rest = record.plan.stream
    readings: list[Reading] = []
    for ended in record.ended:
        if readings and not readings[-1].whole:
            raise Violation("a request behind one that h11 sees no end of", ended.head)
        if ended.head is None:
            if ended is not record.ended[-1]:
                raise Violation("a request behind a refused one")
            return readings
        try:
            reading = read_request(rest)
        except Unreadable as error:
            raise Violation("h11 refuses what was taken", error) from None
        if reading is None:
            raise Violation("h11 sees no end of a head that was taken")
        _compare_head(ended, reading.head)
        readings.append(reading)
        rest = reading.rest
    return readings


def _compare_head(ended: Ended, theirs: Head) -> None:
    ours = ended.head
    version = b"1.%d" % ours.minor_version
    if (ours.method, ours.target, version) != (theirs.method, theirs.target, theirs.version):
        raise Violation("h11 reads another start line", (ours.method, ours.target, theirs))
    fields = [(k, v.lower() if k == b"transfer-encoding" else v) for _, k, v in ours.fields]
    if tuple(fields) != theirs.fields:
        raise Violation("h11 reads other fields", (fields, theirs.fields))
    if not theirs.has_body and (ours.chunked or ours.content_length):
        raise Violation("h11 sees no body where there was said to be one")


def _look_for_lost_requests(record: Record, readings: list[Reading]) -> None:
    """While the connection is there, each head is taken or refused."""
    plan = record.plan
    last = record.ended[-1] if record.ended else None
    if plan.ending == "reset" or record.rst or record.closed or any(plan.pauses):
        return
    if last is not None and (last.head is None or not last.status):
        return
    rest = readings[-1].rest if readings else plan.stream
    if b"\r\n\r\n" in rest.removeprefix(b"\r\n"):
        raise Violation("a request got lost", rest[:100])


# -- the client's answers --------------------------------------------------------------------------


def _answers(record: Record) -> Iterator[tuple[Answer, Ended]]:
    """The answers with the requests that they belong to."""
    octets = record.answer
    for ended in record.ended:
        if not ended.status:
            continue
        method = b"GET" if ended.head is None else ended.head.method
        while True:
            try:
                answer = read_answer(octets, method, record.fin)
            except Unreadable as error:
                raise Violation("an unreadable answer", error) from None
            if answer is None or answer.head.status >= 200:
                break
            if ended.head is None or not ended.head.expects_continue:
                raise Violation("100 Continue to who does not wait for it")
            octets = answer.rest
        if answer is None:
            if record.rst or record.plan.ending == "reset":
                return
            raise Violation("a request without an answer", ended.head)
        yield answer, ended
        octets = answer.rest
        if not answer.whole and not (record.rst or record.plan.ending == "reset"):
            raise Violation("half an answer that looks ended", answer.head)
    if octets and not octets.startswith(b"HTTP/1.1 100 Continue\r\n\r\n"):
        raise Violation("an answer to no request", octets[:200])


def _compare_answers(record: Record) -> list[int]:
    """One answer to each; returns the registry's serial numbers, 0 where regguard answered."""
    serials = []
    for answer, ended in _answers(record):
        head = answer.head
        if record.closed:
            raise Violation("an answer behind the last one", head)
        if head.status != ended.status:
            raise Violation("the log knows another status", (head, ended.status))
        if ended.head is None and b"close" not in head.options:
            raise Violation("a refused head does not end the connection")
        is_old = ended.head is not None and ended.head.minor_version == 0
        if is_old and head.all(b"transfer-encoding"):
            raise Violation("chunks for HTTP/1.0")
        record.closed = b"close" in head.options
        serials.append(int((head.all(b"x-serial") or [b"0"])[0]))
    return serials


# -- the registry ----------------------------------------------------------------------------------


def _compare_upstream(record: Record, readings: list[Reading], serials: list[int]) -> int:
    """What arrived is what was granted and sent; returns the number of relayed requests."""
    _look_for_clean_ends(record)
    grants = [each for each in record.verdicts if isinstance(each[2], Grant) or each[2].hidden]
    hidden = [access for _, access, verdict in grants if isinstance(verdict, Denial)]
    at, granted, relayed = 0, 0, 0
    before: Received | None = None
    repeated = set()
    for received in record.registry.received:
        if received.is_inquiry:
            _check_inquiry(received, record)
            continue
        _name_what_is_hidden(received, hidden, record.key)
        if before is not None and not _is_again(received, before):
            at, granted = at + 1, granted + 1
        while granted < len(grants) and not _is_granted(received, grants[granted]):
            granted += 1
        if granted == len(grants):
            raise Violation("the registry got what was not granted", received.octets)
        problems = []
        again = before is not None and _is_again(received, before)
        while at < len(readings):
            problem = _difference(received, readings[at], again=again)
            if not problem:
                break
            problems.append(problem)
            at, again = at + 1, False
        if at == len(readings):
            raise Violation("the registry got what was not sent", (received.octets, problems))
        before = received
        relayed += 1
        if again:
            repeated.add(received.serial)
    _pair_answers(record, readings, serials, repeated)
    return relayed


def _name_what_is_hidden(received: Received, hidden: list[Access], key: bytes) -> None:
    """A request for a hidden repository arrives with the name of none in its place."""
    for access in hidden:
        if received.head.target == elsewhere(access, key)[1]:
            received.head = replace(received.head, target=access.target)
            received.stands_in = True
            return


def _is_again(received: Received, before: Received) -> bool:
    """Whether it may be the same request for the second time.

    Only what reads is sent twice: over a fresh connection where a kept-alive one had ended, and
    after an error that may have been for a hidden repository.
    """
    head, other = received.head, before.head
    return (
        head.method in (b"GET", b"HEAD")
        and (head.method, head.target) == (other.method, other.target)
        and (not before.status or before.status >= b"400")
    )


def _pair_answers(
    record: Record, readings: list[Reading], serials: list[int], repeated: set[int]
) -> None:
    received = {each.serial: each for each in record.registry.received}
    for number, serial in enumerate(serials):
        if serial and (
            received[serial].is_inquiry
            or _difference(received[serial], readings[number], again=serial in repeated)
        ):
            raise Violation("the answer to another request", received[serial].octets)
    answered = [serial for serial in serials if serial]
    if answered != sorted(set(answered)):
        raise Violation("answers in another order", serials)


def _look_for_clean_ends(record: Record) -> None:
    for link in record.registry.links:
        is_partial = bool(link.partial) or (bool(link.requests) and not link.requests[-1].whole)
        if is_partial and not link.peer.was_reset and not link.ended_first:
            raise Violation("a cut request ended cleanly", link.partial or link.requests[-1].octets)


def _is_granted(received: Received, grant: tuple[str, Access, Grant | Denial]) -> bool:
    name, access, verdict = grant
    is_grant = isinstance(verdict, Grant)
    target = verdict.target if isinstance(verdict, Grant) else access.target
    return (
        received.stands_in is not is_grant
        and received.head.target == target
        and received.head.all(b"x-forwarded-user") == [name.encode()]
    )


def _difference(received: Received, reading: Reading, *, again: bool) -> str:
    """What tells a request at the registry from one of the client's; empty if nothing does.

    ``again``: it may be there for the second time, and then without its body.
    """
    theirs, sent = received.head, reading.head
    user = _user_of(sent)
    if theirs.method != sent.method:
        return "method"
    if not _is_same_target(theirs.target, sent.target):
        return "target"
    if user is None or theirs.all(b"x-forwarded-user") != [user.encode()]:
        return "user"
    if user == "reader" and theirs.method not in (b"GET", b"HEAD"):
        return "a reader who writes"
    is_secret = unquote_to_bytes(theirs.target).startswith(SECRET)
    if user != "writer" and is_secret and not received.stands_in:
        return "a reader of what is secret"
    if received.whole:
        is_same = reading.whole and received.body == reading.body
        if not is_same and not (again and not received.body):
            return "body"
    elif again and not received.body and reading.whole:
        return "a body that was sent before"
    if not received.whole and not reading.body.startswith(received.body):
        return "beginning of the body"
    return _difference_of_fields(theirs, sent)


def _user_of(sent: Head) -> str | None:
    values = sent.all(b"authorization")
    if len(values) != 1:
        return None
    scheme, _, rest = values[0].partition(b" ")
    return _CREDENTIALS.get(rest.lstrip(b" ")) if scheme.lower() == b"basic" else None


def _is_same_target(theirs: bytes, sent: bytes) -> bool:
    if theirs == sent:
        return True
    path, _, query = sent.partition(b"?")
    their_path, _, their_query = theirs.partition(b"?")
    if their_path != (b"/v2/" if path == b"/v2" else path):
        return False
    if _is_upload(sent) is None:
        return query.strip(b"&") == their_query
    pairs, their_pairs = (
        parse_qsl(each.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
        for each in (query, their_query)
    )
    mount = ("mount", "from", "origin")
    if [p for p in pairs if p[0] not in mount] != [p for p in their_pairs if p[0] not in mount]:
        return False
    their_mount = dict(p for p in their_pairs if p[0] in mount)
    sent_mount = dict(p for p in pairs if p[0] in mount)
    return not their_mount or their_mount == sent_mount


def _difference_of_fields(theirs: Head, sent: Head) -> str:
    host = (sent.all(b"host") or [b"127.0.0.1:5000"])[0]
    # A Host that is there and empty is refused, so this one is the registry's own.
    ours = {
        b"host": host,
        b"x-forwarded-host": host,
        b"x-real-ip": b"192.0.2.7",
        b"x-forwarded-for": b"192.0.2.7",
    }
    for name in _OURS:
        values = theirs.all(name)
        if len(values) != 1 or values[0] != ours.get(name, values[0]):
            return f"{name!r} is {values!r}"
    if theirs.all(b"x-forwarded-proto")[0] not in (b"http", b"https"):
        return "x-forwarded-proto"
    is_upload = _is_upload(theirs.target) is not None
    if is_upload and theirs.all(b"content-type") != [b"application/octet-stream"]:
        return "the content type of an upload"
    options = sent.options
    left = list(sent.fields)
    for field in theirs.fields:
        name = field[0]
        if name in _OURS or name in _FRAMING or (is_upload and name == b"content-type"):
            continue
        if name in _ENDS_HERE or name in options or b"_" in name or b"." in name:
            return f"{name!r} ends here"
        if field not in left:
            return f"{field!r} comes from nowhere"
        left.remove(field)
    for name in _GOES_ON:
        if name not in options and theirs.all(name) != sent.all(name):
            return f"{name!r} got lost"
    return ""


def _check_inquiry(received: Received, record: Record) -> None:
    head = received.head
    names = {name for name, _, _ in record.verdicts}
    [user] = head.all(b"x-forwarded-user") or [b""]
    if head.method not in (b"GET", b"HEAD") or received.raw_body or not received.whole:
        raise Violation("an inquiry that does more than ask", received.octets)
    if user.decode() not in names:
        raise Violation("an inquiry for nobody", received.octets)


def _look_for_credentials(record: Record, readings: list[Reading]) -> None:
    """Only where the client itself put one into what goes on: another field, or a body."""
    sent = {
        field
        for reading in readings
        for field in reading.head.fields
        if field[0] not in (b"authorization", b"proxy-authorization")
    }
    sent |= {(b"x-forwarded-host", value) for name, value in sent if name == b"host"}
    for received in record.registry.received:
        start, *lines = received.octets.split(b"\r\n")
        for line in filter(_CANARIES.search, lines):
            name, _, value = line.partition(b": ")
            if (name.lower(), value) not in sent:
                raise Violation("a credential went upstream", received.octets)
        # Any other target would not be the one that was sent.
        if received.is_inquiry and _CANARIES.search(start):
            raise Violation("a credential went upstream", received.octets)

"""Immutable tags below team/: requests that would take one from its manifest, and their answers."""

from __future__ import annotations

import hashlib
import json
import re

from regguard.access import Policy, Rule
from regguard.guard.tags import MOST_OCTETS
from tests.guard.questions import CREATED, Questions, digest, stands_for
from tests.guard.world import Guarded, request
from tests.relay.world import Answer, Peer

RULE = "rules.toml:7: immutable = v*, release-*"
SAID = {"immutable": "rules.toml:7"}
POLICY = Policy(rules=[Rule(("team/**",), immutable=("v*", "release-*"), said=SAID)])

APP = b"/v2/team/app/"
V1 = APP + b"manifests/v1"
OLD = b'{"schemaVersion":2,"what":"old"}'
NEW = b'{"schemaVersion":2,"what":"new"}'
KIND = b"Content-Type: application/vnd.oci.image.manifest.v1+json"
OTHER = b"/v2/team/other/manifests/v1"
THAT = APP + b"manifests/" + digest(OLD)
TAGS = APP + b"tags/list?n=1000"


def check_no_turns(guarded: Guarded) -> None:
    """Nobody has a turn or waits for one, and no manifest is held."""
    assert guarded.guard._turns._queues == {}
    assert guarded.guard._allowance.free == MOST_OCTETS


def put(body: bytes, target: bytes = V1, *lines: bytes) -> bytes:
    return request(b"PUT", target, KIND, *lines, user="writer", body=body)


def delete(target: bytes, *lines: bytes) -> bytes:
    return request(b"DELETE", target, *lines, user="writer")


def chunked(body: bytes, target: bytes = V1, *lines: bytes) -> bytes:
    """In two chunks, with an extension and a trailer, which nobody needs."""
    head = request(b"PUT", target, KIND, b"Transfer-Encoding: chunked", *lines, user="writer")
    half = len(body) // 2
    chunks = [b"%x;a=b\r\n%b\r\n" % (len(each), each) for each in (body[:half], body[half:])]
    return head + b"".join(chunks) + b"0\r\nX-Sum: 1\r\n\r\n"


def send(guarded: Guarded, octets: bytes) -> Peer:
    client = guarded.world.client()
    client.send(octets)
    return client


def all_stops(guarded: Guarded) -> None:
    guarded.world.relay.stop()
    guarded.world.reactor.turn()


def check_denied(answer: Answer, *parts: str) -> None:
    """403 DENIED for the rule, whose message has all the parts."""
    assert answer.status == 403
    [error] = json.loads(answer.body)["errors"]
    incident = error["detail"]["incident"]
    assert re.fullmatch("[0-9a-f]{8}", incident)
    assert error["code"] == "DENIED"
    assert error["detail"] == {"rule": RULE, "incident": incident}
    assert error["message"].endswith(f" (incident {incident})")
    for part in parts:
        assert part in error["message"]


def check_failed(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert json.loads(answer.body)["errors"][0]["code"] == "UNAVAILABLE"


def check_written(guarded: Guarded, questions: Questions, client: Peer, body: bytes) -> None:
    """A write goes up now, whole, and its answer comes down."""
    write = questions.answer(CREATED)
    assert (write.method, write.body, write.whole, write.rest) == (b"PUT", body, True, b"")
    assert write[b"content-length"] == b"%d" % len(body)
    assert write.all(b"transfer-encoding") == write.all(b"expect") == []
    assert write[b"content-type"] == KIND.partition(b" ")[2]
    answer = guarded.answer_of(client, b"PUT")
    assert (answer.status, answer[b"x-theirs"]) == (201, b"yes")


GARBAGE: list[tuple[bytes, int]] = [
    (stands_for(digest(NEW), 500), 502),
    (stands_for(digest(NEW), 503), 502),
    (stands_for(digest(NEW), 301), 502),
    (stands_for(digest(NEW), 206), 502),
    (stands_for(digest(NEW), 403), 502),
    (stands_for(digest(NEW), 429), 502),
    (b'HTTP/1.1 401 X\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n', 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n", 502),
    (stands_for(digest(NEW) + b"\r\nDocker-Content-Digest: " + digest(NEW)), 502),
    (stands_for(digest(NEW) + b"\r\nDocker-Content-Digest: " + digest(OLD)), 502),
    (stands_for(digest(NEW).upper()), 502),
    (stands_for(digest(NEW)[:-1]), 502),
    (stands_for(b"md5:" + hashlib.md5(NEW).hexdigest().encode()), 502),
    (stands_for(b""), 502),
    (stands_for("sha256:é".encode()), 502),
    (b"SSH-2.0-OpenSSH_9.2\r\n", 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 502),
]

"""A guard's catalog before a registry that answers from a listing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, urlsplit

from regguard.access import Policy, Rule, Who
from tests.guard.listings import Listing
from tests.guard.world import Guarded, request
from tests.relay.world import Answer, read_answers, read_request

NOBODY = Who.parse("nobody")
EVERYBODY = Who.parse("valid-user")
OPEN = Rule(("open/**",), pull=EVERYBODY)
# Only what is below open/, and the repository "mine".
SOME = Policy(pull=NOBODY, rules=[OPEN, Rule(("mine",), pull=Who.parse("user:reader"))])
LIMIT = 1000


class Door:
    """A guard before a registry that answers from a listing; what went over the wires."""

    def __init__(self, guarded: Guarded, listing: Listing, largest: int = LIMIT) -> None:
        self.guarded = guarded
        self.asked: list[bytes] = []
        self._listing = listing
        self._largest = largest
        self._client = guarded.world.client()

    def get(self, target: str, user: str = "reader", method: bytes = b"GET") -> Answer:
        """One request over the one kept connection, and the registry's part in it."""
        client = self._client
        client.send(request(method, target.encode("ascii"), user=user))
        while not client.received:
            registry = self.guarded.registry.last
            asked = read_request(registry.take())
            self.asked.append(asked.target)
            registry.send(self._reply(asked.target.decode("ascii")))
        [answer] = read_answers(client.take(), method)
        return answer

    def _reply(self, target: str) -> bytes:
        url = urlsplit(target)
        assert url.path == "/v2/_catalog"
        wanted = parse_qs(url.query)
        size = int(wanted["n"][0]) if "n" in wanted else min(100, self._largest)
        if size > self._largest:
            return reply(400, b"{}")
        page, more = self._listing(size, wanted.get("last", [""])[0])
        link = (
            f'</v2/_catalog?last={quote(page[-1], safe="")}&n={size}>; rel="next"' if more else ""
        )
        return reply(200, json.dumps({"repositories": page}).encode(), link)

    def pages(self, target: str) -> Iterator[Answer]:
        """The page, and those that the links lead to."""
        for _ in range(10_000):
            answer = self.get(target)
            assert answer.status == 200
            yield answer
            links = answer.all(b"link")
            if not links:
                return
            found = re.fullmatch(
                r'<(/v2/_catalog\?last=[^&>]+&n=\d+)>; rel="next"', links[0].decode()
            )
            assert found
            target = found[1]
        raise AssertionError("the links never end")


def reply(status: int, body: bytes, *links: str) -> bytes:
    """A registry's answer."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"Link: {link}" for link in links if link]
    return "\r\n".join([*lines, "", ""]).encode() + body


def linked(last: str, *names: str) -> bytes:
    """A page with a link to the next one."""
    body = json.dumps({"repositories": names}).encode()
    return reply(200, body, f'</v2/_catalog?last={quote(last, safe="")}>; rel="next"')


def names_of(answer: Answer) -> list[str]:
    """The repositories in a page, which is written as distribution writes it."""
    assert answer.status == 200
    assert answer.whole
    assert answer[b"content-type"] == b"application/json"
    content = json.loads(answer.body)
    assert list(content) == ["repositories"]
    assert answer.body == json.dumps(content, separators=(",", ":")).encode() + b"\n"
    names: list[str] = content["repositories"]
    return names


def error_of(answer: Answer) -> tuple[int, str, str]:
    """Status, code and message of an error."""
    [error] = json.loads(answer.body)["errors"]
    return answer.status, error["code"], error["message"]

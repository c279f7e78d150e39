"""The steps of ``regguard demo --smoke``: what a client sees of a guarded registry."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable

from regguard.demo.client import Answer, Client, UnexpectedAnswer
from regguard.demo.image import Image, digest, random_image
from regguard.demo.stage import Stage, User

REPOSITORY = "smoke/image"
TAG = "v1"

Step = tuple[str, Callable[[], str]]


class Smoke:
    """One image on its way through the guard.  Each step returns what it saw, or raises."""

    def __init__(self, stage: Stage, image: Image) -> None:
        self._image = image
        self._nobody = Client(stage, None)
        self._stranger = Client(stage, User(stage.reader.name, "wrong" + stage.reader.password))
        self._reader = Client(stage, stage.reader)
        self._pusher = Client(stage, stage.pusher)

    def steps(self) -> list[Step]:
        """What to do, in this order."""
        return [
            ("ask without credentials", self.ask_without_credentials),
            ("ask with a wrong password", self.ask_with_a_wrong_password),
            ("log in as testuser", self.log_in),
            ("push as testuserpush", self.push),
            ("pull as testuser", self.pull),
            ("list the tags as testuser", self.list_tags),
            ("push as testuser", self.push_as_reader),
            ("delete as testuser", self.delete_as_reader),
            ("delete as testuserpush", self.delete),
        ]

    def close(self) -> None:
        """Close every connection."""
        for client in (self._nobody, self._stranger, self._reader, self._pusher):
            client.close()

    def ask_without_credentials(self) -> str:
        """401 with one challenge."""
        answer = self._nobody.expect(401, "GET", "/v2/")
        return f"{answer.status}, {_challenge(answer)}"

    def ask_with_a_wrong_password(self) -> str:
        """401 with the same challenge."""
        answer = self._stranger.expect(401, "GET", "/v2/")
        return f"{answer.status}, {_challenge(answer)}"

    def log_in(self) -> str:
        """What ``docker login`` looks at."""
        return str(self._reader.expect(200, "GET", "/v2/"))

    def push(self) -> str:
        """Blobs and manifest arrive, and the registry computed the same digest."""
        named = self._pusher.push(REPOSITORY, TAG, self._image)
        if named != digest(self._image.manifest):
            raise UnexpectedAnswer(f"the registry stored {named}")
        size = sum(len(blob) for blob in self._image.blobs)
        return f"201, {len(self._image.layers)} layers and a config, {size / 1e6:.1f} MB"

    def pull(self) -> str:
        """What comes back is what was pushed, byte for byte."""
        contents = self._reader.pull(REPOSITORY, TAG)
        if contents != [self._image.manifest, *self._image.blobs]:
            raise UnexpectedAnswer("another image came back")
        return f"200, {len(contents)} digests identical"

    def list_tags(self) -> str:
        """The tag that was pushed stands in the list."""
        answer = self._reader.expect(200, "GET", f"/v2/{REPOSITORY}/tags/list")
        return f"{answer.status}, {answer.body.decode().strip()}"

    def push_as_reader(self) -> str:
        """403, and the message says why."""
        return _refusal(self._reader.expect(403, "POST", f"/v2/{REPOSITORY}/blobs/uploads/"))

    def delete_as_reader(self) -> str:
        """403, and the message says why."""
        return _refusal(self._reader.expect(403, "DELETE", self._manifest()))

    def delete(self) -> str:
        """202 to who may, and then it is gone."""
        answer = self._pusher.expect(202, "DELETE", self._manifest())
        self._reader.expect(404, "GET", self._manifest())
        return f"{answer.status}, then 404"

    def _manifest(self) -> str:
        return f"/v2/{REPOSITORY}/manifests/{digest(self._image.manifest)}"


def _challenge(answer: Answer) -> str:
    challenges = answer.headers.get_all("WWW-Authenticate") or []
    if len(challenges) != 1:
        raise UnexpectedAnswer(f"401 with {len(challenges)} challenges, where one was due")
    return str(challenges[0])


def _refusal(answer: Answer) -> str:
    if not answer.error.startswith("DENIED: "):
        raise UnexpectedAnswer(f"403 came without DENIED and a reason: {answer.body[:200]!r}")
    return str(answer)


def run(stage: Stage, before_each: Callable[[], None]) -> bool:
    """Take every step, print one row for each; return whether all went well.

    ``before_each`` is called before every step and may raise to end it all.
    """
    began = time.monotonic()
    passed = 0
    smoke = Smoke(stage, random_image())
    steps = smoke.steps()
    try:
        for name, act in steps:
            before_each()
            try:
                verdict, seen = "ok", act()
                passed += 1
            except (UnexpectedAnswer, http.client.HTTPException, OSError) as error:
                verdict, seen = "FAILED", str(error) or type(error).__name__
            print(f"  {verdict:<8}{name:<28}{seen}", flush=True)
    finally:
        smoke.close()
    print(
        f"\n{passed} of {len(steps)} steps passed in {time.monotonic() - began:.1f} s.", flush=True
    )
    return passed == len(steps)

"""Repositories that a caller must not know of answer as if there were none.

A missing repository answers with the registry's own words, which differ from one endpoint to the
next, and in the registry's own time. So that nothing tells them apart, where a policy hides
anything, both go the same way. The request goes to the registry: for a hidden repository with the
name of one that cannot be there in its place. If that ends in an error, the registry is asked for
the repository's tags, and if it has no such repository the answer is ours. In any error, not only
in 404: to a digest that it cannot read, registry 2.8 answers 500 and names the repository's folder.
"""

from __future__ import annotations

from hashlib import blake2s

from regguard import answers
from regguard.access import Access
from regguard.relay import Relay, UpstreamFailure


def no_such_repository(repository: str) -> answers.Answer:
    """The answer for a repository that is missing, or hidden."""
    return answers.error(
        404,
        "NAME_UNKNOWN",
        "repository name not known to registry",
        detail={"name": repository},
    )


async def is_missing(relay: Relay, user_name: str, repository: str) -> bool:
    """Ask the registry whether it has no repository of this name.

    :raises UpstreamFailure: when the registry does not tell.
    """
    target = f"/v2/{repository}/tags/list?n=1".encode("ascii")
    reply = await relay.ask(b"GET", target, user_name=user_name, limit=0)
    if reply.status not in (200, 404):
        raise UpstreamFailure(502, "the registry does not tell which repositories there are")
    return reply.status == 404


def elsewhere(access: Access, key: bytes) -> tuple[str, bytes]:
    """The name of a repository that is not there, and the same target in it.

    ``key`` is a secret of this process: nobody has, or can make, a repository of this name. It is
    the same name every time, because what was missing before is found missing faster.
    """
    nowhere = blake2s(access.repository.encode("ascii"), key=key, digest_size=16).hexdigest()
    behind = len(f"/v2/{access.repository}")
    return nowhere, b"/v2/" + nowhere.encode("ascii") + access.target[behind:]

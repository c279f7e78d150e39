"""Repositories that a caller must not know of answer as if there were none.

A missing repository answers with the registry's own words, which differ from one endpoint to the
next, and in the registry's own time. So that nothing tells them apart, where a policy hides
anything, every pull from a missing repository gets our answer, after the registry was asked the
same two questions: for the thing itself, and for the repository's tags. For a hidden one these
questions are about a repository that cannot be there.
"""

from __future__ import annotations

from secrets import token_hex

from regguard import answers
from regguard.access import Access
from regguard.relay import Relay


def no_such_repository(repository: str) -> answers.Answer:
    """The answer for a repository that is missing, or hidden."""
    return answers.error(
        404,
        "NAME_UNKNOWN",
        "repository name not known to registry",
        detail={"name": repository},
    )


async def is_missing(relay: Relay, user_name: str, repository: str) -> bool:
    """Ask the registry whether it has no repository of this name."""
    target = f"/v2/{repository}/tags/list?n=1".encode("ascii")
    reply = await relay.ask(b"GET", target, user_name=user_name, limit=0)
    return reply.status == 404


async def ask_in_vain(relay: Relay, user_name: str, method: bytes, access: Access) -> None:
    """Ask what would be asked about a missing repository in place of a hidden one."""
    # 128 random bits: nobody has, or can make, a repository of this name in time.
    nowhere = token_hex(16)
    target = access.target.replace(
        b"/v2/" + access.repository.encode("ascii"), b"/v2/" + nowhere.encode("ascii"), 1
    )
    await relay.ask(method, target, user_name=user_name, limit=0)
    await is_missing(relay, user_name, nowhere)

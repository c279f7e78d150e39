"""What a pattern of repositories means, said once more and as plainly as can be."""

from __future__ import annotations


def fits(pattern: str, name: str, user: str, *, segment_starts: bool = True) -> bool:
    """Whether a pattern fits the whole of a name, character by character."""

    def rest(pattern: str, name: str, *, segment_starts: bool = False) -> bool:
        return fits(pattern, name, user, segment_starts=segment_starts)

    if not pattern:
        return not name
    if segment_starts and pattern.startswith("**/"):
        below = [name] + [name[i + 1 :] for i, char in enumerate(name) if char == "/"]
        return any(rest(pattern[3:], tail, segment_starts=True) for tail in below)
    if pattern.startswith("**"):
        return any(rest(pattern[2:], name[i:]) for i in range(len(name) + 1))
    if pattern.startswith("*"):
        return any(rest(pattern[1:], name[i:]) for i in range(len(name.partition("/")[0]) + 1))
    if pattern.startswith("{user}"):
        owned = "/" not in user and name.startswith(user)
        return owned and rest(pattern[6:], name[len(user) :])
    return name[:1] == pattern[0] and rest(pattern[1:], name[1:], segment_starts=name[0] == "/")

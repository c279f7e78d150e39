"""The argument of ``--auth ldap:``: where the directory is, and how users and groups are found.

It is an LDAP URL (RFC 4516) with several hosts, and ``;key=value`` behind it::

    ldaps://dc1.example.com,dc2.example.com/ou=people,dc=example,dc=com?uid?sub?(objectClass=person)
    ;bind-dn=cn=regguard,dc=example,dc=com;bind-password-file=/etc/regguard/ldap-password
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path
from urllib.parse import unquote

from regguard import dn

SCOPES = ("sub", "one", "base")
_KEYS = (
    "starttls",
    "ca",
    "bind-dn",
    "bind-password-file",
    "user-dn",
    "name",
    "groups",
    "group-base",
    "group-filter",
)
_PORTS = {"ldap": 389, "ldaps": 636}

# An IPv4 address is written like a name. Names are ASCII, as certificates have them, and without
# the underscore, which no certificate holds and IDNA (RFC 5890) refuses.
_label = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_host = re.compile(
    rf"(?:\[([0-9A-Fa-f:.]+)\]|({_label}(?:\.{_label})*\.?))(?::([0-9]{{1,5}}))?"
).fullmatch
_attribute = re.compile(r"[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+").fullmatch
_placeholder = re.compile(r"\{(\w*)\}")


@dataclass(frozen=True, slots=True)
class Server:
    """One replica; ``secure`` means TLS from the first byte (ldaps)."""

    host: str
    port: int
    secure: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ldaps' if self.secure else 'ldap'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class DirectorySettings:
    """What is known about a directory.

    Users are found by a search below ``base`` as ``bind_dn`` (None: anonymously), or, where
    ``user_dn`` is given, by putting the name into it.  ``group_filter`` None: an entry's own
    attribute ``groups`` lists the groups; ``group_base`` None: wherever they are.
    """

    servers: tuple[Server, ...]
    starttls: bool = False
    ca: Path | None = None
    base: str = ""
    attribute: str = "uid"
    scope: str = "sub"
    filter: str = "(objectClass=*)"
    bind_dn: str | None = None
    bind_password_file: Path | None = None
    user_dn: str | None = None
    name: str = "uid"
    groups: str = "memberOf"
    group_base: str | None = None
    group_filter: str | None = None
    encrypted: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encrypted", self.starttls or self.servers[0].secure)

    def __str__(self) -> str:
        servers = ", ".join(map(str, self.servers))
        return f"{servers}{' with StartTLS' if self.starttls else ''}"


def parse_settings(argument: str) -> DirectorySettings:
    """Read the argument; opens no file.

    :raises ValueError: with one line that says the cure.
    """
    url, *settings = (part.strip() for part in argument.split(";"))
    said = _said(settings)
    servers, base, query = _url(url)
    attribute, scope, search_filter, *rest = [*query, "", "", ""]
    if any(rest):
        raise ValueError(f"{rest[0]}: write what follows the filter as ;key=value")
    scope = scope or "sub"
    if scope not in SCOPES:
        raise ValueError(f"{scope}: the scope is one of {', '.join(SCOPES)}")
    for key, value in (
        ("attribute", attribute),
        *((key, said.get(key)) for key in ("name", "groups")),
    ):
        if value and _attribute(value) is None:
            raise ValueError(f"{key} {value!r}: is no attribute of an entry, such as uid")
    for key in ("bind-dn", "group-base"):
        if key in said:
            _checked_dn(key, said[key])
    attribute = attribute or "uid"
    known = DirectorySettings(
        servers=servers,
        starttls="starttls" in said,
        ca=Path(said["ca"]) if "ca" in said else None,
        base=base,
        attribute=attribute,
        scope=scope,
        filter=_checked_filter("filter", search_filter or "(objectClass=*)"),
        bind_dn=said.get("bind-dn"),
        bind_password_file=Path(said["bind-password-file"])
        if "bind-password-file" in said
        else None,
        user_dn=said.get("user-dn"),
        name=said.get("name", attribute),
        groups=said.get("groups", "memberOf"),
        group_base=said.get("group-base"),
        group_filter=said.get("group-filter"),
    )
    _check_together(known, bool(any(query)), said)
    return known


def _said(settings: list[str]) -> dict[str, str]:
    said: dict[str, str] = {}
    for setting in filter(None, settings):
        key, equals, value = setting.partition("=")
        key, value = key.strip(), value.strip()
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, 1)
            cure = f"did you mean {near[0]}?" if near else f"known: {', '.join(_KEYS)}"
            if key == "bind-password":
                cure = (
                    "a password on the command line is seen by everybody: bind-password-file=FILE"
                )
            raise ValueError(f"{key}: unknown; {cure}")
        if key in said:
            raise ValueError(f"{key}: given twice")
        if key == "starttls":
            if equals:
                raise ValueError("starttls: takes no value")
        elif not value:
            raise ValueError(f"{key}: write {key}=VALUE")
        said[key] = value
    return said


def _url(url: str) -> tuple[tuple[Server, ...], str, list[str]]:
    """Servers, base, and what stands behind question marks."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _PORTS:
        raise ValueError("write ldaps://HOST/BASE?uid or ldap://HOST/BASE?uid;starttls")
    hosts, _, path = rest.partition("/")
    servers = []
    for each in hosts.split(","):
        match = _host(each.strip())
        port = int(match[3] or _PORTS[scheme]) if match else 0
        if match is None or not 0 < port < 65536 or not _is_ipv6(match[1] or "::"):
            raise ValueError(f"{each!r}: is no host; write HOST, HOST:PORT or [IPv6]:PORT")
        servers.append(Server(match[1] or match[2], port, scheme == "ldaps"))
    # RFC 4516 section 2.1: what is special in a URL is written as %XX.
    try:
        base, *query = (unquote(part, errors="strict").strip() for part in path.split("?"))
    except UnicodeDecodeError:
        raise ValueError(f"{path}: what stands there as %XX is not UTF-8") from None
    if base:
        _checked_dn("base", base)
    return tuple(servers), base, query


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _check_together(known: DirectorySettings, searches: bool, said: dict[str, str]) -> None:
    if known.starttls and known.servers[0].secure:
        raise ValueError("starttls: ldaps:// is TLS from the start; say one of them")
    if known.ca is not None and not known.encrypted:
        raise ValueError("ca: nothing is encrypted; write ldaps://, or add ;starttls")
    if (known.bind_dn is None) != (known.bind_password_file is None):
        raise ValueError("bind-dn and bind-password-file: belong together; give both or none")
    if known.user_dn is not None:
        _check_placeholders("user-dn", known.user_dn, {"user"})
        _checked_dn("user-dn", known.user_dn)
        if known.bind_dn is not None or known.base or searches:
            raise ValueError(
                "user-dn: says where users are, so nothing is searched: leave out bind-dn and what "
                "follows the host, or leave out user-dn"
            )
    elif not known.base:
        raise ValueError(
            "where are the users? Write what to search, ldaps://HOST/ou=people,dc=example,dc=com, "
            "or user-dn=uid={user},ou=people,dc=example,dc=com"
        )
    if known.group_filter is not None:
        if known.group_base is None:
            raise ValueError("group-filter: where? Add ;group-base=ou=groups,dc=example,dc=com")
        if "groups" in said:
            raise ValueError("group-filter: finds the groups; leave out groups")
        _checked_filter("group-filter", known.group_filter)
        _check_placeholders("group-filter", known.group_filter, {"user", "dn"})


def _check_placeholders(key: str, text: str, known: set[str]) -> None:
    found = set(_placeholder.findall(text))
    expected = " or ".join(f"{{{name}}}" for name in sorted(known, reverse=True))
    if not found:
        raise ValueError(f"{key}: holds no {expected}, so it would be the same for everybody")
    if found - known:
        raise ValueError(f"{key}: {{{min(found - known)}}} is unknown; write {expected}")


def _checked_dn(key: str, text: str) -> None:
    try:
        dn.parse(text)
    except ValueError as error:
        raise ValueError(f"{key} {text!r}: {error}") from None


def _checked_filter(key: str, text: str) -> str:
    """A filter (RFC 4515) whose parentheses close; the rest is the server's to judge."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth <= 0 and position < len(text) - 1:
            break
    else:
        if depth == 0 and text.startswith("(") and "\0" not in text:
            return text
    raise ValueError(f"{key} {text!r}: is no filter; write it in parentheses, (objectClass=person)")


def filled(template: str, values: dict[str, str]) -> str:
    """Put values, escaped by the caller, in the place of ``{user}`` and ``{dn}``, in one go."""
    return _placeholder.sub(lambda match: values[match[1]], template)

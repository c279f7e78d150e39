"""Settings to parts: what the settings' words stand for, opened and checked before anything runs.

Every complaint is one line with option, file and cure; what is odd but works is a warning.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from twisted.cred import strcred
from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.python import usage

from regguard.access import Freeze, Policy, Who
from regguard.auth.interfaces import IGroupSource, IServedChecker, IStoredHashChecker
from regguard.auth.realm import Groups
from regguard.files import FileError, MarkerFile, WatchedFile
from regguard.front.certificates import CertificateFiles, WatchedCertificate, expiring
from regguard.front.clients import WatchedClientAuthority
from regguard.options import Settings
from regguard.relay import Address, Origin
from regguard.relay.headers import origin_of
from regguard.transport.trust import trust_in

_ACTIONS = ("pull", "push", "delete", "catalog")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the settings' words stand for, loaded and checked."""

    settings: Settings
    config: WatchedFile[Settings] | None
    freeze: MarkerFile | None
    certificates: tuple[WatchedCertificate, ...]
    clients: WatchedClientAuthority | None
    upstreams: tuple[Address, ...]
    trust_root: Any
    origin: Origin | None
    checkers: tuple[ICredentialsChecker, ...]
    groups: Groups
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        """What is guarded, for whom: for the start and for ``--check``."""
        settings = self.settings
        groups = self.groups.file
        lines = [
            "guarding " + ", then ".join(map(str, self.upstreams)),
            "users by " + ", then ".join(_described(checker) for checker in self.checkers),
            "groups by " + (f"{groups.path}: {groups.content}" if groups else "no file"),
            "; ".join(f"{action}: {getattr(settings, action).text}" for action in _ACTIONS),
        ]
        if settings.rules:
            lines.append(
                f"repositories by {self.config.path if self.config else 'rules'}: {settings}"
            )
        if settings.freeze is not None or (self.freeze and self.freeze.text is not None):
            lines.append("frozen: nobody may push or delete")
        lines += [f"certificate {each.path}: {each.content}" for each in self.certificates]
        if self.clients is not None:
            lines.append(f"client certificates by {self.clients.path}: {self.clients.content}")
        if settings.admin is not None:
            lines.append(f"health and metrics on {settings.admin}")
        return lines


def _described(checker: ICredentialsChecker) -> str:
    file = getattr(checker, "file", None)
    if file is not None:
        return f"{file.path}: {file.content}"
    # The others' words may hold a secret.
    return str(checker) if IServedChecker.providedBy(checker) else type(checker).__name__


def load(settings: Settings, config: WatchedFile[Settings] | None = None) -> Parts:
    """Open and check everything that the settings name; raises usage.UsageError.

    ``config`` is the file that the settings come from, if it is one that can change.
    """
    certificates = []
    for chain, key in settings.certificates:
        try:
            certificates.append(WatchedCertificate(CertificateFiles(chain, key), time.time))
        except FileError as error:
            raise usage.UsageError(str(error)) from None
    clients = _clients(settings)
    upstreams = _upstreams(settings)
    origin = None
    if settings.public_url is not None:
        try:
            origin = origin_of(settings.public_url)
        except ValueError as error:
            raise usage.UsageError(f"--public-url {settings.public_url}: {error}") from None
    groups = load_groups(settings)
    checkers = tuple(_checker(specification) for specification in settings.auth)
    unknown = list(unknown_groups(settings, groups, checkers))
    for group in unknown:
        if group.said:
            raise usage.UsageError(f"{group.complaint}; {group.cure}")
    freeze = settings.freeze_file
    return Parts(
        settings,
        config,
        None if freeze is None else MarkerFile(str(freeze)),
        tuple(certificates),
        clients,
        upstreams,
        _trust_root(settings, upstreams),
        origin,
        checkers,
        groups,
        (
            *_out_of_date(certificates, clients),
            *map(str, unknown),
            *_weak_hashes(settings, checkers),
            *_passwords_in_the_open(settings, checkers),
        ),
    )


def _clients(settings: Settings) -> WatchedClientAuthority | None:
    path = settings.tls_client_ca
    try:
        return None if path is None else WatchedClientAuthority(str(path))
    except FileError as error:
        raise usage.UsageError(f"--tls-client-ca {error}") from None


def _out_of_date(
    certificates: Sequence[WatchedCertificate], clients: WatchedClientAuthority | None
) -> Iterator[str]:
    """What expires within the month, or has, or is not valid yet: a warning for each."""
    now = time.time()
    for each in certificates:
        untimely = each.content.untimely(datetime.fromtimestamp(now, timezone.utc))
        warning = expiring(each).warning(now)
        if warning is not None:
            yield warning
        elif untimely is not None:
            yield f"{each.path}: {untimely}"
    for each_end in clients.expiring() if clients is not None else ():
        warning = each_end.warning(now)
        if warning is not None:
            yield warning


def load_groups(settings: Settings) -> Groups:
    """The groups file that the settings name, or none; raises usage.UsageError."""
    try:
        return Groups(str(settings.groups) if settings.groups is not None else None)
    except FileError as error:
        raise usage.UsageError(f"--groups {error}") from None


def policy_of(settings: Settings, marker: MarkerFile | None) -> Policy:
    """Who may do what now, by the settings and by the file that may freeze the registry."""
    policy = settings.policy
    if policy.freeze is None and marker is not None and marker.text is not None:
        reason = marker.text or "no reason given"
        return policy.frozen(Freeze(reason, f"freeze-file {marker.path}"))
    return policy


def _upstreams(settings: Settings) -> tuple[Address, ...]:
    addresses: dict[bytes, Address] = {}
    for url in settings.upstream:
        shown = _without_password(url)
        try:
            address = Address.parse(url)
        except ValueError as error:
            raise usage.UsageError(f"--upstream {shown}: {error}") from None
        if address.mark in addresses:
            raise usage.UsageError(f"--upstream {shown}: given twice; name each registry once")
        addresses[address.mark] = address
    return tuple(addresses.values())


def _without_password(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2]


def _trust_root(settings: Settings, upstreams: Sequence[Address]) -> Any:
    path = settings.upstream_ca
    if path is None:
        return None
    if all(upstream.scheme != "https" for upstream in upstreams):
        raise usage.UsageError(
            f"--upstream-ca {path}: only an https:// upstream has a certificate to trust"
        )
    try:
        return trust_in(path, "--upstream-ca")
    except ValueError as error:
        raise usage.UsageError(str(error)) from None


def _checker(specification: str) -> ICredentialsChecker:
    kind, _, argument = specification.partition(":")
    option = "--htpasswd" if kind == "htpasswd" else f"--auth {kind}"
    try:
        checker: ICredentialsChecker = strcred.makeChecker(specification)
    except strcred.InvalidAuthType:
        raise usage.UsageError(
            f"--auth {kind}: no such type; see twist regguard --help-auth"
        ) from None
    except strcred.InvalidAuthArgumentString as error:
        cure = ""
        if kind == "htpasswd" and not Path(argument).exists():
            cure = f"; make it with regguard passwd {argument} USER"
        colon = "" if kind == "htpasswd" else ":"
        raise usage.UsageError(f"{option}{colon} {error}{cure}") from None
    except Exception as error:
        # A third-party checker; its argument may hold a secret, so it is not repeated.
        raise usage.UsageError(f"{option}: {type(error).__name__}: {error}") from None
    if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
        # Twisted's factory (26.10) fills it with str, and it is asked for bytes.
        checker.users = {_octets(name): _octets(word) for name, word in checker.users.items()}
    if IUsernamePassword not in checker.credentialInterfaces:
        raise usage.UsageError(
            f"--auth {kind}: does not check user names with passwords; see --help-auth"
        )
    return checker


def _octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8")


def _weak_hashes(settings: Settings, checkers: Sequence[ICredentialsChecker]) -> tuple[str, ...]:
    """Weak hashes in password files: refused where that is said, else a warning for each file."""
    hashing = [checker for checker in checkers if IStoredHashChecker.providedBy(checker)]
    if settings.minimum_hash != "any":
        option = f"--minimum-hash {settings.minimum_hash}"
        if not hashing:
            raise usage.UsageError(
                f"{option}: holds for --htpasswd files, and there is none; leave it out"
            )
        for checker in hashing:
            try:
                IStoredHashChecker(checker).refuse_weak()
            except FileError as error:
                raise usage.UsageError(f"{option}: {error}") from None
    warnings = (IStoredHashChecker(checker).warning() for checker in hashing)
    return tuple(warning for warning in warnings if warning is not None)


def _passwords_in_the_open(
    settings: Settings, checkers: Sequence[ICredentialsChecker]
) -> tuple[str, ...]:
    """Checkers that keep or send passwords as they are: a warning for each."""
    warnings: list[str] = []
    for specification, checker in zip(settings.auth, checkers, strict=True):
        if IServedChecker.providedBy(checker):
            warnings += IServedChecker(checker).warnings
        kind, _, argument = specification.partition(":")
        if kind == "file":
            warnings.append(
                f"--auth file: passwords stand in {argument} as they are; "
                "make a file of hashes with regguard passwd, and use --htpasswd"
            )
        elif kind == "memory":
            warnings.append(
                "--auth memory: everybody on this machine sees the passwords in the process list; "
                "it is for tests"
            )
    return tuple(warnings)


@dataclass(frozen=True, slots=True)
class UnknownGroup:
    """A group in the rules that no file knows; ``said``: by the operator, not by default."""

    action: str
    complaint: str
    cure: str
    said: bool

    def __str__(self) -> str:
        return f"{self.complaint}, so nobody may {self.action} by it; {self.cure}"


def unknown_groups(
    settings: Settings, groups: Groups, checkers: Sequence[ICredentialsChecker]
) -> Iterator[UnknownGroup]:
    """Groups that the rules name and no file knows.

    Where a checker supplies groups as well, nobody can say which ones there are.
    """
    if any(IGroupSource.providedBy(checker) for checker in checkers):
        return
    named: list[tuple[str, str, Who, bool]] = []
    for action in _ACTIONS:
        place = settings.said.get(action, "command line")
        where = f"--{action}" if place == "command line" else f"{place}: {action}"
        named.append((action, where, getattr(settings, action), action in settings.said))
    for rule in settings.rules:
        for action in ("pull", "push", "delete"):
            who = getattr(rule, action)
            if who is not None:
                named.append((action, f"{rule.said[action]}: {action}", who, True))
    known = groups.table.members.keys()
    for action, where, who, said in named:
        for group in sorted(who.groups - known):
            if groups.file is None:
                what = f"{where} group:{group}: there is no groups file"
                cure = f"write '{group}: USER' into auth/groups, or name a file with --groups"
            else:
                what = f"{where} group:{group}: no such group in {groups.file.path}"
                cure = f"add a line '{group}: USER' to it"
            yield UnknownGroup(action, what, cure, said)

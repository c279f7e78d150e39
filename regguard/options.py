"""Words to settings: the command line and the TOML file, by the same names.

The command line wins over the file.  Every error is a ``usage.UsageError`` of one line that
names the option (and the file it stands in) and the cure.  Nothing here opens a file but the
TOML one (taken apart by ``configuration``): what the names in the words stand for is loaded by
``service``.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.python import usage

from regguard import __version__
from regguard.access import Freeze, Policy, Rule, Who
from regguard.addresses import INTRODUCED, TrustedProxies
from regguard.configuration import (
    REPOSITORY,
    Configuration,
    known,
    strings,
    switch,
    text,
    who,
)

DEFAULT_LISTEN = "tcp:5043"
DEFAULT_UPSTREAM = "http://127.0.0.1:5000"
DEFAULT_HTPASSWD = "auth/htpasswd"
DEFAULT_GROUPS = "auth/groups"
LOG_FORMATS = ("common", "combined", "combinedio", "json")
DEFAULT_THROTTLE = "10/5m"
"""Nobody mistypes ten different passwords in five minutes, and who guesses has 2,880 tries a day
from a network: a million-word list takes a year.  Five minutes are short enough to wait for."""
MINIMUM_HASHES = ("any", "bcrypt")
DEFAULT_CONNECTIONS = 20_000
"""At 20 kB for an idle one over TLS some 400 MB."""
MOST_WORKERS = 256
"""More processors than that want several machines."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the operator said, checked as far as words can be; times are seconds.

    ``auth`` holds ``TYPE[:ARG]`` specifications in the order in which they are asked;
    ``certificates`` pairs of chain and key (None: look beside the chain), empty for plain HTTP;
    ``tls_client_ca`` signs the certificates of users, None asks them for none;
    ``throttle`` how many wrong passwords within how long, None for no limit;
    ``max_connections`` in all, and from one network (None: a share of those there can be);
    ``workers`` processes that serve;
    ``groups`` None where the default file may be missing and is; ``rules`` the ``[[repository]]``
    tables; ``freeze`` why nobody may write, ``freeze_file`` a file that says so while it is there;
    ``said`` where the options that did not keep their defaults were said: ``FILE:LINE``, or
    "command line".
    """

    listen: tuple[str, ...]
    certificates: tuple[tuple[Path, Path | None], ...]
    tls_client_ca: Path | None
    # Both may hold a password.
    upstream: tuple[str, ...] = field(repr=False)
    upstream_ca: Path | None
    auth: tuple[str, ...] = field(repr=False)
    minimum_hash: str
    throttle: tuple[int, float] | None
    groups: Path | None
    pull: Who
    push: Who
    delete: Who
    catalog: Who
    rules: tuple[Rule, ...]
    hide: bool
    freeze: str | None
    freeze_file: Path | None
    realm: str
    trusted_proxies: TrustedProxies
    public_url: str | None
    max_connections: tuple[int, int | None]
    read_timeout: float
    drain_timeout: float
    access_log: str
    access_log_format: str
    admin: str | None
    workers: int
    said: Mapping[str, str]
    check: bool
    #: Who may do what, by these words. Made with them, because a thousand rules take a while, and a
    #: changed file is read in a thread.
    policy: Policy = field(init=False, repr=False, compare=False)

    def __str__(self) -> str:
        """What log lines tell of a file's settings."""
        return f"{len(self.rules)} [[{REPOSITORY}]] table{'' if len(self.rules) == 1 else 's'}"

    def __post_init__(self) -> None:
        freeze = None
        if self.freeze is not None:
            freeze = Freeze(self.freeze, f"{self.said['freeze']}: freeze")
        policy = Policy(
            *(self.pull, self.push, self.delete, self.catalog),
            self.rules,
            hide=self.hide,
            freeze=freeze,
            said=self.said,
        )
        object.__setattr__(self, "policy", policy)


POLICY_FIELDS = ("pull", "push", "delete", "catalog", "rules", "hide", "freeze", "said", "policy")
"""The settings that a running daemon takes over from a changed file."""

_LISTS = ("listen", "tls-cert", "tls-key", "auth", "upstream", "trusted-proxy")
_SWITCHES = ("no-tls", "hide")
_NUMBERS = ("read-timeout", "drain-timeout")
_TEXTS = (
    "tls-client-ca",
    "upstream-ca",
    "htpasswd",
    "minimum-hash",
    "throttle",
    "groups",
    "pull",
    "push",
    "delete",
    "catalog",
    "freeze",
    "freeze-file",
    "realm",
    "public-url",
    "max-connections",
    "access-log",
    "access-log-format",
    "admin",
    "workers",
)
_COUNTS = ("max-connections", "workers")
_KEYS = (*_LISTS, *_SWITCHES, *_NUMBERS, *_TEXTS)

WHO = "comma list of valid-user, user:NAME, group:NAME, or nobody"


class Options(usage.Options, AuthOptionMixin):
    """The options of ``twist regguard``; ``settings`` holds the result."""

    synopsis = "[options]"
    longdesc = (
        "Guards a container image registry: terminates TLS, asks for passwords or client "
        "certificates, decides who may pull, push and delete, and streams the rest through. With "
        "domain.crt, domain.key and auth/htpasswd in place, `--tls-cert domain.crt` is a complete "
        "call."
    )
    supportedInterfaces = (IUsernamePassword,)
    optFlags: tuple[list[str | None], ...] = (
        ["no-tls", None, "Plain HTTP: only behind something that terminates TLS."],
        ["hide", None, "Who may not pull a repository gets the answer for a missing one."],
        ["check", None, "Check every file named, print what was found, and exit."],
    )
    optParameters: tuple[list[str | None], ...] = (
        ["config", "c", None, "TOML file with the same names; the command line wins."],
        ["tls-client-ca", None, None, "CA (PEM) whose client certificates name users by CN."],
        ["upstream-ca", None, None, "Trust this CA (PEM) for an https:// upstream."],
        [
            "minimum-hash",
            None,
            None,
            "Weakest hash in a password file: any, or bcrypt (cost 10) [default: any].",
        ],
        [
            "throttle",
            None,
            None,
            f"Wrong passwords per user and network, or off [default: {DEFAULT_THROTTLE}].",
        ],
        ["groups", None, None, f"Groups file, `name: user user` [default: {DEFAULT_GROUPS}]."],
        ["pull", None, None, f"Who may pull: {WHO} [default: valid-user]."],
        ["push", None, None, "Who may push [default: group:pusher]."],
        ["delete", None, None, "Who may delete [default: group:pusher]."],
        ["catalog", None, None, "Who may list all repositories [default: valid-user]."],
        ["freeze", None, None, "Refuse every push and delete, for the reason given here."],
        ["freeze-file", None, None, "The same while this file is there; it holds the reason."],
        ["realm", None, None, "Realm of the challenge [default: Registry]."],
        ["public-url", None, None, "Origin that clients use, where it differs from Host."],
        [
            "max-connections",
            None,
            None,
            f"N or N/N: in all, and from one network [default: {DEFAULT_CONNECTIONS}, a quarter].",
        ],
        ["read-timeout", None, None, "Longest silence of the registry, seconds [default: 900]."],
        ["drain-timeout", None, None, "Time to finish on SIGTERM, seconds [default: 900]."],
        ["access-log", None, None, "File, or - for standard output [default: -]."],
        [
            "access-log-format",
            None,
            None,
            f"One of {', '.join(LOG_FORMATS)} [default: combined].",
        ],
        [
            "admin",
            None,
            None,
            "Where /healthz, /readyz and /metrics are, such as tcp:127.0.0.1:9180 [default: off].",
        ],
        ["workers", None, None, "Processes that serve: N, or auto: one per CPU [default: 1]."],
    )

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lists: dict[str, list[str]] = {}
        self._keys: list[str | None] = []
        self.settings: Settings

    def opt_listen(self, endpoint: str) -> None:
        """Where to listen, a Twisted endpoint; repeatable [default: tcp:5043]."""
        self._lists.setdefault("listen", []).append(endpoint)

    opt_l = opt_listen

    def opt_tls_cert(self, file: str) -> None:
        """Certificate chain (PEM); repeatable, chosen by SNI."""
        self._lists.setdefault("tls-cert", []).append(file)
        self._keys.append(None)

    def opt_tls_key(self, file: str) -> None:
        """Key (PEM) of the --tls-cert before it [default: in it, or beside it as .key]."""
        if not self._keys:
            raise usage.UsageError(f"--tls-key {file}: stands after the --tls-cert it belongs to")
        if self._keys[-1] is not None:
            raise usage.UsageError(f"--tls-key {file}: the --tls-cert before it has a key already")
        self._keys[-1] = file

    def opt_upstream(self, url: str) -> None:
        """Registry's URL; repeatable, asked in order [default: http://127.0.0.1:5000]."""
        self._lists.setdefault("upstream", []).append(url)

    def opt_auth(self, specification: str) -> None:
        """Who checks passwords, TYPE[:ARG] (see --help-auth); repeatable, asked in order."""
        self._lists.setdefault("auth", []).append(specification)

    def opt_trusted_proxy(self, network: str) -> None:
        """Balancer that says who its clients are: address, network or unix:; repeatable."""
        self._lists.setdefault("trusted-proxy", []).append(network)

    def opt_htpasswd(self, file: str) -> None:
        """Short for --auth htpasswd:FILE [default: auth/htpasswd]."""
        self.opt_auth(f"htpasswd:{file}")

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"regguard {__version__}\n")
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The help, without the options that it does not list."""
        every = self.longOpt
        self.longOpt = [option for option in every if self.lists(option.rstrip("="))]
        try:
            return super().getUsage(width)
        finally:
            self.longOpt = every

    def lists(self, name: str) -> bool:
        """Whether the help lists an option."""
        return True

    def serves(self) -> bool:
        """Whether the words are for a daemon, which needs a certificate."""
        return True

    def parseArgs(self, *words: str) -> None:
        """Nothing but options is understood."""
        if words:
            raise usage.UsageError(f"{words[0]}: is no option; options begin with --, see --help")

    def postOptions(self) -> None:
        """Read the file, merge it in, check the words, make ``settings``."""
        path = self["config"]
        data = None
        if path is not None:
            try:
                data = Path(path).read_bytes()
            except OSError as error:
                raise usage.UsageError(
                    f"--config {path}: cannot be read ({error.strerror}); "
                    "check the path and its mode"
                ) from None
        self.settings = self.settings_with(data)

    def settings_with(self, data: bytes | None) -> Settings:
        """The settings, if this is what the TOML file holds.

        :raises usage.UsageError: with the cure.
        """
        words: _Words = {}
        rules: tuple[Rule, ...] = ()
        if data is not None:
            try:
                configuration = Configuration(data, self["config"])
                words = _words_of(configuration)
                rules = configuration.rules(elsewhere=_KEYS)
            except ValueError as error:
                raise usage.UsageError(str(error)) from None
        for name in (*_NUMBERS, *_TEXTS):
            if self.get(name) is not None:
                words[name] = _said_here(name, self[name])
        for name in _LISTS:
            if name in self._lists:
                words[name] = _said_here(name, self._lists[name])
        if self["hide"]:
            words["hide"] = _said_here("hide", True)
        if "auth" in self._lists:
            words.pop("htpasswd", None)
        if "tls-cert" in self._lists:
            words["tls-key"] = _said_here("tls-key", self._keys)
            words.pop("no-tls", None)
        if self["no-tls"]:
            words["no-tls"] = _said_here("no-tls", True)
            if "tls-cert" not in self._lists:
                words.pop("tls-cert", None)
            if self["tls-client-ca"] is None:
                words.pop("tls-client-ca", None)
        return _settings(words, rules, bool(self["check"]), self.serves())


class _Word(NamedTuple):
    """What was said for one option: where, for errors and for rules, and the value."""

    where: str
    place: str
    value: Any


_Words = dict[str, _Word]


def _said_here(name: str, value: Any) -> _Word:
    return _Word(f"--{name}", "command line", value)


def _words_of(configuration: Configuration) -> _Words:
    """The words of a file; raises ValueError for keys and types that are not known."""
    words = {}
    for name, value in configuration.table.items():
        place = configuration.place(name)
        known(name, (*_KEYS, REPOSITORY), place)
        if name != REPOSITORY:
            where = f"{place}: {name}"
            try:
                words[name] = _Word(where, place, _checked(name, value))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
    return words


def _checked(name: str, value: Any) -> Any:
    """The value of a TOML key, if its type is right; raises ValueError."""
    if name in _LISTS:
        return strings(value)
    if name in _SWITCHES:
        return switch(value)
    if name in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError("takes a number of seconds")
        return value
    if name in _COUNTS and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(value)


def _settings(words: _Words, rules: tuple[Rule, ...], check: bool, serves: bool) -> Settings:
    def said(name: str, default: Any = None) -> Any:
        return words[name].value if name in words else default

    def convert(name: str, default: Any, conversion: Callable[[Any], Any]) -> Any:
        word = words.get(name) or _said_here(name, default)
        try:
            return conversion(word.value)
        except ValueError as error:
            raise usage.UsageError(f"{word.where}: {error}") from None

    auth = list(said("auth", []))
    if "htpasswd" in words:
        auth.append(f"htpasswd:{said('htpasswd')}")
    if not auth:
        auth.append(f"htpasswd:{DEFAULT_HTPASSWD}")
    groups = said("groups")
    if groups is None and Path(DEFAULT_GROUPS).exists():
        groups = DEFAULT_GROUPS
    trusted = convert("trusted-proxy", [], TrustedProxies.parse)
    if not trusted and serves:
        convert("listen", [], _without_introductions)
    upstream_ca = said("upstream-ca")
    freeze = said("freeze")
    freeze_file = said("freeze-file")
    return Settings(
        listen=tuple(convert("listen", [DEFAULT_LISTEN], _endpoints)),
        certificates=_certificates(words) if serves else (),
        tls_client_ca=_client_ca(words) if serves else None,
        upstream=tuple(said("upstream", [DEFAULT_UPSTREAM])),
        upstream_ca=Path(upstream_ca) if upstream_ca is not None else None,
        auth=tuple(auth),
        minimum_hash=convert("minimum-hash", "any", _one_of(MINIMUM_HASHES)),
        throttle=convert("throttle", DEFAULT_THROTTLE, _throttle),
        groups=Path(groups) if groups is not None else None,
        pull=convert("pull", "valid-user", who),
        push=convert("push", "group:pusher", who),
        delete=convert("delete", "group:pusher", who),
        catalog=convert("catalog", "valid-user", who),
        rules=rules,
        hide=said("hide", False),
        freeze=convert("freeze", freeze, _reason) if freeze is not None else None,
        freeze_file=Path(freeze_file) if freeze_file is not None else None,
        realm=convert("realm", "Registry", _one_line),
        trusted_proxies=trusted,
        public_url=said("public-url"),
        max_connections=convert("max-connections", str(DEFAULT_CONNECTIONS), _connections),
        read_timeout=convert("read-timeout", 900, _seconds),
        drain_timeout=convert("drain-timeout", 900, _seconds),
        access_log=said("access-log", "-"),
        access_log_format=convert("access-log-format", "combined", _one_of(LOG_FORMATS)),
        admin=convert("admin", None, _admin),
        workers=convert("workers", "1", _workers),
        said={name: word.place for name, word in words.items()},
        check=check,
    )


def _certificates(words: _Words) -> tuple[tuple[Path, Path | None], ...]:
    if "no-tls" in words and words["no-tls"].value:
        if "tls-cert" in words:
            raise usage.UsageError(
                f"{words['no-tls'].where}: contradicts {words['tls-cert'].where}; say one of them"
            )
        return ()
    if "tls-cert" not in words:
        raise usage.UsageError(
            "--tls-cert: missing; name the certificate chain (PEM), or say --no-tls where "
            "something in front of regguard terminates TLS"
        )
    chains = words["tls-cert"].value
    where, _, keys = words.get("tls-key") or _said_here("tls-key", [])
    if len(keys) > len(chains):
        raise usage.UsageError(f"{where}: more keys than certificates; give each chain one key")
    keys = [*keys, *[None] * (len(chains) - len(keys))]
    return tuple(
        (Path(chain), Path(key) if key is not None else None)
        for chain, key in zip(chains, keys, strict=True)
    )


def _client_ca(words: _Words) -> Path | None:
    word = words.get("tls-client-ca")
    if word is None:
        return None
    if "no-tls" in words and words["no-tls"].value:
        raise usage.UsageError(
            f"{word.where}: contradicts {words['no-tls'].where}; without TLS nobody shows a "
            "certificate, so leave one of them out"
        )
    return Path(word.value)


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{value!r:.20} is no number of seconds") from None
    if not 0 < seconds < 10**9:
        raise ValueError(
            f"{seconds:g} is out of range; it is more than 0 and less than 1e9 seconds"
        )
    return seconds


# More than these are no limit, and no memory of a daemon's.
_MOST_TRIES = 1000
_LONGEST_WINDOW = 86_400


def _throttle(value: str) -> tuple[int, float] | None:
    if value == "off":
        return None
    match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,5})([smh])", value)
    if match is not None:
        tries = int(match[1])
        seconds = int(match[2]) * {"s": 1, "m": 60, "h": 3600}[match[3]]
        if 1 <= tries <= _MOST_TRIES and 1 <= seconds <= _LONGEST_WINDOW:
            return tries, seconds
    raise ValueError(
        f"{value!r} is no throttle; write tries/time with s, m or h, such as {DEFAULT_THROTTLE} "
        f"(at most {_MOST_TRIES} in 24h), or off"
    )


def _connections(value: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"([1-9][0-9]{0,6})(?:/([1-9][0-9]{0,6}))?", value)
    if match is None:
        raise ValueError(
            f"{value!r:.40} is no number of connections; write 5000, or 5000/1000 with those "
            "from one network behind the slash"
        )
    return int(match[1]), int(match[2]) if match[2] else None


def _workers(value: str) -> int:
    if value == "auto":
        # Of cgroups' quotas the kernel tells nobody; of affinity it does.
        return len(os.sched_getaffinity(0))
    if re.fullmatch(r"[1-9][0-9]{0,3}", value) is None or int(value) > MOST_WORKERS:
        raise ValueError(
            f"{value!r:.40} is no number of processes; write 1 to {MOST_WORKERS}, or auto"
        )
    return int(value)


def _endpoints(descriptions: list[str]) -> list[str]:
    for each in descriptions:
        kind, _, rest = each.partition(":")
        if kind == INTRODUCED and rest.partition(":")[0] not in ("tcp", "tcp6", "systemd"):
            raise ValueError(f"{each}: a PROXY header comes over TCP; write haproxy:tcp:5043")
    return descriptions


_ADDRESS_AND_PORT = re.compile(r"tcp:([0-9]{1,3}(?:\.[0-9]{1,3}){3}):([0-9]{1,5})")


def _admin(description: str | None) -> str | None:
    """The endpoint of the admin pages; ``tcp:ADDRESS:PORT`` is short for Twisted's spelling."""
    if description is None:
        return None
    kind = description.partition(":")[0]
    if kind not in ("tcp", "tcp6", "unix", "systemd"):
        raise ValueError(
            f"{description}: is no plain endpoint; write tcp:127.0.0.1:9180, unix:/run/x.sock, "
            "or systemd:domain=INET:name=admin"
        )
    short = _ADDRESS_AND_PORT.fullmatch(description)
    return description if short is None else f"tcp:{short[2]}:interface={short[1]}"


def _without_introductions(descriptions: list[str]) -> None:
    for each in descriptions:
        if each.partition(":")[0] == INTRODUCED:
            raise ValueError(
                f"{each}: a PROXY header may come from trusted proxies only, and there are none; "
                "name the balancer's address with --trusted-proxy"
            )


def _reason(value: str) -> str:
    if not value.strip():
        raise ValueError("say why; everybody who pushes reads it")
    return _one_line(value)


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be one line of printable text")
    return value


def _one_of(values: tuple[str, ...]) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value not in values:
            raise ValueError(f"{value!r} is none of {', '.join(values)}")
        return value

    return convert

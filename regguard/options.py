"""Words to settings: the command line and the TOML file, by the same names.

The command line wins over the file.  Every error is a ``usage.UsageError`` of one line that
names the option (and the file it stands in) and the cure.  Nothing here opens a file but the
TOML one: what the names in the words stand for is loaded by ``service``.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import AuthOptionMixin
from twisted.python import usage

from regguard import __version__
from regguard.access import Who

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_LISTEN = "tcp:5043"
DEFAULT_UPSTREAM = "http://127.0.0.1:5000"
DEFAULT_HTPASSWD = "auth/htpasswd"
DEFAULT_GROUPS = "auth/groups"
LOG_FORMATS = ("common", "combined", "combinedio")
DEFAULT_THROTTLE = "10/5m"
"""Nobody mistypes ten different passwords in five minutes, and who guesses has 2,880 tries a day
from a network: a million-word list takes a year.  Five minutes are short enough to wait for."""
MINIMUM_HASHES = ("any", "bcrypt")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the operator said, checked as far as words can be; times are seconds.

    ``auth`` holds ``TYPE[:ARG]`` specifications in the order in which they are asked;
    ``certificates`` pairs of chain and key (None: look beside the chain), empty for plain HTTP;
    ``throttle`` how many wrong passwords within how long, None for no limit;
    ``groups`` None where the default file may be missing and is; ``said`` the names of the
    options that did not keep their defaults.
    """

    listen: tuple[str, ...]
    certificates: tuple[tuple[Path, Path | None], ...]
    # Both may hold a password.
    upstream: str = field(repr=False)
    upstream_ca: Path | None
    auth: tuple[str, ...] = field(repr=False)
    minimum_hash: str
    throttle: tuple[int, float] | None
    groups: Path | None
    pull: Who
    push: Who
    delete: Who
    catalog: Who
    realm: str
    public_url: str | None
    read_timeout: float
    drain_timeout: float
    access_log: str
    access_log_format: str
    said: frozenset[str]
    check: bool


_LISTS = ("listen", "tls-cert", "tls-key", "auth")
_SWITCHES = ("no-tls",)
_NUMBERS = ("read-timeout", "drain-timeout")
_TEXTS = (
    "upstream",
    "upstream-ca",
    "htpasswd",
    "minimum-hash",
    "throttle",
    "groups",
    "pull",
    "push",
    "delete",
    "catalog",
    "realm",
    "public-url",
    "access-log",
    "access-log-format",
)
_KEYS = (*_LISTS, *_SWITCHES, *_NUMBERS, *_TEXTS)

WHO = "comma list of valid-user, user:NAME, group:NAME, or nobody"


class Options(usage.Options, AuthOptionMixin):
    """The options of ``twist regguard``; ``settings`` holds the result."""

    synopsis = "[options]"
    longdesc = (
        "Guards a container image registry: terminates TLS, authenticates with HTTP Basic, "
        "limits writes to groups, and streams everything else through. With domain.crt, "
        "domain.key and auth/htpasswd in place, `--tls-cert domain.crt` is a complete call."
    )
    supportedInterfaces = (IUsernamePassword,)
    optFlags: tuple[list[str | None], ...] = (
        ["no-tls", None, "Plain HTTP: only behind something that terminates TLS."],
        ["check", None, "Check every file named, print what was found, and exit."],
    )
    optParameters = (
        ["config", "c", None, "TOML file with the same names; the command line wins."],
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
        ["realm", None, None, "Realm of the challenge [default: Registry]."],
        ["public-url", None, None, "Origin that clients use, where it differs from Host."],
        ["read-timeout", None, None, "Longest silence of the registry, seconds [default: 900]."],
        ["drain-timeout", None, None, "Time to finish on SIGTERM, seconds [default: 900]."],
        ["access-log", None, None, "File, or - for standard output [default: -]."],
        [
            "access-log-format",
            None,
            None,
            f"One of {', '.join(LOG_FORMATS)} [default: combined].",
        ],
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
        """Registry: http://, https:// or http+unix:///path [default: http://127.0.0.1:5000]."""
        if "upstream" in self:
            raise usage.UsageError("--upstream: given twice; one guard has one registry")
        self["upstream"] = url

    def opt_auth(self, specification: str) -> None:
        """Who checks passwords, TYPE[:ARG] (see --help-auth); repeatable, asked in order."""
        self._lists.setdefault("auth", []).append(specification)

    def opt_htpasswd(self, file: str) -> None:
        """Short for --auth htpasswd:FILE [default: auth/htpasswd]."""
        self.opt_auth(f"htpasswd:{file}")

    def opt_version(self) -> None:
        """Print the version and exit."""
        sys.stdout.write(f"regguard {__version__}\n")
        raise SystemExit(0)

    def parseArgs(self, *words: str) -> None:
        """Nothing but options is understood."""
        if words:
            raise usage.UsageError(f"{words[0]}: is no option; options begin with --, see --help")

    def postOptions(self) -> None:
        """Merge the file in, check the words, make ``settings``."""
        words = self._words_of_file()
        for name in (*_NUMBERS, *_TEXTS):
            if self.get(name) is not None:
                words[name] = (f"--{name}", self[name])
        for name in _LISTS:
            if name in self._lists:
                words[name] = (f"--{name}", self._lists[name])
        if "auth" in self._lists:
            words.pop("htpasswd", None)
        if "tls-cert" in self._lists:
            words["tls-key"] = ("--tls-key", self._keys)
            words.pop("no-tls", None)
        if self["no-tls"]:
            words["no-tls"] = ("--no-tls", True)
            if "tls-cert" not in self._lists:
                words.pop("tls-cert", None)
        self.settings = _settings(words, bool(self["check"]))

    def _words_of_file(self) -> _Words:
        path = self["config"]
        if path is None:
            return {}
        try:
            with Path(path).open("rb") as file:
                table = tomllib.load(file)
        except OSError as error:
            raise usage.UsageError(
                f"--config {path}: cannot be read ({error.strerror}); check the path and its mode"
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise usage.UsageError(f"{path}: is no TOML: {error}") from None
        return {name: (f"{path}: {name}", _checked(path, name, table[name])) for name in table}


_Words = dict[str, tuple[str, Any]]
"""Option name to where it was said (for errors) and what was said."""


def _checked(path: str, name: str, value: Any) -> Any:
    """The value of a TOML key, if key and type are known."""
    if name not in _KEYS:
        near = difflib.get_close_matches(name, _KEYS, 1)
        cure = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(_KEYS))}"
        raise usage.UsageError(f"{path}: {name}: unknown key; {cure}")
    if name in _LISTS:
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(each, str) for each in values):
            raise usage.UsageError(
                f"{path}: {name}: takes a string or a list of strings, not an empty one"
            )
        return values
    if name in _SWITCHES:
        if not isinstance(value, bool):
            raise usage.UsageError(f"{path}: {name}: takes true or false")
    elif name in _NUMBERS:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise usage.UsageError(f"{path}: {name}: takes a number of seconds")
    elif not isinstance(value, str):
        raise usage.UsageError(f"{path}: {name}: takes a string")
    return value


def _settings(words: _Words, check: bool) -> Settings:
    def said(name: str, default: Any = None) -> Any:
        return words[name][1] if name in words else default

    def convert(name: str, default: Any, conversion: Callable[[Any], Any]) -> Any:
        where, value = words.get(name, (f"--{name}", default))
        try:
            return conversion(value)
        except ValueError as error:
            raise usage.UsageError(f"{where}: {error}") from None

    auth = list(said("auth", []))
    if "htpasswd" in words:
        auth.append(f"htpasswd:{said('htpasswd')}")
    if not auth:
        auth.append(f"htpasswd:{DEFAULT_HTPASSWD}")
    groups = said("groups")
    if groups is None and Path(DEFAULT_GROUPS).exists():
        groups = DEFAULT_GROUPS
    upstream_ca = said("upstream-ca")
    return Settings(
        listen=tuple(said("listen", [DEFAULT_LISTEN])),
        certificates=_certificates(words),
        upstream=said("upstream", DEFAULT_UPSTREAM),
        upstream_ca=Path(upstream_ca) if upstream_ca is not None else None,
        auth=tuple(auth),
        minimum_hash=convert("minimum-hash", "any", _one_of(MINIMUM_HASHES)),
        throttle=convert("throttle", DEFAULT_THROTTLE, _throttle),
        groups=Path(groups) if groups is not None else None,
        pull=convert("pull", "valid-user", Who.parse),
        push=convert("push", "group:pusher", Who.parse),
        delete=convert("delete", "group:pusher", Who.parse),
        catalog=convert("catalog", "valid-user", Who.parse),
        realm=convert("realm", "Registry", _one_line),
        public_url=said("public-url"),
        read_timeout=convert("read-timeout", 900, _seconds),
        drain_timeout=convert("drain-timeout", 900, _seconds),
        access_log=said("access-log", "-"),
        access_log_format=convert("access-log-format", "combined", _one_of(LOG_FORMATS)),
        said=frozenset(words),
        check=check,
    )


def _certificates(words: _Words) -> tuple[tuple[Path, Path | None], ...]:
    if "no-tls" in words and words["no-tls"][1]:
        if "tls-cert" in words:
            raise usage.UsageError(
                f"{words['no-tls'][0]}: contradicts {words['tls-cert'][0]}; say one of them"
            )
        return ()
    if "tls-cert" not in words:
        raise usage.UsageError(
            "--tls-cert: missing; name the certificate chain (PEM), or say --no-tls where "
            "something in front of regguard terminates TLS"
        )
    chains = words["tls-cert"][1]
    where, keys = words.get("tls-key", ("", []))
    if len(keys) > len(chains):
        raise usage.UsageError(f"{where}: more keys than certificates; give each chain one key")
    keys = [*keys, *[None] * (len(chains) - len(keys))]
    return tuple(
        (Path(chain), Path(key) if key is not None else None)
        for chain, key in zip(chains, keys, strict=True)
    )


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

"""The load: wrk, hey and curl, and what they measured.

wrk resumes its TLS sessions wherever the server lets it; hey, which is Go's client as docker and
skopeo are, never does.  (Both seen with nginx's ``$ssl_session_reused``, TLS 1.2 and 1.3, and that
ab, which does not resume either, takes a third more CPU for each connection than hey.)
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from typing import NamedTuple

from tests.bench.contenders import OWN, Contender
from tests.bench.ground import PASSWORD, PUSHER, USER, authorization
from tests.bench.stub import BLOB, BLOB_BYTES, LAYER, LAYER_BYTES, TARGET, TARGET_BYTES, UPLOAD
from tests.e2e.programs import binary

# Longer than 64 hashes of bcrypt-12 on one core.
_ANSWER_SECONDS = 60
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


# A kept connection may be closed at any time, and Apache does so when it ends a process: then wrk
# had to read, and could not.  So many of its requests a peer may lose; regguard may lose none.
_CUT = 1 / 200


class Spoiled(Exception):
    """A run whose figure would be no comparison: refused or broken requests."""


class Answered(NamedTuple):
    """By wrk: per second, and how long they took, in seconds."""

    rate: float
    p50: float
    p99: float


def wrk(
    contender: Contender, seconds: float, connections: int, headers: tuple[str, ...] = ()
) -> Answered:
    """Authenticated GETs over kept connections; every answer is a 200 and whole."""
    headers = (f"Authorization: {authorization()}", *headers)
    said = _run(
        *(binary("wrk"), "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency"),
        *("--timeout", f"{_ANSWER_SECONDS}s"),
        *(word for header in headers for word in ("-H", header)),
        _url(contender, TARGET),
        seconds=seconds,
    )
    read = re.search(r"(\d+) requests in \S+, ([\d.]+)([KMG]?)B read", said)
    rate = re.search(r"Requests/sec: +([\d.]+)", said)
    p50, p99 = (re.search(rf" {part}% +([\d.]+)(us|ms|s|m)\b", said) for part in (50, 99))
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said
    )
    connect, cut, write, late = map(int, errors.groups()) if errors else (0, 0, 0, 0)
    if (
        not (read and rate and p50 and p99)
        or "Non-2xx" in said
        or connect + write + late
        or cut > (0 if contender.name in OWN else int(read[1]) * _CUT)
        or float(read[2]) * _UNITS[read[3]] < int(read[1]) * TARGET_BYTES
    ):
        raise Spoiled(f"{contender.name}, wrk:\n{said}")
    times = (float(it[1]) * _SECONDS[it[2]] for it in (p50, p99))
    return Answered(float(rate[1]), *times)


def hey(contender: Contender, seconds: float, connections: int) -> float:
    """Authenticated GETs per second, each over a connection with a full TLS handshake."""
    said = _run(
        *(binary("hey"), "-disable-keepalive", "-z", f"{seconds:.0f}s", "-c", str(connections)),
        *("-t", str(_ANSWER_SECONDS), "-H", f"Authorization: {authorization()}"),
        # Without that, it takes address and port for the server's name, and Caddy knows none such.
        *("-host", "localhost"),
        _url(contender, TARGET),
        seconds=seconds,
    )
    statuses = dict(re.findall(r"\[(\d+)\]\s+(\d+) responses", said))
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    size = re.search(r"Size/request:\s+(\d+) bytes", said)
    if set(statuses) != {"200"} or rate is None or size is None or int(size[1]) != TARGET_BYTES:
        raise Spoiled(f"{contender.name}, hey:\n{said}")
    return float(rate[1])


def pull(contender: Contender) -> float:
    """Seconds for the whole blob, the TLS handshake among them."""
    return _transfer(contender, "200", "size_download", USER, _url(contender, BLOB))


def push(contender: Contender, blob: str) -> float:
    """Seconds for the whole blob.  Nobody waits for ``100 Continue``."""
    words = ("--upload-file", blob, "--header", "Expect:", _url(contender, UPLOAD))
    return _transfer(contender, "201", "size_upload", PUSHER, *words)


def _transfer(contender: Contender, status: str, size: str, user: str, *words: str) -> float:
    said = _run(
        *_curl(user, f"%{{http_code}} %{{{size}}} %{{time_total}}\\n"),
        *words,
        seconds=60,
    )
    got, octets, seconds = said.split()
    if (got, octets) != (status, str(BLOB_BYTES)):
        raise Spoiled(f"{contender.name}, curl: {said}")
    return float(seconds)


class Bulk:
    """Layers that are pulled by several clients, one after the other, until told to stop."""

    def __init__(self, contender: Contender, clients: int) -> None:
        self._contender = contender
        # curl's own loop; the fragment is not sent, and standard output would be buffered.
        words = (*_curl(USER, "%{stderr}%{http_code} %{size_download}\\n"),)
        self._began = time.monotonic()
        self._clients = [
            subprocess.Popen(
                [*words, _url(contender, LAYER) + "#[1-1000000]"],
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(clients)
        ]

    def stop(self) -> float:
        """End it; octets per second of whole layers."""
        took = time.monotonic() - self._began
        for client in self._clients:
            client.terminate()
        said = "".join(client.communicate()[1] for client in self._clients)
        lines = [line for line in said.splitlines() if line.startswith("200 ")]
        whole = [line for line in lines if line == f"200 {LAYER_BYTES}"]
        # Each client may have been in the middle of one.
        if not whole or len(said.splitlines()) - len(whole) > len(self._clients):
            raise Spoiled(f"{self._contender.name}, bulk pulls:\n{said[-500:]}")
        return len(whole) * LAYER_BYTES / took


@contextlib.contextmanager
def bulk(contender: Contender, clients: int) -> Iterator[Bulk]:
    """Pulls in the background, which have begun, and which end in any case."""
    pulls = Bulk(contender, clients)
    try:
        time.sleep(0.5)
        yield pulls
    finally:
        for client in pulls._clients:
            if client.poll() is None:
                client.kill()
                client.wait()


def _curl(user: str, report: str) -> tuple[str, ...]:
    return (
        *(binary("curl"), "--silent", "--insecure", "--http1.1", "--output", "/dev/null"),
        *("--user", f"{user}:{PASSWORD}", "--write-out", report),
    )


def _url(contender: Contender, target: str) -> str:
    return f"https://127.0.0.1:{contender.port}{target}"


def _run(*words: str, seconds: float) -> str:
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=seconds + _ANSWER_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise Spoiled(str(error)) from None
    except subprocess.CalledProcessError as error:
        raise Spoiled(f"{error}\n{error.stdout}\n{error.stderr}") from None
    return done.stdout

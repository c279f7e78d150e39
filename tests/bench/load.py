"""The load: wrk, and what it measured."""

from __future__ import annotations

import base64
import re
import subprocess
from dataclasses import dataclass

from tests.bench.contenders import PASSWORD, TARGET, USER, Contender
from tests.e2e.programs import binary


class Spoiled(Exception):
    """A run whose figure would be no comparison: refused or broken requests."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a way to ask."""

    name: str
    connections: int
    headers: tuple[str, ...] = ()

    def measure(self, contender: Contender, seconds: int) -> float:
        """Authenticated GETs per second, every one of them answered with 200."""
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        headers = (f"Authorization: Basic {token}", *self.headers)
        done = subprocess.run(
            [
                *(binary("wrk"), "-t1", f"-c{self.connections}", f"-d{seconds}s"),
                *(word for header in headers for word in ("-H", header)),
                f"https://127.0.0.1:{contender.port}{TARGET}",
            ],
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            check=True,
        )
        if re.search(r"Non-2xx|Socket errors", done.stdout):
            raise Spoiled(f"{contender.name}, {self.name}:\n{done.stdout}")
        rate = re.search(r"Requests/sec: +([\d.]+)", done.stdout)
        assert rate is not None, done.stdout
        return float(rate[1])


ROWS = (
    Row("kept-alive GET/s (wrk -t1 -c16)", 16),
    # How docker and skopeo ask: one TLS connection per request.
    Row("one connection per GET, GET/s (-t1 -c8)", 8, ("Connection: close",)),
)

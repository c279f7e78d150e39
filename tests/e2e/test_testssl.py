"""Group G as a third party sees it: testssl.sh has nothing to say against the listener."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.e2e.programs import Ground, binary
from tests.e2e.stage import staging

SERIOUS = {"MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"}

OF_THE_AUTHORITY = {"cert_revocation"}
"""Where revocations can be looked up, a certificate says; that of these tests does not."""

RACES = {"sessionresumption_ticket"}
"""Its client leaves with the handshake, and may have no ticket yet to come again with."""

# It takes some 40 s, and more where others work on the machine, too.
SECONDS = 400


def test_g01_testssl_finds_nothing_above_low(ground: Ground, tmp_path: Path) -> None:
    """With an ECDSA and an RSA certificate of a CA that it is told to trust."""
    with (
        staging(ground, tmp_path / "ecdsa") as ecdsa,
        staging(ground, tmp_path / "rsa", "--tls-cert", str(ground.rsa_certificate)) as rsa,
    ):
        running = [
            subprocess.Popen(
                [
                    *(binary("testssl"), "--warnings", "batch", "--color", "0", "--quiet"),
                    *("--add-ca", str(ground.ca), "--jsonfile", str(tmp_path / f"{name}.json")),
                    f"localhost:{stage.guard.port}",
                ],
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for name, stage in (("ecdsa", ecdsa), ("rsa", rsa))
        ]
        try:
            statuses = [each.wait(SECONDS) for each in running]
        finally:
            for each in running:
                each.kill()
        for stage in (ecdsa, rsa):
            stage.check()

    # Below 50 it counts what it could not try at first, where others work on the machine, too.
    assert max(statuses) < 50
    for name in ("ecdsa", "rsa"):
        findings = json.loads((tmp_path / f"{name}.json").read_text())
        said = {each["id"]: each["finding"] for each in findings}
        assert said["TLS1_3"].startswith("offered")
        assert said["cert_chain_of_trust"] == "passed."
        assert [
            each
            for each in findings
            if each["severity"] in SERIOUS and each["id"] not in OF_THE_AUTHORITY | RACES
        ] == []

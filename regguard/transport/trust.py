"""Whose certificates a client side of ours takes: a CA file instead of the system's store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.ssl import Certificate, trustRootFromCertificates

_BEGIN = b"-----BEGIN CERTIFICATE-----"


def trust_in(path: Path, option: str) -> Any:
    """The trust root of a file of PEM certificates.

    :raises ValueError: naming the option and the file, with the cure.
    """
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{option} {path}: cannot be read ({error.strerror}); check the path and its mode"
        ) from None
    try:
        found = [Certificate.loadPEM(_BEGIN + each) for each in pem.split(_BEGIN)[1:]]
    except Exception:
        found = []
    if not found:
        raise ValueError(
            f"{option} {path}: holds no PEM certificate; it starts with {_BEGIN.decode()}"
        )
    return trustRootFromCertificates(found)

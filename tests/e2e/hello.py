"""TLS ClientHellos by hand (RFC 8446 section 4.1.2), for what no library would send."""

from __future__ import annotations

import os
import struct

HANDSHAKE = 22


def vector(octets: bytes, width: int) -> bytes:
    """``octets`` behind their length in ``width`` octets."""
    return len(octets).to_bytes(width, "big") + octets


def extension(kind: int, octets: bytes) -> bytes:
    """One extension."""
    return struct.pack(">H", kind) + vector(octets, 2)


def server_name(name: bytes) -> bytes:
    """The extension of RFC 6066 section 3."""
    return extension(0, vector(b"\0" + vector(name, 2), 2))


def client_hello(*extensions: bytes) -> bytes:
    """A TLS 1.2 hello with forward-secret suites; the handshake message without its record."""
    usual = (
        extension(10, vector(bytes.fromhex("001d0017"), 2)),  # x25519, P-256
        extension(11, vector(b"\0", 1)),  # uncompressed points
        extension(13, vector(bytes.fromhex("040308040401"), 2)),  # ECDSA and RSA with SHA-256
    )
    body = b"".join(
        (
            b"\x03\x03",
            os.urandom(32),
            vector(b"", 1),  # no session
            vector(bytes.fromhex("c02bc02fcca9cca8"), 2),
            vector(b"\0", 1),  # no compression
            vector(b"".join((*usual, *extensions)), 2),
        )
    )
    return b"\x01" + vector(body, 3)


def records(message: bytes, size: int = 16_384) -> bytes:
    """A handshake message in records of at most ``size`` octets."""
    return b"".join(
        bytes((HANDSHAKE, 3, 1)) + vector(message[at : at + size], 2)
        for at in range(0, len(message), size)
    )

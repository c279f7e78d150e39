"""TLS records between OpenSSL and memory that is there already.

pyOpenSSL makes 16 KiB of memory anew for each read, and asks for reasons after each success.  Here
OpenSSL reads into one place for all connections, out of which a turn's octets are copied once, and
a success is just that.

Private names of pyOpenSSL: ``SSL._lib``, ``SSL._ffi``, ``Connection._ssl``, ``_raise_ssl_error``.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

RECORD = 16 * 1024
"""Octets of the largest TLS record (RFC 8446 section 5.1)."""

ROOM = 9 * RECORD
"""Octets that fit into the place of what is read."""

_lib: Any = SSL._lib  # type: ignore[attr-defined]
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]
_read, _write, _shake, _why = (
    _lib.SSL_read,
    _lib.SSL_write,
    _lib.SSL_do_handshake,
    _lib.SSL_get_error,
)
_WANT_READ: int = _lib.SSL_ERROR_WANT_READ
_buffer, _octets_of = _ffi.buffer, _ffi.from_buffer
# Between two calls of a turn only: there is one reactor thread, and a turn ends by copying it out.
_PLACE = _ffi.new("char[]", ROOM)


class Records(SSL.Connection):
    """An ``SSL.Connection`` on a non-blocking socket.

    That a client has not sent more yet is no exception here: it happens in every handshake.
    """

    def shake_hands(self) -> bool:
        """Go on with the handshake; whether it is done.  Raises as ``do_handshake`` else."""
        result: int = _shake(self._ssl)
        if result > 0:
            return True
        if _why(self._ssl, result) != _WANT_READ:
            self._raise_ssl_error(self._ssl, result)
        return False

    def read(self, at: int) -> int:  # type: ignore[override]
        """Read the next record to offset ``at``; how many octets it had, 0 if it is not there.

        Raises as ``recv`` else.
        """
        if at > ROOM - RECORD:  # C would write on behind the place
            raise ValueError("no room for a record")
        count: int = _read(self._ssl, _PLACE + at, RECORD)
        if count <= 0:
            if _why(self._ssl, count) != _WANT_READ:
                self._raise_ssl_error(self._ssl, count)
            return 0
        return count

    def send_some(self, data: bytes | memoryview) -> int:
        """Encrypt and send what the socket takes now; the number of octets.

        OpenSSL takes one record a call and wants the same octets again after WANT_WRITE, so every
        call offers at most one record.  Raises as ``send``, but for that.
        """
        ssl = self._ssl
        octets = _octets_of(data)
        size = len(data)
        sent = 0
        while sent < size:
            left = size - sent
            count = _write(ssl, octets + sent, left if left < RECORD else RECORD)
            if count <= 0:
                try:
                    self._raise_ssl_error(ssl, count)
                except SSL.WantWriteError:
                    break
            sent += count
        return sent


def what_was_read(size: int) -> bytes:
    """The first octets of what the last reads have left."""
    octets: bytes = _buffer(_PLACE, size)[:]
    return octets

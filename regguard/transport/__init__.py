"""Sockets under Twisted's reactor, with fewer copies and fewer turns.

The only room that touches private names of Twisted's (buffers of ``FileDescriptor``, the closing
steps of ``tcp.Server``) and of pyOpenSSL's; each use says which.  Everything here has a plain
counterpart in Twisted with the same contract (``ITCPTransport``), and the rooms above work with
either.

``eager``
    a write that reaches the socket in the same turn where nothing is queued before it;
``at_once``
    connections within this machine, there in the same turn;
``direct``
    reads that go straight to the protocol;
``reset``
    whether a connection that nobody reads was reset by the other side;
``tls``
    an accepted TCP connection whose octets go through OpenSSL on the socket itself;
``records``
    TLS records between OpenSSL and memory that is there already;
``proxied``
    an accepted TCP connection that a PROXY header introduces, plain or with TLS after it;
``accepting``
    a port that accepts no more than there is room for;
``inherited``
    listening sockets that several processes hold;
``turns``
    the reactor's turn without a detour for the legacy log, and with requests before bulk.
"""

from __future__ import annotations

from regguard.transport.accepting import bound_accepts
from regguard.transport.at_once import AtOnceEndpoint
from regguard.transport.contract import StreamTransport
from regguard.transport.direct import read_directly
from regguard.transport.eager import unsent_by, writer_for
from regguard.transport.inherited import InheritedEndpoint, leave_to_others
from regguard.transport.proxied import proxied_transport
from regguard.transport.reset import tell_resets, was_reset
from regguard.transport.tls import TLSServer, tls_of, tls_transport
from regguard.transport.turns import quicken

__all__ = [
    "AtOnceEndpoint",
    "InheritedEndpoint",
    "StreamTransport",
    "TLSServer",
    "bound_accepts",
    "leave_to_others",
    "proxied_transport",
    "quicken",
    "read_directly",
    "tell_resets",
    "tls_of",
    "tls_transport",
    "unsent_by",
    "was_reset",
    "writer_for",
]

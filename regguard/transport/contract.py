"""What the rooms above ask of a transport.

``twisted.internet.tcp``'s connections, ``TLSServer`` and Twisted's memory-BIO TLS all have it
(the last one without ``loseWriteConnection``, see ``front.Site.half_closes``).
"""

from __future__ import annotations

from typing import Any, Protocol


class StreamTransport(Protocol):
    """An ITCPTransport that is a consumer and a push producer, too."""

    def write(self, data: bytes) -> None:
        """Send, now or when there is room (ITransport)."""

    def loseConnection(self) -> None:
        """Close after what is queued has left (ITransport)."""

    def loseWriteConnection(self) -> None:
        """Close our direction after what is queued has left (IHalfCloseableDescriptor)."""

    def abortConnection(self) -> None:
        """Cut the connection (IAbortable)."""

    def getPeer(self) -> Any:
        """The address of the other side (ITransport)."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Send small writes at once (ITCPTransport)."""

    def pauseProducing(self) -> None:
        """Read no further (IPushProducer)."""

    def resumeProducing(self) -> None:
        """Read on (IPushProducer)."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause and resume this producer as the queue fills and empties (IConsumer)."""

    def unregisterProducer(self) -> None:
        """The producer is done (IConsumer)."""

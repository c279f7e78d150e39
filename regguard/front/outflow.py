"""What we write and a client does not read.

A transport knows one producer and tells nobody else that its queue is not empty.  Two have to
know: whoever produces the response, and the channel, which must not serve further requests to a
client that does not take the answers, and must not wait for it for ever.  ``Outflow`` is that one
producer, for the whole life of a connection, and tells both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from regguard.front.channel import Channel


@implementer(IPushProducer)
class Outflow:
    """``blocked`` while octets are queued for the client."""

    __slots__ = ("_channel", "_source", "blocked")

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._source: Any = None
        self.blocked = False

    def attach(self, source: Any) -> None:
        """``source`` (IPushProducer) produces the response that is under way."""
        self._source = source
        if self.blocked:
            source.pauseProducing()

    def detach(self) -> None:
        """The source is done."""
        self._source = None

    def pauseProducing(self) -> None:
        """Octets are queued."""
        if not self.blocked:
            self.blocked = True
            self._channel.outflow_blocked()
            if self._source is not None:
                self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """Everything has left."""
        self.blocked = False
        self._channel.outflow_free()
        if self._source is not None:
            self._source.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is gone."""
        if self._source is not None:
            self._source.stopProducing()

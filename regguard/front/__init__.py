"""The door: listening, certificates, and the HTTP/1.1 server channel.

``endpoint -> Site -> Channel -> resource.render(request)``, as in ``twisted.web``, with one
difference that everything else rests on: the resource gets the request when its head is
complete, and the body only when it asks for it.
"""

from __future__ import annotations

from regguard.front.channel import Channel
from regguard.front.request import BodySink, Request
from regguard.front.site import Site

__all__ = ["BodySink", "Channel", "Request", "Site"]

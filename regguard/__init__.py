"""regguard: a guard in front of a container image registry.

The house, in the order in which a request walks through it.  Imports run strictly from a room
to the rooms named on its right; there are no cycles.

=================  =================================================================  =============
room               duty                                                               imports
=================  =================================================================  =============
``options``        words (command line and TOML) to one validated ``Settings``        access,
                                                                                      addresses,
                                                                                      configuration
``configuration``  the TOML file: its keys with their lines, the rules per            access
                   repository
``parts``          settings to parts: every file they name, opened and checked        access,
                                                                                      auth, files,
                                                                                      front,
                                                                                      options,
                                                                                      relay,
                                                                                      transport
``service``        composition root: parts to running services                        all
``front``          the door: listening, certificates, how many may come, the          http1,
                   HTTP/1.1 server channel                                            transport,
                                                                                      addresses,
                                                                                      answers,
                                                                                      files
``http1``          the grammar: bytes to heads and bodies and back; pure              nothing
``guard``          authenticate, authorize, relay; the catalog, immutable tags, what  auth, access,
                   is hidden                                                          relay,
                                                                                      answers
``answers``        regguard's own answers: the OCI error JSON; pure                   nothing
``auth``           who: Authorization header to ``User`` through ``twisted.cred``     addresses, dn,
                                                                                      files,
                                                                                      transport
``access``         what: method and target to ``Access``, rules to ``Grant`` or       dn
                   ``Denial``; pure
``addresses``      networks, and proxies whose word about their clients counts;       nothing
                   pure
``dn``             distinguished names, in one spelling; pure                         nothing
``files``          files of the operator's: watched, replaced by good versions only   nothing
``relay``          onward: header rules, upstream connections, streaming both ways    http1,
                                                                                      transport
``transport``      sockets: OpenSSL on the socket itself, PROXY headers before it,    nothing
                   writes and near connections in the same turn, the reactor's turn
                   itself; the only room that touches private names of Twisted's and
                   of pyOpenSSL's
``ops``            what operators look at and act on: the logs, pushes, metrics,      nothing
                   the admin pages, signals, systemd, workers
``vitals``         what a running guard says of itself: its numbers, whether it is    auth, files,
                   ready                                                              front, ops,
                                                                                      relay
``demo``           ``regguard demo``: a registry, a guard and lines to try            nothing
``passwd``         ``regguard passwd``: a user's line in a password file              auth, files
``explain``        ``regguard explain``: the verdict on one request, and its rule     service,
                                                                                      parts, auth,
                                                                                      files,
                                                                                      access,
                                                                                      options
``check``          ``regguard check``: what ``twist regguard`` would find             service,
                                                                                      parts, auth,
                                                                                      files,
                                                                                      explain
``cli``            the ``regguard`` command                                           demo, passwd,
                                                                                      check,
                                                                                      explain,
                                                                                      auth
=================  =================================================================  =============

``twisted/plugins/regguard_plugin.py`` names the ``twist regguard`` service and the ``--auth
htpasswd:FILE`` checker, and nothing else.
"""

from __future__ import annotations

__version__ = "0.1.0"

"""LDAP and Active Directory: the checker behind ``--auth ldap:...``.

==============  ============================================================================
``settings``    the argument of ``--auth ldap:``, taken apart and checked
``checker``     the checker: who is this, by which server, and what if none answers
``lines``       lines to a server, opened, kept, cut; what is done on them runs in threads
``wire``        a connection to a server, TLS included, and its end for the LDAP library
``session``     what is said over it, through the LDAP library
==============  ============================================================================

The reactor makes the connections, and the library (python-ldap on libldap) speaks LDAP on a local
socket, in a thread. Left to make its own connections, libldap 2.5 with GnuTLS, as Debian 12 has it,
spins in a TLS handshake for as long as the server is silent, whatever time-outs are set. Over a
wire every wait of a thread has a limit, and cutting the wire ends it at once. TLS is then the same
as everywhere in regguard, too: one way to say which CA is trusted, names checked by
service-identity, and no ``ldap.conf`` or ``LDAPTLS_REQCERT`` that could switch that off.
"""

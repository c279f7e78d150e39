"""Who: an Authorization header becomes a :class:`~regguard.auth.realm.User`, through twisted.cred.

In the order in which a credential walks through it:

==================  ========================================================================
``authenticator``   header -> ``User``, at once from the cache or as a Deferred; single flight
``verified``        the cache: credentials that were verified, until what they rest on changes
``basic``           the header's grammar: strict Basic of RFC 7617
``throttle``        how many wrong passwords somebody may try
``audit``           refused log-ins, for whoever watches the log
``htpasswd``        the checker for a password file, and the file's grammar
``editing``         a line of a password file added, changed or taken out
``hashes``          one stored hash: which schemes, which costs, does a password match
``directory``       the checker for LDAP and Active Directory, a room of its own
``threads``         a bounded thread pool with a bounded queue, in which hashing happens
``realm``           the avatar (``User``), the realm, and groups files
``factory``         the strcred factories for ``--auth htpasswd:`` and ``ldap:`` (import-light)
``interfaces``      what a checker may offer beyond ``ICredentialsChecker``, and the failures
==================  ========================================================================

This package imports nothing by itself: ``factory`` is loaded by every ``twist`` program on the
machine, and must not bring the hash library with it.
"""

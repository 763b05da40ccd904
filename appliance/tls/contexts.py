"""What a server offers: for each name a certificate, and tickets whose keys change.

OpenSSL keeps its ticket keys in the context that a connection was made from, and the certificate in
the context that is set before the handshake. So there are two kinds here: *accept* contexts, which
hold ticket keys and no certificate, and one context for each credential. A new certificate is a new
context of the second kind, and every ticket stays good; new ticket keys are a new context of the
first kind, and the one before is kept for as long as its tickets live. Which of the two a client's
ticket needs is seen from the name of its key (RFC 5077 §4), in the hello.

A pyOpenSSL context cannot be changed once it was used, which is no loss: nothing here ever is.

May import pyOpenSSL, cryptography and this package. Time is an argument.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from OpenSSL import SSL

from appliance.tls.credential import Credential
from appliance.tls.errors import CredentialError
from appliance.tls.hello import TICKET_NAME, Hello

CIPHERS: Final = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
    b"ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
    b"ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
"""TLS 1.2: RFC 9325 §4.2 recommends these (AES) and allows ChaCha20; all have forward secrecy."""
SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""TLS 1.3, in the order of RFC 8446 §9.1: the first is the one that everybody has, and fastest."""

TICKET_SECONDS: Final = 12 * 3600
"""Life of a ticket, and of the keys that new ones are made with: forward secrecy of resumed
sessions is no better than this. RFC 8446 §4.6.1 allows a week."""

ACME_TLS: Final = b"acme-tls/1"
"""RFC 8737 §6.2."""

Keylog = Callable[[bytes], None]


class Chosen(NamedTuple):
    """For one connection: where the ticket keys are, and where the certificate is."""

    accept: SSL.Context
    named: SSL.Context


class RefusedError(Exception):
    """A hello that gets an alert at once; `alert` is its number, `reason` what to count."""

    def __init__(self, alert: int, reason: str) -> None:
        super().__init__(reason)
        self.alert = alert
        self.reason = reason


def _plain(keylog: Keylog | None) -> SSL.Context:
    """A server's context with everything but a certificate and protocols."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)  # RFC 8996: older ones are not to be used
    context.set_cipher_list(CIPHERS)
    context.set_tls13_ciphersuites(SUITES)
    # RFC 9325 §3.4: no renegotiation; §3.3: no compression.
    context.set_options(
        SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_COMPRESSION
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 11 KB less for a connection at rest
    # One SSL_write makes all records that its octets need.
    context.clear_mode(PARTIAL_WRITE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)  # tickets only: nothing is kept for a peer
    context.set_timeout(TICKET_SECONDS)
    if keylog is not None:
        context.set_keylog_callback(lambda _connection, line: keylog(line))
    return context


PARTIAL_WRITE: Final = 1
"""SSL_MODE_ENABLEPARTIAL_WRITE of ssl.h; pyOpenSSL sets it and has no name for it."""


class _NoOverlapError(Exception):
    """Raised in OpenSSL's callback: becomes the alert no_application_protocol."""


def _choose_protocol(
    protocols: Sequence[bytes],
) -> Callable[[SSL.Connection, list[bytes]], bytes]:
    """RFC 7301 §3.2: the server's order decides; none in common is fatal."""

    def choose(_connection: SSL.Connection, offered: list[bytes]) -> bytes:
        for protocol in protocols:
            if protocol in offered:
                return protocol
        raise _NoOverlapError("no application protocol in common")

    return choose


def context_of(
    credential: Credential,
    protocols: Sequence[bytes],
    session_id: bytes,
    keylog: Keylog | None,
    ciphers: bytes = CIPHERS,
) -> SSL.Context:
    """The context of a credential; raises CredentialError when OpenSSL will not have it."""
    context = _plain(keylog)
    context.set_cipher_list(ciphers)
    try:
        context.use_certificate(credential.leaf)
        for certificate in credential.chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(credential.key)
        context.check_privatekey()
    except SSL.Error as exc:
        raise CredentialError(f"OpenSSL refuses {credential.source}: {exc}") from exc
    context.set_session_id(session_id)
    if protocols:
        context.set_alpn_select_callback(_choose_protocol(protocols))
    return context


class Names:
    """Values by host name, wildcards included; another for who names nothing, or a stranger."""

    __slots__ = ("_exact", "_other", "_wild")

    def __init__(
        self,
        entries: Iterable[tuple[Sequence[str], SSL.Context]],
        other: SSL.Context | None = None,
    ) -> None:
        self._exact: dict[str, SSL.Context] = {}
        self._wild: dict[str, SSL.Context] = {}
        self._other = other
        for names, value in entries:
            for name in names:
                wild = name.startswith("*.")
                # The first credential that has a name keeps it.
                (self._wild if wild else self._exact).setdefault(name[2:] if wild else name, value)

    def find(self, name: str) -> tuple[SSL.Context | None, bool]:
        """The context for a name, and whether it is really for that name."""
        if not name:
            return self._other, True
        found = self._exact.get(name) or self._wild.get(name.partition(".")[2])
        return (found, True) if found is not None else (self._other, False)


class Tickets:
    """The accept contexts of now, of before and of what comes; `turn` changes them in time.

    Services may share them: whose a session is, the context of the certificate says. OpenSSL makes
    the keys of a context by chance and takes none from us, so processes that are to know each
    other's tickets are forked from one that has made contexts `ahead`.
    """

    __slots__ = ("_ahead", "_epoch", "_keylog", "_next", "_now", "_old", "_period")

    def __init__(self, keylog: Keylog | None, now: float, *, ahead: int = 0) -> None:
        """`ahead`: periods of TICKET_SECONDS to make keys for, besides the present one."""
        self._keylog = keylog
        self._epoch = now  # monotonic seconds, which are the same in all processes
        self._period = 0  # since then
        self._ahead = deque(self._make() for _ in range(ahead))
        self._old: tuple[bytes, SSL.Context] | None = None
        self._now = _named(self._make())
        self._next = self._peek()

    def _make(self) -> SSL.Context:
        return _plain(self._keylog)

    def _peek(self) -> tuple[bytes, SSL.Context] | None:
        """What others may have begun with who looked at the clock a moment earlier."""
        return _named(self._ahead[0]) if self._ahead else None

    def turn(self, now: float) -> bool:
        """Change keys if the present ones are old; `now` in monotonic seconds."""
        period = int((now - self._epoch) // TICKET_SECONDS)
        if period <= self._period:
            return False
        for _ in range(min(period - self._period - 1, len(self._ahead))):
            # Nobody was here; those who have the same keys may have been.
            self._now = _named(self._ahead.popleft())
            self._period += 1
        # After two periods without anybody the old keys have no living ticket either.
        self._old = self._now if period == self._period + 1 else None
        self._now = self._next_one()
        self._next = self._peek()
        self._period = period
        return True

    def _next_one(self) -> tuple[bytes, SSL.Context]:
        return _named(self._ahead.popleft() if self._ahead else self._make())

    def context(self, names: Sequence[bytes]) -> SSL.Context:
        """Where to accept a client that has tickets with these key names."""
        if names:
            for one in (self._old, self._next):
                if one is not None and names[0] == one[0]:
                    return one[1]
        return self._now[1]


def _named(context: SSL.Context) -> tuple[bytes, SSL.Context]:
    return ticket_name(context), context


class Contexts:
    """All that a listener needs to begin a connection; `replace` swaps the certificates.

    `protocols` are ALPN names in order of preference, empty to ignore the extension. `service`
    keeps the sessions of one service from another; `tickets` are those that services share, without
    which there are own ones; `ciphers` are suites of TLS 1.2, in OpenSSL's form, the best first.
    Raises CredentialError.
    """

    def __init__(
        self,
        credentials: Sequence[Credential],
        *,
        protocols: Sequence[bytes],
        service: str,
        now: float,
        keylog: Keylog | None = None,
        tickets: Tickets | None = None,
        ciphers: bytes = CIPHERS,
    ) -> None:
        self._ciphers = ciphers
        self._protocols = tuple(protocols)
        self._session_id = service.encode()[:32]  # RFC 5246: SSL_MAX_SID_CTX_LENGTH
        self._keylog = keylog
        self.credentials: tuple[Credential, ...] = ()
        self._names = Names(())
        self._challenges: dict[str, SSL.Context] = {}  # at most one for each order under way
        self._tickets = tickets or Tickets(keylog, now)
        self.unknown_names = 0  # asked for; they got the first certificate
        self.replace(credentials)

    def replace(self, credentials: Sequence[Credential]) -> None:
        """Offer these from the next connection on; CredentialError leaves the old ones."""
        made = [(c.names, self._context(c, self._protocols, named=True)) for c in credentials]
        other = self._context(credentials[0], self._protocols) if credentials else None
        self._names = Names(made, other)
        self.credentials = tuple(credentials)

    def challenge(self, name: str, credential: Credential | None) -> None:
        """Answer acme-tls/1 for a name with this certificate (RFC 8737 §3); None: no more."""
        if credential is None:
            self._challenges.pop(name, None)
        else:
            self._challenges[name] = self._context(credential, (ACME_TLS,), named=True)

    def _context(
        self, credential: Credential, protocols: Sequence[bytes], *, named: bool = False
    ) -> SSL.Context:
        """The context of a credential; `named`: for those who ask for one of its names."""
        made = context_of(credential, protocols, self._session_id, self._keylog, self._ciphers)
        if named:
            # RFC 6066 §3: who makes use of the name SHALL say so, by an empty extension. OpenSSL
            # does when there is a callback that has nothing against it.
            made.set_tlsext_servername_callback(_nothing_against)
        return made

    def turn(self, now: float) -> bool:
        """Change ticket keys when it is time; `now` in monotonic seconds."""
        return self._tickets.turn(now)

    def choose(self, hello: Hello) -> Chosen:
        """Where to begin; raises RefusedError for what gets an alert without a handshake."""
        if ACME_TLS in hello.alpn:
            # RFC 8737 §4: it is offered alone, and only while an order is under way.
            named = self._challenges.get(hello.server_name)
            if named is None:
                raise RefusedError(120, "no challenge for this name")
            return Chosen(self._tickets.context(()), named)
        found, known = self._names.find(hello.server_name)
        if not known:
            self.unknown_names += 1
        if found is None:
            raise RefusedError(112, "no certificate")  # unrecognized_name: RFC 6066 §3
        return Chosen(self._tickets.context(hello.ticket_names), found)


def _nothing_against(_connection: SSL.Connection) -> None:
    """The name has been looked at, before OpenSSL saw it."""


def ticket_name(accept: SSL.Context) -> bytes:
    """The name that a context gives to its ticket key; b"" if it makes no tickets.

    TLS 1.2 sends tickets in the clear (RFC 5077 §3.3): a handshake with ourselves shows one. It
    needs a certificate only on this one connection.
    """
    from appliance.tls.authority import throwaway

    server = SSL.Connection(accept, None)
    server.set_context(context_of(throwaway(), (), b"probe", None))
    server.set_accept_state()
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    sent = b""
    for _ in range(3):
        for speaker, hearer in ((client, server), (server, client)):
            try:
                speaker.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                flight = speaker.bio_read(65536)
            except SSL.WantReadError:
                continue
            hearer.bio_write(flight)
            if speaker is server:
                sent = flight
    # The server's last flight begins with NewSessionTicket: record, header 4, lifetime 4, length 2.
    if len(sent) < 15 + TICKET_NAME or sent[0] != 22 or sent[5] != 4:
        return b""
    return sent[15 : 15 + TICKET_NAME]

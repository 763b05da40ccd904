"""The certificates: from files, from a certificate authority by ACME, or from our own local one.

They are looked at before anything listens, so that a bad one is told at the start, and looked after
while the appliance runs: files that change are read again, what the local authority issued is
renewed after two thirds of its life, and ACME has a keeper of its own (parts/acme.py). Whatever
goes wrong, the certificate that works stays in use and the reason is kept for `appliance tls`,
which reads it from the state directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from appliance.http.message import NOSNIFF, SERVER, Answer, Request, plain
from appliance.parts.base import Part
from appliance.tls.authority import Authority
from appliance.tls.contexts import CIPHERS, Contexts, Tickets
from appliance.tls.counters import TlsCounters
from appliance.tls.credential import Credential, key_pem, read_files
from appliance.tls.errors import CredentialError
from appliance.tls.store import Store, exposed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from appliance.content import Content
    from appliance.net.transport import Stack
    from appliance.settings import CertificateFiles, Settings

logger = logging.getLogger("appliance.tls")

LOOK: Final = 2.0
"""Seconds between two looks at certificate files: three `stat`s, and nobody waits long."""
RETRY: Final = 60.0
"""Seconds until what could not be had is tried again, though no file has changed: a disk that was
full or read-only, a clock that was wrong, a file that its owner has mended or removed meanwhile."""
RENEW_AT: Final = 2 / 3
"""Fraction of its life after which a certificate is renewed; the rest is for failures."""
CA_PATH: Final = b"/local-ca.crt"
"""Where the local authority's certificate can be had."""
CA_FILE: Final = "ca.pem"
CA_KEY: Final = "ca.key"
STATUS: Final = "status.json"

Clock = Callable[[], dt.datetime]


def utc_now() -> dt.datetime:
    """The time of day, UTC."""
    return dt.datetime.now(dt.UTC)


@dataclass
class Held:
    """A certificate in use, or one that was wanted and could not be had."""

    kind: str  # "files", "local CA", "ACME"
    names: tuple[str, ...]
    credential: Credential | None = None
    renew: dt.datetime | None = None  # UTC; None: when its files change
    error: str = ""  # the last one, "" since it went well
    error_at: dt.datetime | None = None

    def failed(self, error: str, now: dt.datetime) -> None:
        """Remember why it did not work; what works stays."""
        self.error, self.error_at = error, now

    def row(self) -> dict[str, Any]:
        """For `appliance tls` and the metrics."""
        found = self.credential
        return {
            "source": self.kind,
            "names": list(found.names if found else self.names),
            "issuer": found.issuer if found else None,
            "key": found.key_type if found else None,
            "chain": [_subject(c) for c in found.chain] if found else [],
            "sha256": found.fingerprint if found else None,
            "not_before": _text(found.not_before if found else None),
            "not_after": _text(found.not_after if found else None),
            "renewal": _text(self.renew),
            "file": found.source if found else None,
            "error": self.error or None,
            "error_at": _text(self.error_at),
        }


class Certificates(Part):
    """All certificates, and the contexts that offer them."""

    ahead = 0
    """Periods for which ticket keys are made beforehand: for those who are forked afterwards."""
    makes = True
    """Whether a local authority that is not there is made; of several workers, the first makes it
    and the others find it."""

    def __init__(self, settings: Settings, *, clock: Clock = utc_now) -> None:
        super().__init__()
        self._settings = settings
        self.now = clock
        self.store = Store(settings.tls.state / "tls")
        self.counters = TlsCounters()
        self.authority: Authority | None = None
        self._contexts: list[Contexts] = []  # one for each service
        self._tickets: Tickets | None = None  # of all services
        self.on_change: Callable[[], None] = _nothing
        self._files: list[tuple[CertificateFiles, Held, object]] = []
        self._local: Held | None = None
        self.acquired: list[Held] = []  # by ACME, the best first
        self._notes: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._keylog: Any = None
        self._keylog_failed = False  # and said so
        if self.wanted:
            self.store.sweep()
            self._prepare()

    @property
    def wanted(self) -> bool:
        """Whether any service needs certificates."""
        return bool(self._settings.tls.port or self._settings.tls.dot_port)

    @property
    def ready(self) -> bool:
        """Whether there is a certificate to serve with."""
        return bool(self.credentials())

    def credentials(self) -> list[Credential]:
        """What is in use, in the order in which names are looked for: files, ACME, local."""
        held = [held for _, held, _ in self._files] + self.acquired
        if self._local is not None:
            held.append(self._local)
        return [one.credential for one in held if one.credential is not None]

    def held(self) -> list[Held]:
        """All of them, with what went wrong."""
        return [
            *(held for _, held, _ in self._files),
            *self.acquired,
            *([self._local] if self._local is not None else []),
        ]

    def contexts(self, service: str, protocols: tuple[bytes, ...]) -> Contexts:
        """What a service offers, kept up to date from now on."""
        now = time.monotonic()
        keylog = self._log_key if self._settings.tls.keylog else None
        if self._tickets is None:
            self._tickets = Tickets(keylog, now, ahead=self.ahead)
        made = Contexts(
            self.credentials(), protocols=protocols, service=service, now=now, keylog=keylog,
            tickets=self._tickets, ciphers=":".join(self._settings.tls.ciphers).encode() or CIPHERS,
        )  # fmt: skip
        self._contexts.append(made)
        return made

    def challenge(self, name: str, credential: Credential | None) -> None:
        """Answer acme-tls/1 for a name on every listener for the web (RFC 8737); None: no more."""
        for contexts in self._contexts:
            contexts.challenge(name, credential)

    def changed(self) -> None:
        """Offer what there is now; connections that exist go on with what they have."""
        credentials = self.credentials()
        for contexts in self._contexts:
            if contexts.credentials != tuple(credentials):
                contexts.replace(credentials)
        self.on_change()
        self.save_status()

    # -- where they come from -------------------------------------------------------------------

    def _prepare(self) -> None:
        now = self.now()
        for files in self._settings.certificate:
            held = Held("files", ())
            self._files.append((files, held, None))
        self._look_at_files(now)
        for files, held, _ in self._files:
            if held.error:
                self._notes.append(f"certificate refused: {held.error}")
            secret = files.key or files.chain
            if who := exposed(secret):
                self._notes.append(f"{secret}: {who} can read this private key (chmod 600)")
        if not self._settings.certificate:
            self._prepare_local(now)

    def _prepare_local(self, now: dt.datetime) -> None:
        names = local_names(self._settings)
        self._local = Held("local CA", names)
        try:
            self.authority = self._open_authority(names, now)
        except CredentialError as exc:
            self._local.failed(str(exc), now)
            self._notes.append(f"HTTPS is off, for want of a local CA: {exc}")
            return
        self._renew_local(now)

    def _open_authority(self, names: tuple[str, ...], now: dt.datetime) -> Authority:
        """The authority of earlier runs, or a new one."""
        certificate, key = self.store.read(CA_FILE), self.store.read(CA_KEY)
        if certificate is not None and key is not None:
            try:
                authority = Authority.read(certificate, key, now)
            except CredentialError as exc:
                raise CredentialError(
                    f"{self.store.path(CA_FILE)}: {exc}; remove it to have a new one made"
                ) from exc
            if authority.permits(names):
                return authority
        if not self.makes:
            raise CredentialError(f"{self.store.path(CA_FILE)}: not made yet by the first worker")
        authority = Authority.make(names, now)
        # The key first: a certificate without its key would look like a loss.
        self.store.write(CA_KEY, key_pem(authority.key))
        self.store.write(CA_FILE, authority.pem(), public=True)
        if certificate is not None and key is not None:
            self._notes.append("the local CA was made anew, for other names: trust it again")
        return authority

    def _try_local_again(self, held: Held, now: dt.datetime) -> bool:
        """Have the authority that could not be had before; False if it still cannot."""
        if self.makes and not _is_due(held, now):
            return False
        told = len(self._notes)
        try:
            self.authority = self._open_authority(held.names, now)
        except CredentialError as exc:
            if held.error != str(exc):
                logger.warning("HTTPS is still off, for want of a local CA: %s", exc)
            held.failed(str(exc), now)
            return False
        for note in self._notes[told:]:  # the banner is gone
            logger.warning("%s", note)
        # As loud as what was said when it was off.
        logger.warning("HTTPS is on: the local CA is there, %s", self.store.path(CA_FILE))
        return True

    def _renew_local(self, now: dt.datetime) -> bool:
        """Issue anew when it is time, or when the clock says that the old one is of no use."""
        held = self._local
        if held is None or not (self.authority or self._try_local_again(held, now)):
            return False
        authority = self.authority
        assert authority is not None
        present = held.credential
        if (
            present is not None
            and held.renew is not None
            and present.not_before <= now < held.renew
        ):
            return False
        try:
            authority.check(now)
        except CredentialError as exc:
            if held.error != str(exc):
                logger.warning("the local CA's certificate is not renewed: %s", exc)
            held.failed(str(exc), now)
            return False
        held.credential = authority.issue(held.names, now)
        held.renew = renewal(held.credential)
        held.error = ""
        return True

    def _look_at_files(self, now: dt.datetime) -> bool:
        """Read what has changed; True if there is something new to offer."""
        new = False
        for index, (files, held, seen) in enumerate(self._files):
            state = (_state(files.chain), _state(files.key))
            if state == seen and not (held.error and _is_due(held, now)):
                continue
            self._files[index] = (files, held, state)
            try:
                held.credential = read_files(files.chain, files.key, now)
            except CredentialError as exc:
                held.failed(str(exc), now)
                if held.credential is not None and state != seen:
                    logger.warning("certificate refused, the old one stays: %s", exc)
            else:
                if seen is not None:
                    logger.info("certificate of %s read again", files.chain)
                held.error, new = "", True
        return new

    # -- the life of a part ---------------------------------------------------------------------

    async def begin(self, stack: Stack) -> None:
        """Look after them from now on."""
        if self.wanted:
            # A worker may have been forked from what was made weeks ago.
            self.look()
            self.save_status()
            self._task = asyncio.get_running_loop().create_task(self._look_after())

    def reload(self, content: Content) -> None:
        """Look at once, without waiting for the next round."""
        for held in self.held():
            if held not in self.acquired:
                held.error_at = None
        self.look()

    def turn(self) -> None:
        """Change the keys of tickets when it is time."""
        if self._tickets is not None:
            self._tickets.turn(time.monotonic())

    def look(self) -> None:
        """One round: files, local certificate, ticket keys."""
        now = self.now()
        told = [held.error for _, held, _ in self._files]
        new = self._look_at_files(now)
        new = self._renew_local(now) or new
        self.turn()
        if new:
            try:
                self.changed()
            except CredentialError as exc:
                logger.warning("certificate not taken into use: %s", exc)
        elif told != [held.error for _, held, _ in self._files]:
            self.save_status()

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                self.look()
            except Exception:
                logger.exception("certificates are not looked after this time")

    async def end(self) -> None:
        """Stop looking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._keylog is not None:
            self._keylog.close()

    def notes(self) -> list[str]:
        """What was found while starting."""
        return self._notes

    # -- what is told -----------------------------------------------------------------------------

    @property
    def hooks(self) -> Mapping[bytes, Callable[[Request, bytes, str], Answer | None]]:
        """Paths that the web server answers for us."""
        return {CA_PATH: self._offer_authority}

    def _offer_authority(self, request: Request, body: bytes, address: str) -> Answer | None:
        """The local authority's certificate, for those who want to trust it."""
        if self.authority is None:
            return None
        if request.method not in (b"GET", b"HEAD"):
            return plain(405, "", b"Allow: GET, HEAD\r\n")
        pem = self.authority.pem()
        block = b"%sContent-Type: application/x-x509-ca-cert\r\nContent-Length: %d\r\n%s" % (
            SERVER,
            len(pem),
            NOSNIFF,
        )
        return Answer(200, block, () if request.method == b"HEAD" else (pem,))

    @property
    def authority_file(self) -> Path | None:
        """The local authority's certificate on disk, where one is in use."""
        return None if self.authority is None else self.store.path(CA_FILE)

    def save_status(self) -> None:
        """Tell `appliance tls`, which is another process."""
        status = {"written": _text(self.now()), "certificates": [h.row() for h in self.held()]}
        try:
            self.store.write(STATUS, json.dumps(status, indent=1).encode(), public=True)
        except CredentialError as exc:
            logger.warning("%s", exc)

    def days_left(self) -> list[tuple[str, float]]:
        """The first name of each certificate in use, and the days until it expires."""
        now = self.now()
        return [
            (c.names[0], (c.not_after - now).total_seconds() / 86400) for c in self.credentials()
        ]

    def _log_key(self, line: bytes) -> None:
        """The format of SSLKEYLOGFILE, to the file that the settings name."""
        path = self._settings.tls.keylog
        assert path is not None
        try:
            if self._keylog is None:
                self._keylog = _open_secret(path)
            self._keylog.write(line + b"\n")
            self._keylog_failed = False
        except OSError as exc:  # this is called by OpenSSL, where nothing may be raised
            if not self._keylog_failed:
                self._keylog_failed = True
                logger.warning("tls.keylog %s: %s; keys of sessions are lost", path, exc.strerror)


def _nothing() -> None:
    """Who has to be told that there is another certificate: nobody yet."""


def local_names(settings: Settings) -> tuple[str, ...]:
    """What the local certificate is for: the site's names, this host, and our addresses."""
    from urllib.parse import urlsplit

    wanted: list[str] = list(settings.tls.names)
    if not wanted:
        wanted.append(urlsplit(settings.site.base_url).hostname or "localhost")
        wanted += settings.site.aliases
        for host in settings.host:
            wanted += [host.name, *host.aliases]
    wanted += ["localhost", "127.0.0.1", "::1"]
    if not ipaddress.ip_address(settings.gateway.bind).is_unspecified:
        wanted.append(settings.gateway.bind)
    wanted += [cidr.partition("/")[0] for cidr in settings.net.address]
    return tuple(dict.fromkeys(_canonical(name) for name in wanted))


def renewal(credential: Credential, fraction: float = RENEW_AT) -> dt.datetime:
    """When to renew: after a fraction of the life, never at a fixed number of days."""
    return credential.not_before + fraction * (credential.not_after - credential.not_before)


def _canonical(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().rstrip(".").encode("idna").decode()


def _is_due(held: Held, now: dt.datetime) -> bool:
    """Whether what failed may be tried again: what was wrong may be the clock, or who may read."""
    return held.error_at is None or not 0 <= (now - held.error_at).total_seconds() < RETRY


def _state(path: Path | None) -> object:
    """What changes when a file does."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError as exc:
        return exc.errno
    return found.st_mtime_ns, found.st_size, found.st_ino


def _open_secret(path: Path) -> Any:
    import os

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    return open(descriptor, "ab", buffering=0)


def _text(when: dt.datetime | None) -> str | None:
    return None if when is None else when.isoformat(timespec="seconds")


def _subject(certificate: Any) -> str:
    return certificate.subject.rfc4514_string() or "(named by subjectAltName)"


def fingerprints(credentials: Iterable[Credential]) -> list[str]:
    """SHA-256 of each leaf, as people compare them: pairs with colons."""
    return [
        ":".join(c.fingerprint[at : at + 2] for at in range(0, 64, 2)).upper() for c in credentials
    ]

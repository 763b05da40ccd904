"""The keeper of a certificate from an authority: orders, renewals, and what goes wrong with them.

One order at a time, in a thread, since the libraries block; what has to happen on the loop
(requests over our own TCP, proofs in our own zone and listeners) comes back to it. A certificate is
renewed when the authority says so (RFC 9773) or after two thirds of its life. Failures wait longer
each time, also across restarts, and never touch the certificate that works.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import logging
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from appliance.http.message import NOSNIFF, SERVER, Answer, Request
from appliance.parts.base import Part
from appliance.parts.certificates import Held, renewal
from appliance.resolver import NoSuchNameError, Resolver, ResolverError
from appliance.tls.credential import Credential, read_chain, read_key
from appliance.tls.credential import judge as judged
from appliance.tls.dane import owner, tlsa
from appliance.tls.errors import CredentialError

if TYPE_CHECKING:
    from appliance.net.transport import Stack
    from appliance.parts.certificates import Certificates
    from appliance.parts.overlay import Overlay
    from appliance.settings import Acme, Settings
    from appliance.tls.acme import Orders, Proof

logger = logging.getLogger("appliance.acme")

CHALLENGES: Final = b"/.well-known/acme-challenge/"
"""RFC 8555 §8.3."""
PROOF_TTL: Final = 5
"""Seconds: nobody but the authority asks, and it asks for what is there now."""
TLSA_TTL: Final = 300
"""Seconds; a new key is used after twice this (RFC 7671 §8.1)."""
FIRST_WAIT: Final = 60.0
"""Seconds after a first failure; doubled each time."""
LONGEST_WAIT: Final = 86400.0
"""Seconds: five failures an hour for a name is what Let's Encrypt takes, and a day is patient."""
LONGEST_ASKED: Final = 7 * 86400.0
"""Seconds that an authority may have us wait (RFC 8555 §6.6): a week is the longest known limit."""
ASK_AGAIN: Final = 6 * 3600.0
"""Seconds between questions for renewal information that has none to say: RFC 9773 §4.3.3."""
ASK_SOONEST, ASK_LATEST = 60.0, 86400.0
"""Bounds of what it says: RFC 9773 §4.3.2."""
AGAIN: Final = 60.0
"""Seconds until the next look after one that went wrong unforeseen."""
LAY_AGAIN: Final = 2.0
"""Seconds; a look costs microseconds, and a proof has to be there when it is asked for."""
THREAD_SECONDS: Final = 60.0
"""For what a thread asks of the loop."""

T = TypeVar("T")


class Keeper(Part):
    """Keeps one certificate for the names of [acme]."""

    def __init__(self, settings: Settings, certificates: Certificates, overlay: Overlay) -> None:
        super().__init__()
        self._acme: Acme = settings.acme
        self._port = settings.tls.port
        self._certificates = certificates
        self._overlay = overlay
        self._tokens: dict[bytes, bytes] = {}  # http-01, one for each name under way
        self._tasks: list[asyncio.Task[None]] = []
        self._stack: Stack | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failures = 0
        self._ask_at = 0.0  # when the authority may be asked for a time; the loop's seconds
        self._rng = random.SystemRandom()
        self.orders = 0  # placed
        self.on_proofs: Callable[[bool], None] = lambda _shown: None
        """Told when there are proofs on our listeners, and when there are none any more."""
        self.on_new: Callable[[], None] = lambda: None
        """Told of a new certificate, when it is on the disk and in use."""
        names = settings.acme.names or settings.tls.names
        self.names = tuple(name.lower().rstrip(".") for name in names)
        self.held = Held("ACME", self.names)
        certificates.acquired.append(self.held)
        self._load()

    # -- what is kept -----------------------------------------------------------------------------

    def _load(self) -> None:
        """The certificate of an earlier run, if it can be used."""
        now = self._certificates.now()
        store = self._certificates.store
        try:
            self._find_kept(now)
            kept = store.read("acme/failures.json")
            if kept is not None:
                state = json.loads(kept)
                self._failures = int(state["failures"])
                self.held.error = str(state["error"])
                self.held.renew = dt.datetime.fromisoformat(state["not_before"]).astimezone(dt.UTC)
        except (CredentialError, ValueError, KeyError, TypeError, OverflowError) as exc:
            self.held.failed(f"what was kept cannot be used: {exc}", now)
        if self.held.renew is None:
            self.held.renew = now

    def _find_kept(self, now: dt.datetime) -> Credential | None:
        """Hold the certificate on the disk, if it is for our names; CredentialError, ValueError."""
        store = self._certificates.store
        pem = store.read("acme/certificate.pem")
        if pem is not None:
            source = str(store.path("acme/certificate.pem"))
            found = judged(read_chain(pem), read_key(pem), now, source=source)
            if set(found.names) == set(self.names):
                self.held.credential = found
                self.held.renew = renewal(found)
                return found
        return None

    def look_again(self) -> None:
        """Use what another process of ours has put on the disk."""
        self._load()
        self._certificates.changed()

    def _keep_failures(self) -> None:
        """A restart is no reason to try at once."""
        store, held = self._certificates.store, self.held
        try:
            if not self._failures:
                store.remove("acme/failures.json")
            elif held.renew is not None:
                state = {
                    "failures": self._failures,
                    "error": held.error,
                    "not_before": held.renew.isoformat(timespec="seconds"),
                }
                store.write("acme/failures.json", json.dumps(state).encode())
        except CredentialError as exc:
            logger.warning("%s", exc)

    # -- the life of a part -----------------------------------------------------------------------

    @property
    def hooks(self) -> Mapping[bytes, Any]:
        """Paths that the web server answers for us."""
        return {CHALLENGES: self._answer}

    async def begin(self, stack: Stack) -> None:
        """Look after the certificate from now on."""
        self._stack = stack
        self._loop = asyncio.get_running_loop()
        if self.held.credential is not None:
            self._publish_tlsa([self.held.credential])
        self._tasks = [
            self._loop.create_task(self._look_after()),
            self._loop.create_task(self._lay_again()),
        ]

    async def end(self) -> None:
        """Stop; an order under way is left to its deadline."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _lay_again(self) -> None:
        """Zones are loaded again and updated: what is laid over them has to stay."""
        while True:
            await asyncio.sleep(LAY_AGAIN)
            try:
                self._overlay.lay()
            except Exception:
                logger.exception("proofs and TLSA records are not laid over the zones this time")

    async def _look_after(self) -> None:
        while True:
            try:
                await self._look()
            except Exception:
                logger.exception("the certificate is not looked after this time")
                await asyncio.sleep(AGAIN)

    async def _look(self) -> None:
        """Renew, if that is due, or wait for it."""
        now = self._certificates.now()
        due = self._due(now)
        if due <= now:
            if not self._kept_will_do(now):
                await self.renew()
            return
        # The clock may be set: look at it now and then.
        await asyncio.sleep(min((due - now).total_seconds(), 3600.0))
        there = self.held.credential is not None and not self._failures
        if there and asyncio.get_running_loop().time() >= self._ask_at:
            await self._ask_when()

    def _due(self, now: dt.datetime) -> dt.datetime:
        """When to renew: now, if a clock that ran ahead has put it off for longer than we do."""
        due = self.held.renew or now
        longest = dt.timedelta(seconds=LONGEST_ASKED)
        return now if self._failures and due - now > longest else due

    def _kept_will_do(self, now: dt.datetime) -> bool:
        """Whether what is on the disk can be used by now: the clock may have been set since."""
        if self.held.credential is not None:
            return False
        found = None
        with contextlib.suppress(CredentialError, ValueError):
            found = self._find_kept(now)
        if found is None or renewal(found) <= now:
            return False
        self._failures = 0
        self._keep_failures()
        self.held.error = ""
        self._certificates.changed()
        self.on_new()
        self._publish_tlsa([found])
        return True

    # -- renewal -----------------------------------------------------------------------------------

    async def renew(self) -> bool:
        """Order a certificate and take it into use; False if that failed, `held` says why."""
        self.orders += 1
        now = self._certificates.now()
        try:
            found = await self._in_thread(self._order)
            self._certificates.store.write("acme/certificate.pem", _packed(found))
        except Exception as exc:
            self._failed(exc, now)
            return False
        self._failures = 0
        self._keep_failures()
        await self._take_into_use(found)
        logger.info("certificate for %s, until %s", ", ".join(found.names), found.not_after)
        return True

    async def _take_into_use(self, found: Credential) -> None:
        """Swap; with TLSA only once every resolver has heard of the new key."""
        old = self.held.credential
        self.held.renew = renewal(found)
        if self._acme.tlsa and old is not None:
            # RFC 7671 §8.1: both records, then twice their TTL, then the new key, then one record.
            self._publish_tlsa([old, found])
            await asyncio.sleep(2 * TLSA_TTL)
        self.held.credential = found
        self.held.error = ""
        self._certificates.changed()
        self.on_new()
        self._publish_tlsa([found])

    def _failed(self, exc: Exception, now: dt.datetime) -> None:
        """Say why, and wait longer each time."""
        self._failures += 1
        wait = min(FIRST_WAIT * 2 ** min(self._failures - 1, 16), LONGEST_WAIT)
        asked = min(getattr(exc, "wait", 0.0), LONGEST_ASKED)
        wait = max(wait * self._rng.uniform(0.8, 1.2), asked)
        text = str(exc) or type(exc).__name__
        self.held.failed(text, now)
        self.held.renew = now + dt.timedelta(seconds=wait)
        level = logging.WARNING if self.held.credential is not None else logging.ERROR
        logger.log(level, "no certificate: %s; the next try is in %d s", text, wait)
        self._keep_failures()
        self._certificates.save_status()

    async def _ask_when(self) -> None:
        """Renewal information, where the authority has it."""
        credential = self.held.credential
        assert credential is not None
        loop = asyncio.get_running_loop()

        def ask() -> tuple[dt.datetime | None, float]:
            when, again = self._orders(self._acme.directory or "").renewal(credential)
            return when, (again - dt.datetime.now(dt.UTC)).total_seconds()

        self._ask_at = loop.time() + ASK_AGAIN
        try:
            when, wait = await self._in_thread(ask)
        except Exception as exc:
            logger.info("no renewal information: %s", exc)
            return
        self._ask_at = loop.time() + min(max(wait, ASK_SOONEST), ASK_LATEST)
        if when is not None:
            self.held.renew = min(when, renewal(credential))
            self._certificates.save_status()

    def _order(self) -> Credential:
        """In the thread: at the staging directory first, if there is one for us to try."""
        clock = self._certificates.now
        staging, store = self._acme.staging, self._certificates.store
        tried = json.dumps([self._acme.challenge, *sorted(self.names)]).encode()
        if staging is not None and store.read("acme/staging.json") != tried:
            self._orders(staging).obtain(self.names, self, clock)
            store.write("acme/staging.json", tried)
        return self._orders(self._acme.directory or "").obtain(self.names, self, clock)

    def _orders(self, directory: str) -> Orders:
        from appliance.dial import Dialer
        from appliance.tls.acme import Authority, Orders, read_eab_key
        from appliance.tls.client import client_context

        wanted = self._acme
        authority = Authority(
            directory,
            contact=wanted.contact,
            agree=wanted.agree,
            challenge=wanted.challenge,
            eab_kid=wanted.eab_kid,
            eab_key=read_eab_key(wanted.eab_key) if wanted.eab_key is not None else "",
        )
        assert self._stack is not None
        dialer = Dialer(self._stack, self._resolver(), client_context(wanted.ca_file))

        def send(
            method: str, url: str, fields: Mapping[str, str], body: bytes
        ) -> tuple[int, list[tuple[str, str]], bytes]:
            return self._on_loop(dialer.fetch(method, url, fields, body))

        return Orders(authority, self._certificates.store, send)

    def _resolver(self) -> Resolver:
        assert self._stack is not None
        return Resolver(self._stack, self._acme.resolvers)

    # -- between the thread and the loop ----------------------------------------------------------

    async def _in_thread(self, work: Any) -> Any:
        assert self._loop is not None
        return await self._loop.run_in_executor(None, work)

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        """Called in the thread: let the loop do something, and wait for it."""
        assert self._loop is not None
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(THREAD_SECONDS)
        except TimeoutError as exc:
            future.cancel()
            raise OSError("the appliance was too busy to go on with the order") from exc

    # -- proofs: what the order's thread asks for -------------------------------------------------

    def show(self, proofs: Sequence[Proof]) -> None:
        """Publish proofs (Prover)."""
        self._on_loop(self._show(proofs))

    def hide(self, proofs: Sequence[Proof]) -> None:
        """Take proofs away (Prover)."""
        with contextlib.suppress(OSError):
            self._on_loop(self._hide(proofs))

    def seen(self, proof: Proof) -> str:
        """What we see where the authority looked (Prover)."""
        try:
            return self._on_loop(self._seen(proof))
        except OSError as exc:
            return str(exc)

    def check(self, names: Sequence[str], identities: Sequence[str]) -> None:
        """CAA (Prover)."""
        if identities:
            self._on_loop(self._check(names, identities))

    async def _show(self, proofs: Sequence[Proof]) -> None:
        texts: dict[str, list[str]] = {}
        for proof in proofs:
            if proof.kind == "dns-01":
                # A name and its wildcard have one record each, at the same place.
                texts.setdefault(f"_acme-challenge.{proof.name}.", []).append(f'"{proof.value}"')
            elif proof.kind == "http-01":
                self._tokens[proof.token.encode()] = proof.value.encode()
            else:
                self._certificates.challenge(proof.name, proof.credential)
        for name, values in texts.items():
            self._overlay.publish(name, "TXT", PROOF_TTL, values)
        self.on_proofs(True)

    async def _hide(self, proofs: Sequence[Proof]) -> None:
        self.on_proofs(False)
        for proof in proofs:
            if proof.kind == "dns-01":
                self._overlay.withdraw(f"_acme-challenge.{proof.name}.", "TXT")
            elif proof.kind == "http-01":
                self._tokens.pop(proof.token.encode(), None)
            else:
                self._certificates.challenge(proof.name, None)

    async def _seen(self, proof: Proof) -> str:
        if proof.kind != "dns-01":
            return "the proof is in place on our listeners"
        name = f"_acme-challenge.{proof.name}."
        ours = [str(rdata) for rdata in self._overlay.lookup(name, "TXT")]
        try:
            theirs = [str(r) for r in await self._resolver().query(name, "TXT")]
            public = ", ".join(theirs) or "nothing"
        except ResolverError as exc:
            public = str(exc)
        return f"our zone has {', '.join(ours) or 'nothing'}; the resolver: {public}"

    async def _check(self, names: Sequence[str], identities: Sequence[str]) -> None:
        """RFC 8659 §3: the closest CAA records towards the root say who may issue."""
        from appliance.tls.acme import AcmeError

        for name in names:
            bare = name.removeprefix("*.")
            where, records = await self._caa(bare)
            tag = b"issuewild" if name != bare else b"issue"
            fitting = [r for r in records if r.tag.lower() == tag]
            if not fitting and tag == b"issuewild":
                fitting = [r for r in records if r.tag.lower() == b"issue"]
            if not fitting:
                continue
            allowed = {_issuer(record) for record in fitting}
            if not allowed & set(identities):
                raise AcmeError(
                    f"CAA for {name}",
                    f"{where} permits {', '.join(sorted(filter(None, allowed))) or 'nobody'}; "
                    f"this authority is {', '.join(identities)}",
                )

    async def _caa(self, name: str) -> tuple[str, list[Any]]:
        while name:
            found = self._overlay.lookup(f"{name}.", "CAA")
            if not found and not self._overlay.ours(f"{name}."):
                with contextlib.suppress(NoSuchNameError, ResolverError):
                    found = await self._resolver().query(name, "CAA")
            if found:
                return name, found
            name = name.partition(".")[2]
        return "", []

    def _answer(self, request: Request, body: bytes, address: str) -> Answer | None:
        """RFC 8555 §8.3: the key authorisation of a token that is under way."""
        value = self._tokens.get(request.target.removeprefix(CHALLENGES))
        if value is None or request.method not in (b"GET", b"HEAD"):
            return None
        block = b"%sContent-Type: application/octet-stream\r\nContent-Length: %d\r\n%s" % (
            SERVER,
            len(value),
            NOSNIFF,
        )
        return Answer(200, block, () if request.method == b"HEAD" else (value,))

    # -- TLSA ---------------------------------------------------------------------------------

    def _publish_tlsa(self, credentials: Sequence[Credential]) -> None:
        """Records for these keys, at every name of ours that can have them."""
        if not self._acme.tlsa or not self._port:
            return
        data = [tlsa(credential.leaf) for credential in credentials]
        for name in self.names:
            if name.startswith("*."):
                continue
            try:
                self._overlay.publish(owner(name, self._port), "TLSA", TLSA_TTL, data)
            except LookupError as exc:
                logger.warning("no TLSA record: %s", exc)


def _issuer(record: Any) -> str:
    """RFC 8659 §4.2: the domain of who may issue; empty for nobody."""
    return str(record.value.partition(b";")[0].strip().decode("ascii", "replace"))


def _packed(credential: Credential) -> bytes:
    from appliance.tls.acme import pack

    return pack(credential)

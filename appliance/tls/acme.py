"""A certificate by ACME (RFC 8555): one order from the directory to the chain, step by step.

The `acme` and `josepy` libraries keep the protocol; here are the order of the steps, what is kept
between runs, and errors that name the step, what was asked for and what was seen. How octets get
to the authority, and how proofs get published, are arguments: all of it can run over our own TCP.

Everything blocks: it is meant for a thread of its own. Imports the two libraries, cryptography and
this package; they take 140 ms to import, so nobody imports this without an order to place.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

import josepy
import requests
from acme import client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from josepy.b64 import b64encode
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from requests.structures import CaseInsensitiveDict

from appliance.tls.authority import self_signed
from appliance.tls.credential import Credential, judge, key_pem, new_key, read_chain, read_key
from appliance.tls.errors import CredentialError
from appliance.tls.store import Store

ORDER_SECONDS: Final = 180.0
"""For an authority to look at the proofs and to sign; Let's Encrypt takes 5 to 20 s."""
NONCE_TRIES: Final = 6
"""Times that a request is repeated with another nonce (RFC 8555 §6.5)."""
RATE_LIMITED: Final = 3600.0
"""Seconds to wait after a rate limit that does not say how long; many refill within that."""
ACME_IDENTIFIER: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
"""RFC 8737 §3: the extension that holds the proof of tls-alpn-01."""

Send = Callable[[str, str, Mapping[str, str], bytes], tuple[int, list[tuple[str, str]], bytes]]
"""Method, URL, fields and content in; status, fields and content out. Raises OSError."""
Clock = Callable[[], dt.datetime]
"""The time of day, UTC."""


class AcmeError(Exception):
    """An order that failed: `step` says where, `wait` how many seconds the authority asks for."""

    def __init__(self, step: str, message: str, wait: float = 0.0) -> None:
        super().__init__(f"{step}: {message}")
        self.step = step
        self.wait = wait


@dataclass(frozen=True)
class Proof:
    """What has to be shown for one name, in the form of one kind of challenge."""

    kind: str  # dns-01, http-01 or tls-alpn-01
    name: str  # without "*."
    token: str
    value: str  # dns-01: the TXT record's text; http-01: the file's; tls-alpn-01: empty
    credential: Credential | None = None  # tls-alpn-01

    @property
    def record(self) -> str:
        """What the authority will ask for, in words."""
        if self.kind == "dns-01":
            return f"_acme-challenge.{self.name}. TXT"
        if self.kind == "http-01":
            return f"http://{self.name}/.well-known/acme-challenge/{self.token}"
        return f"acme-tls/1 for {self.name} on port 443"


class Prover(Protocol):
    """Shows proofs to the world; called from the order's thread."""

    def show(self, proofs: Sequence[Proof]) -> None:
        """Publish all of these; raises OSError or LookupError when that cannot be."""

    def hide(self, proofs: Sequence[Proof]) -> None:
        """They are of no use any more."""

    def seen(self, proof: Proof) -> str:
        """What somebody who asks now would see, in words."""

    def check(self, names: Sequence[str], identities: Sequence[str]) -> None:
        """Raise AcmeError if CAA records forbid one of the authority's identities (RFC 8659)."""


@dataclass(frozen=True)
class Authority:
    """Whom to order from, and as whom."""

    directory: str
    contact: tuple[str, ...] = ()
    agree: bool = False
    challenge: str = "dns-01"
    eab_kid: str = ""
    eab_key: str = ""  # base64url, as authorities hand it out

    @property
    def folder(self) -> str:
        """Where its account is kept: an account belongs to one directory."""
        digest = hashlib.sha256(self.directory.encode()).hexdigest()[:8]
        return f"acme/{urlsplit(self.directory).hostname}-{digest}"


class _Network(client.ClientNetwork):
    """acme's network over a function, with its nonces and signatures."""

    def __init__(self, send: Send, key: JWK) -> None:
        super().__init__(key, alg=ES256, user_agent="appliance")
        self._send = send
        self.retry_after = 0.0

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        headers = {"User-Agent": self.user_agent, **kwargs.get("headers", {})}
        data = kwargs.get("data") or b""
        octets = data.encode() if isinstance(data, str) else data
        status, fields, body = self._send(method, url, headers, octets)
        response = requests.Response()
        response.status_code = status
        response.url = url
        response.headers = CaseInsensitiveDict(fields)
        response._content = body
        response.encoding = "utf-8"
        self.retry_after = _seconds(response.headers.get("Retry-After", ""))
        return response

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Repeat what was refused for its nonce: authorities may refuse good ones (§6.5)."""
        for _ in range(NONCE_TRIES - 1):
            try:
                return self._post_once(*args, **dict(kwargs))
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return self._post_once(*args, **dict(kwargs))


class Orders:
    """Orders certificates from one authority; the account is made once and kept."""

    def __init__(self, authority: Authority, store: Store, send: Send) -> None:
        self._authority = authority
        self._store = store
        self._send = send
        self._client: client.ClientV2 | None = None
        self._network: _Network | None = None

    def obtain(self, names: Sequence[str], prover: Prover, clock: Clock) -> Credential:
        """A credential for these names, with a new key. Raises AcmeError."""
        try:
            return self._obtain(names, prover, clock)
        except AcmeError as exc:
            if getattr(exc.__cause__, "code", "") != "accountDoesNotExist":
                raise
        # RFC 8555 §6.7: it has forgotten us; the same key gets an account again (§7.3).
        self._client = None
        try:
            self._store.remove(f"{self._authority.folder}/account.json")
        except CredentialError as exc:
            raise AcmeError("account", str(exc)) from exc
        return self._obtain(names, prover, clock)

    def _obtain(self, names: Sequence[str], prover: Prover, clock: Clock) -> Credential:
        acme = self._open()
        assert self._network is not None
        meta = getattr(acme.directory, "meta", None)
        prover.check(names, tuple(getattr(meta, "caa_identities", None) or ()))
        key = new_key()
        order = self._do("order", lambda: acme.new_order(_request(names, key)))
        proofs = self._prove(acme, order, prover)
        try:
            order = self._finish(acme, order, proofs, prover)
        finally:
            prover.hide(list(proofs.values()))
        try:
            chain = read_chain(order.fullchain_pem.encode())
            return judge(chain, key, clock(), source=self._authority.directory)
        except CredentialError as exc:
            raise AcmeError("certificate", f"what came cannot be used: {exc}") from exc

    def renewal(self, credential: Credential) -> tuple[dt.datetime | None, dt.datetime]:
        """When the authority would like it renewed (RFC 9773), and when to ask again; UTC.

        None when it does not say. Raises AcmeError.
        """
        acme = self._open()
        pem = credential.leaf.public_bytes(Encoding.PEM)
        when, again = self._do("renewal information", lambda: acme.renewal_time(pem))
        return when, again.astimezone(dt.UTC)

    # -- steps --------------------------------------------------------------------------------

    def _do(self, step: str, action: Callable[[], Any]) -> Any:
        """Run a step; whatever goes wrong in it is told with its name."""
        try:
            return action()
        except messages.Error as exc:
            wait = self._network.retry_after if self._network is not None else 0.0
            if exc.code == "rateLimited":
                wait = wait or RATE_LIMITED
            raise AcmeError(step, _problem(exc), wait) from exc
        except (errors.Error, josepy.errors.Error, OSError, ValueError) as exc:
            raise AcmeError(step, str(exc) or type(exc).__name__) from exc

    def _open(self) -> client.ClientV2:
        """The directory, and our account at this authority."""
        if self._client is not None:
            return self._client
        folder = self._authority.folder
        try:
            pem = self._store.read(f"{folder}/account.key")
            kept = self._store.read(f"{folder}/account.json")
            secret = read_key(pem) if pem is not None else new_key()
            if pem is None:
                self._store.write(f"{folder}/account.key", key_pem(secret))
        except CredentialError as exc:
            raise AcmeError("account key", str(exc)) from exc
        key = JWKEC(key=secret)
        network = self._network = _Network(self._send, key)
        url = self._authority.directory
        directory = self._do(
            f"directory {url}", lambda: client.ClientV2.get_directory(url, network)
        )
        acme = client.ClientV2(directory, network)
        if kept is not None and pem is not None:
            uri = json.loads(kept)["uri"]
            network.account = messages.RegistrationResource(uri=uri, body=messages.Registration())
        else:
            uri = self._register(acme, key)
            try:
                self._store.write(f"{folder}/account.json", json.dumps({"uri": uri}).encode())
            except CredentialError as exc:
                raise AcmeError("account", str(exc)) from exc
        self._client = acme
        return acme

    def _register(self, acme: client.ClientV2, key: JWK) -> str:
        """RFC 8555 §7.3; the same key gets the same account again."""
        wanted = self._authority
        meta = getattr(acme.directory, "meta", None)
        terms = getattr(meta, "terms_of_service", None)
        if terms and not wanted.agree:
            raise AcmeError("account", f"agree to the terms first (acme.agree = true): {terms}")
        binding = None
        if wanted.eab_kid:
            binding = messages.ExternalAccountBinding.from_data(
                key.public_key(), wanted.eab_kid, wanted.eab_key, acme.directory
            )
        elif acme.external_account_required():
            raise AcmeError(
                "account", "this authority wants external account binding (acme.eab_kid, eab_key)"
            )
        body = messages.NewRegistration(
            contact=wanted.contact,
            terms_of_service_agreed=wanted.agree,
            external_account_binding=binding,
        )
        try:
            account = self._do("account", lambda: acme.new_account(body))
        except AcmeError as exc:
            if isinstance(exc.__cause__, errors.ConflictError):
                location = str(exc.__cause__.location)
                acme.net.account = messages.RegistrationResource(
                    uri=location, body=messages.Registration()
                )
                return location
            raise
        return str(account.uri)

    def _prove(self, acme: client.ClientV2, order: Any, prover: Prover) -> dict[str, Proof]:
        """Show a proof for each authorisation that is not valid already, then say so."""
        assert self._network is not None
        proofs: dict[str, Proof] = {}
        wanted: list[tuple[Any, Any]] = []
        for authorization in order.authorizations:
            if authorization.body.status == messages.STATUS_VALID:
                continue  # RFC 8555 §7.1.6: proven before, and still good
            name = authorization.body.identifier.value
            challenge = self._choose(authorization, name)
            proofs[authorization.uri] = _proof(challenge, name, cast(JWK, self._network.key))
            wanted.append((authorization, challenge))
        try:
            prover.show(list(proofs.values()))
        except (OSError, LookupError, ValueError) as exc:
            prover.hide(list(proofs.values()))
            kind = self._authority.challenge
            raise AcmeError(f"{kind} proof", str(exc)) from exc
        for authorization, challenge in wanted:
            proof = proofs[authorization.uri]
            try:
                self._do(
                    f"{proof.kind} for {proof.name}",
                    # RFC 8555 §7.5.1: an empty object says that the proof is there.
                    functools.partial(acme._post, challenge.uri, _Nothing()),
                )
            except AcmeError:
                prover.hide(list(proofs.values()))
                raise
        return proofs

    def _choose(self, authorization: Any, name: str) -> Any:
        """The challenge of the kind that the settings want."""
        offered = []
        for challenge in authorization.body.challenges:
            offered.append(_kind(challenge))
            if offered[-1] == self._authority.challenge:
                return challenge
        raise AcmeError(
            f"authorisation of {name}",
            f"{self._authority.challenge} is not offered, only {', '.join(offered)}",
        )

    def _finish(
        self, acme: client.ClientV2, order: Any, proofs: Mapping[str, Proof], prover: Prover
    ) -> Any:
        """Wait for the authority's judgement, then for the certificate."""
        deadline = time.monotonic() + ORDER_SECONDS
        pending = dict(proofs)
        wait = 0.2
        while pending:
            for uri, proof in list(pending.items()):
                step = f"{proof.kind} for {proof.name}"
                found = self._do(step, functools.partial(_authorization, acme, uri))
                if found.status == messages.STATUS_VALID:
                    del pending[uri]
                elif found.status != messages.STATUS_PENDING:
                    raise AcmeError(step, _judgement(found, proof, prover))
            if pending and time.monotonic() > deadline:
                names = ", ".join(proof.record for proof in pending.values())
                raise AcmeError(
                    "validation", f"no judgement after {ORDER_SECONDS:.0f} s on {names}"
                )
            if pending:
                time.sleep(wait)
                wait = min(wait * 2, 5.0)
        end = dt.datetime.now() + dt.timedelta(seconds=ORDER_SECONDS)  # noqa: DTZ005 - acme's way
        return self._do("finalize", lambda: acme.finalize_order(order, end))


def _authorization(acme: client.ClientV2, uri: str) -> Any:
    response = acme._post_as_get(uri)
    return messages.Authorization.from_json(response.json())


class _Nothing(josepy.interfaces.JSONDeSerializable):
    """An empty JSON object."""

    def to_partial_json(self) -> dict[str, str]:
        return {}

    @classmethod
    def from_json(cls, jobj: Any) -> _Nothing:
        return cls()


def _kind(challenge: Any) -> str:
    """The kind of a challenge; the library has no class for tls-alpn-01 any more."""
    kind = challenge.chall.typ
    return kind if isinstance(kind, str) else str(challenge.chall.jobj.get("type", ""))


def _proof(challenge: Any, name: str, key: JWK) -> Proof:
    """RFC 8555 §8.1: what proves that the account's owner has the name."""
    kind = _kind(challenge)
    token = str(challenge.chall.to_partial_json()["token"])
    authorization = f"{token}.{b64encode(key.thumbprint()).decode()}"
    digest = hashlib.sha256(authorization.encode()).digest()
    if kind == "tls-alpn-01":
        # RFC 8737 §3: critical, an OCTET STRING of the digest.
        extension = x509.UnrecognizedExtension(ACME_IDENTIFIER, b"\x04\x20" + digest)
        credential = self_signed([name], dt.datetime.now(dt.UTC), extensions=[(extension, True)])
        return Proof(kind, name, token, "", credential)
    if kind == "dns-01":
        return Proof(kind, name, token, b64encode(digest).decode())
    return Proof(kind, name, token, authorization)


def _judgement(found: Any, proof: Proof, prover: Prover) -> str:
    """What the authority says of a proof, and what we see at the same place."""
    said = "; ".join(
        _problem(challenge.error) for challenge in found.challenges if challenge.error is not None
    )
    return (
        f"the authority asked for {proof.record} and says: {said or 'invalid'}. "
        f"Seen from here: {prover.seen(proof)}"
    )


def _problem(error: Any) -> str:
    """An authority's problem document in a line (RFC 7807), with its subproblems."""
    words = f"{error.code or error.typ}: {error.detail or error.title or 'no detail'}"
    for sub in error.subproblems or ():
        name = sub.identifier.value if sub.identifier is not None else ""
        words += f"; {name} {sub.detail or ''}".rstrip()
    return words


def _request(names: Sequence[str], key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate request (RFC 2986) for these names."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def _seconds(retry_after: str) -> float:
    """RFC 9110 §10.2.3, in its form of seconds; dates are rare and count as not said."""
    return float(retry_after) if retry_after.isdigit() else 0.0


def read_eab_key(path: Path) -> str:
    """The HMAC key that an authority has handed out, as base64url. Raises AcmeError."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise AcmeError("external account binding", f"{path}: {exc}") from exc


def pack(credential: Credential) -> bytes:
    """Key and chain in one PEM text: one file, so that they cannot part."""
    return key_pem(credential.key) + credential.pem()

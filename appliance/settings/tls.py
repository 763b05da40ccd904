"""[tls], [[certificate]] and [acme]: HTTPS, DNS over TLS, and where certificates come from.

Imports pydantic and `fields`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from appliance.settings.fields import (
    AnyPath,
    CertifiedName,
    Host,
    HostName,
    HttpsUrl,
    Table,
    Text,
)

SUITES: Final = frozenset(
    f"ECDHE-{key}-{cipher}"
    for key, ciphers in {
        "ECDSA": "AES128-GCM-SHA256 AES256-GCM-SHA384 CHACHA20-POLY1305 AES128-CCM AES256-CCM "
        "AES128-SHA256 AES256-SHA384 AES128-SHA AES256-SHA",
        "RSA": "AES128-GCM-SHA256 AES256-GCM-SHA384 CHACHA20-POLY1305 "
        "AES128-SHA256 AES256-SHA384 AES128-SHA AES256-SHA",
    }.items()
    for cipher in ciphers.split()
)
"""Suites of TLS 1.2 that may be offered, by OpenSSL's names: all with forward secrecy, which
RFC 9325 §4.1 wants, and without the ciphers that it forbids."""


def _suite(name: str) -> str:
    if name not in SUITES:
        raise ValueError("no such suite")
    return name


Suite = Annotated[Text, AfterValidator(_suite)]


class CertificateFiles(Table):
    """[[certificate]]: a chain and its key in PEM files, read again when they change."""

    chain: AnyPath = Field(description="a path, as text")
    key: AnyPath | None = Field(default=None, description="a path, as text; without it the chain's")


class Tls(Table):
    """[tls]: HTTPS and DNS over TLS, and where their certificates come from."""

    port: int = Field(
        default=443, strict=True, ge=0, le=65535, description="a port of the stack; 0 for none"
    )
    dot_port: int = Field(
        default=853, strict=True, ge=0, le=65535, description="a port of the stack; 0 for none"
    )
    doh: Text = Field(
        default="/dns-query",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description='a path, like "/dns-query"; "" for none',
    )
    names: tuple[HostName, ...] = Field(
        default=(), description='a list of host names, like ["example.org", "www.example.org"]'
    )
    state: AnyPath = Field(default=Path("state"), description="a path, as text")
    redirect: bool = Field(default=False, strict=True, description="true or false")
    hsts: int = Field(
        default=0, strict=True, ge=0, le=10**9, description="a number of seconds; 0 for none"
    )
    ciphers: tuple[Suite, ...] = Field(
        default=(),
        description="a list of OpenSSL's names of TLS 1.2 suites with ECDHE and AES or ChaCha20, "
        'like ["ECDHE-ECDSA-AES128-GCM-SHA256"]',
    )
    keylog: AnyPath | None = Field(default=None, description="a path, as text")


class Acme(Table):
    """[acme]: certificates from a certificate authority, by RFC 8555."""

    directory: HttpsUrl | None = Field(
        default=None, description="an https: URL: the authority's directory"
    )
    staging: HttpsUrl | None = Field(
        default=None, description="an https: URL: where each name is tried first"
    )
    names: tuple[CertifiedName, ...] = Field(
        default=(),
        max_length=100,
        description='a list of host names, like ["example.org", "*.example.org"]',
    )
    contact: tuple[Text, ...] = Field(
        default=(), description='a list of URIs, like ["mailto:admin@example.org"]'
    )
    agree: bool = Field(default=False, strict=True, description="true or false")
    challenge: Literal["dns-01", "http-01", "tls-alpn-01"] = Field(
        default="dns-01", description='"dns-01", "http-01" or "tls-alpn-01"'
    )
    ca_file: AnyPath | None = Field(default=None, description="a path, as text")
    eab_kid: Text = Field(default="", description="text")
    eab_key: AnyPath | None = Field(default=None, description="a path, as text")
    resolvers: tuple[Host, ...] = Field(
        default=(), max_length=8, description='a list of IP addresses, like ["192.0.2.53"]'
    )
    tlsa: bool = Field(default=False, strict=True, description="true or false")

    @model_validator(mode="after")
    def _together(self) -> Self:
        # RFC 8737 §3 for tls-alpn-01; and http-01 shows nothing of names that nobody can ask.
        if self.challenge != "dns-01":
            for name in self.names:
                if name.startswith("*."):
                    raise ValueError(f"names|{name}|host names, since the challenge is not dns-01")
        if (self.eab_kid != "") != (self.eab_key is not None):
            said = self.eab_kid or "{…}"
            name = "eab_kid" if self.eab_kid else "eab_key"
            raise ValueError(f"{name}|{said}|beside its counterpart: eab_kid and eab_key")
        return self

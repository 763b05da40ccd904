"""[site], [[host]], [http], [security] and [metrics]: what the web server is told.

Imports pydantic and `fields`.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field

from appliance.settings.fields import (
    AnyPath,
    BaseUrl,
    HostName,
    Network,
    Port,
    Seconds,
    Table,
    Text,
    Uri,
)


class Site(Table):
    """[site]: the pages."""

    directory: AnyPath = Field(default=Path("site"), description="a path, as text")
    title: Text = Field(default="appliance", min_length=1, description="text that is not empty")
    base_url: BaseUrl = Field(
        default="http://localhost",
        description='http:// or https:// and a host name, without a path: "http://example.org"',
    )
    aliases: tuple[HostName, ...] = Field(
        default=(), description='a list of host names, like ["www.example.org"]'
    )
    cache: AnyPath = Field(default=Path(".cache"), description="a path, as text")
    watch: bool = Field(default=False, strict=True, description="true or false")


class VirtualHost(Table):
    """[[host]]: another site, served under names of its own."""

    name: HostName = Field(description='a host name, like "blog.example.org"')
    directory: AnyPath = Field(description="a path, as text")
    title: Text | None = Field(default=None, min_length=1, description="text that is not empty")
    base_url: BaseUrl | None = Field(
        default=None,
        description='http:// or https:// and a host name, without a path: "http://example.org"',
    )
    aliases: tuple[HostName, ...] = Field(
        default=(), description='a list of host names, like ["www.example.org"]'
    )


class Http(Table):
    """[http]: the stack's port, what is logged of requests, and how much a peer may have."""

    port: Port = 80
    http2: bool = Field(default=True, strict=True, description="true or false")
    access_log: Literal["auto", "off", "human", "combined", "json"] = Field(
        default="auto", description='"auto", "off", "human", "combined" or "json"'
    )
    access_file: AnyPath | None = Field(default=None, description="a path, as text")
    truncate_addresses: bool = Field(default=False, strict=True, description="true or false")
    unknown_host: Literal["serve", "refuse"] = Field(
        default="serve", description='"serve" (the site of [site]) or "refuse" (421)'
    )
    connections: int = Field(
        default=10_000, strict=True, ge=1, le=1_000_000, description="an integer from 1 to 1000000"
    )
    connections_each: int = Field(
        default=4096, strict=True, ge=1, le=1_000_000, description="an integer from 1 to 1000000"
    )
    head_seconds: Seconds = 10.0
    idle_seconds: Seconds = 75.0
    min_rate: int = Field(
        default=500, strict=True, ge=0, le=10**9, description="octets a second, an integer"
    )


class Security(Table):
    """[security]: what /.well-known/security.txt says; without a contact there is none."""

    contact: tuple[Uri, ...] = Field(
        default=(), description='a list of URIs, like ["mailto:security@example.org"]'
    )
    expires: date | None = Field(default=None, description="a date, like 2027-06-30")
    encryption: tuple[Uri, ...] = Field(default=(), description="a list of https: URIs")
    acknowledgments: tuple[Uri, ...] = Field(default=(), description="a list of https: URIs")
    policy: tuple[Uri, ...] = Field(default=(), description="a list of https: URIs")
    hiring: tuple[Uri, ...] = Field(default=(), description="a list of https: URIs")
    languages: tuple[Text, ...] = Field(
        default=(), description='a list of language tags, like ["en", "de"]'
    )


class Metrics(Table):
    """[metrics]: a listener of its own for Prometheus, health and the dashboard."""

    port: int = Field(
        default=0, strict=True, ge=0, le=65535, description="a port of the stack; 0 for none"
    )
    allow: tuple[Network, ...] = Field(
        default=(), description='a list of networks, like ["10.0.0.0/8"]'
    )

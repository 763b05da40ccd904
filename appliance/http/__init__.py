"""A static web server: site loading, pure semantics, HTTP/1.1.

`load_site` makes a site of a directory, `HttpServer` holds what its connections share, and
`HttpProtocol(server)` is an asyncio protocol that runs on any transport.  What loads a site brings
Markdown and templates with it, and is imported when it is first asked for: a machine that boots
with its site already made (appliance/image) serves without.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from appliance.http.http1 import HttpProtocol, web_protocol
from appliance.http.problem import Problem
from appliance.http.served import Site
from appliance.http.server import HttpServer, Limits
from appliance.http.wellknown import Security

if TYPE_CHECKING:
    from appliance.http.site import LoadedSite, load_site

__all__ = [
    "HttpProtocol",
    "HttpServer",
    "Limits",
    "LoadedSite",
    "Problem",
    "Security",
    "Site",
    "load_site",
    "web_protocol",
]


def __getattr__(name: str) -> object:
    """What loads a site (PEP 562)."""
    if name in ("LoadedSite", "load_site"):
        return getattr(import_module("appliance.http.site"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A static web server: site loading, pure semantics, HTTP/1.1.

`load_site` makes a site of a directory, `HttpServer` holds what its connections share, and
`HttpProtocol(server)` is an asyncio protocol that runs on any transport.
"""

from appliance.http.http1 import HttpProtocol
from appliance.http.problem import Problem
from appliance.http.server import HttpServer, Limits
from appliance.http.site import LoadedSite, Site, load_site
from appliance.http.wellknown import Security

__all__ = [
    "HttpProtocol",
    "HttpServer",
    "Limits",
    "LoadedSite",
    "Problem",
    "Security",
    "Site",
    "load_site",
]

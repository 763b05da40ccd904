"""A whole internet host in one process: network interfaces, TCP/IP, DNS and HTTP.

`appliance.net` is the TCP/IP stack and can be used alone, `appliance.dns` answers queries,
`appliance.http` serves a site from memory, and `appliance.app` is where they meet. Nothing is
imported here, so that the command line starts quickly.
"""

__version__ = "0.1.0"

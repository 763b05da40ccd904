"""Raw-socket probes of a static web server, for any of them: `python -m tests.http.probes`."""

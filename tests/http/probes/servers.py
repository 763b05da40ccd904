"""Servers to be probed: ours on the kernel's loopback, and nginx and Caddy where installed."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.http import HttpServer, Limits, load_site, web_protocol
from tests.http.fakes import Holder
from tests.ports import free_port

Address = tuple[str, int]


@contextmanager
def ours(site: Path, limits: Limits | None = None) -> Iterator[Address]:
    """Serve with the protocol of this project, in a thread."""
    loop = asyncio.new_event_loop()
    server = HttpServer(Holder(load_site(site).site), limits=limits or Limits())
    listener = loop.run_until_complete(
        loop.create_server(lambda: web_protocol(server), "127.0.0.1", 0)
    )
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        listener.close()
        for connection in list(server.connections):
            connection.shed()
        await server.drained()

    try:
        yield listener.sockets[0].getsockname()
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


@contextmanager
def _running(command: list[str], port: int) -> Iterator[Address]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield ("127.0.0.1", port)
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def nginx(site: Path, folder: Path) -> Iterator[Address]:
    """Serve with nginx, as its documentation sets up a static site."""
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(f"""\
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 256; }}
http {{
    include /etc/nginx/mime.types; default_type application/octet-stream; access_log off;
    sendfile on; gzip on; gzip_vary on; gzip_proxied any; server_tokens off;
    gzip_types text/plain text/css application/javascript application/json image/svg+xml;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{ listen 127.0.0.1:{port}; root {site}; error_page 404 /404.html; index index.html; }}
}}
""")
    with _running(["nginx", "-c", str(config)], port) as address:
        yield address


@contextmanager
def caddy(site: Path, folder: Path) -> Iterator[Address]:
    """Serve with Caddy's file_server."""
    port = free_port()
    config = folder / "Caddyfile"
    config.write_text(f"""\
{{
    admin off
    auto_https off
    storage file_system {folder}/caddy
}}
http://:{port} {{
    bind 127.0.0.1
    root * {site}
    encode zstd gzip
    file_server
    handle_errors {{
        rewrite * /404.html
        file_server
    }}
}}
""")
    command = ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]
    with _running(command, port) as address:
        yield address


PEERS = {"nginx": nginx, "caddy": caddy}


def installed() -> list[str]:
    """Return which peers are here."""
    return [name for name in PEERS if shutil.which(name)]

"""What several workers have in common, made before the first of them is forked off.

Settings, what is served, the queues of the interface, the sockets between them, and secrets: of
TCP's sequence numbers and cookies, of DNS cookies, of TLS tickets. May import everything but the
workers.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from appliance.app import Say, StartError, look_for_directories
from appliance.content import Content, load_content
from appliance.mesh import Mesh
from appliance.net.errors import LinkError
from appliance.parts.dns_options import OptionsError, options
from appliance.parts.mirror import FIRST

if TYPE_CHECKING:
    from appliance.dns.authority import Options
    from appliance.net.steer import Addressing
    from appliance.net.vif.base import Vif
    from appliance.parts.certificates import Certificates
    from appliance.settings import Settings
    from appliance.tls.contexts import Contexts

AHEAD: Final = 730
"""Keys for tickets that are made before the fork: for a year, 13 KB and 85 µs each. Whoever serves
longer without a new supervisor makes its own, and a ticket is then good at one worker alone."""


@dataclass
class Family:
    """What workers have in common; `content` and `addressing` are the latest, for newcomers."""

    settings: Settings
    count: int
    mesh: Mesh
    queues: Sequence[Sequence[Vif]]
    """Of each worker, one of each link."""
    content: Content
    options: Options
    """Of the name server, with its secrets."""
    secret: bytes
    """Of TCP's sequence numbers."""
    say: Say
    verbose: bool
    certificates: Certificates | None = None
    addressing: Addressing | None = None
    banner: bool = True
    """The first worker is to say what is served; its successors need not."""

    @property
    def supervisor(self) -> int:
        """Its number for letters."""
        return self.count

    def ports(self) -> tuple[list[int], list[int]]:
        """What every worker serves: ports of TCP, and of UDP."""
        settings = self.settings
        tcp = [settings.http.port, settings.dns.port]
        if self.certificates is not None:
            tcp += [port for port in (settings.tls.port, settings.tls.dot_port) if port]
        return tcp, [settings.dns.port]


def settings_of(family: Family, index: int) -> Settings:
    """The settings as a worker has them: what only the first one does is off in the others."""
    settings = family.settings
    # Each worker records what it sees: visit.worker0.pcap, visit.worker1.pcap.
    net = settings.net
    own: dict[str, Any] = {
        name: path.with_stem(f"{path.stem}.worker{index}")
        for name, path in (("pcap", net.pcap), ("trace", net.trace))
        if path is not None
    }
    if index == FIRST and not family.banner:
        # Addresses that the settings give have been asked for, and the others use them.
        own["probe"] = False
        own["more"] = tuple(cable.model_copy(update={"probe": False}) for cable in net.more)
    settings = settings.model_copy(update={"net": net.model_copy(update=own)})
    if index == FIRST:
        return settings
    off: dict[str, Any] = {
        "control": settings.control.model_copy(update={"enabled": False}),
        "metrics": settings.metrics.model_copy(update={"port": 0}),
        "dns": settings.dns.model_copy(update={"watch": 0}),
        "acme": settings.acme.model_copy(update={"directory": None}),
    }
    return settings.model_copy(update=off)


def make_family(settings: Settings, say: Say, verbose: bool) -> Family:
    """Everything that workers have in common."""
    from appliance.net.vif.queues import queues_of
    from appliance.net.vif.tap import configure_host_side

    look_for_directories(settings)
    net = settings.net
    # Each worker has its part of what may be answered to one network.
    share = {"rate_limit": -(-settings.dns.rate_limit // net.workers),
             "rate_total": -(-settings.dns.rate_total // net.workers)}  # fmt: skip
    parted = settings.model_copy(update={"dns": settings.dns.model_copy(update=share)})
    content = load_content(settings)
    try:
        made = options(parted)
        links: list[Sequence[Vif]] = []
        for cable in (net, *net.more):
            links.append(queues_of(cable.link, net.workers))
            if cable.host_address is not None:
                configure_host_side(cable.link.partition(":")[2], cable.host_address)
    except OptionsError as exc:
        raise StartError(str(exc)) from exc
    except LinkError as exc:
        raise StartError(exc.strerror or str(exc)) from exc
    return Family(
        settings=settings,
        count=net.workers,
        mesh=Mesh(net.workers),
        queues=list(zip(*links, strict=True)),
        content=content,
        options=made,
        secret=secrets.token_bytes(16),
        say=say,
        verbose=verbose,
        certificates=_certificates(settings),
    )


def _certificates(settings: Settings) -> Certificates | None:
    """The certificates, with contexts whose ticket keys are the same in all workers."""
    if not (settings.tls.port or settings.tls.dot_port):
        return None
    from appliance.parts.certificates import Certificates
    from appliance.parts.secure import DOT_PROTOCOLS, WEB_PROTOCOLS

    class Prepared(Certificates):
        """Has its contexts before anybody asks for them."""

        ahead = AHEAD

        def prepare(self) -> None:
            """Make them."""
            self._prepared = {
                service: super(Prepared, self).contexts(service, protocols)
                for service, protocols in (("https", WEB_PROTOCOLS), ("dot", DOT_PROTOCOLS))
            }

        def contexts(self, service: str, protocols: tuple[bytes, ...]) -> Contexts:
            """What a service offers: as it was made before the fork."""
            return self._prepared.get(service) or super().contexts(service, protocols)

    certificates = Prepared(settings)
    certificates.prepare()
    return certificates

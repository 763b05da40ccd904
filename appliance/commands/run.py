"""`appliance run`: start the image that was built, under QEMU, or describe it to libvirt."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from appliance.commands import MISUSED, OK, complain, config_path, of_images, say

if TYPE_CHECKING:
    from appliance.image.project import Project
    from appliance.image.qemu import Machine

LEAST: Final = 64
"""MB of memory (site/docs/vm.md)."""
EPILOG = """\
Ctrl-C presses the machine's power button, a second one cuts its power. What follows -- is the
machine's own, as for `appliance serve`: appliance run -- --address 192.0.2.7/24"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """The words that it takes."""
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("-c", "--config", metavar="FILE", type=Path, help="settings")
    parser.add_argument("--target", choices=("qemu", "libvirt"), default="qemu", help="on what")
    parser.add_argument("--memory", metavar="MB", type=int, default=128, help="default: 128")
    parser.add_argument("--tap", metavar="NAME", default="", help="a tap that is there already")
    parser.add_argument(
        "--snapshot", metavar="FILE", type=Path, help="restore from FILE; save there the first time"
    )
    parser.add_argument(
        "--state", metavar="FILE", type=Path, help="the state disk; made with the keys if absent"
    )
    parser.add_argument("--seed", metavar="FILE", type=Path, help="a tar that overrides settings")
    parser.add_argument(
        "--accelerator", choices=("kvm", "tcg"), help="default: KVM where a guest runs on it"
    )
    parser.add_argument("--profile", action="store_true", help="print where the boot spends time")
    parser.add_argument("--print", action="store_true", help="print command or XML, start nothing")
    parser.add_argument("-v", "--verbose", action="store_true", help="let the kernel talk")
    parser.add_argument("words", nargs="*", metavar="-- WORDS", help="for the machine")


def run(options: argparse.Namespace) -> int:
    """Run."""
    path = config_path(options)
    if path is None:
        return MISUSED
    return of_images(partial(_run, options, path))


def _run(options: argparse.Namespace, path: Path) -> int:
    from appliance.image import qemu
    from appliance.image.project import load

    machine = _machine(load(path), options)
    if options.target == "libvirt":
        from appliance.image import libvirt

        return libvirt.run(machine, say, only_print=options.print)
    if options.print:
        say(qemu.words_of(qemu.command(machine)))
        return OK
    for protocol, port, inner in machine.forwards:
        say(f"127.0.0.1:{port}/{protocol} leads to the machine's port {inner}")
    return qemu.start(machine, say, options.snapshot)


def _machine(project: Project, options: argparse.Namespace) -> Machine:
    from appliance.image import qemu
    from appliance.image.graph import BuildError
    from appliance.image.project import is_stale

    image = project.output / "qemu"
    if not (image / "initramfs").exists():
        raise BuildError("there is no image: appliance build --target qemu")
    for line in project.notes():
        complain(line)
    if options.memory < LEAST:
        raise BuildError(f"--memory {options.memory}: a machine wants {LEAST} MB at least")
    if options.snapshot is not None and options.state is not None:
        raise BuildError(
            "--snapshot and --state: a restored machine would write what it remembers over what "
            "the disk has learnt since; leave one of them out"
        )
    if options.tap and not options.print and not Path("/sys/class/net", options.tap).exists():
        raise BuildError(
            f"there is no {options.tap}; as root: ip tuntap add {options.tap} mode tap vnet_hdr"
        )
    if is_stale(project, "qemu"):
        complain("this image is older than what is served; to renew it: appliance build")
    if options.state is not None:
        from appliance.image.state_disk import make_state

        make_state(options.state, keys=project.state_files())
    for disk in (options.state, options.seed):
        if disk is not None and not disk.exists():
            raise BuildError(f"there is no {disk}")
    forwards = _forwards(project) if not options.tap and options.target == "qemu" else ()
    return qemu.Machine(
        image=image,
        memory=options.memory,
        forwards=forwards,
        tap=options.tap,
        state=options.state and options.state.absolute(),
        seed=options.seed and options.seed.absolute(),
        words=tuple(options.words),
        profile=options.profile,
        accelerator=options.accelerator or qemu.accelerator(image, say),
        loud=options.verbose,
    )


def _forwards(project: Project) -> tuple[tuple[str, int, int], ...]:
    """Ports of this host for those of the machine; taken ones are replaced, which is said."""
    import socket

    from appliance.ports import bind_near

    types = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    wanted, found = project.settings, []
    for kinds, port, inner in (
        (("tcp",), wanted.gateway.http, wanted.http.port),
        (("tcp", "udp"), wanted.gateway.dns, wanted.dns.port),
        (("tcp",), wanted.gateway.https, wanted.tls.port),
        (("tcp",), wanted.gateway.dot, wanted.tls.dot_port),
    ):
        if not inner:
            continue
        sockets, why = bind_near("127.0.0.1", port, [types[kind] for kind in kinds])
        free = sockets[0].getsockname()[1]
        for held in sockets:
            held.close()
        if why:
            say(why)
        found += [(kind, free, inner) for kind in kinds]
    return tuple(found)

"""An image as a domain of libvirt: its XML, and defining it through libvirt-python.

The XML is complete as printed; `virsh define` takes it as well. libvirt-python is an optional extra
(`pip install appliance[libvirt]`), since it is compiled against the host's libvirt. Imports the
standard library and this package.
"""

from __future__ import annotations

import hashlib
import importlib
import uuid
from collections.abc import Callable
from xml.etree import ElementTree as ET

from appliance.image.graph import BuildError
from appliance.image.qemu import Machine, command_line

NAME = "appliance"
URI = "qemu:///system"


def domain(machine: Machine, name: str = NAME) -> str:
    """The domain's XML (libvirt.org/formatdomain.html)."""
    root = ET.Element("domain", type="kvm" if machine.accelerator == "kvm" else "qemu")
    _text(root, "name", name)
    _text(
        root, "uuid", str(uuid.UUID(bytes=hashlib.sha256(name.encode()).digest()[:16], version=4))
    )
    _text(root, "memory", str(machine.memory), unit="MiB")
    _text(root, "vcpu", "1")
    boot = ET.SubElement(root, "os")
    _text(boot, "type", "hvm", arch="x86_64", machine="pc")
    _text(boot, "kernel", str(machine.kernel))
    _text(boot, "initrd", str(machine.image / "initramfs"))
    _text(boot, "cmdline", command_line(machine).replace("panic=-1", "panic=10"))
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "vmcoreinfo", state="off")
    _text(
        root, "genid", str(uuid.UUID(bytes=hashlib.sha256(root_id(name)).digest()[:16], version=4))
    )
    if machine.accelerator == "kvm":
        ET.SubElement(root, "cpu", mode="host-passthrough")
    else:
        cpu = ET.SubElement(root, "cpu", mode="custom", match="minimum")
        _text(cpu, "model", "qemu64")
        ET.SubElement(cpu, "feature", policy="require", name="rdrand")
    ET.SubElement(root, "clock", offset="utc")
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "restart")
    _devices(root, machine)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def root_id(name: str) -> bytes:
    """What the generation's identifier is made of; libvirt gives a new one after a restore."""
    return b"generation " + name.encode()


def _devices(root: ET.Element, machine: Machine) -> None:
    devices = ET.SubElement(root, "devices")
    for disk, device in zip(machine.drives, ("vda", "vdb", "vdc"), strict=False):
        element = ET.SubElement(devices, "disk", type="file", device="disk")
        ET.SubElement(element, "driver", name="qemu", type="raw", cache="none")
        ET.SubElement(element, "source", file=str(disk))
        ET.SubElement(element, "target", dev=device, bus="virtio")
        if disk != machine.state:
            ET.SubElement(element, "readonly")
    if machine.tap:
        card = ET.SubElement(devices, "interface", type="ethernet")
        ET.SubElement(card, "target", dev=machine.tap, managed="no")
    else:
        card = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(card, "source", network="default")
    ET.SubElement(card, "model", type="virtio")
    generator = ET.SubElement(devices, "rng", model="virtio")
    _text(generator, "backend", "/dev/urandom", model="random")
    console = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(console, "target", port="0")
    ET.SubElement(ET.SubElement(devices, "console", type="pty"), "target",
                           type="serial", port="0")  # fmt: skip


def _text(parent: ET.Element, name: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes).text = text


def run(machine: Machine, say: Callable[[str], None], *, only_print: bool) -> int:
    """Define and start the domain, or print its XML; raises BuildError."""
    text = domain(machine)
    if only_print:
        say(text.rstrip())
        return 0
    try:
        api = importlib.import_module("libvirt")
    except ImportError:
        raise BuildError(
            "libvirt-python is needed: pip install 'appliance[libvirt]' (on Debian it wants "
            "libvirt-dev pkgconf gcc); or: appliance run --target libvirt --print | virsh define"
        ) from None
    try:
        connection = api.open(URI)
        connection.defineXML(text).create()
    except api.libvirtError as exc:
        raise BuildError(f"libvirt: {exc}") from exc
    say(f"{NAME} is defined and started at {URI}; virsh console {NAME} shows it")
    return 0

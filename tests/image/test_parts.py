"""The small parts of an image: the archive, the kernel's options, command lines, XML, the seed's
rules.
"""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

from appliance import files
from appliance.app import StartError
from appliance.image import closure, kernel, libvirt, qemu, recipe
from appliance.image import lock as locks
from appliance.image.cpio import write_cpio
from appliance.image.graph import BuildError
from appliance.image.guest import machine as guest
from appliance.image.guest import overrides, state
from appliance.image.project import load


def archive(top: Path) -> bytes:
    file = io.BytesIO()
    write_cpio(top, file)
    return file.getvalue()


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "page").write_text("hello")
    (tmp_path / "init").write_text("x")
    (tmp_path / "init").chmod(0o755)
    data = archive(tmp_path)
    assert len(data) % 512 == 0
    names = []
    at = 0
    while True:  # Linux's buffer-format.rst: thirteen fields of eight digits behind the magic
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        if name == "TRAILER!!!":
            break
        names.append((name, oct(fields[1])))
        assert fields[5] == 0  # no time
        at += (110 + fields[11] + 3) // 4 * 4
        at += (fields[6] + 3) // 4 * 4
    assert ("init", "0o100755") in names
    assert ("folder/page", "0o100644") in names
    assert ("dev/console", "0o20600") in names


def test_an_archive_does_not_depend_on_when_or_where(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "b").write_text("1")
        (tmp_path / place / "a").write_text("2")
    assert archive(tmp_path / "one") == archive(tmp_path / "two")


def test_the_kernel_has_no_ip_stack() -> None:
    wanted = kernel.CONFIG.read_text()
    assert "# CONFIG_INET is not set" in wanted
    assert "CONFIG_PACKET=y" in wanted
    kernel.check_config(wanted, wanted)
    with pytest.raises(BuildError, match="CONFIG_INET is not set"):
        kernel.check_config(wanted + "CONFIG_INET=y\n", wanted)
    with pytest.raises(BuildError, match="CONFIG_PACKET=y"):
        kernel.check_config(wanted.replace("CONFIG_PACKET=y\n", ""), wanted)


def test_the_library_is_what_is_imported() -> None:
    found = closure.standard_library(["json", "asyncio.streams"])
    assert {"json/__init__.py", "asyncio/streams.py", "encodings/utf_8.py"} <= set(found)
    assert not {"tkinter/__init__.py", "unittest/__init__.py", "pdb.py"} & set(found)
    assert not [place for place in found if place.startswith(("_ssl.", "_hashlib.", "test/"))]


def test_dependencies_are_followed_and_extras_are_not() -> None:
    names = {d.metadata["Name"].lower() for d in closure.dependencies("appliance")}
    assert {"pydantic", "pydantic_core", "jinja2", "markupsafe"} <= names
    assert not {"pytest", "mypy", "ruff"} & names


def test_a_dependency_that_only_commands_need_is_in_no_image() -> None:
    """What is reached brings what it requires, also when no source of it names that."""
    bundled = closure.bundles("appliance")
    found = closure.reached(bundled, {"OpenSSL.SSL", "appliance.app", "json"})
    assert {"cffi", "cryptography", "pyopenssl"} <= set(found)
    assert "jinja2" not in found
    imported = {
        name
        for place, path in recipe.application_files().items()
        if place.endswith(".py")
        for name in closure.imported(path)
    }
    whole = set(closure.reached(bundled, imported))
    assert {"acme", "requests", "pydantic-core", "markupsafe", "cffi"} <= whole
    assert not {"lark", "dnslib", "tqdm", "tomli-w"} & whole


def test_the_colourist_of_an_image_is_whole() -> None:
    """No module that is kept imports one that is not; in a function it may, for a rare language."""
    files = closure.bundles("appliance")["pygments"].files
    kept = {place for place in files if closure.in_image(place.removesuffix(".py") + ".pyc")}
    assert {"pygments/lexers/python.py", "pygments/lexer.py"} <= kept
    assert "pygments/lexers/lisp.py" in set(files) - kept
    for place in sorted(place for place in kept if place.startswith("pygments/lexers/")):
        for node in ast.parse(files[place].read_bytes()).body:
            name = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            named = name.replace(".", "/") + ".py"
            assert named not in files or named in kept, f"{place} imports {name}"


def test_what_is_only_quicker_stays_with_the_builder() -> None:
    assert not closure.in_image(f"yaml/_yaml{closure.EXTENSION}")
    assert not closure.in_image(f"charset_normalizer/md{closure.EXTENSION}")
    assert closure.in_image("charset_normalizer/md.pyc")
    assert closure.in_image("yaml/__init__.pyc")
    assert closure.in_image(f"_cffi_backend{closure.EXTENSION}")


def machine(tmp_path: Path, **changes: object) -> qemu.Machine:
    told = {"address": ["10.0.0.2/24"], "gateway": ["10.0.0.1"]}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    for name in ("vmlinuz", "initramfs"):
        (tmp_path / name).write_text("")
    return qemu.Machine(tmp_path, **changes)  # type: ignore[arg-type]


def test_the_command_line_names_disks_in_their_order(tmp_path: Path) -> None:
    line = qemu.command_line(
        machine(tmp_path, state=Path("s"), seed=Path("t"), words=("--address", "192.0.2.7/24"))
    )
    assert "appliance_state=/dev/vda appliance_seed=/dev/vdb appliance_cold=/dev/vdc" in line
    assert line.endswith(" -- --address 192.0.2.7/24")
    assert "appliance_seed=/dev/vda appliance_cold=/dev/vdb" in qemu.command_line(
        machine(tmp_path, seed=Path("t"))
    )


def test_a_path_may_have_a_comma(tmp_path: Path) -> None:
    disk = tmp_path / "a,b" / "state.img"
    words = qemu.command(machine(tmp_path, state=disk))
    (drive,) = (word for word in words if "state.img" in word)
    assert drive.startswith(f"file={tmp_path}/a,,b/state.img,format=raw,")


@pytest.mark.parametrize(
    ("addresses", "gateways", "expected"),
    [
        (
            ["fd00::2/64", "10.0.0.2/24"],
            ["fd00::1", "10.0.0.1"],
            (
                "net=10.0.0.0/24,host=10.0.0.1,dhcpstart=10.0.0.2,"
                "hostfwd=tcp:127.0.0.1:8080-10.0.0.2:80"
            ),
        ),
        ([], [], "hostfwd=tcp:127.0.0.1:8080-:80"),
    ],
)
def test_the_network_of_qemu(
    tmp_path: Path, addresses: list[str], gateways: list[str], expected: str
) -> None:
    """IPv4 alone; a machine that looks for an address is lent one there."""
    one = machine(tmp_path, forwards=(("tcp", 8080, 80),))
    told = {"address": addresses, "gateway": gateways}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    words = qemu.command(one)
    assert words[words.index("-netdev") + 1] == f"user,id=cable,ipv6=off,{expected}"


def test_an_emulated_machine_is_not_asked_for_what_costs_it_most(tmp_path: Path) -> None:
    """Its timer is not measured; ACPI has the power button, but routes no interrupts."""
    emulated = machine(tmp_path)
    lent = replace(emulated, accelerator="kvm")
    for one in (emulated, lent):
        assert {"acpi=noirq", "mitigations=off"} <= set(qemu.command_line(one).split())
        assert "acpi=off" not in qemu.command_line(one)
    assert "nolapic_timer" in qemu.command_line(emulated).split()
    assert "nolapic_timer" not in qemu.command_line(lent).split()
    words = qemu.command(emulated)
    assert words[words.index("-cpu") + 1] == "max,la57=off,erms=off"


def test_a_snapshot_is_of_one_machine(tmp_path: Path) -> None:
    one = machine(tmp_path)
    other = replace(one, memory=256)
    assert qemu._stamp(one) == qemu._stamp(replace(one))
    assert qemu._stamp(one) != qemu._stamp(other)


def test_the_domain_is_what_was_asked_for(tmp_path: Path) -> None:
    root = ET.fromstring(libvirt.domain(machine(tmp_path, tap="om0", state=tmp_path / "state.img")))
    assert root.get("type") == "qemu"
    assert root.findtext("os/initrd") == str(tmp_path / "initramfs")
    assert "panic=10" in (root.findtext("os/cmdline") or "")
    card = root.find("devices/interface/target")
    assert card is not None
    assert card.attrib == {"dev": "om0", "managed": "no"}
    disk = root.find("devices/disk/source")
    assert disk is not None
    assert disk.get("file") == str(tmp_path / "state.img")


def test_a_lock_is_read_as_it_was_written(tmp_path: Path) -> None:
    made = locks.Lock(
        "qemu", {"kind": "own", "source": "x"}, {"python": "3"}, {"a": "1 b"}, {"date": "5"}
    )
    locks.write(tmp_path / "appliance.lock", made)
    assert locks.read(tmp_path / "appliance.lock") == made
    with pytest.raises(BuildError, match="appliance configure"):
        locks.read(tmp_path / "absent")
    (tmp_path / "bad").write_text("[image")
    with pytest.raises(BuildError, match="is not a lock"):
        locks.read(tmp_path / "bad")


def test_content_is_dated_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(locks.EPOCH, "77")
    lock = locks.Lock("qemu", {}, {}, {}, {"digest": "a", "date": "5"})
    assert locks.with_content(lock, "a").date == 5
    assert locks.with_content(lock, "b").date == 77


def test_words_of_the_boot_are_pairs() -> None:
    assert overrides.pairs(["--a=1", "--b", "2"]) == [("--a", "1"), ("--b", "2")]
    assert overrides.pairs(["--no-probe", "--b", "2"]) == [("--no-probe", ""), ("--b", "2")]
    with pytest.raises(StartError, match="--b needs a value"):
        overrides.pairs(["--b"])


def test_a_seed_overrides_key_by_key() -> None:
    document = overrides.as_document(
        SimpleNamespace(
            net=SimpleNamespace(address=("a",), pcap=None), log=SimpleNamespace(level="x")
        )
    )
    overrides.merge(document, {"log": {"level": "y"}})
    assert document == {"net": {"address": ["a"]}, "log": {"level": "y"}}


@pytest.mark.filterwarnings("ignore:Python 3.14:DeprecationWarning")  # of a newer Python, by now
@pytest.mark.parametrize("name", ["site/index.md", "../outside", "/outside"])
def test_a_seed_is_unpacked_by_a_python_without_filters(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian 12's 3.11.2 has none (PEP 706)."""
    device = tmp_path / "seed"
    with tarfile.open(device, "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    monkeypatch.setattr(overrides, "SEED", str(tmp_path / "to"))
    monkeypatch.setattr(guest, "mount_kernel", lambda: None)
    monkeypatch.delattr(tarfile, "data_filter")
    if name == "site/index.md":
        assert overrides.read_seed(str(device)) == {"site"}
        assert (tmp_path / "to" / name).exists()
    else:
        with pytest.raises(StartError, match="is no file or folder below its top"):
            overrides.read_seed(str(device))
        assert not (tmp_path / "outside").exists()


def test_a_layout_is_written_once_and_checked(tmp_path: Path) -> None:
    state.check_layout(str(tmp_path))
    assert (tmp_path / "LAYOUT").read_text() == "1\n"
    state.check_layout(str(tmp_path))
    (tmp_path / "LAYOUT").write_text("9\n")
    with pytest.raises(StartError, match="has layout 9; this image knows 1"):
        state.check_layout(str(tmp_path))
    (tmp_path / "LAYOUT").unlink()
    # The power was cut while it was written.
    files.place_beside(tmp_path / "LAYOUT").write_bytes(b"")
    state.check_layout(str(tmp_path))
    assert os.listdir(tmp_path) == ["LAYOUT"]
    (tmp_path / "LAYOUT").rename(tmp_path / "theirs")
    with pytest.raises(StartError, match="not ours"):
        state.check_layout(str(tmp_path))


def test_init_compiles_and_is_executable() -> None:
    init = Path(state.__file__).with_name("init.py")
    assert init.stat().st_mode & 0o100
    assert init.read_text().startswith("#!/python/bin/python3 -IS\n")
    subprocess.run(
        ["python3", "-m", "py_compile", str(init)],
        check=True,
        env={"PYTHONPYCACHEPREFIX": "/tmp/pyc", "PATH": "/usr/bin:/bin"},
    )


def test_every_file_that_the_settings_name_is_on_the_state_disk(tmp_path: Path) -> None:
    """What is neither served nor there a machine cannot have, and does not start."""
    text = """
[dns]
cookie_secret = "cookies"
[[dns.key]]
name = "xfr"
file = "keys/xfr"
[[dns.primary]]
address = "192.0.2.1"
tls = true
tls_name = "ns1.example.net"
tls_ca_file = "keys/their-ca.pem"
[[certificate]]
chain = "chain.pem"
key = "key.pem"
"""
    (tmp_path / "appliance.toml").write_text(text)
    assert load(tmp_path / "appliance.toml").state_files() == {
        name: tmp_path / name
        for name in ("cookies", "keys/xfr", "keys/their-ca.pem", "chain.pem", "key.pem")
    }

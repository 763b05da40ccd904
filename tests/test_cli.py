"""The command line: what is understood, what is said about the rest, and with which status."""

from __future__ import annotations

import datetime as dt
import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance import __version__, cli, commands, config
from appliance.tls.authority import self_signed
from appliance.tls.credential import key_pem

ROOT = Path(__file__).parent.parent


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"appliance {__version__} (pure Python)\n"


def test_no_command_is_help_and_misuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "serve" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["sevre"], ["serve", "--lnik", "pair"], ["serve", "--http-port", "x"]]
)
def test_misuse(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert words[-1] in capsys.readouterr().err or "--lnik" in words


def test_ctrl_c_at_any_moment_is_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while a command is still being imported, as Python has raised it by itself."""

    def interrupted(_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert cli.main(["serve"]) == 130
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_is_not_lost_in_a_callback_while_serve_begins(tmp_path: Path) -> None:
    """Python ignores what is raised in a weak reference's callback, as imports have them."""
    (tmp_path / "appliance.toml").write_text("")
    code = """
import os, signal, sys, weakref
from appliance import cli, config

class Lock:
    pass

def load(*words):
    lock = Lock()
    reference = weakref.ref(lock, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del lock
    return made(*words)

made, config.load = config.load, load
sys.exit(cli.main(["serve"]))  # status 1, for want of a site, if it gets so far
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, check=False, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, b"")


@pytest.mark.parametrize(
    ("file", "status", "said"),
    [("-", 0, b""), ("/dev/full", 1, b"appliance: /dev/full: No space left on device\n")],
)
def test_a_capture_that_nobody_takes(tmp_path: Path, file: str, status: int, said: bytes) -> None:
    """A pipe whose reader is not there (`| tcpdump`, where there is none), and a full disk."""
    (tmp_path / "appliance.toml").write_text("")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "capture", "-w", file],
        stdout=writer, stderr=subprocess.PIPE, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (status, said)


def test_a_terminal_that_knows_fewer_letters(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "zones").mkdir()
    (tmp_path / "appliance.toml").write_text("")
    (tmp_path / "site/über.md").write_text("no title")
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "check"],
        capture_output=True, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"")
    assert rb"site/\xfcber.md:1: error: " in done.stdout


@pytest.mark.parametrize("command", ["serve", "check"])
def test_without_settings(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([command]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"appliance: no appliance.toml in {tmp_path}: go where one is, or name one with -c FILE\n"
    )


def test_a_folder_that_may_not_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a container's mount that belongs to somebody else: said as it is, without a traceback."""

    def refused(path: object, *_: object, **__: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.chdir(tmp_path)
    (tmp_path / "appliance.toml").write_text("")
    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refused)
        patched.setattr(os, "lstat", refused)
        patched.setattr(os, "access", lambda *_: False)
        assert cli.main(["check"]) == 2
    assert capsys.readouterr().err == (
        f"appliance: {tmp_path} cannot be looked into: Permission denied\n"
    )


def test_errors_in_settings_are_lines_and_not_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[net]\nlink = "wire"\n[gateway]\nhttp = 0\n')
    assert cli.main(["serve", "-c", str(path), "--dns-port", "99999"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    first, second, third = said.err.splitlines()
    assert first.startswith("appliance: command line: --dns-port 99999: must be an integer from 1")
    assert second.startswith(f'appliance: {path}:2: net.link = "wire": must be')
    assert third.startswith(f"appliance: {path}:4: gateway.http = 0: must be")


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.toml"
    assert cli.main(["serve", "-c", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"appliance: {path}: cannot be read: No such file or directory\n"
    )


def test_every_option_reaches_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "appliance.toml").write_text("")
    words = (
        "serve --link tap:t0 --address 192.0.2.2/24 --address 192.0.2.3/24 --gateway 192.0.2.1 "
        "--site pages --zones /names --host-address 192.0.2.1/24 --pcap x.pcap "
        "--http-port 8000 --dns-port 5300"
    )
    options = cli._parser("serve").parse_args(words.split())
    settings = config.load(tmp_path / "appliance.toml", commands.overrides(options))
    assert settings.net.link == "tap:t0"
    assert settings.net.address == ("192.0.2.2/24", "192.0.2.3/24")
    assert settings.net.gateway == ("192.0.2.1",)
    assert settings.net.host_address == "192.0.2.1/24"
    assert settings.net.pcap == tmp_path / "x.pcap"
    assert settings.site.directory == tmp_path / "pages"
    assert settings.dns.zones == Path("/names")
    assert (settings.gateway.http, settings.gateway.dns) == (8000, 5300)


def test_paths_are_those_of_the_working_directory_and_not_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    (there / "appliance.toml").write_text("")
    monkeypatch.chdir(here)
    options = cli._parser("serve").parse_args(["serve", "--site", "pages"])
    settings = config.load(there / "appliance.toml", commands.overrides(options))
    assert settings.site.directory == here / "pages"
    assert settings.dns.zones == there / "zones"


def test_words_belong_to_the_link_before_them(tmp_path: Path) -> None:
    path = tmp_path / "appliance.toml"
    path.write_text("")
    words = (
        "serve --address 192.0.2.2/24 --link tap:t0 --gateway 192.0.2.1 --link packet:eth1 "
        "--link tap:t2 --address 10.0.0.2/24 --address 10.0.0.3/24 --host-address 10.0.0.1/24 "
        f"--no-probe -c {path}"
    ).split()
    net = config.load(path, commands.overrides(cli._parser("serve").parse_args(words))).net
    assert (net.link, net.address, net.gateway) == ("tap:t0", ("192.0.2.2/24",), ("192.0.2.1",))
    assert [one.link for one in net.more] == ["packet:eth1", "tap:t2"]
    assert [one.address for one in net.more] == [(), ("10.0.0.2/24", "10.0.0.3/24")]
    assert [one.host_address for one in net.more] == [None, "10.0.0.1/24"]
    assert [one.probe for one in (net, *net.more)] == [False] * 3


def test_every_overridable_key_is_a_setting_and_an_option() -> None:
    options = vars(cli._parser("serve").parse_args(["serve"]))
    for key, option in config.OPTIONS.items():
        table, name = key.split(".")
        assert name in config.TABLES[table].model_fields
        assert option.lstrip("-").replace("-", "_") in options


def test_nothing_heavy_is_imported_before_a_command_needs_it() -> None:
    code = (
        "import sys; from appliance import cli;"
        "cli._parser('serve');"
        "heavy = {'asyncio', 'pydantic', 'dns', 'jinja2', 'h11', 'uvloop'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_a_full_disk_is_told_and_ends_nothing() -> None:
    """What is served does not depend on where its notes go."""
    code = "from appliance.commands import say; say('one'); say('two')"
    command = [sys.executable, "-c", code]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=True)
        told = [f"appliance: standard output: No space left on device: {n}" for n in ("one", "two")]
        assert done.stderr.decode().splitlines() == told
        subprocess.run(command, stdout=full, stderr=full, check=True)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "--version"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert done.stdout == f"appliance {__version__} (pure Python)\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '[acme]\ndirectory = "https://ca.example/d"\n',
            [
                (
                    "error: acme.names is empty, and so is tls.names: "
                    "for whom is the certificate to be?"
                ),
                (
                    "warning: acme.agree is false: an authority that has terms of service makes no "
                    "account"
                ),
            ],
        ),
        (
            (
                '[acme]\ndirectory = "https://ca.example/d"\nagree = true\n'
                '[tls]\nnames = ["a.example"]\n'
            ),
            [],
        ),
        (
            '[acme]\nnames = ["a.example"]\nagree = true\n',
            ["warning: acme.directory is not set: no certificate is asked for"],
        ),
    ],
)
def test_check_tells_why_there_would_be_no_certificate_by_acme(
    text: str, told: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("site", "zones"):
        (tmp_path / name).mkdir()
    settings = tmp_path / "appliance.toml"
    settings.write_text(text)
    assert cli.main(["check", "-c", str(settings)]) == any("error" in line for line in told)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "acme" in line] == [f"{settings}: {line}" for line in told]


def test_check_warns_of_secrets_that_others_can_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("site", "zones"):
        (tmp_path / name).mkdir()
    key = tmp_path / "t.key"
    key.write_text("c2VjcmV0c2VjcmV0c2VjcmV0")
    key.chmod(0o644)
    settings = tmp_path / "appliance.toml"
    settings.write_text('[[dns.key]]\nname = "t.example"\nfile = "t.key"\n')
    assert cli.main(["check", "-c", str(settings)]) == 0
    warning = f"{key}: warning: everybody can read this secret (chmod 600)"
    assert warning in capsys.readouterr().out
    key.chmod(0o600)
    assert cli.main(["check", "-c", str(settings)]) == 0
    assert "warning: everybody" not in capsys.readouterr().out


def test_check_judges_certificates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `serve` would refuse is an error; with file and reason."""
    now = dt.datetime.now(dt.UTC)
    made = self_signed(["example.org"], now)
    (tmp_path / "good.key").touch(0o600)
    (tmp_path / "good.key").write_bytes(key_pem(made.key))
    (tmp_path / "good.pem").write_bytes(made.pem())
    (tmp_path / "open.pem").write_bytes(made.pem() + key_pem(made.key))
    (tmp_path / "open.pem").chmod(0o644)
    for name in ("site", "zones"):
        (tmp_path / name).mkdir()
    settings = tmp_path / "appliance.toml"
    settings.write_text(
        '[tls]\nciphers = ["ECDHE-RSA-AES128-GCM-SHA256"]\n'
        '[[certificate]]\nchain = "good.pem"\nkey = "good.key"\n'
        '[[certificate]]\nchain = "open.pem"\n'
        '[[certificate]]\nchain = "absent.pem"\n'
    )
    assert cli.main(["check", "-c", str(settings)]) == 1
    told = capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines()
    unfit = "warning: no suite in tls.ciphers is for this P-256 key: TLS 1.3 alone"
    assert [line for line in told if ".pem" in line] == [
        f"good.pem: {unfit}",
        "open.pem: warning: everybody can read this private key (chmod 600)",
        f"open.pem: {unfit}",
        "appliance.toml: error: certificate: absent.pem: No such file or directory",
    ]

"""appliance.toml: what is accepted, and what is said about the rest."""

from __future__ import annotations

import pathlib

import pytest
from pydantic import ValidationError

from appliance import config
from appliance.links import opposite

ROOT = pathlib.Path(__file__).parent.parent


def write(directory: pathlib.Path, text: str) -> pathlib.Path:
    path = directory / "appliance.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: pathlib.Path, overrides: dict[str, object] | None = None) -> list[str]:
    """What load() says, with the directory cut off."""
    with pytest.raises(config.ConfigError) as caught:
        config.load(path, overrides)
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


def test_the_file_of_this_repository() -> None:
    settings = config.load(ROOT / "appliance.toml")
    assert settings.site.directory == ROOT / "site"
    assert settings.dns.zones == ROOT / "zones"
    assert settings.site.base_url == "http://openmirage.org"
    assert settings.net.link == "pair"
    assert settings.net.address == ("10.0.0.2/24",)
    assert (settings.gateway.bind, settings.gateway.http, settings.gateway.dns) == (
        "127.0.0.1",
        8080,
        5353,
    )


def test_the_file_of_this_repository_says_the_defaults_aloud(tmp_path: pathlib.Path) -> None:
    ours = config.load(ROOT / "appliance.toml")
    empty = config.load(write(tmp_path, ""))
    for table in ("dns", "http", "net", "gateway", "log"):
        stated = getattr(ours, table).model_dump(exclude={"zones", "state"})
        assert stated == getattr(empty, table).model_dump(exclude={"zones", "state"})


def test_paths_are_relative_to_the_file(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, '[site]\ndirectory = "pages"\n[net]\npcap = "/var/x.pcap"\n')
    settings = config.load(path)
    assert settings.site.directory == tmp_path / "pages"
    assert settings.dns.zones == tmp_path / "zones"  # a default, too
    assert settings.net.pcap == pathlib.Path("/var/x.pcap")


def test_settings_cannot_be_changed(tmp_path: pathlib.Path) -> None:
    settings = config.load(write(tmp_path, ""))
    with pytest.raises(ValidationError, match="frozen"):
        settings.net.link = "tap:t0"  # type: ignore[misc]


def test_the_command_line_overrides(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, '[net]\nlink = "pair"\n[gateway]\nhttp = 8000\n')
    settings = config.load(
        path,
        {"net.link": "tap:t0", "gateway.http": 9000, "site.directory": pathlib.Path("/pages")},
    )
    assert settings.net.link == "tap:t0"
    assert settings.gateway.http == 9000
    assert settings.site.directory == pathlib.Path("/pages")


def test_an_address_from_the_command_line_leaves_the_files_gateway_behind(
    tmp_path: pathlib.Path,
) -> None:
    path = write(tmp_path, '[net]\ngateway = ["10.0.0.1"]\n')
    settings = config.load(path, {"net.address": ["192.0.2.7/24"]})
    assert settings.net.address == ("192.0.2.7/24",)
    assert settings.net.gateway == ()
    both = {"net.address": ["192.0.2.7/24"], "net.gateway": ["192.0.2.1"]}
    assert config.load(path, both).net.gateway == ("192.0.2.1",)


@pytest.mark.parametrize(
    "link", ["pair", "tap:t0", "tap:a-b_c.d", "packet:eth0", "tap:" + 15 * "x"]
)
def test_links(tmp_path: pathlib.Path, link: str) -> None:
    assert config.load(write(tmp_path, f'[net]\nlink = "{link}"\n')).net.link == link


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[net]\nlink = "tun:x"', 'appliance.toml:2: net.link = "tun:x": must be "pair", "tap:N'),
        ('[net]\nlink = "tap:"', 'appliance.toml:2: net.link = "tap:": must be "pair"'),
        (f'[net]\nlink = "tap:{16 * "x"}"', "appliance.toml:2: net.link ="),
        ('[net]\nlink = "tap:a/b"', 'appliance.toml:2: net.link = "tap:a/b": must be'),
        ('[net]\naddress = ["10.0.0.2"]', 'net.address = "10.0.0.2": must be a list, each an IPv4'),
        ('[net]\naddress = "10.0.0.2/24"', 'net.address = "10.0.0.2/24": must be a list'),
        ('[net]\naddress = ["10.0.0.0/24"]', "must be a list, each an IPv4 or IPv6 host"),
        ('[net]\naddress = ["10.0.0.255/24"]', "must be a list, each an IPv4 or IPv6 host"),
        ('[net]\naddress = ["224.0.0.1/24"]', "must be a list, each an IPv4 or IPv6 host"),
        ("[net]\naddress = []", "must be a list with an IPv4 address, since the link is a pair"),
        (
            '[site]\nwatch = true\n[net]\nlink = "tap:om0"\nworkers = 2',
            "appliance.toml:5: net.workers = 2: must be 1 with site.watch",
        ),
        ('[net]\ngateway = ["10.1.0.1"]', "of a network of ours: 10.0.0.0/24"),
        ('[net]\ngateway = ["10.0.0.2"]', 'net.gateway = "10.0.0.2": must be an address that is'),
        ('[net]\naddress = ["10.0.0.2/32"]', "on a network with room for the pair's gateway"),
        ('[net]\naddress = ["10.0.0.2/24", "10.0.0.2/16"]', "a list of different addresses"),
        ('[net]\naddress = ["fe80::1%eth0/64"]', "must be a list, each an IPv4 or IPv6 host"),
        (
            '[net]\naddress = ["10.0.0.2/24", "::ffff:1.2.3.4/96"]',
            "must be a list, each an IPv4 or IPv6 host",
        ),
        ('[net]\ngateway = ["fe80::1%eth0"]', "must be a list of IP addresses"),
        ('[net]\nipv6 = "off"\ngateway = ["fe80::1"]', "an IPv4 address, since ipv6 is off"),
        ('[net]\ngateway = ["10.0.0.255"]', "must be a host's, not the network's"),
        (
            '[net]\nlink = "tap:a"\naddress = ["10.0.0.2/24"]\nhost_address = "10.0.0.2/24"',
            '4: net.host_address = "10.0.0.2/24": must be an address that is not our own',
        ),
        ('[net]\nlink = "tap:a%d"', 'net.link = "tap:a%d": must be "pair"'),
        ('[net]\nlink = "tap:a\\u0000b"', 'must be "pair"'),
        ('[net]\nhost_address = "10.0.0.1/24"', "must be absent unless the link is a tap"),
        ("[gateway]\n\nhttp = 0", "appliance.toml:3: gateway.http = 0: must be an integer from 1"),
        ('[gateway]\nhttp = "80"', 'gateway.http = "80": must be an integer from 1 to 65535'),
        ("[gateway]\nhttp = true", "gateway.http = true: must be an integer from 1 to 65535"),
        ('[gateway]\nbind = "localhost"', 'gateway.bind = "localhost": must be an IP address'),
        ("[dns]\nudp_size = 100", "dns.udp_size = 100: must be an integer from 512 to 4096"),
        ("[site]\ndirectory = 7", "site.directory = 7: must be a path"),
        ('[site]\ntitle = ""', 'site.title = "": must be text that is not empty'),
        ('[site]\nbase_url = "example.org"', "must be http:// or https://"),
        ('[site]\nbase_url = "http://example.org/sub"', "without a path"),
        ('[site]\nbase_url = "http://example.org:99999"', "without a path"),
        ('[site]\nbase_url = "http://exa mple.org"', "without a path"),
        ('[site]\nbase_url = "http://me:secret@example.org"', "without a path"),
        ("[http]\nport = 53", "appliance.toml:2: http.port = 53: must be another port than dns.p"),
        ("[metrics]\nport = 80", ":2: metrics.port = 80: must be another port than http.port"),
        (
            "[tls]\nport = 80",
            "appliance.toml:2: tls.port = 80: must be another port than http.port",
        ),
        ("[tls]\ndot_port = 443", "tls.dot_port = 443: must be another port than tls.port"),
        ("[dns]\nkey = 3", "dns.key = 3: must be at most 1000 tables, each begun by [[dns.key]]"),
        ('[dns]\nwatch = "5"', 'appliance.toml:2: dns.watch = "5": must be a number of seconds up'),
        ("[net]\nwait = true", "appliance.toml:2: net.wait = true: must be a number of seconds"),
        ("[tcp]\nuser_timeout = true", "tcp.user_timeout = true: must be a number of seconds"),
        ('[dns]\nidentity = "' + 200 * "\u00e9" + '"', "must be text of at most 255 octets"),
        ('[dns]\nversion = "' + 252 * "x" + '%v"', "must be text of at most 255 octets"),
        ('[acme]\nnames = ["https://a"]', ':2: acme.names = "https://a": must be a list of host'),
        (
            '[acme]\nchallenge = "http-01"\nnames = ["*.a.example"]',
            ':3: acme.names = "*.a.example": must be host names, since the challenge is not dns-01',
        ),
        ('[acme]\neab_kid = "x"', 'acme.eab_kid = "x": must be beside its counterpart'),
        ('[acme]\neab_key = "x"', "acme.eab_key = "),
        ('[acme]\ndirectory = "https://a:b/d"', "must be an https: URL"),
        (
            '[tls]\nport = 0\ndot_port = 0\n[acme]\ndirectory = "https://a/d"\nnames = ["b.c"]',
            "must be absent, since there is no port of [tls]",
        ),
        ('[log]\nlevel = "loud"', 'must be one of "debug", "info"'),
        ("[net]\nadress = []", "net.adress = []: no such key; did you mean address? known are"),
        ("[nett]\nx = 1", "appliance.toml:1: nett = {…}: no such table; did you mean net?"),
        ("colour = 3", "appliance.toml:1: colour = 3: no such table; known are site, dns"),
        ("net = 3", "appliance.toml:1: net = 3: must be a table, [net]"),
        ("[net]\nlink =", "appliance.toml:2: is not TOML: Invalid value"),
        ('[net]\nlink = "pair"\nlink = "pair"', "appliance.toml:3: is not TOML: Cannot overwrite"),
    ],
)
def test_every_error_names_file_line_key_value_and_what_is_allowed(
    tmp_path: pathlib.Path, text: str, said: str
) -> None:
    (problem,) = problems(write(tmp_path, text))
    assert said in problem
    assert problem.startswith("appliance.toml:")


def test_all_errors_come_together_in_the_order_of_the_file(tmp_path: pathlib.Path) -> None:
    path = write(
        tmp_path,
        '[gateway]\nhttp = 0\ndns = 0\n[net]\nlink = "x"\naddress = ["a", "10.0.0.2/24", "b"]\n',
    )
    said = problems(path)
    assert [line.split(" ")[1] for line in said] == [
        "gateway.http",
        "gateway.dns",
        "net.link",
        "net.address",
        "net.address",
    ]
    assert [line.split(":")[1] for line in said] == ["2", "3", "5", "6", "6"]


def test_an_error_on_the_command_line_names_the_option(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, '[net]\nlink = "pair"\n')
    said = problems(path, {"net.link": "nonsense", "net.gateway": ["10.9.9.9"]})
    assert said[0].startswith('command line: --link "nonsense": must be "pair", "tap:NAME"')
    # Cross-checks of a table come when its keys are right by themselves.
    (alone,) = problems(path, {"net.gateway": ["10.9.9.9"]})
    assert alone.startswith('command line: --gateway "10.9.9.9": must be an address of a network')


def test_a_file_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    (said,) = problems(tmp_path / "none.toml")
    assert said == "none.toml: cannot be read: No such file or directory"
    (said,) = problems(tmp_path)
    assert said.endswith("cannot be read: Is a directory")


def test_a_file_that_is_not_text(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "appliance.toml"
    path.write_bytes(b'[site]\ntitle = "\xff\xfe"\n')
    assert problems(path) == ["appliance.toml:2: is not UTF-8"]


def test_what_is_left_without_the_faulty_keys(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, '[site]\ndirectory = "pages"\ntitle = 3\n[net]\nlink = "x"\n')
    with pytest.raises(config.ConfigError) as caught:
        config.load(path, {"net.gateway": ["10.9.9.9"]})
    usable = caught.value.usable
    assert usable is not None
    assert usable.site.directory == tmp_path / "pages"
    assert usable.net.link == "pair"


def test_errors_in_tables_of_tables_name_their_line(tmp_path: pathlib.Path) -> None:
    """[[dns.key]] and its kin: the line of the key in the right one of them."""
    text = """\
[dns]
rate_limit = -1
[[dns.key]]
name = "one"
file = "a.key"
[[dns.key]]
name = "two"
algorithm = "md5"
file = "b.key"
[[dns.primary]]
zone = ["x"]
"""
    with pytest.raises(config.ConfigError) as caught:
        config.load(write(tmp_path, text))
    told = [(problem.line, problem.message.split(":")[0]) for problem in caught.value.problems]
    assert told == [
        (2, "dns.rate_limit = -1"),
        (8, 'dns.key.algorithm = "md5"'),
        (10, "dns.primary.address"),
        (11, 'dns.primary.zone = ["x"]'),
    ]


def test_keys_that_are_used_must_be_there(tmp_path: pathlib.Path) -> None:
    with pytest.raises(config.ConfigError, match=r'dns\.secondary = "other\."'):
        config.load(write(tmp_path, '[[dns.secondary]]\nkey = "other"\n'))


# ---------------------------------------------------------------------- several links


def test_several_links(tmp_path: pathlib.Path) -> None:
    path = write(
        tmp_path,
        '[net]\nlink = "tap:a"\naddress = ["10.0.0.2/24"]\n[[net.more]]\nlink = "packet:b"\n'
        'address = ["10.1.0.2/24"]\ngateway = ["10.1.0.1"]\n[[net.more]]\nlink = "tap:c"\n',
    )
    net = config.load(path).net
    assert [(one.link, one.address) for one in net.more] == [
        ("packet:b", ("10.1.0.2/24",)),
        ("tap:c", ()),
    ]
    # --link says which links there are: those of the file are all replaced.
    assert config.load(path, {"net.link": "tap:d"}).net.more == ()
    more = [{"link": "tap:e", "address": ["10.1.0.2/24"]}]
    assert config.load(path, {"net.more": more}).net.more[0].link == "tap:e"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('link = "tap:a"\n[[net.more]]\nlink = "packet:a"', '4: net.more = "packet:a": must be l'),
        ('link = "tap:a"\n[[net.more]]\nlink = "pair"', '4: net.more.link = "pair": must be "tap:'),
        ('link = "pair"\n[[net.more]]\nlink = "tap:a"', '2: net.link = "pair": must be a tap or a'),
        ('link = "tap:a"\n[[net.more]]\ndhcp = false', "3: net.more.link: is missing"),
        (
            (
                'link = "tap:a"\naddress = ["10.0.0.2/24"]\n[[net.more]]\nlink = "tap:b"\n'
                'address = ["10.0.0.130/25"]'
            ),
            '6: net.more = "10.0.0.130/25": must be on a network of its own: 10.0.0.0/24 is',
        ),
        (
            (
                'link = "tap:a"\n[[net.more]]\nlink = "tap:b"\naddress = ["10.0.0.3/16"]\n'
                'gateway = ["10.9.0.1"]'
            ),
            '6: net.more.gateway = "10.9.0.1": must be an address of a network of ours: 10.0',
        ),
        ("more = [1, 2]", "2: net.more: must be tables, each begun by [[net.more]]"),
        ('link = "tap:a"\nmore = 3', "3: net.more = 3: must be tables, each begun by [[net.more]]"),
    ],
)
def test_links_that_clash(tmp_path: pathlib.Path, text: str, expected: str) -> None:
    said = problems(write(tmp_path, f"[net]\n{text}\n"))
    assert len(said) == 1
    assert f"appliance.toml:{expected}" in said[0]


def test_links_of_the_command_line_that_clash(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, '[net]\naddress = ["10.0.0.2/24"]\n')
    for more, expected in (
        (
            {"link": "tap:b", "address": ["10.0.0.3/24"]},
            '--address "10.0.0.3/24": must be on a network of its own: 10.0.0.0/24 is that of',
        ),
        ({"link": "tap:a"}, '--link "tap:a": must be links of different names'),
        ({"link": "tap:b", "address": ["10.1.0.2"]}, '--address "10.1.0.2": must be a list'),
        ({"link": "wire"}, '--link "wire": must be "tap:NAME" or'),
    ):
        (said,) = problems(path, {"net.link": "tap:a", "net.more": [more]})
        assert said.startswith(f"command line: {expected}")


@pytest.mark.parametrize("suite", ["AES128-SHA", "ECDHE-RSA-DES-CBC3-SHA", "ALL", "ecdhe", 5])
def test_suites_without_forward_secrecy_cannot_be_named(
    tmp_path: pathlib.Path, suite: object
) -> None:
    """RFC 9325 §4.1."""
    name = f'"{suite}"' if isinstance(suite, str) else str(suite)
    path = write(tmp_path, f'[tls]\nciphers = ["ECDHE-RSA-AES128-GCM-SHA256", {name}]\n')
    [problem] = problems(path)
    assert problem.startswith("appliance.toml:2: tls.ciphers = ")
    assert "with ECDHE" in problem


@pytest.mark.parametrize(
    ("addresses", "gateways", "expected"),
    [
        (["10.0.0.2/24"], ["10.0.0.9"], "10.0.0.9/24"),
        (["10.0.0.2/24"], ["fe80::1", "10.1.0.1"], "10.0.0.1/24"),
        (["fd00::2/64", "10.0.0.2/24", "10.0.0.1/24"], [], "10.0.0.3/24"),
        (["10.0.0.2/31"], [], "10.0.0.3/31"),
        (["10.0.0.2/31", "10.0.0.3/31"], [], None),
        (["10.0.0.2/32"], [], None),
        (["fd00::2/64"], [], None),
    ],
)
def test_who_is_at_the_other_end(
    addresses: list[str], gateways: list[str], expected: str | None
) -> None:
    """Never one of our own."""
    assert opposite(addresses, gateways) == expected

"""SipHash and server cookies, against the papers' own numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.dns.cookies import FUTURE, LIFETIME, Cookies
from appliance.dns.errors import WireError
from appliance.siphash import siphash24

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
FORMER = bytes.fromhex("dd3bdf9344b678b185a6f5cb60fca715")
NEXT = bytes.fromhex("445536bcd2513298075a5d379663c962")


def test_the_papers_vectors() -> None:
    """SipHash (2012), Appendix A, and the reference implementation's table."""
    key = bytes(range(16))
    assert siphash24(key, bytes(range(15))).hex() == "e545be4961ca29a1"
    assert siphash24(key, b"").hex() == "310e0edd47db6f72"


@pytest.mark.parametrize(
    ("secrets", "address", "now", "asked", "given_back"),
    [
        ([SECRET], "198.51.100.100", 1559731985, "2464c4abcf10c957",
         "2464c4abcf10c957010000005cf79f111f8130c3eee29480"),
        ([SECRET], "198.51.100.100", 1559734385, "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
         "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"),
        ([SECRET], "203.0.113.203", 1559734700, "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
         "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e"),
        ([NEXT, FORMER], "2001:db8:220:1:59de:d0f4:8769:82b8", 1559741961,
         "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
         "22681ab97d52c298010000005cf7c609a6bb79d16625507a"),
    ],
)  # fmt: skip
def test_rfc9018_appendix_a(
    secrets: list[bytes], address: str, now: int, asked: str, given_back: str
) -> None:
    """RFC 9018 Appendix A.1 to A.4: learning, renewing, reserved bits, a rolled secret."""
    verdict = Cookies(secrets).judge(bytes.fromhex(asked), address, now)
    assert verdict.option.hex() == given_back
    too_old = asked.startswith("fc93")
    assert verdict.good == (len(asked) > 16 and not too_old)
    if too_old:
        assert Cookies(secrets).judge(bytes.fromhex(asked), address, 1559727985).good


CLIENT = b"12345678"


@pytest.mark.parametrize(
    ("later", "good"),
    [(0, True), (LIFETIME, True), (LIFETIME + 1, False), (-FUTURE, True), (-FUTURE - 1, False)],
)
def test_rfc9018_4_3_a_cookie_has_its_time(later: int, good: bool) -> None:
    """RFC 9018 §4.3; over the wrap of the 32-bit clock too."""
    for now in (2_000_000, (1 << 32) - 100):
        option = Cookies([SECRET]).judge(CLIENT, "192.0.2.1", now).option
        assert Cookies([SECRET]).judge(option, "192.0.2.1", now + later).good is good


def test_a_cookie_is_for_one_client_at_one_address() -> None:
    jar = Cookies([SECRET])
    option = jar.judge(CLIENT, "192.0.2.1", 1000).option
    assert jar.judge(option, "192.0.2.1", 1000).good
    assert not jar.judge(option, "192.0.2.2", 1000).good
    assert not jar.judge(b"x" + option[1:], "192.0.2.1", 1000).good
    assert not jar.judge(option[:-1] + b"x", "192.0.2.1", 1000).good
    assert jar.judge(option[:-1] + b"x", "192.0.2.1", 1000).server_sent
    assert not Cookies([NEXT]).judge(option, "192.0.2.1", 1000).good


def test_a_young_cookie_comes_back_unchanged_and_an_older_one_renewed() -> None:
    jar = Cookies([SECRET])
    option = jar.judge(CLIENT, "192.0.2.1", 1000).option
    assert jar.judge(option, "192.0.2.1", 2700).option == option
    assert jar.judge(option, "192.0.2.1", 2900).option != option
    rolled = Cookies([NEXT, SECRET]).judge(option, "192.0.2.1", 1001)
    assert rolled.good
    assert rolled.option != option


@pytest.mark.parametrize("length", [0, 7, 9, 15, 41, 100])
def test_rfc7873_5_2_2_lengths(length: int) -> None:
    """RFC 7873 §5.2.2."""
    with pytest.raises(WireError):
        Cookies([SECRET]).judge(bytes(length), "192.0.2.1", 0)


@given(st.binary(min_size=16, max_size=40), st.text(max_size=20), st.integers(0, 1 << 33))
def test_no_cookie_is_good_by_chance(option: bytes, address: str, now: int) -> None:
    verdict = Cookies([SECRET]).judge(option, address, now)
    assert not verdict.good
    assert len(verdict.option) == 24
    assert verdict.option[:8] == option[:8]


@pytest.mark.parametrize("secrets", [[], [b"short"], [SECRET, b"x" * 17]])
def test_bad_secrets_are_a_callers_mistake(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="secret"):
        Cookies(secrets)

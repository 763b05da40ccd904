"""Orders against an authority of a few lines: what it says, and what becomes of our account."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from appliance.tls.acme import AcmeError, Authority, Orders, Proof
from appliance.tls.store import Store

HOME = "https://ca.example/"
PROBLEM = "urn:ietf:params:acme:error:"


class Nobody:
    """A prover that has nothing to prove."""

    def show(self, proofs: Sequence[Proof]) -> None: ...
    def hide(self, proofs: Sequence[Proof]) -> None: ...
    def check(self, names: Sequence[str], identities: Sequence[str]) -> None: ...

    def seen(self, proof: Proof) -> str:
        return "nothing"


class Forgetful:
    """An authority (RFC 8555) that knows the accounts made since `forget`, and issues nothing."""

    def __init__(self) -> None:
        self.accounts: set[str] = set()
        self.made = 0
        self.asked: list[str] = []  # the account of each order

    def forget(self) -> None:
        self.accounts.clear()

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        fields = [("Replay-Nonce", "bm9uY2U"), ("Content-Type", "application/json")]
        place = url.removeprefix(HOME)
        if place == "directory":
            names = ("newNonce", "newAccount", "newOrder")
            return 200, fields, json.dumps({name: HOME + name for name in names}).encode()
        if place == "newNonce":
            return 200, fields, b""
        if place == "newAccount":
            self.made += 1
            account = f"{HOME}account/{self.made}"
            self.accounts.add(account)
            return 201, [*fields, ("Location", account)], b'{"status": "valid"}'
        assert place == "newOrder"
        kid = self._protected(body)["kid"]
        self.asked.append(kid)
        known = kid in self.accounts
        kind = "rejectedIdentifier" if known else "accountDoesNotExist"
        fields[1] = ("Content-Type", "application/problem+json")
        return 400, fields, json.dumps({"type": PROBLEM + kind, "detail": "no"}).encode()

    @staticmethod
    def _protected(body: bytes) -> Any:
        text = json.loads(body)["protected"]
        return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def order(orders: Orders) -> str:
    with pytest.raises(AcmeError) as failed:
        orders.obtain(["example.org"], Nobody(), lambda: dt.datetime.now(dt.UTC))
    return str(failed.value)


@pytest.mark.parametrize("restarted", [False, True])
def test_rfc8555_7_3_a_forgotten_account_is_made_again(tmp_path: Path, restarted: bool) -> None:
    """RFC 8555 §6.7, accountDoesNotExist: else every order failed, for ever."""
    store, authority = Store(tmp_path), Forgetful()
    settings = Authority(HOME + "directory", agree=True)
    orders = Orders(settings, store, authority)
    assert "rejectedIdentifier" in order(orders)
    key = store.read(f"{settings.folder}/account.key")
    authority.forget()
    if restarted:
        orders = Orders(settings, store, authority)
    assert "rejectedIdentifier" in order(orders)
    assert authority.asked == [f"{HOME}account/{number}" for number in (1, 1, 2)]
    kept = json.loads(store.read(f"{settings.folder}/account.json") or b"{}")
    assert kept == {"uri": f"{HOME}account/2"}
    assert store.read(f"{settings.folder}/account.key") == key


def test_an_authority_that_knows_nobody_is_asked_twice(tmp_path: Path) -> None:
    class Blind(Forgetful):
        def __call__(self, *args: Any) -> tuple[int, list[tuple[str, str]], bytes]:
            self.forget()
            return super().__call__(*args)

    authority = Blind()
    told = order(Orders(Authority(HOME + "directory", agree=True), Store(tmp_path), authority))
    assert "accountDoesNotExist" in told
    assert len(authority.asked) == 2

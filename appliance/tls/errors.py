"""What goes wrong in TLS, in one kind of exception, and the alerts that this side makes itself.

Imports the standard library.
"""

from __future__ import annotations

from typing import Final

ALERTS: Final = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow",
    40: "handshake_failure", 42: "bad_certificate", 43: "unsupported_certificate",
    44: "certificate_revoked", 45: "certificate_expired", 46: "certificate_unknown",
    47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error",
    51: "decrypt_error", 70: "protocol_version", 71: "insufficient_security",
    80: "internal_error", 86: "inappropriate_fallback", 90: "user_canceled",
    109: "missing_extension", 110: "unsupported_extension", 112: "unrecognized_name",
    113: "bad_certificate_status_response", 115: "unknown_psk_identity",
    116: "certificate_required", 120: "no_application_protocol",
}  # fmt: skip
"""Alert descriptions: RFC 8446 §6, RFC 7301 §3.2."""


class TlsError(ConnectionError):
    """A TLS connection that failed; `reason` is a short text that does not vary with the peer."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TruncatedError(TlsError):
    """The peer's TCP ended without close_notify: something may be missing (RFC 8446 §6.1)."""


class CredentialError(Exception):
    """A certificate or key that cannot be used; the text says which and why."""


def alert(description: int) -> bytes:
    """A fatal alert in the clear, for a peer with whom nothing is agreed yet (RFC 8446 §6)."""
    return bytes((21, 3, 3, 0, 2, 2, description))

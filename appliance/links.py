"""What a link may be called: a word that the settings and those who act on them share.

On its own, because a machine that boots acts on settings that were validated when its image was
made, and does not import what validates them. Imports nothing.
"""

from __future__ import annotations

from typing import Final

PAIR: Final = "pair"
"""The link without any privilege: two interfaces back to back, and the gateway at the other end."""

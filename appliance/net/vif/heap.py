"""The memory of a batch: kept for the next one, not given back to the kernel in between.

One wake-up reads up to 64 frames of up to 64 KB, each an object of its own, and all of them are
free again when the turn is over.  The GNU C library returns the top of its heap as soon as 128 KB
of it are free, and so every batch would have the kernel map, clear and unmap all of its pages anew:
half of the processor time of an upload.  When a block is freed that was mapped by itself, that
bound becomes twice the size of the block, for good (mallopt(3), M_MMAP_THRESHOLD); so one such
block, made and freed, is all it takes.  Other C libraries do not notice.

Imports nothing.
"""

from __future__ import annotations

from typing import Final

BATCH_OCTETS: Final = 4 << 20
"""Octets of 64 super-segments; at most twice as much stays with the process."""


def keep_batches() -> None:
    """Have the C library keep the memory of a batch, from now on."""
    bytes(BATCH_OCTETS)

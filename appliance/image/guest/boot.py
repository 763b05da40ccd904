"""The appliance of an image: settings and content made at build time, and what the boot overrides.

    /lib/appliance/content.pickle     settings, site and catalog, made by `freeze`
    --link, --address, ...            the kernel's command line behind `--`: as for `appliance
    serve` a seed disk                       settings that replace the image's (seed.py)

HTTP and DNS begin first. What they do not need is imported and begun when they have been serving
for a moment: TLS and its kin, the power button, the clock. Without overrides nothing is validated
again, so nothing that validates is imported. Imports the composition root.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
from collections.abc import Sequence
from typing import Any

from appliance.app import Appliance, StartError
from appliance.image.guest import machine

CONTENT = "/lib/appliance/content.pickle"
LATER = 0.3
"""Seconds of serving before the rest begins."""
ROOM = 64
"""MB that a kernel must leave for the rest: TLS and what validates take 30 of them, and in less
their pages would be read again and again. A machine of 64 MB has 56, one of 80 has 70."""


def run(words: Sequence[str]) -> int:
    """Serve until told to end; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    machine.note("modules imported")
    with open(CONTENT, "rb") as file:
        settings, content = pickle.load(file)  # noqa: S301 - part of the image, as the code is
    machine.note("content read")
    try:
        if words and machine.in_container():
            from appliance.image.guest import asked

            if asked.is_asked(words):
                return asked.answer(words, settings, content)
            words = words[words[0] == "serve" :]
        if words or machine.seed():
            from appliance.image.guest.overrides import override

            settings, content = override(settings, content, words)
        logging.getLogger().setLevel(settings.log.level.upper())
        if machine.state_disk():
            from appliance.image.guest import state

            state.mount(machine.state_disk())
        for cable in (settings.net, *settings.net.more):
            kind, _, name = cable.link.partition(":")
            if kind == "packet":
                machine.link_up(name)
        machine.note("card up")
        asyncio.run(_serve(settings, content))
    except StartError as error:
        machine.say(f"appliance: {error}")
        return 1
    except OSError as error:
        machine.say(f"appliance: {error.strerror or error}")
        return 1
    return 0


async def _serve(settings: Any, content: Any) -> None:
    # A container begins whole: its gateway asks all parts at the start what it is to offer.
    whole = machine.in_container()
    appliance = Appliance(settings, machine.say, content=content, patient=not whole, load=_again)
    loop = asyncio.get_running_loop()
    rest: list[asyncio.Task[None]] = []
    if not whole:
        loop.call_later(LATER, lambda: rest.append(loop.create_task(_rest(appliance))))
    machine.note("appliance made")
    try:
        await appliance.run()
    finally:
        for task in rest:
            task.cancel()


def _again(settings: Any, before: Any) -> Any:
    """Content for SIGHUP: what the settings have a folder of, and the image's of the rest."""
    places = (settings.site.directory, *(host.directory for host in settings.host))
    site, zones = any(map(os.path.isdir, places)), os.path.isdir(settings.dns.zones)
    if not (site or zones):
        return before
    from appliance.content import load_content
    from appliance.image.guest.overrides import replaced

    content = load_content(settings, before=before, kept=before)
    return replaced(before, content, site, zones)


async def _rest(appliance: Appliance) -> None:
    """What could wait: the machine's own duties first, since certificates want a state disk."""
    machine.say(f"init: HTTP and DNS serve, {machine.since_boot()}")
    machine.tell_notes()
    try:
        await _attend(appliance)
    except Exception as error:
        machine.say(f"appliance: HTTP and DNS serve on without the rest: {error!r}")
    machine.say(f"init: all serve, {machine.since_boot()}")


async def _attend(appliance: Appliance) -> None:
    """The duties of a machine, and the rest if it has the memory."""
    from appliance.image.guest import attend

    await attend.begin(appliance)
    if machine.memory() < ROOM:
        machine.say(
            f"appliance: HTTP and DNS only: TLS and the dashboard want {ROOM} MB, "
            f"and the kernel has left {machine.memory():.0f}"
        )
        return
    machine.mount_cold()  # here, since what follows imports from two threads
    await appliance.begin_rest()

"""The pictures say what the code says."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree as ET

from appliance import figures
from appliance.net.tcp_state import NAMES, TRANSITIONS

SVG = "{http://www.w3.org/2000/svg}"


def arrows() -> list[ET.Element]:
    root = ET.fromstring(figures.tcp_states())
    return [path for path in root.iter(f"{SVG}path") if "data-from" in path.attrib]


def test_every_transition_of_the_table_is_drawn_once_and_no_other() -> None:
    """RFC 9293 §3.3.2: the figure's arrows are the table's rows."""
    drawn = Counter((path.attrib["data-from"], path.attrib["data-to"]) for path in arrows())
    assert drawn == Counter((NAMES[step.source], NAMES[step.target]) for step in TRANSITIONS)


def test_every_arrow_has_its_place() -> None:
    """A new row of the table is drawn as a dotted line until somebody gives it a place."""
    dotted = [path.attrib for path in arrows() if path.attrib.get("stroke-dasharray") == "1 3"]
    assert dotted == []


def test_every_state_and_every_word_of_the_table_is_there() -> None:
    root = ET.fromstring(figures.tcp_states())
    said = [" ".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    for name in NAMES:
        assert name in said
    for step in TRANSITIONS:
        assert any(step.event == words.removesuffix(step.action).strip() for words in said), step


def test_it_takes_the_colour_of_the_page() -> None:
    """Light and dark: no colour of its own."""
    picture = figures.tcp_states()
    assert "currentColor" in picture
    assert not re.search(r"(?:fill|stroke)=\"(?!currentColor|none)", picture)
    assert " style=" not in picture  # a page may forbid inline styles


def test_nothing_is_placed_outside() -> None:
    for x, y in [*figures.STATES.values(), figures.END]:
        assert figures.BOX[0] / 2 <= x <= figures.WIDTH - figures.BOX[0] / 2
        assert figures.BOX[1] / 2 <= y <= figures.HEIGHT - figures.BOX[1] / 2

"""Traces of TCP connections, read and drawn: what `appliance trace` does.

    record.py    writes the trace of a running host into a file
    flows.py     connections, as a trace file (net.trace) or a capture (pcap) tells of them
    draw.py      charts in SVG: axes, lines, bars; light and dark
    picture.py   one connection as a picture: sequence over time, windows, round trips
    table.py     the same as text

Pictures stand alone: no script, no font, nothing from elsewhere.
"""

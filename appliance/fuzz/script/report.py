"""Results of scripts as a table: plain text (Markdown), and a page of HTML that needs nothing else.

Imports the runner's shapes only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from appliance.fuzz.script.runner import FAILED, NOT_APPLICABLE, PASSED, Result

_ORDER: Final = (FAILED, PASSED, NOT_APPLICABLE)
_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8884; padding: .3rem .6rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
td:nth-child(2) { white-space: nowrap; }
pre { font-size: .8rem; margin: .3rem 0 0; overflow-x: auto; }
.failed td:nth-child(2) { color: light-dark(#a00, #f77); font-weight: bold; }
.passed td:nth-child(2) { color: light-dark(#070, #7d7); }
"""


def summary(results: Sequence[Result]) -> str:
    """How many scripts ended how, in one line."""
    counts = Counter(result.outcome for result in results)
    applicable = counts[PASSED] + counts[FAILED]
    share = f" ({100 * counts[PASSED] / applicable:.0f} % of the applicable)" if applicable else ""
    return (
        f"{len(results)} scripts: {counts[PASSED]} passed{share}, {counts[FAILED]} failed, "
        f"{counts[NOT_APPLICABLE]} not applicable"
    )


def write(path: str | Path, results: Sequence[Result]) -> None:
    """Write a report to `path`, as HTML when its name says so; raises OSError."""
    path = Path(path)
    html = path.suffix.lower() in (".html", ".htm")
    path.write_text(page(results) if html else text(results), encoding="utf-8")


def text(results: Sequence[Result]) -> str:
    """The table in Markdown."""
    lines = [summary(results), "", "| script | outcome | reason |", "|---|---|---|"]
    for result in ordered(results):
        reason = f"line {result.line}: {result.reason}" if result.reason else ""
        cells = (result.name, result.outcome, reason)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    for result in results:
        if result.outcome == FAILED and result.detail:
            lines += ["", f"{result.name}:{result.line}", "", result.detail]
    return "\n".join(lines) + "\n"


def page(results: Sequence[Result]) -> str:
    """The table as one page of HTML."""
    rows = "\n".join(_row(result) for result in ordered(results))
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>Scripts</title><style>{_STYLE}</style></head>\n<body>\n<h1>Scripts</h1>\n"
        f"<p>{escape(summary(results))}</p>\n<table>\n<thead><tr><th scope=col>script"
        "<th scope=col>outcome<th scope=col>reason<th scope=col>virtual<th scope=col>took</tr>"
        f"</thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</body>\n</html>\n"
    )


def ordered(results: Sequence[Result]) -> list[Result]:
    """Failures first, then what passed, then what does not apply; by path within each."""
    return sorted(results, key=lambda result: (_ORDER.index(result.outcome), result.name))


def _row(result: Result) -> str:
    reason = escape(f"line {result.line}: {result.reason}" if result.reason else "")
    if result.detail:
        reason += f"<pre>{escape(result.detail)}</pre>"
    kind = result.outcome.replace(" ", "-")
    return (
        f'<tr class="{kind}"><td>{escape(result.name)}<td>{result.outcome}<td>{reason}'
        f"<td>{result.seconds:.3f} s<td>{1000 * result.took:.0f} ms</tr>"
    )

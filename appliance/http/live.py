"""The script that pages carry while somebody writes them: it reloads the page when it is old.

It asks at once: what is written before its first question would go unseen.

Imports nothing.
"""

from __future__ import annotations

# Names that begin with `_` are never served from a site, so this one collides with nothing.
PATH = b"/_live"

SCRIPT = b"""
<script>
(function () {
  var known = null;
  function ask() {
    fetch("/_live", { cache: "no-store" }).then(function (answer) { return answer.text(); })
      .then(function (now) {
        if (known !== null && known !== now) location.reload();
        known = now;
      }).catch(function () {});
  }
  ask();
  setInterval(ask, 500);
})();
</script>
"""


def with_script(html: bytes) -> bytes:
    """Return a document with the script at the end of its body."""
    at = html.rfind(b"</body>")
    return html + SCRIPT if at < 0 else html[:at] + SCRIPT + html[at:]

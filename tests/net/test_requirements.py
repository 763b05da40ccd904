"""docs/host-requirements.md names tests: they are there, and each says which section it holds."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs/host-requirements.md").read_text()
NAME = r"`((?:(?:wire|tcp)/)?test_\w+)\.(test_\w+)`"
NAMED = sorted(set(re.findall(NAME, PAGE)))


@pytest.mark.parametrize(("module", "function"), NAMED)
def test_named_tests_exist(module: str, function: str) -> None:
    tree = ast.parse((HERE / f"{module}.py").read_text())
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "§" in (ast.get_docstring(found[function]) or "")


def test_every_line_names_one() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) > 50
    assert [row for row in rows if not re.search(NAME, row)] == []

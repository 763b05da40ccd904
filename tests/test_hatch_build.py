"""The build hook leaves nothing behind, whether the compiler was content or not."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The hook on a stand-in for hatchling, which only a build has, with a folder of its own."""

    class Interface:
        def __init__(self) -> None:
            self.root = str(ROOT)
            self.target_name = "wheel"
            self.warnings: list[str] = []
            self.app = SimpleNamespace(display_warning=self.warnings.append)

    name = "hatchling.builders.hooks.plugin.interface"
    stand_in = ModuleType(name)
    stand_in.BuildHookInterface = Interface  # type: ignore[attr-defined]
    parts = name.split(".")
    for number in range(1, len(parts)):
        package = ".".join(parts[:number])
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, name, stand_in)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("APPLIANCE_COMPILE", "auto")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def compiler(monkeypatch: pytest.MonkeyPatch, *, works: bool) -> None:
    def run(words: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(words[3], "appliance/net")
        folder.mkdir(parents=True)
        (folder / "tcp.so").write_bytes(b"compiled")
        return subprocess.CompletedProcess(words, 0 if works else 1, "", "no compiler\n")

    monkeypatch.setattr(subprocess, "run", run)


def test_what_was_compiled_is_removed_when_the_wheel_has_it(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler(monkeypatch, works=True)
    hook = module.CompileHook()
    build: dict[str, Any] = {"force_include": {}}
    hook.initialize("standard", build)
    (source, place), *others = build["force_include"].items()
    assert (Path(source).read_bytes(), place, others) == (b"compiled", "appliance/net/tcp.so", [])
    hook.finalize("standard", build, "the.whl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wanted", ["auto", "1"])
def test_nothing_is_left_when_the_compiler_fails(
    wanted: str, module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APPLIANCE_COMPILE", wanted)
    compiler(monkeypatch, works=False)
    hook = module.CompileHook()
    build: dict[str, Any] = {"force_include": {}}
    if wanted == "1":
        with pytest.raises(RuntimeError, match="no compiler"):
            hook.initialize("standard", build)
    else:
        hook.initialize("standard", build)
        assert hook.warnings == ["staying pure Python: no compiler"]
    assert list(tmp_path.iterdir()) == []
    assert build == {"force_include": {}}


def test_an_editable_installation_stays_pure(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("APPLIANCE_COMPILE")
    hook = module.CompileHook()
    hook.initialize("editable", {})
    hook.finalize("editable", {}, "")
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_stays_pure_derives_from_what_is_compiled(module: ModuleType) -> None:
    """Python refuses to make such an object, but only of a wheel: here both are pure."""
    rooms = {"net": module.COMPILED, "dns": module.COMPILED_DNS, "tls": module.COMPILED_TLS}
    package = ROOT / "appliance"
    compiled = {package / room / f"{name}.py" for room, names in rooms.items() for name in names}
    trees = {path: list(ast.walk(ast.parse(path.read_text()))) for path in package.rglob("*.py")}
    assert compiled < trees.keys()
    made = {
        node.name for path in compiled for node in trees[path] if isinstance(node, ast.ClassDef)
    }
    found = []
    for path in trees.keys() - compiled:
        imported = {
            alias.asname or alias.name
            for node in trees[path]
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("appliance.")
            for alias in node.names
            if alias.name in made
        }
        found += [
            f"{path.relative_to(ROOT)}: {node.name}"
            for node in trees[path]
            if isinstance(node, ast.ClassDef)
            for base in node.bases
            if isinstance(base, ast.Name) and base.id in imported
        ]
    assert found == []


def test_it_compiles_where_no_library_is_there(module: ModuleType) -> None:
    """What is to be installed first is built first: there are neither libraries nor their types."""
    names = {"net": module.COMPILED, "dns": module.COMPILED_DNS, "tls": module.COMPILED_TLS}
    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-site-packages", "--config-file=",
         "--ignore-missing-imports", f"--cache-dir={tempfile.tempdir}",
         *(f"appliance/{room}/{name}.py" for room, some in names.items() for name in some)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr

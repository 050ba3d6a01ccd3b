"""What is installed is what is here: the wheel holds every module and works away from the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "graph", "resolvers", "providers", "persistence")


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    assert uv, "`make` puts uv into .venv"
    out = tmp_path_factory.mktemp("wheel")
    run(uv, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's files and nothing else: a pure wheel is installed by unpacking it."""
    target = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    sources = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert sources - packed == set()
    assert {name.partition("/")[0] for name in packed} == set(PACKAGES)
    assert [name for name in packed if "__pycache__" in name] == []
    assert [name for name in packed if name.startswith("persistence/migrations/") and "/versions/" in name]


def test_the_wheel_carries_its_licence_and_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        about = {name.partition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        assert "licenses/LICENSE" in about
        assert "ai-middleware = gateway.cli:main" in archive.read(about["entry_points.txt"]).decode()


def test_the_wheel_works_away_from_the_source(installed: Path, tmp_path: Path) -> None:
    """The schema printed, and a database migrated, by what was unpacked."""
    data = tmp_path / "data"
    environment = {"PYTHONPATH": str(installed), "DATA_DIR": str(data), "ENVIRONMENT": "LOCAL"}
    where = "import gateway, graph, persistence, providers, resolvers; print(gateway.__file__, graph.__file__)"
    for path in run(sys.executable, "-c", where, cwd=tmp_path, **environment).stdout.split():
        assert Path(path).is_relative_to(installed)
    schema = run(sys.executable, "-m", "gateway", "schema", "-", cwd=tmp_path, **environment).stdout
    assert "type Mutation {" in schema
    assert schema == run(sys.executable, "-m", "gateway", "schema", "-", cwd=ROOT).stdout
    run(sys.executable, "-m", "gateway", "migrate", cwd=tmp_path, **environment)
    assert (data / "ai-middleware.db").stat().st_size > 0

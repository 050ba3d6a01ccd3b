"""The Dockerfile and what is locked for it: held without building it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {
    "requirements.lock": PROJECT["project"]["dependencies"],
    "requirements-build.lock": PROJECT["build-system"]["requires"],
}
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))? \\$")
_HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def pins(lock: str) -> Mapping[str, str]:
    """Every line is a pin or a hash; every pin has hashes."""
    found: dict[str, str] = {}
    hashes: dict[str, int] = {}
    name = ""
    for line in (ROOT / lock).read_text().splitlines():
        if pin := _PIN.match(line):
            name = canonicalize_name(pin["name"])
            found[name] = pin["version"]
        else:
            assert _HASH.match(line), line
            hashes[name] = hashes.get(name, 0) + 1
    assert found.keys() == hashes.keys()
    return found


def needed(requirements: Sequence[str], extras: Sequence[str] = ("",)) -> Iterator[Requirement]:
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            yield requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_holds_what_the_project_asks_for(lock: str) -> None:
    locked = pins(lock)
    for requirement in needed(LOCKS[lock]):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"`make lock`: {requirement} is not in {lock}"
        assert requirement.specifier.contains(version, prereleases=True), f"`make lock`: {requirement}, not {version}"


def test_the_lock_holds_what_that_needs_in_turn() -> None:
    """By what is installed here, which is a release of the same packages."""
    locked = pins("requirements.lock")
    waiting = list(needed(LOCKS["requirements.lock"]))
    seen: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        assert name in locked, f"`make lock`: {requirement}"
        if f"{name}{sorted(requirement.extras)}" in seen:
            continue
        seen.add(f"{name}{sorted(requirement.extras)}")
        try:
            installed = distribution(name)
        except PackageNotFoundError:  # it is for another system
            continue
        if installed.version == locked[name]:
            waiting += needed(installed.requires or (), ("", *requirement.extras))
    assert len(seen) > 30


@pytest.mark.parametrize("file", ["Dockerfile", ".dockerignore", *LOCKS])
def test_nothing_names_a_registry(file: str) -> None:
    assert re.search(r"https?://|index-url|find-links|registry", (ROOT / file).read_text()) is None


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_its_images_have_their_versions_and_can_be_replaced() -> None:
    stages = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert set(stages) == {"${NODE}", "${BASE}"}
    for argument in ("NODE", "BASE"):
        assert re.search(rf"^ARG {argument}=\w+:\d+\.\d+\.\d+\S*$", DOCKERFILE, re.MULTILINE)


def test_it_says_the_project_s_version() -> None:
    assert f"ARG VERSION={PROJECT['project']['version']}\n" in DOCKERFILE


def test_it_copies_every_package_and_is_given_no_more() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    given = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {*packages, "web", *LOCKS, "pyproject.toml", "README.md", "LICENSE"} == given
    for package in packages:
        assert f"\nCOPY {package} {package}\n" in DOCKERFILE

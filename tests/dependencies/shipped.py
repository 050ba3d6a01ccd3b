"""What is shipped: the packages that this one asks for, and that those ask for, as they are installed here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = "ai-middleware"
_CLASSIFIERS: Mapping[str, str] = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_WORDS = re.compile(r"[A-Za-z0-9.+-]+")


@cache
def installed() -> dict[str, Distribution]:
    """By name. The project itself is not among them."""
    found: dict[str, Distribution] = {}
    extras: dict[str, set[str]] = {}
    waiting = [Requirement(PROJECT)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found and wanted.extras <= extras[name]:
            continue
        found[name] = distribution(name)
        extras[name] = extras.get(name, set()) | wanted.extras
        waiting += needs(found[name], extras[name])
    return {name: each for name, each in found.items() if name != PROJECT}


def needs(package: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for requirement in map(Requirement, package.requires or ()):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def licences(package: Distribution) -> set[str]:
    """SPDX names, of which all are asked for. None where the metadata has none that is clear."""
    fields = package.metadata
    for expression in (fields["License-Expression"], fields["License"]):
        try:
            text = canonicalize_license_expression(expression or "")
        except InvalidLicenseExpression:
            continue
        return set(_WORDS.findall(text)) - {"AND", "OR", "WITH"}
    classifiers = [
        each.rpartition(" :: ")[2] for each in fields.get_all("Classifier", []) if each.startswith("License")
    ]
    known = {_CLASSIFIERS[each] for each in classifiers if each in _CLASSIFIERS}
    return known if len(known) == len(classifiers) else set()


def bundled() -> dict[str, str]:
    """What is built into GraphiQL's page, by name: its licence."""
    packages = json.loads((ROOT / "web" / "package-lock.json").read_text())["packages"]
    return {
        path.removeprefix("node_modules/"): each.get("license", "")
        for path, each in packages.items()
        if path and not each.get("dev")
    }


def locked() -> dict[str, str]:
    """The pins of the lock files, by name and file: their versions."""
    pins = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
    return {
        f"{canonicalize_name(name)} of {path.name}": version
        for path in sorted(ROOT.glob("requirements*.lock"))
        for name, version in pins.findall(path.read_text())
    }

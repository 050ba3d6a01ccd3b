"""Every overlay renders, and what it renders is what Kubernetes and the operators' kinds take."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import kubernetes_validate
import orjson
import pytest

from .rendered import EVERYTHING, OVERLAYS, ROOT, Manifest, rendered

KUBERNETES = ("1.30", "1.37")
"""The oldest that has what the manifests use (a sleeping preStop), and the newest whose schemas there are."""

SCHEMAS = Path(__file__).with_name("schemas")
OWN = {path.stem: orjson.loads(path.read_bytes()) for path in SCHEMAS.glob("*.json")}
"""Of kinds that operators bring: what the manifests use of them, and nothing else."""


def _is_own(manifest: Manifest) -> bool:
    return manifest["kind"].lower() in OWN


@pytest.mark.parametrize("name", [*OVERLAYS, EVERYTHING])
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_it(name: str, version: str) -> None:
    checked = 0
    for manifest in rendered(name):
        if not _is_own(manifest):
            kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1
    assert checked > 10


def test_the_operators_take_theirs() -> None:
    found = [manifest for manifest in rendered(EVERYTHING) if _is_own(manifest)]
    assert {manifest["kind"].lower() for manifest in found} == OWN.keys()
    for manifest in found:
        jsonschema_rs.validate(OWN[manifest["kind"].lower()], manifest)


def test_a_mistake_is_seen() -> None:
    """The check can fail: a field that is misspelt, and one of another type."""
    deployment: dict[str, Any] = next(each for each in rendered(OVERLAYS[1]) if each["kind"] == "Deployment")
    for broken in ({**deployment["spec"], "replica": 3}, {**deployment["spec"], "replicas": "three"}):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate({**deployment, "spec": broken}, KUBERNETES[1], strict=True)


def test_no_two_objects_have_one_name() -> None:
    for name in (*OVERLAYS, EVERYTHING):
        names = [(each["kind"], each["metadata"]["name"]) for each in rendered(name)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("script", sorted(ROOT.rglob("*.sh")), ids=lambda path: path.name)
def test_the_scripts_are_of_the_plain_shell(script: Path) -> None:
    """Images have no bash."""
    done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert script.read_text().startswith("#!/bin/sh\n")
    assert "set -eu" in script.read_text()

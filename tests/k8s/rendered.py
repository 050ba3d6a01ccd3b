"""What `kubectl kustomize` makes of an overlay."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.servers.missing import missing

ROOT = Path(__file__).parents[2] / "k8s"
OVERLAYS = ("overlays/development", "overlays/production")
EVERYTHING = "everything"
"""The production overlay with all components."""

Manifest = dict[str, Any]


@cache
def rendered(name: str) -> Sequence[Manifest]:
    """All of its objects, in their order."""
    if shutil.which("kubectl") is None:
        missing("kubectl is not on PATH: https://kubernetes.io/docs/tasks/tools/")
    if name != EVERYTHING:
        return _kustomize(ROOT / name)
    folder = ROOT / "overlays" / f".everything-{os.getpid()}"  # kustomize reads only what is near
    folder.mkdir()
    try:
        components = sorted(path.parent.name for path in (ROOT / "components").glob("*/kustomization.yaml"))
        told = {"resources": ["../production"], "components": [f"../../components/{each}" for each in components]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(told))
        return _kustomize(folder)
    finally:
        shutil.rmtree(folder)


def _kustomize(folder: Path) -> Sequence[Manifest]:
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def objects(name: str, kind: str) -> Mapping[str, Manifest]:
    """Those of one kind, by name."""
    return {each["metadata"]["name"]: each for each in rendered(name) if each["kind"] == kind}


def pods(name: str) -> Iterator[tuple[str, Manifest]]:
    """Every pod's specification with the name of what makes it, in whatever it is written."""
    for each in rendered(name):
        template = each.get("spec", {})
        if each["kind"] == "CronJob":
            template = template["jobTemplate"]["spec"]
        if each["kind"] == "MongoDBCommunity":
            template = template["statefulSet"]["spec"]
        if "template" in template:
            yield f"{each['kind']}/{each['metadata']['name']}", template["template"]


def containers(name: str) -> Iterator[tuple[str, Manifest]]:
    for owner, pod in pods(name):
        for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
            yield f"{owner}/{container['name']}", container

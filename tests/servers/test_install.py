"""Packages are installed without the services that they bring, and the machine is left as it was."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

INSTALL = Path(__file__).with_name("install")
APT = """#!/bin/sh
echo "$1: $(sh $POLICY ssh start; echo $?)" >>$NOTED
exit $CODE
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return tmp_path / "policy-rc.d"


def installed(folder: Path, policy: Path, *, code: int = 0) -> tuple[int, list[str]]:
    """By an apt-get that notes what policy-rc.d says meanwhile."""
    script, noted = folder / "install", folder / "noted"
    script.write_text(
        INSTALL.read_text().replace("/usr/sbin/policy-rc.d", str(policy)).replace("/run/lock", str(folder))
    )
    (folder / "apt-get").write_text(APT)
    (folder / "apt-get").chmod(0o755)
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "POLICY": str(policy),
        "NOTED": str(noted),
        "CODE": str(code),
    }
    done = subprocess.run(["sh", script, "nginx"], env=environment, check=False)
    return done.returncode, noted.read_text().splitlines()


def test_no_service_is_started(tmp_path: Path, policy: Path) -> None:
    assert installed(tmp_path, policy) == (0, ["update: 101", "install: 101"])
    assert not policy.exists()


def test_a_failure_is_told_and_leaves_nothing(tmp_path: Path, policy: Path) -> None:
    assert installed(tmp_path, policy, code=7) == (7, ["update: 101"])
    assert not policy.exists()


def test_the_machine_s_own_policy_stays(tmp_path: Path, policy: Path) -> None:
    policy.write_text("exit 104\n")
    assert installed(tmp_path, policy) == (0, ["update: 104", "install: 104"])
    assert policy.read_text() == "exit 104\n"

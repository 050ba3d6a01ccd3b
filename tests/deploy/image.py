"""The image, really built and run: buildah and podman do, from Debian's packages and without a registry of images.

The build installs from PyPI and npm as this machine's own pip and npm do: their settings are mounted from outside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = "python3,python3-venv,python-is-python3,ca-certificates"
BASE, NODE, TAG = "localhost/base:trixie", "localhost/node:trixie", "localhost/ai-middleware:test"
TOOLS = ("mmdebstrap", "buildah", "podman", "runc", "node", "npm")
CERTIFICATES = Path("/etc/ssl/certs")
BUILD_TIMEOUT_S = 1200


@dataclass(frozen=True)
class Workshop:
    """Where images and containers are kept: a folder of its own."""

    folder: Path

    def _storage(self) -> Sequence[str]:
        at = self.folder
        return ("--root", f"{at}/images", "--runroot", f"{at}/run", "--storage-driver", "overlay")

    def buildah(self, *arguments: str) -> str:
        return said("buildah", *self._storage(), *arguments)

    def podman(self, *arguments: str) -> str:
        return said(*self.podman_command(*arguments))

    def podman_command(self, *arguments: str) -> Sequence[str]:
        runtime = ("--cgroup-manager", "cgroupfs", "--runtime", shutil.which("runc") or "runc")
        return ("podman", *self._storage(), *runtime, *arguments)

    def build(self) -> None:
        self._make_bases()
        mounts = [f"--volume={source}:{target}:ro" for source, target in self._settings().items()]
        images = [f"--build-arg=BASE={BASE}", f"--build-arg=NODE={NODE}", "--build-arg=REVISION=0123abc"]
        how = ("--pull-never", "--isolation", "chroot", "--format", "docker", "--tag", TAG)
        self.buildah("build", *how, *images, *mounts, str(ROOT))

    def _make_bases(self) -> None:
        """A Debian with Python, and the same with this machine's Node."""
        archive = self.folder / "base.tar"
        said("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", "trixie", str(archive))
        self.podman("import", str(archive), BASE)
        archive.unlink()
        container = self.buildah("from", "--pull-never", BASE)
        modules = Path(said("npm", "root", "--global"))
        self.buildah("copy", container, shutil.which("node") or "node", "/usr/bin/node")
        self.buildah("copy", container, str(modules / "npm"), "/usr/lib/node_modules/npm")
        self.buildah("run", "--isolation", "chroot", container, "ln", "-s", *NPM)
        self.buildah("commit", container, NODE)
        self.buildah("rm", container)

    def _settings(self) -> Mapping[Path, str]:
        """What pip and npm are told on this machine, and where the build finds it."""
        pip, npm = self.folder / "pip.conf", self.folder / "npmrc"
        index = _asked("python3", "-m", "pip", "config", "get", "global.index-url")
        bundle = CERTIFICATES / "ca-certificates.crt"
        trusted = bundle.exists()
        pip.write_text("[global]\n" + f"index-url = {index}\n" * bool(index) + f"cert = {bundle}\n" * trusted)
        npm.write_text(f"registry={said('npm', 'config', 'get', 'registry')}\n" + f"cafile={bundle}\n" * trusted)
        certificates = {CERTIFICATES: str(CERTIFICATES)} if trusted else {}
        return {pip: "/etc/pip.conf", npm: "/root/.npmrc", **certificates}

    @contextmanager
    def container(self, *command: str, environment: Mapping[str, str]) -> Iterator[Container]:
        """Running as an orchestrator would have it: nothing may be written but /data and /tmp."""
        name = f"test-{os.urandom(4).hex()}"
        variables = [f"--env={key}={value}" for key, value in environment.items()]
        limits = ("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096")
        sealed = ("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--cap-drop=all")
        how = ("--name", name, "--network", "host", "--no-healthcheck", *limits, *sealed, *variables)
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                self.podman_command("run", *how, TAG, *command), stdout=log, stderr=subprocess.STDOUT
            )
        try:
            yield Container(self, name, process)
        finally:
            subprocess.run(self.podman_command("rm", "--force", "--volumes", name), capture_output=True, check=False)
            process.wait(timeout=60)


NPM = ("../lib/node_modules/npm/bin/npm-cli.js", "/usr/bin/npm")


@dataclass(frozen=True)
class Container:
    workshop: Workshop
    name: str
    process: subprocess.Popen[bytes]

    def log(self) -> str:
        return (self.workshop.folder / f"{self.name}.log").read_text()

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        line = self.workshop.podman_command("exec", self.name, *command)
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    def stop(self) -> int:
        """SIGTERM, as an orchestrator sends it. The exit code."""
        self.workshop.podman("kill", "--signal", "TERM", self.name)
        self.process.wait(timeout=60)
        return self.exit_code()

    def exit_code(self) -> int:
        return int(self.workshop.podman("inspect", "--format", "{{.State.ExitCode}}", self.name))


def missing_tools() -> Sequence[str]:
    return [tool for tool in TOOLS if shutil.which(tool) is None] + ["root"] * (os.geteuid() != 0)


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.strip()


def _asked(*command: str) -> str:
    """Nothing where it is not set."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout.strip()

"""What Prometheus finds beside our own pods: the exporters of a real Redis and a real PostgreSQL, and pods whose
metrics are what their projects document, or once told (`exporters/*.prom`)."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.servers.ports import free_port
from tests.servers.postgres import new_database, shared_postgres
from tests.servers.prometheus import Pod, found
from tests.servers.redis import shared_redis

DOCUMENTED = Path(__file__).with_name("exporters")
CADVISOR = "/metrics/cadvisor"


@contextmanager
def documented(*names: str) -> Iterator[str]:
    """The address that tells what is in their files: the first at any path, the second as cAdvisor does."""
    texts = [(DOCUMENTED / f"{name}.prom").read_bytes() for name in names]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the standard library's name
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            with suppress(ConnectionError):  # it need not wait for the answer
                self.wfile.write(texts[-1] if self.path.startswith(CADVISOR) else texts[0])

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def exporter(name: str, address: str, environment: Mapping[str, str]) -> Iterator[None]:
    """One of Debian's."""
    command = [found(f"prometheus-{name}-exporter"), f"--web.listen-address={address}"]
    process = subprocess.Popen(
        command, env={"PATH": os.environ["PATH"], **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def running_exporters() -> Iterator[tuple[list[Pod], str, str]]:
    """Pods to be found; the addresses of a kubelet and of Redis' exporter."""
    postgres, redis = shared_postgres(), shared_redis()
    asyncio.run(new_database(postgres))
    of_postgres, of_redis = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with ExitStack() as stack:
        stack.enter_context(exporter("postgres", of_postgres, {"DATA_SOURCE_NAME": postgres.url()}))
        stack.enter_context(exporter("redis", of_redis, {}))
        kubelet = stack.enter_context(documented("kubelet", "cadvisor"))
        pods = [
            Pod("postgres-exporter-1", "postgres-exporter", of_postgres, "metrics"),
            Pod("ai-middleware-redis-0", "redis", f"127.0.0.1:{redis.port}", "redis"),
        ]
        pods += [
            Pod(f"{name}-1", name, stack.enter_context(documented(name)), "metrics")
            for name in ("rabbitmq", "kube-state-metrics", "mongodb-exporter")
        ]
        address = stack.enter_context(documented("cert-manager"))
        pods.append(Pod("cert-manager-1", "cert-manager", address, "http-metrics", namespace="cert-manager"))
        yield pods, kubelet, of_redis

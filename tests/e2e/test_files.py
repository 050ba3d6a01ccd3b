"""Files through the real server: a folder's signed links, and a bucket that goes away."""

from __future__ import annotations

from pathlib import Path

import httpx

from gateway.object_links import ObjectLinks
from tests.servers.s3 import running_s3, s3_or_skip

from .processes import Server, running_server, server_environment
from .site import readiness, ready
from .test_cli import command


def test_a_folder_s_links_take_and_give(server: Server, organisation: str) -> None:
    links = ObjectLinks(server.secret)
    base = f"http://127.0.0.1:{server.port}"
    content = bytes(range(256)) * 50_000
    put = httpx.put(base + links.link("PUT", organisation, "in/a.jsonl", seconds=60), content=content)
    assert put.status_code == 200
    got = httpx.get(base + links.link("GET", organisation, "in/a.jsonl", seconds=60))
    assert (got.status_code, got.content) == (200, content)
    assert got.headers["content-disposition"] == 'attachment; filename="a.jsonl"'
    assert httpx.get(base + links.link("GET", "another", "in/a.jsonl", seconds=60)).status_code == 404
    assert (
        httpx.get(base + ObjectLinks("x" * 40).link("GET", organisation, "in/a.jsonl", seconds=60)).status_code == 403
    )
    assert "signature=" not in server.log()


def test_a_bucket_that_is_away_is_named(tmp_path: Path) -> None:
    s3_or_skip()
    with running_s3() as bucket:
        variables = {name.upper(): value for name, value in bucket.options().items()}
        environment = server_environment(tmp_path, None, OBJECT_STORE_URL=f"{bucket.url}/files", **variables)
        with running_server(environment) as server:
            ready(server)
            bucket.kill()
            status, text = readiness(server)
            assert (status, "ready, without object storage (S3: can't be reached)" in text) == (200, True)
            bucket.start()
            ready(server)
        wrong = command("serve", environment={**environment, "AWS_SECRET_ACCESS_KEY": "not-the-secret"})
        assert wrong.returncode == 2
        assert "OBJECT_STORE_URL: it refuses: S3: HTTP 403 SignatureDoesNotMatch" in wrong.stderr
        assert "not-the-secret" not in wrong.stderr + wrong.stdout

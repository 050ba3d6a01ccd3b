"""Object storage that is away, silent or wrongly set up; what its errors say, and what they never do."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.object_links import ObjectLinks
from persistence.objects import client
from persistence.objects.place import place
from persistence.objects.store import Objects, open_objects
from persistence.objects.uploads import PART_BYTES
from persistence.ports import StoreUnavailableError
from tests.servers.authority import new_authority
from tests.servers.ports import free_port
from tests.servers.s3 import KEY, SECRET, S3Server, running_s3, s3_or_skip

LINKS = ObjectLinks("a-signing-secret-of-more-than-32-bytes")
FILE = b"x" * (PART_BYTES * 2)


@pytest.fixture
def server() -> S3Server:
    return s3_or_skip()


async def chunks(*given: bytes) -> AsyncIterator[bytes]:
    for chunk in given:
        yield chunk


async def opened(url: str | Path, **given: object) -> None:
    async with open_objects(url, links=LINKS, **given):  # type: ignore[arg-type]
        pass


async def failures(store: Objects) -> list[str]:
    """What each call says, all of which fail in time."""
    calls = (
        store.put("acme", "a", chunks(b"x")),
        store.put("acme", "a", chunks(FILE)),
        anext(store.get("acme", "a")),
        store.about("acme", "a"),
        store.page("acme", limit=1),
        store.delete("acme", "a"),
        store.forget_older(datetime.now(UTC)),
    )
    said = await asyncio.gather(*(failure(call) for call in calls))
    return [*said, await store.look() or "nothing"]


async def failure(call: Awaitable[object]) -> str:
    begun = time.monotonic()
    with pytest.raises(StoreUnavailableError) as caught:
        await call
    assert time.monotonic() - begun < 10
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    return str(caught.value)


async def test_a_wrong_secret_is_refused_at_once_and_told_to_nobody(
    server: S3Server, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ValueError, match=r"^it refuses: S3: HTTP 403 SignatureDoesNotMatch$") as caught:
        await opened(server.url, options=server.options(secret="wr0ng"))
    told = str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert "wr0ng" not in told
    assert KEY not in told


async def test_a_bucket_that_is_not_there_is_told(server: S3Server) -> None:
    with pytest.raises(ValueError, match=r"^it refuses: S3: HTTP 404 NoSuchBucket$"):
        await opened("s3://another", options=server.options())


async def test_a_server_that_is_not_there_is_told() -> None:
    begun = time.monotonic()
    async with open_objects("s3://bucket", links=LINKS, options=S3Server(Path(), free_port()).options()) as store:
        assert await store.look() == "S3: can't be reached"
    assert time.monotonic() - begun < 5


async def test_one_that_goes_away_is_told_and_used_again_when_it_is_back() -> None:
    s3_or_skip()
    with running_s3() as server:
        async with open_objects(server.url, links=LINKS, options=server.options()) as store:
            await store.put("acme", "a", chunks(b"kept"))
            server.kill()
            assert set(await failures(store)) == {"S3: can't be reached"}
            server.start()
            assert [chunk async for chunk in store.get("acme", "a")] == [b"kept"]
            assert await store.look() is None


async def test_one_that_answers_nothing_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    s3_or_skip()
    monkeypatch.setattr(client, "IDLE_TIMEOUT_S", 0.5)
    with running_s3() as server:
        async with open_objects(server.url, links=LINKS, options=server.options()) as store:
            with server.frozen():
                assert set(await failures(store)) == {"S3: does not answer"}
            assert await store.look() is None


async def test_one_that_breaks_off_in_the_middle_of_an_upload() -> None:
    s3_or_skip()
    with running_s3() as server:
        async with open_objects(server.url, links=LINKS, options=server.options()) as store:

            async def cut() -> AsyncIterator[bytes]:
                yield FILE
                server.kill()
                while True:  # it is told, not asked for ever more
                    yield FILE

            with pytest.raises(StoreUnavailableError, match="can't be reached"):
                await store.put("acme", "a", cut())
            server.start()
            assert await store.about("acme", "a") is None


async def test_a_secret_that_is_changed_while_it_runs_is_told() -> None:
    s3_or_skip()
    with running_s3() as server:
        async with open_objects(server.url, links=LINKS, options=server.options()) as store:
            server.kill()
            server.secret = "another"
            server.start()
            told = await failures(store)
    assert all(each.startswith("S3: HTTP 403") for each in told)
    assert SECRET not in str(told)


async def test_tls_with_its_own_authority(tmp_path: Path) -> None:
    s3_or_skip()
    authority, strange = new_authority("ours"), new_authority("another").write(tmp_path / "other.pem")
    pem, trusted = authority.write_server(tmp_path / "server.pem"), authority.write(tmp_path / "ca.pem")
    with running_s3("--cert", str(pem), "--key", str(pem), scheme="https") as server:
        await opened(server.url, options=server.options(), ca_file=trusted)
        async with open_objects(server.url, links=LINKS, options=server.options(), ca_file=strange) as store:
            assert "certificate" in (await store.look() or "")


@pytest.mark.parametrize(
    "url",
    ["", "bucket", "s3://", "s3:///x", "http://b", "s3://b?x=hunter2", "s3://k:hunter2@b", "s3://b/../x", "s3://b/a//b",
     "file://host/x", "file:x", "memory:///", "ftp://b/x", "s3://b/a b"],
)  # fmt: skip
async def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"is one of s3:|name is of") as caught:
        await opened(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("s3://bucket", {"aws_access_key_id": "hunter2"}, "S3: MissingSecretAccessKey"),
        ("s3://bucket", {"nonsense": "hunter2"}, "S3: UnknownConfigurationKeyError"),
        ("az://bucket", {"azure_storage_account_key": "hunter2"}, "Azure: MissingAccount"),
        ("gs://bucket", {"google_service_account_key": "hunter2"}, "Google Cloud Storage: Credential"),
    ],
)
async def test_options_that_cannot_be_used(url: str, options: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=rf"^{told}$"):
        await opened(url, options=options)


async def test_a_file_of_certificates_that_is_none(tmp_path: Path) -> None:
    for file in (tmp_path / "missing", tmp_path / "junk"):
        with pytest.raises(ValueError, match=r"can't be read as a file of certificates$"):
            await opened("s3://bucket", options=S3Server(Path(), 1).options(), ca_file=file)
        (tmp_path / "junk").write_text("junk")


async def test_azure_signs_links_to_one_file() -> None:
    options = {"azure_storage_account_name": "account", "azure_storage_account_key": "c2VjcmV0"}
    bucket = client.Bucket(place("az://container/x"), options, None)
    url = urlsplit(await bucket.link("PUT", "x/files/o-acme/a", 60))
    assert (url.scheme, url.netloc) == ("https", "account.blob.core.windows.net")
    assert url.path == "/container/x/files/o-acme/a"
    assert parse_qs(url.query)["sp"] == ["w"]


# A folder


@pytest.mark.parametrize("form", ["path", "url"])
async def test_a_folder_is_made_and_its_files_stay(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "some where" / "files"
    url = folder if form == "path" else folder.as_uri()
    async with open_objects(url, links=LINKS) as store:
        await store.put("acme", "a/b", chunks(b"kept"))
        assert (folder / "files/o-acme/a/b").read_bytes() == b"kept"
    async with open_objects(url, links=LINKS) as store:
        assert [chunk async for chunk in store.get("acme", "a/b")] == [b"kept"]
        await store.delete("acme", "a/b")
        assert list(folder.iterdir()) == []


async def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="folder of files"):
        await opened(tmp_path / "file")


async def test_a_folder_is_its_owner_s_alone(tmp_path: Path) -> None:
    await opened(tmp_path / "data" / "files")
    assert stat.S_IMODE((tmp_path / "data" / "files").stat().st_mode) == 0o700


async def test_a_folder_that_goes_away_is_told(tmp_path: Path) -> None:
    async with open_objects(tmp_path / "files", links=LINKS) as store:
        (tmp_path / "files").rmdir()
        assert await store.look() == "the folder of files: is not there"
        (tmp_path / "files").write_text("")
        with pytest.raises(StoreUnavailableError, match=r"^the folder of files: \w+$"):
            await store.put("acme", "a", chunks(b"x"))


async def test_what_a_killed_process_left_is_unseen_and_forgotten(tmp_path: Path) -> None:
    async with open_objects(tmp_path, links=LINKS) as store:
        await store.put("acme", "a", chunks(b"whole"))
        half, fresh = (tmp_path / "files/o-acme" / name for name in ("b#1", "c#2"))
        half.write_bytes(b"half")
        fresh.write_bytes(b"being written")
        hours_ago = time.time() - 7200
        os.utime(half, (hours_ago, hours_ago))
        assert [each.name for each in await store.page("acme", limit=9)] == ["a"]
        assert await store.forget_older(datetime.now(UTC) - timedelta(hours=1)) == 0
        assert (half.exists(), fresh.exists()) == (False, True)


async def test_a_folder_of_thousands_is_paged_by_name(tmp_path: Path) -> None:
    inside = tmp_path / "files/o-acme"
    inside.mkdir(parents=True)
    for number in range(2_500):
        (inside / f"{number:04}").write_bytes(b"")
    async with open_objects(tmp_path, links=LINKS) as store:
        page = await store.page("acme", limit=3, after="0099")
        assert [each.name for each in page] == ["0100", "0101", "0102"]
        loop = asyncio.get_running_loop()
        begun = loop.time()
        assert len(await store.page("acme", limit=2_000)) == 2_000
        assert loop.time() - begun < 5

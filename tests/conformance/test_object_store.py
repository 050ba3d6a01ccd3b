"""What every ObjectStore keeps to: a local folder, and S3."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urljoin
from uuid import uuid4

import httpx
import psutil
import pytest

from gateway.object_files import ObjectFiles
from gateway.object_links import ObjectLinks
from persistence.objects.keys import Keys
from persistence.objects.store import Objects, open_objects
from persistence.objects.uploads import PART_BYTES
from persistence.ports import LINK_SECONDS_AT_MOST, StoreUnavailableError
from tests.servers.asgi import listening
from tests.servers.s3 import s3_or_skip

LINKS = ObjectLinks("a-signing-secret-of-more-than-32-bytes")
LONG = b"0123456789abcdef" * (PART_BYTES // 8)  # two parts
HOSTILE = [
    "", "/", "a/", "/a", "a//b", ".", "..", "a/..", "../a", "a/../b", "./a", "a/./b", "a..b", "a\\b", "a b", "a%2e",
    "a#1", "é", "a\n", "a\x00", "C:a", "~", "a" * 201,
]  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """`kept`: the folder that all files end up in. `base`: what links are relative to."""

    store: Objects
    kept: Path
    base: str

    def files(self) -> list[str]:
        """All there are, also what is half a file."""
        return sorted(path.name for path in self.kept.rglob("*") if path.is_file())

    async def upload_link(self, name: str, seconds: float = 60) -> str:
        return urljoin(self.base, await self.store.upload_link("acme", name, seconds=seconds))

    async def download_link(self, name: str, seconds: float = 60) -> str:
        return urljoin(self.base, await self.store.download_link("acme", name, seconds=seconds))


@asynccontextmanager
async def in_folder(folder: Path) -> AsyncIterator[Stage]:
    async with (
        open_objects(folder, links=LINKS) as store,
        listening(ObjectFiles(store, LINKS, max_bytes=100_000_000)) as base,
    ):
        yield Stage(store, folder, base)


@asynccontextmanager
async def on_s3() -> AsyncIterator[Stage]:
    server, prefix = s3_or_skip(), f"tests/{uuid4().hex}"
    async with open_objects(f"{server.url}/{prefix}", links=LINKS, options=server.options()) as store:
        yield Stage(store, server.files / prefix, "")


@pytest.fixture(params=["folder", "s3"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with in_folder(tmp_path / "files") if request.param == "folder" else on_s3() as found:
        yield found


@pytest.fixture
async def web() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


async def chunks(*given: bytes) -> AsyncIterator[bytes]:
    for chunk in given:
        yield chunk


async def put_again(store: Objects, name: str, given: bytes) -> None:
    """rclone moves each file into its place, and answers 500 where another does the same just then, as S3 may."""
    for tries_left in reversed(range(10)):
        try:
            await store.put("acme", name, chunks(given))
        except StoreUnavailableError as error:
            if not tries_left or str(error) != "S3: HTTP 500 InternalError":
                raise
        else:
            return


async def content(store: Objects, name: str, organisation: str = "acme") -> bytes:
    return b"".join([chunk async for chunk in store.get(organisation, name)])


async def put(store: Objects, *names: str, organisation: str = "acme") -> None:
    for name in names:
        await store.put(organisation, name, chunks(name.encode()))


async def names(store: Objects, prefix: str = "", after: str | None = None, limit: int = 100) -> list[str]:
    return [each.name for each in await store.page("acme", prefix=prefix, limit=limit, after=after)]


@pytest.mark.parametrize("given", [b"", b"hello", LONG[:PART_BYTES], LONG[: PART_BYTES + 1], LONG])
async def test_what_is_put_is_got(stage: Stage, given: bytes) -> None:
    before = datetime.now(UTC)
    assert await stage.store.put("acme", "batches/1/input.jsonl", chunks(given[:7], b"", given[7:])) == len(given)
    assert await content(stage.store, "batches/1/input.jsonl") == given
    about = await stage.store.about("acme", "batches/1/input.jsonl")
    assert about is not None
    assert (about.name, about.size_bytes) == ("batches/1/input.jsonl", len(given))
    assert abs((about.written_at - before).total_seconds()) < 5


async def test_a_file_takes_the_place_of_the_older_one(stage: Stage) -> None:
    for given in (LONG, b"short", b"", LONG):
        await stage.store.put("acme", "a", chunks(given))
        assert await content(stage.store, "a") == given
    assert stage.files() == ["a"]


async def test_what_is_not_there(stage: Stage) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await content(stage.store, "a")
    assert str(caught.value) == "there is no such file"
    assert await stage.store.about("acme", "a") is None
    await stage.store.delete("acme", "a")
    assert await stage.store.page("acme", limit=10) == []
    assert await stage.store.look() is None


async def test_what_is_deleted_is_gone(stage: Stage) -> None:
    await put(stage.store, "a/b", "a/c")
    await stage.store.delete("acme", "a/b")
    assert await stage.store.about("acme", "a/b") is None
    assert await names(stage.store) == ["a/c"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_name_that_is_none_is_refused_everywhere(stage: Stage, name: str) -> None:
    store = stage.store
    for call in (
        store.put("acme", name, chunks(b"x")),
        content(store, name),
        store.about("acme", name),
        store.delete("acme", name),
        store.upload_link("acme", name, seconds=60),
        store.download_link("acme", name, seconds=60),
        store.page("acme", after=name, limit=1),
    ):
        with pytest.raises(ValueError, match="name is of letters"):
            await call
    if name:
        with pytest.raises(ValueError, match="name"):
            await store.page("acme", prefix=f"{name}x", limit=1)
        with pytest.raises(ValueError, match="name"):
            await store.forget_older(datetime.now(UTC), prefix=f"{name}x")
    assert stage.files() == []


@pytest.mark.parametrize(
    "other",
    ["Acme", "ACME", "acme/", "../acme", "..", ".", "", "acme/files", "acme%2F", "é", "\ud800", "a" * 3000, "a\0"],
)
async def test_organisations_never_meet(stage: Stage, other: str) -> None:
    await put(stage.store, "a", "files/a")
    await stage.store.put(other, "a", chunks(b"theirs"))
    await stage.store.put(other, "b", chunks(b"theirs"))
    assert await content(stage.store, "a") == b"a"
    assert await content(stage.store, "a", other) == b"theirs"
    assert await names(stage.store) == ["a", "files/a"]
    assert [each.name for each in await stage.store.page(other, limit=9)] == ["a", "b"]
    assert await stage.store.about("acme", "b") is None
    await stage.store.delete(other, "a")
    assert await content(stage.store, "a") == b"a"


async def test_an_organisation_s_id_is_never_another_s_encoded() -> None:
    keys = Keys("")
    plain = keys.folder("Acme").removeprefix("files/").rstrip("/")
    assert keys.folder(plain) != keys.folder("Acme")


async def test_pages_are_by_name_and_whole(stage: Stage) -> None:
    given = ["a-b", "a.b", "a/b/c", "a/x", "a0", "B", "b", "c/1", "c/10", "c/2", "c-1/1"]
    await put(stage.store, *given)
    await put(stage.store, "c/3", organisation="globex")
    found: list[str] = []
    while page := await names(stage.store, limit=2, after=found[-1] if found else None):
        assert len(page) <= 2
        found += page
    assert found == sorted(given)
    assert await names(stage.store, prefix="c/") == ["c/1", "c/10", "c/2"]
    assert await names(stage.store, prefix="c/", after="c/10") == ["c/2"]
    assert await names(stage.store, prefix="a/b/") == ["a/b/c"]
    assert await names(stage.store, prefix="z/") == []
    with pytest.raises(ValueError, match="ends with /"):
        await names(stage.store, prefix="c")


async def test_of_many_puts_of_one_name_one_stands_whole(stage: Stage) -> None:
    given = [bytes([number]) * size for number, size in enumerate([10, PART_BYTES + 1] * 4)]
    await asyncio.gather(*(put_again(stage.store, "a", each) for each in given))
    assert await content(stage.store, "a") in given
    assert stage.files() == ["a"]


async def test_a_file_is_unseen_until_it_is_whole(stage: Stage) -> None:
    await put(stage.store, "a")
    reached, free = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield LONG
        reached.set()
        await free.wait()
        yield b"end"

    writing = asyncio.create_task(stage.store.put("acme", "a", slow()))
    await reached.wait()
    assert await content(stage.store, "a") == b"a"
    assert await names(stage.store) == ["a"]
    free.set()
    assert await writing == len(LONG) + 3
    assert await content(stage.store, "a") == LONG + b"end"


@pytest.mark.parametrize("before", [b"", LONG, LONG * 2])
async def test_an_upload_that_is_cancelled_leaves_nothing(stage: Stage, before: bytes) -> None:
    await put(stage.store, "other")
    reached, closed = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield before
            reached.set()
            await asyncio.sleep(1000)
        finally:
            closed.set()

    source = endless()
    writing = asyncio.create_task(stage.store.put("acme", "a", source))
    await reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert closed.is_set()
    assert await stage.store.about("acme", "a") is None
    assert stage.files() == ["other"]


@pytest.mark.parametrize("before", [b"", LONG])
async def test_an_upload_whose_source_breaks_leaves_nothing(stage: Stage, before: bytes) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield before
        raise ZeroDivisionError("of the source")

    with pytest.raises(ZeroDivisionError, match="of the source"):
        await stage.store.put("acme", "a", broken())
    assert stage.files() == []


async def test_a_big_file_takes_no_more_memory_than_a_few_parts(stage: Stage) -> None:
    process, block, count = psutil.Process(), os.urandom(1024 * 1024), 300
    seen: list[int] = []

    async def big() -> AsyncIterator[bytes]:
        for _ in range(count):
            seen.append(process.memory_info().rss)
            yield block

    await put(stage.store, "warm")
    before = process.memory_info().rss
    size = await stage.store.put("acme", "big", big())
    assert size == count * len(block)
    async for chunk in stage.store.get("acme", "big"):
        seen.append(process.memory_info().rss)
        size -= len(chunk)
    assert size == 0
    assert max(seen) - before < 100 * 1024 * 1024
    await stage.store.delete("acme", "big")


async def test_a_reader_may_leave_in_the_middle(stage: Stage) -> None:
    await stage.store.put("acme", "a", chunks(LONG))
    async with aclosing(stage.store.get("acme", "a")) as found:
        assert LONG.startswith(await anext(found))
    assert await content(stage.store, "a") == LONG


async def test_old_files_are_forgotten_of_every_organisation(stage: Stage) -> None:
    await put(stage.store, "tmp/a", "keep/a")
    await put(stage.store, "tmp/b", organisation="globex/..")
    await asyncio.sleep(0.3)
    moment = datetime.now(UTC)
    await asyncio.sleep(0.3)
    await put(stage.store, "tmp/new")
    assert await stage.store.forget_older(moment, prefix="tmp/") == 2
    assert await names(stage.store) == ["keep/a", "tmp/new"]
    assert await stage.store.page("globex/..", limit=1) == []
    assert await stage.store.forget_older(moment) == 1
    assert await stage.store.forget_older(moment) == 0
    assert await names(stage.store) == ["tmp/new"]


# Links


async def test_links_take_and_give_a_file(stage: Stage, web: httpx.AsyncClient) -> None:
    up, down = await stage.upload_link("in/a.jsonl"), await stage.download_link("in/a.jsonl")
    assert (await web.get(down)).status_code == 404
    assert (await web.put(up, content=LONG)).is_success
    assert await content(stage.store, "in/a.jsonl") == LONG
    answer = await web.get(down)
    assert (answer.status_code, answer.content == LONG) == (200, True)
    assert (await web.put(up, content=b"again")).is_success
    assert (await web.get(down)).content == b"again"


async def test_a_link_is_for_one_method_and_one_file(stage: Stage, web: httpx.AsyncClient) -> None:
    await put(stage.store, "a", "b")
    up, down = await stage.upload_link("a"), await stage.download_link("a")
    assert (await web.put(down, content=b"x")).status_code == 403
    assert (await web.get(up)).status_code == 403
    assert (await web.delete(down)).status_code in (403, 405)
    middle = len(down) - 10
    for changed in (down[:-3], down[:middle] + ("x" if down[middle] != "x" else "y") + down[middle + 1 :]):
        assert (await web.get(changed)).status_code == 403
    assert (await web.get(down.partition("?")[0])).status_code in (400, 403)
    assert await content(stage.store, "a") == b"a"


EXPIRED = (400, 403, 410)  # rclone's, Amazon's and our own


async def test_a_link_expires(stage: Stage, web: httpx.AsyncClient) -> None:
    await put(stage.store, "a")
    up, down = await stage.upload_link("a", seconds=1), await stage.download_link("a", seconds=1)
    assert (await web.get(down)).status_code == 200
    until = time.monotonic() + 10
    while (await web.get(down)).status_code == 200:
        assert time.monotonic() < until
        await asyncio.sleep(0.1)
    assert (await web.get(down)).status_code in EXPIRED
    assert (await web.put(up, content=b"late")).status_code in EXPIRED
    assert await content(stage.store, "a") == b"a"


@pytest.mark.parametrize("seconds", [0, -1, LINK_SECONDS_AT_MOST + 1, float("nan"), float("inf")])
async def test_a_link_lasts_for_a_week_at_most(stage: Stage, seconds: float) -> None:
    with pytest.raises(ValueError, match="at most"):
        await stage.store.upload_link("acme", "a", seconds=seconds)

"""Files."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from datetime import datetime
from typing import Protocol

from ..object_records import StoredObject


class ObjectStore(Protocol):
    """Files by name, each an organisation's own. Names are of ASCII letters, digits and "-_./", without "..", at most
    200 characters; "/" stands between parts, and no file's name is another's folder (`a` and `a/b`). A `prefix` is
    such a folder, with "/" at its end, or empty. Every method raises StoreUnavailableError, and ValueError for such a
    name."""

    async def put(self, organisation: str, name: str, content: AsyncIterable[bytes]) -> int:
        """Its size in bytes. Visible as a whole, once this returns, in the place of an older one; never in part, and
        not at all where `content` raises or the call is cancelled before its end."""
        ...

    def get(self, organisation: str, name: str) -> AsyncGenerator[bytes, None]:
        """Raises FileNotFoundError. A reader has an hour, then it is StoreUnavailableError."""
        ...

    async def about(self, organisation: str, name: str) -> StoredObject | None: ...

    async def page(
        self, organisation: str, *, prefix: str = "", limit: int, after: str | None = None
    ) -> Sequence[StoredObject]:
        """By name; `after`: with greater names alone."""
        ...

    async def delete(self, organisation: str, name: str) -> None:
        """Nothing happens where there is none."""
        ...

    async def upload_link(self, organisation: str, name: str, *, seconds: float) -> str:
        """A URL that takes the file by PUT until then, from whoever has it, without any other credential. Relative to
        this server's own address where it takes the file itself. Azure wants the header `x-ms-blob-type: BlockBlob`
        with the file; of what size it is, only this server bounds. At most LINK_SECONDS_AT_MOST, else ValueError."""
        ...

    async def download_link(self, organisation: str, name: str, *, seconds: float) -> str:
        """A URL that gives the file by GET until then; the same is true of it."""
        ...

    async def forget_older(self, than: datetime, *, prefix: str = "") -> int:
        """Delete every organisation's files under `prefix` that were written before; how many. One that is written
        anew at that moment may go too."""
        ...


LINK_SECONDS_AT_MOST = 7 * 24 * 3600
"""As S3 has it: https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-presigned-url.html"""

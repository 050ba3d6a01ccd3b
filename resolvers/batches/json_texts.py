"""What a batch keeps of its items: commands and answers as JSON, small ones in the item, large ones in files."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import TypeAdapter

from persistence.batch_records import Text
from persistence.ports import ObjectStore

from ..types import CompleteCommand, Completion

FOLDER = "batches"
UPLOADS = f"{FOLDER}/uploads/"
INLINE_BYTES = 64 * 1024
"""A text of more goes into a file of its own: documents stay small, and a page of them too."""

_COMMAND = TypeAdapter(CompleteCommand)
_COMPLETION = TypeAdapter(Completion)


def command_text(command: CompleteCommand) -> str:
    return _COMMAND.dump_json(command).decode()


def command_of(text: str) -> CompleteCommand:
    """Raises ValueError for what is none."""
    return _COMMAND.validate_json(text)


def completion_text(completion: Completion) -> str:
    return _COMPLETION.dump_json(completion).decode()


def completion_of(text: str) -> Completion:
    """Raises ValueError for what is none."""
    return _COMPLETION.validate_json(text)


class Texts:
    """Where the texts of items are."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def keep(self, organisation: str, name: str, text: str) -> Text:
        """`name` is the file's, where the text needs one. Raises StoreUnavailableError."""
        content = text.encode()
        if len(content) <= INLINE_BYTES:
            return Text(text)

        async def whole() -> AsyncIterator[bytes]:
            yield content

        await self._objects.put(organisation, name, whole())
        return Text(file=name)

    async def read(self, organisation: str, kept: Text) -> str:
        """Raises StoreUnavailableError, and FileNotFoundError where the file is gone."""
        if kept.file is None:
            return kept.text or ""
        return b"".join([chunk async for chunk in self._objects.get(organisation, kept.file)]).decode()


def folder_of(batch_id: str) -> str:
    """Of all files that a batch has, but for the one that it was read from."""
    return f"{FOLDER}/{batch_id}/"


def input_name(batch_id: str, index: int) -> str:
    return f"{folder_of(batch_id)}inputs/{index}.json"


def result_name(batch_id: str, index: int, fence: int) -> str:
    """By its fence, so that who has lost an item can't write over another's answer."""
    return f"{folder_of(batch_id)}results/{index}-{fence}.json"


def results_name(batch_id: str, run: int) -> str:
    """Of the file with all of a run's results."""
    return f"{folder_of(batch_id)}results-{run}.jsonl"


def upload_name(upload_id: str) -> str:
    return f"{UPLOADS}{upload_id}"

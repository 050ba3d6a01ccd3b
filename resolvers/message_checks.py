"""Bounds on the turns of a conversation. Each refusal names the field, its path from `input` on."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from providers.addresses import OutboundAddresses
from providers.types import ImagePart, Media, Message, Part, Role, TextPart

from .errors import BadUserInputError

MAX_PARTS = 100
MAX_URL_LENGTH = 8192
MAX_NAME_LENGTH = 256

_MEDIA_TYPE = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,126}")  # RFC 6838, 4.2, in lower case
_Path = tuple[str | int, ...]


def check_messages(messages: Sequence[Message]) -> None:
    """Raises BadUserInputError."""
    if not messages:
        raise BadUserInputError("a completion needs at least one message", path=("input", "messages"))
    for index, message in enumerate(messages):
        path = ("input", "messages", index)
        _check_role(message, path)
        if message.parts:
            _check_parts(message, (*path, "parts"))
        elif message.content is None and not message.tool_calls:
            raise BadUserInputError("a message needs content or, an assistant's, tool calls", path=(*path, "content"))


def _check_role(message: Message, path: _Path) -> None:
    """What belongs to one role alone."""
    if message.role is not Role.ASSISTANT:
        for name, given in (("toolCalls", message.tool_calls), ("reasoning", message.reasoning)):
            if given:
                raise BadUserInputError(f"only an assistant's message has {name}", path=(*path, name))
    if (message.role is Role.TOOL) != (message.tool_call_id is not None):
        raise BadUserInputError(
            "a tool's message names the call it answers, and no other message does", path=(*path, "toolCallId")
        )
    if message.is_error and message.role is not Role.TOOL:
        raise BadUserInputError("only a tool's message is an error", path=(*path, "isError"))


def _check_parts(message: Message, path: _Path) -> None:
    if message.role is not Role.USER:
        raise BadUserInputError("only a user's message has parts", path=path)
    if message.content is not None:
        raise BadUserInputError("a message has content or parts, not both", path=path)
    if len(message.parts) > MAX_PARTS:
        raise BadUserInputError(f"a message has at most {MAX_PARTS} parts", path=path)
    for index, part in enumerate(message.parts):
        _check_part(part, (*path, index))


def _check_part(part: Part, path: _Path) -> None:
    if isinstance(part, TextPart):
        return
    image = isinstance(part, ImagePart)
    path = (*path, "image" if image else "file")
    media = part.media
    if (media.url is None) == (media.data is None):
        raise BadUserInputError("either url or data", path=path)
    if media.media_type is not None and _MEDIA_TYPE.fullmatch(media.media_type) is None:
        raise BadUserInputError('a media type is such as "image/png"', path=(*path, "mediaType"))
    if image and not (media.media_type or "image/").startswith("image/"):
        raise BadUserInputError('an image is of a media type such as "image/png"', path=(*path, "mediaType"))
    if media.name is not None and not 1 <= len(media.name) <= MAX_NAME_LENGTH:
        raise BadUserInputError(f"a name has 1 to {MAX_NAME_LENGTH} characters", path=(*path, "name"))
    _check_url(media, path) if media.data is None else _check_data(media, path)


def check_addresses(messages: Sequence[Message], outbound: OutboundAddresses) -> None:
    """Vendors fetch what is given by URL, and some servers stand in the operator's own network: a URL is refused that
    plainly leads to what is not public. Raises BadUserInputError."""
    for turn, message in enumerate(messages):
        for index, part in enumerate(message.parts):
            if isinstance(part, TextPart) or part.media.url is None:
                continue
            if not outbound.may_name(urlsplit(part.media.url).hostname or ""):
                kind = "image" if isinstance(part, ImagePart) else "file"
                raise BadUserInputError(
                    "a url leads to a public address; bytes go into data",
                    path=("input", "messages", turn, "parts", index, kind, "url"),
                )


def _check_url(media: Media, path: _Path) -> None:
    url = media.url or ""
    try:
        address = urlsplit(url)
    except ValueError:
        address = urlsplit("")
    if address.scheme not in ("http", "https") or not address.hostname or not url.isprintable():
        raise BadUserInputError("a url begins with https:// or http://; bytes go into data", path=(*path, "url"))
    if len(url) > MAX_URL_LENGTH:
        raise BadUserInputError(f"a url has at most {MAX_URL_LENGTH} characters", path=(*path, "url"))


def _check_data(media: Media, path: _Path) -> None:
    if media.media_type is None:
        raise BadUserInputError('data needs a mediaType, such as "image/png"', path=(*path, "mediaType"))
    try:
        found = base64.b64decode(media.data or "", validate=True)
    except (binascii.Error, ValueError):
        found = b""
    if not found:
        raise BadUserInputError("data is base64 (RFC 4648, 4), and not empty", path=(*path, "data"))

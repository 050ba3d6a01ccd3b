"""The turns of a conversation: what each role may have, and what a part must be."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from providers.addresses import OutboundAddresses
from providers.types import FilePart, ImagePart, Media, Message, Part, ReasoningBlock, Role, TextPart, ToolCall
from resolvers.errors import BadUserInputError
from resolvers.message_checks import MAX_PARTS, MAX_URL_LENGTH, check_addresses, check_messages

TEXT = TextPart("What is this?")
PIXEL = Media(data="aGk=", media_type="image/png")
PDF = Media(data="aGk=", media_type="application/pdf", name="a.pdf")
LINK = Media(url="https://example.com/a.png")
BLOCK = ReasoningBlock("hm", "sig")


@pytest.mark.parametrize(
    "message",
    [
        Message(Role.USER, parts=(TEXT, ImagePart(PIXEL), ImagePart(LINK), FilePart(PDF), FilePart(LINK)), cache=True),
        Message(Role.USER, parts=(TextPart(""),) * MAX_PARTS),
        Message(Role.ASSISTANT, "so", reasoning=(BLOCK,)),
        Message(Role.ASSISTANT, None, (ToolCall("c", "f", "{}"),), reasoning=(BLOCK,)),
        Message(Role.TOOL, "no such city", tool_call_id="c", is_error=True),
        Message(Role.SYSTEM, "be brief", cache=True),
    ],
)
def test_accepted(message: Message) -> None:
    check_messages([message])


@pytest.mark.parametrize(
    ("message", "path"),
    [
        (Message(Role.USER, "x", reasoning=(BLOCK,)), ("reasoning",)),
        (Message(Role.USER, "x", is_error=True), ("isError",)),
        (Message(Role.ASSISTANT, parts=(TEXT,)), ("parts",)),
        (Message(Role.USER, "x", parts=(TEXT,)), ("parts",)),
        (Message(Role.USER, parts=(TEXT,) * (MAX_PARTS + 1)), ("parts",)),
    ],
)
def test_what_does_not_belong_to_the_role(message: Message, path: tuple[str, ...]) -> None:
    with pytest.raises(BadUserInputError) as caught:
        check_messages([Message(Role.USER, "x"), message])
    assert caught.value.path == ("input", "messages", 1, *path)


def media(**changes: Any) -> Media:
    return Media(**{"data": "aGk=", "media_type": "image/png"} | changes)


@pytest.mark.parametrize(
    ("part", "path"),
    [
        (ImagePart(Media()), ("image",)),
        (FilePart(media(url="https://example.com")), ("file",)),
        (ImagePart(media(media_type=None)), ("image", "mediaType")),
        (ImagePart(media(media_type="application/pdf")), ("image", "mediaType")),
        (FilePart(media(media_type="pdf")), ("file", "mediaType")),
        (FilePart(media(media_type="a/b\r\nx: y")), ("file", "mediaType")),
        (FilePart(media(name="")), ("file", "name")),
        (ImagePart(media(data="")), ("image", "data")),
        (ImagePart(media(data="hi!")), ("image", "data")),
        (ImagePart(media(data="aGk")), ("image", "data")),
        (ImagePart(media(data="é")), ("image", "data")),
        (ImagePart(Media(url="data:image/png;base64,aGk=")), ("image", "url")),
        (ImagePart(Media(url="file:///etc/passwd")), ("image", "url")),
        (ImagePart(Media(url="https://")), ("image", "url")),
        (ImagePart(Media(url="https://[")), ("image", "url")),
        (ImagePart(Media(url="https://a\nb")), ("image", "url")),
        (ImagePart(Media(url="https://example.com/" + "x" * MAX_URL_LENGTH)), ("image", "url")),
    ],
)
def test_what_is_no_part(part: Part, path: tuple[str, ...]) -> None:
    with pytest.raises(BadUserInputError) as caught:
        check_messages([Message(Role.USER, parts=(TEXT, part))])
    assert caught.value.path == ("input", "messages", 0, "parts", 1, *path)


def test_bytes_are_in_no_text() -> None:
    assert "aGk=" not in repr(Message(Role.USER, parts=(ImagePart(PIXEL),)))


@pytest.mark.parametrize("host", ["10.1.2.3", "169.254.169.254", "[::ffff:127.0.0.1]", "0x7f.1", "localhost", "redis"])
@pytest.mark.parametrize("kind", [ImagePart, FilePart])
def test_a_url_that_leads_to_no_public_address(kind: type[ImagePart | FilePart], host: str) -> None:
    given = [Message(Role.USER, "x"), Message(Role.USER, parts=(TEXT, kind(Media(url=f"http://user@{host}:80/a.png"))))]
    check_messages(given)
    with pytest.raises(BadUserInputError) as caught:
        check_addresses(given, OutboundAddresses())
    name = "image" if kind is ImagePart else "file"
    assert caught.value.path == ("input", "messages", 1, "parts", 1, name, "url")


def test_a_url_that_may_be_fetched() -> None:
    parts = (ImagePart(LINK), ImagePart(PIXEL), FilePart(Media(url="http://10.1.2.3/a.pdf")))
    check_addresses([Message(Role.USER, parts=parts)], OutboundAddresses([ip_network("10.0.0.0/8")]))

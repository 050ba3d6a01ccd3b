"""What a call can come to at most: no usage within its tokens costs more, whatever the kinds of its tokens."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persistence.price_records import Discount, Override
from providers.prices import cost_of
from providers.types import (
    ImagePart,
    Media,
    Message,
    ReasoningBlock,
    ResponseFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
    Usage,
)
from resolvers.booking import input_size
from resolvers.bounds import UNKNOWN_WINDOW, has_media, most_cost, most_input, most_output
from resolvers.errors import ServiceUnavailableError
from resolvers.price_book import NO_RULES, UNKNOWN_RULES, PriceBook
from resolvers.types import CompleteCommand, EmbedCommand, Target
from tests.persistence.prices import price_rule

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MODELS = (
    ("openai", "gpt-4o"),
    ("openai", "gpt-4o-audio-preview"),
    ("openai", "gpt-5-mini"),
    ("anthropic", "claude-haiku-4-5"),
    ("google", "gemini-2.5-pro"),
    ("google", "gemini-2.5-flash"),
    ("google", "gemini-2.5-flash-image"),
    ("groq", "llama-3.3-70b-versatile"),
    ("mistral", "mistral-small-latest"),
)
OWN = Override(Decimal(3), Decimal(5), cached_input=Decimal(9), cache_write=Decimal(4), reasoning=Decimal(11))
BOOKS = (
    NO_RULES,
    PriceBook([price_rule(provider=None, model=None, terms=OWN)]),
    PriceBook([price_rule(provider=None, model=None, terms=Discount(Decimal(12)))]),
)


@settings(deadline=None)  # the first reads the price table
@given(
    model=st.sampled_from(MODELS),
    book=st.sampled_from(BOOKS),
    most=st.tuples(st.integers(0, 400_000), st.integers(0, 128_000)),
    shares=st.lists(st.floats(0, 1), min_size=9, max_size=9),
)
def test_no_usage_costs_more(
    model: tuple[str, str], book: PriceBook, most: tuple[int, int], shares: list[float]
) -> None:
    """Each part has a share of what is left of its sum."""
    bound = most_cost(book, Target(*model), most, NOW, media=True)
    assert bound is not None
    parts = iter(shares)
    read, written = (int(each * next(parts)) for each in most)
    cached = int(read * next(parts))
    cache_write = int((read - cached) * next(parts))
    heard = int((read - cached - cache_write) * next(parts))
    seen = int((read - cached - cache_write - heard) * next(parts))
    reasoning = int(written * next(parts))
    spoken = int((written - reasoning) * next(parts))
    usage = Usage(
        read,
        written,
        cached_input_tokens=cached,
        cache_write_tokens=cache_write,
        input_audio_tokens=heard,
        input_image_tokens=seen,
        reasoning_tokens=reasoning,
        output_audio_tokens=spoken,
        output_image_tokens=int((written - reasoning - spoken) * next(parts)),
    )
    cost = cost_of(*model, usage, NOW, book.terms(*model, NOW)).cost
    assert cost is not None
    assert cost <= bound


def test_sound_and_pictures_are_reserved_for_where_there_are_any() -> None:
    target = Target("google", "gemini-2.5-flash")
    text, media = (most_cost(NO_RULES, target, (1000, 0), NOW, media=media) for media in (False, True))
    assert text is not None
    assert media is not None
    assert media > text


def test_what_has_no_price_has_no_bound() -> None:
    target = Target("openai", "gpt-4o")
    with pytest.raises(ServiceUnavailableError):
        most_cost(UNKNOWN_RULES, target, (1, 1), NOW, media=False)
    assert most_cost(NO_RULES, Target("openai", "nobody-knows"), (1, 1), NOW, media=False) is None


def command(*messages: Message, **more: object) -> CompleteCommand:
    return CompleteCommand(target=Target("openai", "gpt-4o"), messages=messages, **more)  # type: ignore[arg-type]


def test_every_byte_may_be_a_token() -> None:
    hello = command(Message(Role.USER, "hello"))
    assert most_input(hello, 5, hello.target) == 5 + 64 + 16
    long = command(Message(Role.USER, "x" * 300_000))
    assert most_input(long, 300_000, long.target) > 300_000, "the window that the table tells may be an old one"


def test_thoughts_that_come_back_are_read_again() -> None:
    thoughts = (ReasoningBlock("", "s" * 700),)
    calls = (ToolCall("call_1", "find", "{}", signature="t" * 300),)
    plain = command(Message(Role.ASSISTANT, "x"))
    back = command(Message(Role.ASSISTANT, "x", reasoning=thoughts, tool_calls=calls))
    assert most_input(back, 1, back.target) >= most_input(plain, 1, plain.target) + 1000


def test_schemas_may_be_written_anew() -> None:
    tool = Tool("find", "finds", {"type": "object", "properties": {"q" * 500: {"type": "string"}}})
    plain, tools = command(Message(Role.USER, "x")), command(Message(Role.USER, "x"), tools=(tool,))
    assert most_input(tools, 600, tools.target) >= most_input(plain, 600, plain.target) + 1000 + 500
    answer = command(Message(Role.USER, "x"), response_format=ResponseFormat(tool.parameters))
    size = input_size(answer)
    assert size > 500
    assert most_input(answer, size, answer.target) >= most_input(plain, 1, plain.target) + 1000 + 2 * 500


@pytest.mark.parametrize(("model", "window"), [("gpt-4o", 128_000), ("nobody-knows", UNKNOWN_WINDOW)])
def test_a_picture_may_fill_the_window(model: str, window: int) -> None:
    seen = command(Message(Role.USER, parts=(TextPart("?"), ImagePart(Media(url="https://example.com/a.png")))))
    assert has_media(seen)
    assert most_input(seen, 1, Target("openai", model)) == window


def test_embeddings_write_nothing() -> None:
    embed = EmbedCommand(Target("openai", "text-embedding-3-small"), ("one", "three"))
    assert (most_input(embed, 8, embed.target), most_output(embed, embed.target)) == (8 + 2 * 16, 0)

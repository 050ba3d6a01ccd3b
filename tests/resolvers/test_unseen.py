"""What a model may have written that nobody has seen."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import aclosing
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.records import Outcome
from providers.errors import ProviderTimeoutError, ProviderUnavailableError
from providers.fold import Fold
from providers.types import (
    FilePart,
    Finished,
    FinishReason,
    Media,
    Message,
    ReasoningDelta,
    Role,
    StreamEvent,
    TextDelta,
    Usage,
)
from resolvers.booking import MEDIA_BYTES, estimate_tokens
from resolvers.bounds import UNKNOWN_WINDOW, most_output
from resolvers.embeddings import embed
from resolvers.errors import BudgetExceededError, CompletionFailedError
from resolvers.mailbox import MAX_WAITING_CHARACTERS
from resolvers.types import EmbedCommand, Target, TextProduced
from resolvers.unseen import GOES_ON_TOKENS, Sight, read_tokens, written_tokens

from .clockwork import idle
from .scene import ACME, ALPHA, Hold, Scene, Step, collected, command, texts, unavailable
from .test_limits import limit, priced

PLAIN = Target("openai", "gpt-4o")
THINKING = Target("openai", "gpt-5")
FAST = Target("groq", "llama-3.3-70b-versatile")  # 280 tokens a second
ROUTED = Target("openrouter", "google/gemini-2.5-flash")
UNKNOWN = Target("alpha", "a-1")


def sight(*, streamed: bool = True, ms: int = 2_500, held: bool = False, left: bool = True) -> Sight:
    return Sight(streamed, elapsed_ms=ms, thinking_ms=ms, held=held, left=left)


def written(target: Target, of_it: Sight, *seen: StreamEvent, **changes: Any) -> int:
    fold = Fold()
    for event in seen:
        fold.add(event)
    return written_tokens(command(**changes), target, fold, of_it)


@pytest.mark.parametrize(
    ("target", "streamed", "left", "tokens"),
    [
        pytest.param(PLAIN, False, True, 250 + GOES_ON_TOKENS, id="a whole answer that was left"),
        pytest.param(UNKNOWN, False, True, 250 + GOES_ON_TOKENS, id="of a model that nothing is known of"),
        pytest.param(FAST, False, True, 700 + GOES_ON_TOKENS, id="of a model whose speed is known"),
        pytest.param(PLAIN, False, False, 250, id="a whole answer that broke off"),
        pytest.param(PLAIN, True, True, 0, id="a stream is seen as it is written"),
        pytest.param(THINKING, True, True, 250, id="thoughts are not"),
        pytest.param(UNKNOWN, True, True, 250 + GOES_ON_TOKENS, id="and who knows whether this one thinks, or goes on"),
        pytest.param(FAST, True, True, GOES_ON_TOKENS, id="a stream that goes on for nobody"),
        pytest.param(FAST, True, False, 0, id="unless it broke off"),
        pytest.param(ROUTED, True, True, 250 + GOES_ON_TOKENS, id="OpenRouter passes it on to such as do"),
    ],
)
def test_by_the_time_and_by_what_the_vendor_does(target: Target, streamed: bool, left: bool, tokens: int) -> None:
    assert written(target, sight(streamed=streamed, left=left)) == tokens


def test_what_has_come_to_its_end_goes_on_no_more() -> None:
    assert written(FAST, sight(), Finished(FinishReason.STOP)) == 0
    assert written(FAST, sight(held=True), TextDelta("four"), Finished(FinishReason.STOP)) == 1


@pytest.mark.parametrize(("shown", "tokens"), [(0, 250), (400, 250), (2_000, 500)])
def test_of_thoughts_vendors_show_a_summary(shown: int, tokens: int) -> None:
    """It is less than what they bill: https://platform.claude.com/docs/en/build-with-claude/extended-thinking, under
    "Summarized thinking"."""
    assert written(THINKING, sight(), ReasoningDelta("x" * shown), TextDelta("four")) == tokens + 1
    assert written(PLAIN, sight(), ReasoningDelta("x" * shown), TextDelta("four")) == shown // 4 + 1


@pytest.mark.parametrize(("seen", "tokens"), [(0, 250), (400, 250), (2_000, 500)])
def test_a_stream_that_nobody_read_goes_by_its_time(seen: int, tokens: int) -> None:
    assert written(PLAIN, sight(held=True), TextDelta("x" * seen)) == tokens


def test_what_is_yet_to_come_comes_to_what_the_vendor_told() -> None:
    """Google counts with every piece."""
    gemini = Target("google", "gemini-2.5-pro")
    told = Finished(usage=Usage(7, 30_000, reasoning_tokens=29_000))
    assert written(gemini, sight(), told, TextDelta("four")) == 30_000 + GOES_ON_TOKENS
    assert written(gemini, sight(), told, TextDelta("four"), max_tokens=20_000) == 30_000


@given(
    target=st.sampled_from([PLAIN, THINKING, FAST, ROUTED, UNKNOWN]),
    of_it=st.builds(
        Sight,
        streamed=st.booleans(),
        elapsed_ms=st.integers(0, 300_000),
        thinking_ms=st.integers(0, 300_000),
        held=st.booleans(),
        left=st.booleans(),
    ),
    seen=st.integers(0, 5_000),
    most=st.none() | st.integers(1, 100_000),
)
def test_never_more_than_what_is_reserved(target: Target, of_it: Sight, seen: int, most: int | None) -> None:
    bound = most_output(command(max_tokens=most), target)
    found = written(target, of_it, TextDelta("x" * seen), max_tokens=most)
    assert found == bound if bound is not None and found < estimate_tokens(seen) else found >= estimate_tokens(seen)
    assert bound is None or found <= bound


async def test_a_completion_that_is_left_is_booked_with_what_it_may_come_to(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    task = scene.started()
    await hold.reached.wait()
    await asyncio.sleep(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle()
    written = 1_000 + GOES_ON_TOKENS
    assert scene.booked("outcome", "output_tokens", "estimated") == [(Outcome.CANCELLED, written, True)]


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_breaks_off_is_booked_by_its_time(scene: Scene, streamed: bool) -> None:
    """The vendor may have thought, or written what it did not come to send."""

    class Slow(Hold):
        async def wait(self) -> None:
            await asyncio.sleep(3)

    told, silent = (ProviderTimeoutError("silent", provider="alpha", vendor_code=code) for code in ("timeout", None))
    scene.alpha.will([Slow(), told], [Slow(), silent], texts("hi"))
    await (scene.events() if streamed else scene.complete())
    assert [tokens for (tokens,) in scene.booked("output_tokens")] == [300, 300 + GOES_ON_TOKENS, 2]


async def test_texts_that_become_vectors_have_no_output(scene: Scene) -> None:
    scene.alpha.will([Hold()])
    with pytest.raises(CompletionFailedError, match="no answer within"):
        await embed(scene.services, ACME, EmbedCommand(ALPHA, ("hello",), timeout_ms=1_000))
    assert scene.booked("outcome", "output_tokens") == [(Outcome.FAILED, 0)]


async def test_a_budget_can_t_be_overrun_by_leaving(scene: Scene) -> None:
    """Each call may write 4 tokens, and counts with them though its caller has seen none."""
    priced(scene)
    limit(scene, usd_per_day=Decimal(300))
    scene.alpha.will(*[[Hold()] for _ in range(6)])
    for _ in range(5):
        with pytest.raises(CompletionFailedError, match="no answer within 1 ms"):
            await scene.complete(max_tokens=4, timeout_ms=1)
    with pytest.raises(BudgetExceededError):
        await scene.complete(max_tokens=4, timeout_ms=1)
    assert [cost for (cost,) in scene.booked("cost")] == [2 * 1 + 4 * 10] * 5


@pytest.mark.parametrize("ending", [Hold(), ProviderUnavailableError("cut", provider="alpha"), "whole"])
async def test_long_words_can_t_pass_what_was_reserved(scene: Scene, ending: Step | str) -> None:
    """Some tokens have ten bytes: by its bytes the answer would be of more tokens than it may have."""
    priced(scene)
    limit(scene, usd_per_day=Decimal(10_000))
    words = (TextDelta("internationalization " * 10),)
    scene.alpha.will([words, ending if not isinstance(ending, str) else (Finished(FinishReason.STOP),)])
    async with aclosing(scene.stream(max_tokens=20)) as events:
        while (event := await anext(events, None)) is not None and not isinstance(event, TextProduced):
            pass
        if not isinstance(ending, Hold):
            await collected(events)
    assert scene.booked("output_tokens", "estimated") == [(20, True)]


async def test_who_does_not_read_saves_nothing(scene: Scene) -> None:
    """The vendor writes on into what buffers there are."""
    pieces = [(TextDelta("x" * MAX_WAITING_CHARACTERS),), (TextDelta("x"),), Hold()]
    scene.alpha.will(pieces)
    async with aclosing(scene.stream()) as events:
        await anext(events)
        await asyncio.sleep(100)
    assert scene.booked("output_tokens", "estimated") == [(10_000 + GOES_ON_TOKENS, True)]


async def test_thoughts_last_until_the_answer_begins(scene: Scene) -> None:
    class Slow(Hold):
        async def wait(self) -> None:
            await asyncio.sleep(30)

    scene.alpha.will(
        [(ReasoningDelta("Let me see."),), Slow(), (TextDelta("four"),), Slow(), (TextDelta("four"),), Hold()]
    )
    async with aclosing(scene.stream()) as events:
        while not isinstance(await anext(events), TextProduced):
            pass
        await anext(events)
    assert scene.booked("output_tokens", "estimated") == [(3_000 + 2 + GOES_ON_TOKENS, True)]


@pytest.mark.parametrize(
    ("size", "left", "tokens"), [(399_999, True, 101_000), (399_999, False, 1_000), (10**7, True, 1_000_000)]
)
def test_a_file_in_a_call_that_was_left_counts_by_its_size(size: int, left: bool, tokens: int) -> None:
    """Up to the model's window."""
    part = FilePart(Media(data=b64encode(b"x" * size).decode(), media_type="application/pdf"))
    asked = command(messages=(Message(Role.USER, parts=(part,)),))
    assert read_tokens(asked, UNKNOWN, MEDIA_BYTES, left=left) == tokens


async def test_a_file_at_an_address_counts_with_all_that_it_may_be(scene: Scene) -> None:
    """It may have a thousand pages."""
    priced(scene)
    limit(scene, usd_per_day=Decimal(2_000_000))
    messages = (Message(Role.USER, parts=(FilePart(Media(url="https://example.com/a.pdf")),)),)
    scene.alpha.will(texts("hi"), [unavailable(status=None, retryable=False)], [Hold()])
    await scene.complete(messages=messages, max_tokens=4)
    with pytest.raises(CompletionFailedError, match="overloaded"):
        await scene.complete(messages=messages, max_tokens=4)
    with pytest.raises(CompletionFailedError, match="no answer within 1 ms"):
        await scene.complete(messages=messages, max_tokens=4, timeout_ms=1)
    with pytest.raises(BudgetExceededError):
        await scene.complete(messages=messages, max_tokens=4)
    assert scene.booked("input_tokens", "estimated") == [(7, False), (1_000, True), (UNKNOWN_WINDOW, True)]

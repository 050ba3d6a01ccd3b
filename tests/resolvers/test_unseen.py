"""What a model may have written that nobody has seen."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.records import Outcome
from providers.errors import ProviderTimeoutError
from providers.fold import Fold
from providers.types import Finished, FinishReason, TextDelta
from resolvers.booking import estimate_tokens
from resolvers.bounds import most_output
from resolvers.embeddings import embed
from resolvers.errors import BudgetExceededError, CompletionFailedError
from resolvers.types import EmbedCommand, Target
from resolvers.unseen import GOES_ON_TOKENS, unseen_tokens

from .clockwork import idle
from .scene import ACME, ALPHA, Hold, Scene, command, texts, unavailable
from .test_limits import limit, priced

PLAIN = Target("openai", "gpt-4o")
THINKING = Target("openai", "gpt-5")
FAST = Target("groq", "llama-3.3-70b-versatile")  # 280 tokens a second
UNKNOWN = Target("alpha", "a-1")


def unseen(target: Target, *, streamed: bool, left: bool = True, seen: str = "", **changes: Any) -> int:
    fold = Fold()
    fold.add(TextDelta(seen))
    return unseen_tokens(command(**changes), target, fold, streamed=streamed, silent_ms=2_500, left=left)


@pytest.mark.parametrize(
    ("target", "streamed", "left", "tokens"),
    [
        pytest.param(PLAIN, False, True, 250 + GOES_ON_TOKENS, id="a whole answer that was left"),
        pytest.param(UNKNOWN, False, True, 250 + GOES_ON_TOKENS, id="of a model that nothing is known of"),
        pytest.param(FAST, False, True, 700 + GOES_ON_TOKENS, id="of a model whose speed is known"),
        pytest.param(PLAIN, False, False, 250, id="a whole answer that broke off"),
        pytest.param(PLAIN, True, True, 0, id="a stream is seen as it is written"),
        pytest.param(THINKING, True, True, 250, id="thoughts are not"),
        pytest.param(UNKNOWN, True, True, 250, id="and who knows whether this one thinks"),
        pytest.param(FAST, True, True, GOES_ON_TOKENS, id="a stream that goes on for nobody"),
        pytest.param(FAST, True, False, 0, id="unless it broke off"),
    ],
)
def test_by_the_time_and_by_what_the_vendor_does(target: Target, streamed: bool, left: bool, tokens: int) -> None:
    assert unseen(target, streamed=streamed, left=left) == tokens


def test_what_has_come_to_its_end_goes_on_no_more() -> None:
    fold = Fold()
    fold.add(Finished(FinishReason.STOP))
    assert unseen_tokens(command(), FAST, fold, streamed=True, silent_ms=2_500, left=True) == 0


@given(
    target=st.sampled_from([PLAIN, THINKING, FAST, UNKNOWN]),
    streamed=st.booleans(),
    left=st.booleans(),
    silent_ms=st.integers(0, 300_000),
    seen=st.integers(0, 5_000),
    most=st.none() | st.integers(1, 100_000),
)
def test_never_more_than_what_is_reserved(
    target: Target, streamed: bool, left: bool, silent_ms: int, seen: int, most: int | None
) -> None:
    asked, fold = command(max_tokens=most), Fold()
    fold.add(TextDelta("x" * seen))
    found = unseen_tokens(asked, target, fold, streamed=streamed, silent_ms=silent_ms, left=left)
    bound = most_output(asked, target)
    assert found >= 0
    assert bound is None or found == 0 or found + estimate_tokens(seen) <= bound


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

    silent = ProviderTimeoutError("silent", provider="alpha")
    scene.alpha.will([Slow(), unavailable(status=None)], [Slow(), silent], texts("hi"))
    await (scene.events() if streamed else scene.complete())
    goes_on = 0 if streamed else GOES_ON_TOKENS
    assert [tokens for (tokens,) in scene.booked("output_tokens")] == [300, 300 + goes_on, 2]


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

"""Embeddings: retried, booked, bounded and cut short as completions are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from persistence.records import CostSource, Outcome
from providers.errors import UnsupportedFeatureError
from providers.types import EmbeddingRequest, Finished, Usage
from resolvers.embeddings import MAX_INPUTS, embed
from resolvers.errors import BadUserInputError, CompletionFailedError, ConflictError
from resolvers.types import EmbedCommand, Embeddings, Target

from .clockwork import idle
from .scene import ACME, ALPHA, Hold, Scene, unavailable

COUNTED = [(Finished(usage=Usage(input_tokens=5)),)]


def asking(scene: Scene, *inputs: str, **changes: Any) -> asyncio.Task[Embeddings]:
    command = EmbedCommand(**{"target": ALPHA, "inputs": inputs or ("one", "three")} | changes)
    return asyncio.create_task(embed(scene.services, ACME, command))


async def test_each_text_gets_its_vector_and_the_call_is_booked(scene: Scene) -> None:
    scene.alpha.will(COUNTED)
    found = await asking(
        scene, labels={"team": "search"}, end_user="u1", dimensions=3, provider_options={"alpha": {"x": 1}}
    )
    assert found.vectors == ([3.0], [5.0])
    assert (found.provider, found.model, found.usage.input_tokens) == ("alpha", "a-1", 5)
    assert [attempt.number for attempt in found.attempts] == [1]
    (call,) = scene.alpha.calls
    assert call.request == EmbeddingRequest("a-1", ("one", "three"), 3, "u1", {"x": 1})
    assert scene.booked("completion_id", "outcome", "input_tokens", "output_tokens", "estimated", "end_user") == [
        (found.id, Outcome.SUCCEEDED, 5, 0, False, "u1")
    ]
    assert scene.store.entries[0].labels == {"team": "search"}


async def test_a_vendor_that_counts_nothing_is_estimated(scene: Scene) -> None:
    scene.alpha.will([])
    found = await asking(scene, "twelve bytes", "ü")
    assert (found.usage.input_tokens, found.usage.estimated) == (4, True)


async def test_what_is_retryable_is_tried_again_by_the_same_model_alone(scene: Scene) -> None:
    scene.alpha.will([unavailable()], COUNTED)
    found = await asking(scene)
    assert [attempt.error_code for attempt in found.attempts] == ["PROVIDER_UNAVAILABLE", None]
    assert scene.booked("attempt", "outcome", "cost_source") == [
        (1, Outcome.FAILED, CostSource.NOT_BILLED),
        (2, Outcome.SUCCEEDED, CostSource.UNKNOWN),
    ]


async def test_a_vendor_without_embeddings_is_not_called(scene: Scene) -> None:
    scene.alpha.will([UnsupportedFeatureError("embeddings", provider="alpha", model="a-1")])
    with pytest.raises(CompletionFailedError, match=r"alpha has no embeddings \(model a-1\)") as caught:
        await asking(scene)
    assert caught.value.code == "BAD_USER_INPUT"
    assert scene.store.entries == []


async def test_the_deadline_ends_it_and_its_input_is_booked(scene: Scene) -> None:
    scene.alpha.will([Hold()])
    with pytest.raises(CompletionFailedError) as caught:
        await asking(scene, timeout_ms=2000)
    assert caught.value.code == "DEADLINE_EXCEEDED"
    assert scene.booked("outcome", "error_code", "estimated", "input_tokens") == [
        (Outcome.FAILED, "DEADLINE_EXCEEDED", True, 2)
    ]


async def test_a_client_that_leaves_ends_the_call_and_it_is_booked(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    task = asking(scene)
    await hold.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle()
    assert scene.alpha.endings == ["CancelledError"]
    assert scene.booked("outcome") == [(Outcome.CANCELLED,)]


async def test_cancelling_it_is_an_error_for_who_waits(scene: Scene) -> None:
    hold = Hold()
    scene.alpha.will([hold])
    task = asking(scene, idempotency_key="k")
    await hold.reached.wait()
    assert (await scene.cancel(idempotency_key="k"))[1]
    with pytest.raises(CompletionFailedError, match="cancelCompletion ended it") as caught:
        await task
    assert (caught.value.code, caught.value.retryable) == ("CONFLICT", False)
    assert scene.booked("outcome") == [(Outcome.CANCELLED,)]
    with pytest.raises(ConflictError):
        await asking(scene, idempotency_key="k")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"inputs": ()}, ("input", "inputs")),
        ({"inputs": ("x",) * (MAX_INPUTS + 1)}, ("input", "inputs")),
        ({"inputs": ("x", "")}, ("input", "inputs", 1)),
        ({"dimensions": 0}, ("input", "dimensions")),
        ({"timeout_ms": 0}, ("input", "timeoutMs")),
        ({"end_user": ""}, ("input", "endUser")),
        ({"target": Target("nobody", "m")}, ("input", "model")),
        ({"provider_options": {"nobody": {}}}, ("input", "providerOptions")),
    ],
)
async def test_bad_input_is_named(scene: Scene, changes: dict[str, Any], path: tuple[Any, ...]) -> None:
    with pytest.raises(BadUserInputError) as caught:
        await asking(scene, **changes)
    assert tuple(caught.value.path) == path
    assert scene.alpha.calls == []

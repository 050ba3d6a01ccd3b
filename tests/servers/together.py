"""Several servers at once: each takes seconds to start."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from .missing import missing
from .rabbit import NoRabbitError
from .redis import NoRedisError
from .s3 import NoS3Error


def entered(stack: ExitStack, *contexts: AbstractContextManager[Any]) -> list[Any]:
    """What each gives; the stack leaves them. Where one can't be had the test is skipped: with CI=true it fails."""
    with ThreadPoolExecutor(len(contexts)) as pool:
        entering = [pool.submit(context.__enter__) for context in contexts]
    for context, future in zip(contexts, entering, strict=True):
        if future.exception() is None:
            stack.push(context)
    try:
        return [future.result() for future in entering]
    except (NoRedisError, NoRabbitError, NoS3Error) as error:
        missing(error)

"""The stores' errors as the caller's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from persistence.ports import StoreConflictError, StoreUnavailableError

from ..errors import ConflictError, ServiceUnavailableError


@contextmanager
def told() -> Iterator[None]:
    try:
        yield
    except StoreUnavailableError as error:
        raise ServiceUnavailableError("the batches can't be reached at the moment") from error
    except StoreConflictError as error:
        raise ConflictError(str(error)) from error

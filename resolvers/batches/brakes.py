"""What a vendor refuses because it is too much, batches leave alone for a while: interactive calls go first there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from ..key_pool import KeyState
from ..routing import Vendor
from ..types import Target

REST_S, REST_AT_MOST_S = 1.0, 60.0
MAX_TARGETS = 4096


@dataclass(slots=True)
class _Brake:
    until: float
    rest_s: float


class Brakes:
    """By organisation and target. Each refusal in a row doubles the rest. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._brakes: OrderedDict[tuple[str, Target], _Brake] = OrderedDict()

    def seconds(self, organisation: str, target: Target, vendor: Vendor | None) -> float:
        """For how long it is to be left alone; 0 where it may be called. Also where somebody else has just met the
        vendor's limit, by each key that there is."""
        brake = self._brakes.get((organisation, target))
        if brake is not None and (left := brake.until - self._clock()) > 0:
            return left
        if vendor is not None and all(vendor.keys.state(key) is KeyState.LIMITED for key in vendor.keys.keys):
            return REST_S
        return 0.0

    def refused(self, organisation: str, target: Target, retry_after_s: float | None) -> None:
        brake = self._brakes.setdefault((organisation, target), _Brake(0.0, REST_S / 2))
        if brake.until > self._clock():  # one of many that were under way together
            return
        brake.rest_s = min(2 * brake.rest_s, REST_AT_MOST_S)
        brake.until = self._clock() + max(brake.rest_s, retry_after_s or 0.0)
        self._brakes.move_to_end((organisation, target))
        if len(self._brakes) > MAX_TARGETS:
            self._brakes.popitem(last=False)

    def answered(self, organisation: str, target: Target) -> None:
        self._brakes.pop((organisation, target), None)

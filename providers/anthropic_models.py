"""What Claude models differ in, which their names tell.

Sources: https://platform.claude.com/docs/en/build-with-claude/thinking (kinds of thinking),
https://platform.claude.com/docs/en/build-with-claude/effort,
https://platform.claude.com/docs/en/build-with-claude/structured-outputs (models),
https://platform.claude.com/docs/en/models/opus-5-5/whats-new-opus-5-5 (thinking that can't be turned off, forced tools,
blocks tied to their model), https://platform.claude.com/docs/en/models/sonnet-5-5/migration-guide (`between_tools`),
https://platform.claude.com/docs/en/models/sonnet-5/migration-guide (sampling parameters).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from .anthropic_errors import PROVIDER
from .errors import UnsendableRequestError, UnsupportedFeatureError
from .features import Feature
from .types import CompletionRequest, ReasoningEffort

# The API demands `max_tokens`. This is what every model accepts: no cap is lower than that of the Claude 3 models
# (https://platform.claude.com/docs/en/about-claude/models/overview). Thinking is part of it, and gets room beside it.
DEFAULT_MAX_TOKENS: Final = 4096

_NAME = re.compile(r"claude-(?:([a-z]+)(?:-|$))?(?:(\d+)(?:-(\d{1,2})(?!\d))?)?")
_MOST_CAPABLE = ("fable", "mythos")
_LEAST_BUDGET = 1024
_BUDGETS: Final = {
    ReasoningEffort.MINIMAL: _LEAST_BUDGET,
    ReasoningEffort.LOW: 4096,
    ReasoningEffort.MEDIUM: 8192,
    ReasoningEffort.HIGH: 16_384,
}


@dataclass(frozen=True, slots=True)
class ClaudeModel:
    """A family and a version, such as ("opus", (4, 5)). A name without a version may be of any model."""

    family: str
    version: tuple[int, int] | None
    name: str = field(default="", compare=False)

    @property
    def tag(self) -> str:
        return ".".join((self.family, *map(str, self.version or ())))

    @property
    def tied(self) -> bool:
        """It takes back its own thinking alone."""
        return self._since((5, 1) if self.family in _MOST_CAPABLE else (5, 5))

    def before(self, version: tuple[int, int]) -> bool:
        return self.version is not None and self.version < version

    def _since(self, version: tuple[int, int]) -> bool:
        return self.version is not None and self.version >= version

    def check(self, request: CompletionRequest) -> None:
        """Raises UnsupportedFeatureError for what this model is known to refuse."""
        thinks = request.reasoning_effort not in (None, ReasoningEffort.NONE)
        budgeted = thinks and self.before((4, 6))
        choice = request.tool_choice
        refused = (
            (Feature.REASONING_EFFORT, thinks and self.before((3, 7))),
            (Feature.JSON_SCHEMA, request.response_format is not None and self.before((4, 5))),
            ("temperature", request.temperature not in (None, 1) and self._since((4, 7))),
            ("topP", request.top_p not in (None, 1) and self._since((4, 7))),
            ("forced toolChoice", choice is not None and choice.forced and self.tied),
            ("temperature with reasoningEffort", request.temperature not in (None, 1) and budgeted),
            ("forced toolChoice with reasoningEffort", choice is not None and choice.forced and budgeted),
        )
        for feature, met in refused:
            if met:
                raise UnsupportedFeatureError(feature, provider=PROVIDER, model=request.model)

    def thinking(self, request: CompletionRequest) -> dict[str, Any]:
        """`max_tokens`, and what the effort means. `minimal` is the vendor's `low`, or the least budget. Raises
        UnsupportedFeatureError, and UnsendableRequestError where `max_tokens` leaves no room to think."""
        effort, most = request.reasoning_effort, request.max_tokens
        plain = {"max_tokens": DEFAULT_MAX_TOKENS if most is None else most}
        if effort is None:
            return plain
        if effort is ReasoningEffort.NONE:
            return {**plain, **self._without_thinking(request.model)}
        budget = _BUDGETS[effort]
        if self.before((4, 6)):
            return self._budgeted(request.model, budget, most)
        level = ReasoningEffort.LOW if effort is ReasoningEffort.MINIMAL else effort
        return {
            "max_tokens": DEFAULT_MAX_TOKENS + budget if most is None else most,
            "thinking": {"type": "adaptive", "display": "summarized"},
            "output_config": {"effort": level.value},
        }

    def _without_thinking(self, model: str) -> dict[str, Any]:
        if self.family in _MOST_CAPABLE or (self.family == "opus" and self._since((5, 5))):
            raise UnsupportedFeatureError("reasoningEffort none", provider=PROVIDER, model=model)
        if self.before((3, 7)):
            return {}
        least = "between_tools" if self.family == "sonnet" and self._since((5, 5)) else "disabled"
        return {"thinking": {"type": least}}

    @staticmethod
    def _budgeted(model: str, budget: int, most: int | None) -> dict[str, Any]:
        """At least half of what the caller allows is left for the answer."""
        if most is not None:
            budget = max(_LEAST_BUDGET, min(budget, most // 2))
            if most <= budget:
                raise UnsendableRequestError(
                    f"with reasoningEffort maxTokens is above {_LEAST_BUDGET}, for thinking is part of them "
                    f"(model {model})",
                    provider=PROVIDER,
                )
        return {
            "max_tokens": DEFAULT_MAX_TOKENS + budget if most is None else most,
            "thinking": {"type": "enabled", "budget_tokens": budget},
        }


def model_of(name: str) -> ClaudeModel:
    found = _NAME.match(name)
    family, major, minor = found.groups() if found else (None, None, None)
    return ClaudeModel(family or "", None if major is None else (int(major), int(minor or 0)), name)

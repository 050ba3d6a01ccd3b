"""What the prompt asks of the fake vendor: directives in double brackets in the last user message.

| directive | what happens |
|---|---|
| `[[tokens=200]]` | the answer has 200 tokens (10 without it) |
| `[[wide=500]]` | each token's text is padded to 500 characters |
| `[[pace=20]]` | 20 ms before each streamed token |
| `[[delay=500]]` | 500 ms before the answer's first byte |
| `[[503]]`, `[[503x2]]` | this status, always or for the first two calls with this very prompt |
| `[[503@groq]]` | the same of this provider alone |
| `[[retry=3]]` | errors carry `Retry-After: 3` |
| `[[cut=5]]` | the connection is cut after 5 tokens; a plain answer's before any byte |
| `[[hang=5]]` | nothing more comes after 5 tokens; of a plain answer nothing at all |
| `[[echo]]` | the answer is what was asked; an error's text has that in it, and the key |
| `[[soon]]` | a batch with it has ended when it is first looked at |
| `[[tool]]` | the first declared tool is called, unless the last turn is a tool's result |
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_DIRECTIVE = re.compile(r"\[\[(\d{3})(?:x(\d+))?(?:@([a-z]+))?\]\]|\[\[([a-z]+)(?:=(\d+))?\]\]")
_TOKENS = 10
NAMES = frozenset({"tokens", "wide", "pace", "delay", "retry", "cut", "hang", "tool", "echo", "soon"})


@dataclass(frozen=True, slots=True)
class Script:
    tokens: int = _TOKENS
    wide: int = 0
    pace_s: float = 0.0
    delay_s: float = 0.0
    status: int | None = None
    failures: int | None = None
    refuser: str | None = None
    retry_after: int | None = None
    cut: int | None = None
    hang: int | None = None
    tool: bool = False
    echo: bool = False


def read_script(prompt: str) -> Script:
    """Raises ValueError for a directive that does not exist: a mistyped one would test nothing."""
    if "[[" not in prompt:
        return Script()
    status: int | None = None
    failures: int | None = None
    refuser: str | None = None
    values: dict[str, int] = {}
    for code, times, provider, name, value in _DIRECTIVE.findall(prompt):
        if code:
            status, failures, refuser = int(code), int(times) if times else None, provider or None
        elif name in NAMES:
            values[name] = int(value or 0)
        else:
            raise ValueError(f"no directive [[{name}]]")
    return Script(
        tokens=values.get("tokens", _TOKENS),
        wide=values.get("wide", 0),
        pace_s=values.get("pace", 0) / 1000,
        delay_s=values.get("delay", 0) / 1000,
        status=status,
        failures=failures,
        refuser=refuser,
        retry_after=values.get("retry"),
        cut=values.get("cut"),
        hang=values.get("hang"),
        tool="tool" in values,
        echo="echo" in values,
    )

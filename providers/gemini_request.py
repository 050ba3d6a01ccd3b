"""Requests in the Gemini API's words (v1beta).

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/api/caching (contents, tools, calls),
https://ai.google.dev/gemini-api/docs/file-input-methods (bytes, and addresses that Google fetches),
https://ai.google.dev/gemini-api/docs/structured-output, https://ai.google.dev/gemini-api/docs/thinking,
https://ai.google.dev/gemini-api/docs/openai (what an effort is in tokens), and
https://ai.google.dev/gemini-api/docs/thought-signatures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from .errors import UnsupportedFeatureError
from .features import Feature
from .gemini_errors import PROVIDER, unsendable
from .types import (
    CompletionRequest,
    FilePart,
    ImagePart,
    Media,
    Message,
    Part,
    ReasoningEffort,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)

_MODES: Final[Mapping[ToolChoiceMode, str]] = {
    ToolChoiceMode.AUTO: "AUTO",
    ToolChoiceMode.NONE: "NONE",
    ToolChoiceMode.REQUIRED: "ANY",
}
_WITHOUT_SIGNATURES: Final = ("gemini-1", "gemini-2", "gemma")
_NO_SIGNATURE: Final = "skip_thought_signature_validator"  # Google's own word for it

_WITHOUT_THINKING: Final = ("gemini-1", "gemini-2.0", "gemma")
_WITH_BUDGETS: Final = "gemini-2.5"
_ALWAYS_THINKING: Final = "gemini-2.5-pro"
_BUDGETS: Final = {
    ReasoningEffort.MINIMAL: 1024,
    ReasoningEffort.LOW: 1024,
    ReasoningEffort.MEDIUM: 8192,
    ReasoningEffort.HIGH: 24_576,
}
_WITH_MINIMAL = re.compile(r"gemini-3(\.[156])?-flash")
_TYPES: Final = {
    ".pdf": "application/pdf",
    ".txt": "text/plain",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".heic": "image/heic",
    ".heif": "image/heif",
}
_TWO_LEVELS: Final = "gemini-3-pro"  # these know LOW and HIGH


def contents_of(messages: Iterable[Message], model: str) -> list[dict[str, Any]]:
    """All results of a turn's calls are one turn. A call whose history, another vendor's perhaps, has no signature for
    it is signed by the word that Google has for that, where the model wants one."""
    unsigned = None if model.startswith(_WITHOUT_SIGNATURES) else _NO_SIGNATURE
    contents: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of the calls so far; an id used again means the latest call
    results: list[dict[str, Any]] | None = None  # of the turn before, if it was a tool's: its neighbours join it
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        if message.role is Role.TOOL:
            if results is None:
                results = []
                contents.append({"role": "user", "parts": results})
            results.append(_tool_result(message, names))
            continue
        results = None
        names.update((call.id, call.name) for call in message.tool_calls)
        parts = _answered(message, unsigned) if message.role is Role.ASSISTANT else _asked(message)
        contents.append({"role": "model" if message.role is Role.ASSISTANT else "user", "parts": parts})
    return contents


def declaration_of(tool: Tool) -> dict[str, Any]:
    declaration: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        declaration["description"] = tool.description
    if tool.parameters:
        declaration["parametersJsonSchema"] = tool.parameters
    return declaration


def calling_config_of(choice: ToolChoice) -> dict[str, Any]:
    if choice.name is not None:
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    return {"mode": _MODES[choice.mode]}


def generation_config_of(request: CompletionRequest) -> dict[str, Any]:
    form = request.response_format
    config = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "maxOutputTokens": request.max_tokens,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "responseMimeType": None if form is None else "application/json",
        "responseJsonSchema": None if form is None else form.schema,
        "responseLogprobs": None if request.logprobs is None else True,
        "logprobs": request.logprobs or None,
        "thinkingConfig": _thinking(request.model, request.reasoning_effort),
    }
    return {name: value for name, value in config.items() if value is not None}


def _thinking(model: str, effort: ReasoningEffort | None) -> dict[str, Any] | None:
    """Levels from Gemini 3 on, tokens for 2.5; a level that a model lacks is the next that it has."""
    if effort is None:
        return None
    if model.startswith(_WITHOUT_THINKING):
        if effort is ReasoningEffort.NONE:
            return None
        raise UnsupportedFeatureError(Feature.REASONING_EFFORT, provider=PROVIDER, model=model)
    if effort is ReasoningEffort.NONE:
        if not model.startswith(_WITH_BUDGETS) or model.startswith(_ALWAYS_THINKING):
            raise UnsupportedFeatureError("reasoningEffort none", provider=PROVIDER, model=model)
        return {"thinkingBudget": 0}
    if model.startswith(_WITH_BUDGETS):
        return {"thinkingBudget": _BUDGETS[effort], "includeThoughts": True}
    if effort is ReasoningEffort.MINIMAL and not _WITH_MINIMAL.match(model):
        effort = ReasoningEffort.LOW
    if effort is ReasoningEffort.MEDIUM and model.startswith(_TWO_LEVELS):
        effort = ReasoningEffort.HIGH
    return {"thinkingLevel": effort.upper(), "includeThoughts": True}


def _asked(message: Message) -> list[dict[str, Any]]:
    return [_part(part) for part in message.parts] or [{"text": message.content or ""}]


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if part.media.data is not None:
        return {"inlineData": {"mimeType": part.media.media_type, "data": part.media.data}}
    return {"fileData": {"mimeType": _type_of(part.media, part), "fileUri": part.media.url}}


def _type_of(media: Media, part: ImagePart | FilePart) -> str:
    """What is given, or what the address's ending means: the API asks for it and looks at nothing itself."""
    found = media.media_type or _TYPES.get(PurePosixPath(urlsplit(media.url or "").path).suffix.lower())
    if found is None:
        kind = "an image" if isinstance(part, ImagePart) else "a file"
        raise unsendable(f"google wants to be told the type of {kind} by URL: give its mediaType")
    return found


def _answered(message: Message, unsigned: str | None) -> list[dict[str, Any]]:
    """Thoughts stay away, as the vendor advises; what signs them goes with the text."""
    parts: list[dict[str, Any]] = [_call_part(call) for call in message.tool_calls]
    if unsigned and parts:
        parts[0].setdefault("thoughtSignature", unsigned)
    signature = _signature(message)
    if message.content or signature or not parts:
        text: dict[str, Any] = {"text": message.content or ""}
        parts.insert(0, text if signature is None else {**text, "thoughtSignature": signature})
    return parts


def _signature(message: Message) -> str | None:
    prefix = f"{PROVIDER}:"
    own = [block.signature for block in message.reasoning if block.signature.startswith(prefix)]
    return own[-1].removeprefix(prefix) if own else None


def _call_part(call: ToolCall) -> dict[str, Any]:
    arguments = _json_object(call.arguments)
    if arguments is None:
        raise unsendable(f"the arguments of tool call {call.id!r} are not a JSON object")
    part = {"functionCall": {"id": call.id, "name": call.name, "args": arguments}}
    return part if call.signature is None else {**part, "thoughtSignature": call.signature}


def _tool_result(message: Message, names: Mapping[str, str]) -> dict[str, Any]:
    call_id = message.tool_call_id or ""
    if call_id not in names:
        raise unsendable(f"no earlier message calls a tool with the id {call_id!r}")
    text = message.content or ""
    response = _json_object(text)
    if message.is_error:
        response = {"error": text if response is None else response}
    elif response is None:
        response = {"result": text}
    return {"functionResponse": {"id": call_id, "name": names[call_id], "response": response}}


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None

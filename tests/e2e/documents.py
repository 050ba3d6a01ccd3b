"""The documents that the end-to-end tests send, as a front end would, and the answers that they look for."""

from __future__ import annotations

from typing import Any

COMPLETE = """
mutation Complete($input: CompleteInput!) {
  complete(input: $input) {
    id model provider content reasoning finishReason latencyMs timeToFirstTokenMs cached createdAt
    toolCalls { id name arguments signature }
    usage {
      inputTokens outputTokens cachedInputTokens cacheWriteTokens reasoningTokens cost costSource estimated
    }
    attempts { provider model outcome errorCode latencyMs }
  }
}
"""

STREAM = """
subscription Stream($input: CompleteInput!) {
  completionStream(input: $input) {
    __typename
    completionId
    sequence
    ... on CompletionStarted { provider model }
    ... on TextDelta { text }
    ... on ReasoningDelta { text }
    ... on ToolCallDelta { index id name arguments signature }
    ... on ProviderSwitched { provider model errorCode }
    ... on CompletionFailed { code message retryable attempts { provider outcome errorCode } usage { outputTokens } }
    ... on CompletionFinished {
      completion {
        id content finishReason toolCalls { id name arguments signature }
        usage { inputTokens outputTokens cost costSource estimated }
        attempts { provider outcome errorCode }
      }
    }
  }
}
"""

RESUME = STREAM.replace("Stream($input: CompleteInput!)", "Resume($id: ID!, $after: Int! = 0)").replace(
    "completionStream(input: $input)", "resumeCompletion(id: $id, after: $after)"
)
DETACHED = STREAM.replace("(input: $input)", "(input: $input, detached: true)")

CANCEL = """
mutation Cancel($by: CompletionRef!) { cancelCompletion(by: $by) { completionId cancelled } }
"""

RECORD = """
query Record($by: CompletionRef!) {
  completion(by: $by) {
    id outcome errorCode finishReason provider model streamed principal endUser idempotencyKey
    labels { name value }
    usage { inputTokens outputTokens cost costSource estimated }
    attempts { provider model outcome errorCode latencyMs }
  }
}
"""

RECORDS = """
query Records($first: Int! = 50, $after: String, $filter: CompletionFilter) {
  completions(first: $first, after: $after, filter: $filter) {
    nodes { id outcome usage { inputTokens outputTokens estimated cost } attempts { outcome } }
    pageInfo { hasNextPage endCursor }
  }
}
"""

USAGE = """
query Usage($input: UsageInput!) {
  usage(input: $input) {
    totals { completions attempts failedAttempts inputTokens outputTokens cost unpriced estimated }
  }
}
"""


class Told(dict[str, Any]):
    """Equal to an answer that tells the same; what it cost, and what is left, is another matter."""

    __hash__ = None  # type: ignore[assignment]  # as a dictionary's

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and dict(self) == {name: other[name] for name in other if name != "extensions"}

    def __ne__(self, other: object) -> bool:
        return not self == other

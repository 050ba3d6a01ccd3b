"""One tree for everything that can go wrong at a vendor. The class carries the decision, the text only the story."""

from __future__ import annotations

from typing import ClassVar


class ProviderError(Exception):
    """A failed attempt.

    `retryable`: the same call may succeed later. `retry_after`: seconds the vendor asked to wait. `vendor_code`: the
    vendor's own code field. `sent`: False when the vendor cannot have seen the request, so nothing is owed for it.
    """

    code: ClassVar[str]
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        status: int | None = None,
        vendor_code: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.status = status
        self.vendor_code = vendor_code
        self.retry_after = retry_after
        self.retryable = self.default_retryable if retryable is None else retryable
        self.sent = sent


class ProviderAuthError(ProviderError):
    code = "PROVIDER_AUTH"


class ProviderRateLimitedError(ProviderError):
    code = "PROVIDER_RATE_LIMITED"
    default_retryable = True


class ProviderInvalidRequestError(ProviderError):
    code = "PROVIDER_INVALID_REQUEST"


class ProviderContentFilteredError(ProviderError):
    code = "PROVIDER_CONTENT_FILTERED"


class ProviderContextLengthError(ProviderError):
    code = "PROVIDER_CONTEXT_LENGTH"


class ProviderUnavailableError(ProviderError):
    code = "PROVIDER_UNAVAILABLE"
    default_retryable = True


class ProviderTimeoutError(ProviderError):
    code = "PROVIDER_TIMEOUT"
    default_retryable = True


class ProviderBadResponseError(ProviderError):
    """The vendor answered something that is not its own protocol: HTML, cut JSON, a stream without an end."""

    code = "PROVIDER_BAD_RESPONSE"
    default_retryable = True


class UnsendableRequestError(ProviderError):
    """The request can't be put in this vendor's words: the caller's to mend. Raised before a byte is sent."""

    code = "BAD_USER_INPUT"

    def __init__(self, message: str, *, provider: str) -> None:
        super().__init__(message, provider=provider, sent=False)


class UnsupportedFeatureError(UnsendableRequestError):
    """The request asks for what this vendor does not offer."""

    def __init__(self, feature: str, *, provider: str, model: str) -> None:
        super().__init__(f"{provider} has no {feature} (model {model})", provider=provider)
        self.feature = feature
        self.model = model


_BY_STATUS: dict[int, type[ProviderError]] = {
    401: ProviderAuthError,
    403: ProviderAuthError,
    408: ProviderTimeoutError,
    429: ProviderRateLimitedError,
    504: ProviderTimeoutError,
}


def error_class_for_status(status: int) -> type[ProviderError]:
    """The class that a bare HTTP status means; a codec refines it by the vendor's own code field (RFC 9110, 15)."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if 400 <= status < 500:
        return ProviderInvalidRequestError
    if status >= 500:
        return ProviderUnavailableError
    return ProviderBadResponseError

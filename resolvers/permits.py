"""What a limited principal may use: these models, these configs."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from .errors import ForbiddenError
from .principal import UNLIMITED, Limits, Principal
from .types import Command, CompleteCommand, ConfigCall, Target

_OPTIONS = "a key that is limited to models or configs takes no providerOptions: they may name other models"


def check_permitted(principal: Principal, command: Command) -> None:
    """Raises ForbiddenError. A config's own models have to be permitted too."""
    limits = principal.limits
    if limits is UNLIMITED:
        return
    completion = command if isinstance(command, CompleteCommand) else None
    if limits.configs is not None and (completion is None or completion.config is None):
        raise ForbiddenError("this key is limited to configs: name one of them")
    if limits.models is None:
        return
    if command.provider_options:
        raise ForbiddenError(_OPTIONS)
    for target in (command.target, *command.fallbacks):
        if not permits_model(limits.models, target):
            raise ForbiddenError(f"this key may not use the model {f'{target.provider}/{target.model}'[:100]!r}")


def check_config_permitted(principal: Principal, call: ConfigCall) -> None:
    """Raises ForbiddenError. Who is limited to configs uses them as they are, unless models are permitted by name."""
    limits = principal.limits
    if limits.configs is not None and call.config.slug not in limits.configs:
        raise ForbiddenError(f"this key may not use the config {call.config.slug[:100]!r}")
    limited = limits.configs is not None or limits.models is not None
    if limited and call.provider_options:
        raise ForbiddenError(_OPTIONS)
    if limits.configs is not None and limits.models is None and (call.target is not None or call.fallbacks):
        raise ForbiddenError("this key uses a config with the models that it names: leave out model and fallbacks")


def permits_model(models: Sequence[str] | None, target: Target) -> bool:
    if models is None:
        return True
    return f"{target.provider}/{target.model}" in models or f"{target.provider}/*" in models


def lies_within(inner: Limits, outer: Limits) -> str | None:
    """None where all that `inner` allows is allowed by `outer`, else which of its lists goes beyond."""
    for name in ("models", "configs", "networks"):
        allowed, asked = getattr(outer, name), getattr(inner, name)
        if allowed is not None and (asked is None or not all(_covered(name, each, allowed) for each in asked)):
            return name
    return None


def _covered(name: str, each: str, allowed: Sequence[str]) -> bool:
    if name == "networks":
        return any(_inside(ip_network(each), ip_network(one)) for one in allowed)
    return each in allowed or (name == "models" and f"{each.partition('/')[0]}/*" in allowed)


def _inside(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)

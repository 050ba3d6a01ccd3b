"""Redis, one server or a cluster: what processes share."""

from .server import RedisServer, open_redis

__all__ = ["RedisServer", "open_redis"]

"""Redis, one server or a cluster: what processes share."""

"""What names a database. Apart from the driver, so that a start without one does not load it."""

from __future__ import annotations

import re

_HOST = r"([^@/?,:\[\]]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?"
_ADDRESS = re.compile(rf"mongodb(\+srv)?://([^@/?]+@)?{_HOST}(,{_HOST})*(/[^@/?]*)?(\?[^@]*)?")


def check_address(uri: str) -> None:
    """Raises ValueError, without repeating it, for what is no address of a MongoDB
    (https://www.mongodb.com/docs/manual/reference/connection-string/)."""
    if _ADDRESS.fullmatch(uri) is None:
        raise ValueError(
            "is not an address such as mongodb://user:password@host:27017/database?replicaSet=rs0, in which the "
            "password's ':', '/', '?', '#', '[', ']', '@' and '%' are percent-encoded"
        )

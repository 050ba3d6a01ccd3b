"""`python -m gateway.healthcheck PORT…`: exit code 0 if `/healthcheck` answers 200 on one of this machine's ports.

For an image's health check: it has no curl, and a server and a worker are asked on different ports. Nothing is imported
that takes time.
"""

from __future__ import annotations

import sys
from http.client import HTTPConnection, HTTPException

TIMEOUT_S = 10.0


def alive(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not any(alive(int(port)) for port in sys.argv[1:]))

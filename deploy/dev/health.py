"""Asks a daemon of this machine how it is."""

from __future__ import annotations

import http.client
import json

TIMEOUT_S = 1.0


def fetch_health(host: str, http_port: int) -> dict[str, object] | None:
    """The object that ``/healthz`` answers; None if nobody answers (in time, sensibly)."""
    connection = http.client.HTTPConnection(host, http_port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        found = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None

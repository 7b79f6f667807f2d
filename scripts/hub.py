"""Checks within seconds whether the hub can be reached. gte-model checks more, but takes minutes to build."""

import os
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path

SECONDS = 20


def unreachable() -> str:
    """Why the hub's address does not answer; empty if it does, or if only gte-model can find out."""
    cache = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    if Path(cache, "hub", "models--thenlper--gte-small").is_dir():
        return ""  # gte-model needs no network for files in hf-hub's cache
    if {"all", "https", "http"} & urllib.request.getproxies().keys():
        return ""  # then the proxy connects to the hub
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    address = urllib.parse.urlsplit(endpoint)
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
    except ValueError:
        return ""
    if not address.hostname:
        return ""
    problem = [f"no answer within {SECONDS} seconds"]

    def connect() -> None:
        try:
            socket.create_connection((address.hostname, port), timeout=SECONDS).close()
            problem[0] = ""
        except socket.timeout:
            pass
        except OSError as error:
            problem[0] = error.strerror or str(error)

    # In a thread, because looking up a name has no time limit of its own.
    asking = threading.Thread(target=connect, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return f"the hub {endpoint} cannot be reached: {problem[0]}" if problem[0] else ""

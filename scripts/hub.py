"""Whether the hub can be reached at all, asked in seconds: gte-model, which knows better, takes minutes to build."""

import os
import socket
import threading
import urllib.parse
import urllib.request
from pathlib import Path

SECONDS = 20


def unreachable() -> str:
    """Why nobody answers at the hub's address; empty if somebody does, or if only gte-model can tell."""
    cache = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    if Path(cache, "hub", "models--thenlper--gte-small").is_dir():
        return ""  # gte-model takes what is in hf-hub's cache without asking anybody
    if {"all", "https", "http"} & urllib.request.getproxies().keys():
        return ""  # the hub is then the proxy's business
    address = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
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
    return f"the hub at {address.hostname}:{port} cannot be reached: {problem[0]}" if problem[0] else ""

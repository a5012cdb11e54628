"""Whose certificates a client of Genba believes. Imports nothing that a command would wait for."""

from __future__ import annotations

import ssl


def trust_of(url: str) -> ssl.SSLContext | bool:
    """What httpx calls ``verify``: the machine's own authorities, a company's among them, or those in the file SSL_CERT_FILE."""
    return ssl.create_default_context() if url.startswith("https://") else True

"""A server's certificate and its key, looked at before anything is served with them. Knows no HTTP."""

from __future__ import annotations

import ssl
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Tls(BaseModel):
    """What a server shows and signs with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    certificate_file: Path = Field(description="PEM file with the certificate, and those above it after it.")
    key_file: Path = Field(description="PEM file with its private key, without a password.")
    hsts_max_age_s: int = Field(
        default=24 * 3600,
        ge=0,
        description="Seconds for which browsers then speak HTTPS only to this name, on every port of it; 0 says nothing.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Tls:
        """The two are there and belong together: better said now than by every handshake."""
        try:
            self.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        except ssl.SSLError as error:
            raise ValueError(
                f"{self.certificate_file} and {self.key_file} are no certificate and its key, without a password: {error.reason}."
            ) from error
        except OSError as error:
            raise ValueError(f"{self.certificate_file} or {self.key_file} cannot be read: {error.strerror}.") from error
        return self

    def load_into(self, context: ssl.SSLContext) -> None:
        """Raises: ssl.SSLError, OSError."""
        context.load_cert_chain(self.certificate_file, self.key_file, password=_no_password)

    @property
    def changed_at(self) -> tuple[int, int]:
        """When each file was written, in nanoseconds. Raises: OSError."""
        return self.certificate_file.stat().st_mtime_ns, self.key_file.stat().st_mtime_ns


def _no_password() -> str:
    """Asked for an encrypted key: without this, OpenSSL asks the terminal and the process stands still."""
    return ""

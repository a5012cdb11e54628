"""Where Genba keeps things and how its parts find each other. Read once at the edge and passed on; no module holds one.

A service composes it, never inherits: a pydantic-settings subclass with its own prefix stops reading ``GENBA_…``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_MIN_SECRET_BYTES = 32


def _under_home(template: str) -> Any:
    return lambda data: template.format(home=data.get("home", ""))  # absent only when `home` itself did not validate


class Platform(BaseSettings):
    """What every process of Genba needs to know of its surroundings. The defaults are embedded mode."""

    model_config = SettingsConfigDict(
        env_prefix="GENBA_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # a url may hold a password
    )

    home: Annotated[Path, AfterValidator(Path.absolute)] = Field(
        default=Path(".genba"), description="Folder of embedded mode: database, artifacts, vectors, queue, secrets."
    )
    env: str = Field(
        default="dev", pattern=r"^[a-z0-9]{1,16}$", description="Name of this installation; part of its API keys."
    )
    database_password_file: Path | None = Field(
        default=None, description="File with the database's password, for a GENBA_DATABASE_URL that holds none."
    )
    redis_password_file: Path | None = Field(
        default=None, description="File with Redis's password, for urls of broker and limits that hold none."
    )
    database_url: str = Field(
        default_factory=_under_home("sqlite:///{home}/genba.db"),
        repr=False,  # like every url below that may hold a password
        description="SQLAlchemy url: sqlite:///… or postgresql+psycopg://…",
    )
    broker_url: str = Field(
        default_factory=_under_home("filesystem://{home}/broker"),
        repr=False,
        description="Celery broker: filesystem://… or redis://…",
    )
    artifacts_url: str = Field(
        default_factory=_under_home("{home}/artifacts"),
        description="Folder or s3://bucket/prefix: uploads, bundles.",
    )
    qdrant_url: str | None = Field(
        default=None, description="Qdrant server; without one, vectors live in the process, in <home>/vectors."
    )
    qdrant_api_key: SecretStr | None = Field(default=None, description="API key of the Qdrant server.")
    qdrant_api_key_file: Path | None = Field(default=None, description="File with that key.")
    redis_url: str | None = Field(
        default=None,
        repr=False,
        description="Redis for rate limits shared between gateways; without one, each counts alone.",
    )
    principal_secret: SecretStr | None = Field(
        default=None, description="Signs principals between gateway and services; at least 32 bytes. Prefer the file."
    )
    principal_secret_file: Path | None = Field(
        default=None, description="File with that secret; without either, one is made in <home>/secrets (mode 0600)."
    )
    mlflow_tracking_url: str | None = Field(
        default=None, repr=False, description="MLflow server to which jobs also log params, metrics and artifacts."
    )
    mlflow_token_file: Path | None = Field(default=None, description="File with a bearer token for that server.")
    mlflow_clearance: Literal["public", "internal", "confidential", "secret"] = Field(
        default="internal",
        description="Jobs labelled above this, or with a compartment, are not logged to MLflow.",
    )
    audit_key_file: Path | None = Field(
        default=None,
        description="File with the 32 bytes in hex that sign the audit log's checkpoints; without it, one is made in <home>/secrets.",
    )
    audit_origin: str = Field(
        default="genba.local/audit",
        pattern=r"^[^\s+]{1,120}$",
        description="Name of this installation's audit log; stands in every checkpoint, so choose it once.",
    )
    audit_syslog: str | None = Field(
        default=None,
        description="Where decisions are told as well: udp://host:514, tcp://host:514 or a socket such as /dev/log.",
    )
    otlp_url: str | None = Field(
        default=None,
        repr=False,
        description="OpenTelemetry collector that gets spans, such as http://collector:4318/v1/traces; needs the extra otel.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["json", "console"] = Field(default="json", description="json for machines, console for people.")
    max_upload_bytes: int = Field(
        default=2 * 1024**3, gt=0, description="Largest body that an upload may have, in bytes."
    )

    @field_validator("database_url")
    @classmethod
    def _with_database_password(cls, url: str, info: ValidationInfo) -> str:
        return with_password(url, info.data.get("database_password_file"))

    @field_validator("broker_url", "redis_url")
    @classmethod
    def _with_redis_password(cls, url: str | None, info: ValidationInfo) -> str | None:
        is_redis = url is not None and url.startswith(("redis://", "rediss://"))
        return with_password(url, info.data.get("redis_password_file")) if url and is_redis else url

    def load_qdrant_api_key(self) -> str | None:
        """From the setting or its file. Raises: OSError if the named file cannot be read."""
        if self.qdrant_api_key is not None:
            return self.qdrant_api_key.get_secret_value()
        return None if self.qdrant_api_key_file is None else self.qdrant_api_key_file.read_text().strip()

    def load_mlflow_token(self) -> str | None:
        """Raises: OSError if the named file cannot be read."""
        return None if self.mlflow_token_file is None else self.mlflow_token_file.read_text().strip()

    def load_principal_secret(self) -> bytes:
        """The key that gateway and services share: from the setting, its file, or made once under ``home``.

        Raises: ValueError if it is shorter than 32 bytes; OSError if the named file cannot be read.
        """
        if self.principal_secret is not None:
            secret = self.principal_secret.get_secret_value().encode()
        elif self.principal_secret_file is not None:
            secret = self.principal_secret_file.read_bytes().strip()
        else:
            secret = read_or_make_secret(self.home / "secrets" / "principal")
        if len(secret) < _MIN_SECRET_BYTES:
            raise ValueError(
                f"The principal secret has {len(secret)} bytes and needs at least {_MIN_SECRET_BYTES}: "
                "set GENBA_PRINCIPAL_SECRET or GENBA_PRINCIPAL_SECRET_FILE, e.g. from `openssl rand -hex 32`."
            )
        return secret

    def load_audit_seed(self) -> bytes:
        """The seed of the Ed25519 key that signs checkpoints: from its file, or made once under ``home``.

        A secret of its own: it signs for years, while the principal's may be exchanged any day.

        Raises: ValueError if it is not 64 hex digits; OSError if the named file cannot be read.
        """
        file = self.audit_key_file
        text = (file.read_bytes().strip() if file else read_or_make_secret(self.home / "secrets" / "audit")).decode()
        if len(text) != 2 * _MIN_SECRET_BYTES or not all(each in "0123456789abcdefABCDEF" for each in text):
            raise ValueError("The audit key must be 64 hex digits, e.g. from `openssl rand -hex 32`.")
        return bytes.fromhex(text)


def with_password(url: str, file: Path | None) -> str:
    """``url`` with the password in ``file`` put where it belongs; container platforms hand out secrets as files.

    Raises: ValueError if the url names a password already or the file cannot be read.
    """
    if file is None:
        return url
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, _, host = authority.rpartition("@")
    if ":" in user:
        raise ValueError(f"holds a password, and {file} is to bring one: take it out of the url.")
    try:
        password = file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"needs the password in {file}, which cannot be read: {error.strerror}.") from error
    return f"{scheme}://{user}:{quote(password, safe='')}@{host}{slash}{path}"


def read_or_make_secret(path: Path) -> bytes:
    """The secret in ``path``; made there, readable by its owner only, if nobody made one yet.

    Processes that start together agree on one: it is written aside and linked into place, and a link never overwrites.
    """
    try:
        return path.read_bytes().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.parent.chmod(0o700)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first; its secret is the secret
            os.link(aside, path)
    finally:
        aside.unlink()
    return path.read_bytes().strip()

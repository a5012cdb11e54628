"""What an operator may set about the gateway: ``GENBA_GATEWAY_…``, nested with two underscores. Made once, at the edge, and passed.

Upstreams are named by service: ``GENBA_GATEWAY_UPSTREAMS='{"sop": ["http://sop:8000"]}'``, or one service at a time,
``GENBA_GATEWAY_UPSTREAMS__SOP=http://sop-1:8000,http://sop-2:8000``.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, TypeAdapter, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from genba_shared.settings import Platform
from genba_shared.tls import Tls

_HTTP_URL: TypeAdapter[AnyHttpUrl] = TypeAdapter(AnyHttpUrl)

Seconds = Annotated[float, Field(gt=0)]


class Jwt(BaseModel):
    """One OpenID Connect issuer whose tokens are taken beside API keys. Everything that decides is pinned here, never in a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(description="The exact `iss` of every token.")
    audience: str = Field(description="What `aud` must name.")
    jwks: str = Field(description="The issuer's public keys (JWKS): path of a file, or a http(s) url.")
    algorithms: tuple[str, ...] = Field(
        default=("RS256", "PS256", "ES256", "Ed25519"),
        description="Signature algorithms that are taken; no others exist.",
    )
    leeway_s: int = Field(
        default=30, ge=0, le=300, description="How far clocks may differ when exp and nbf are checked."
    )
    jwks_refresh_s: Seconds = Field(
        default=300, description="How long fetched keys are used before they are fetched again."
    )
    roles_claim: str = Field(default="roles", description="Claim that holds the roles; dots reach into objects.")
    clearance_claim: str = Field(default="clearance", description="Claim that holds the clearance; without it, public.")
    compartments_claim: str = Field(default="compartments", description="Claim that holds the compartments.")
    tenant_claim: str = Field(default="tenant", description="Claim that holds the tenant; without it, `default`.")

    @field_validator("algorithms")
    @classmethod
    def _asymmetric_only(cls, algorithms: tuple[str, ...]) -> tuple[str, ...]:
        """A shared secret in a JWKS would let every holder of the verifying key forge tokens; `none` is no signature."""
        refused = [name for name in algorithms if name.lower() == "none" or name.upper().startswith("HS")]
        if refused or not algorithms:
            raise ValueError(f"{', '.join(refused) or 'an empty list'} is not taken: name asymmetric algorithms.")
        return algorithms


class Timeouts(BaseModel):
    """How long each part of a request may take. The whole is not capped, because uploads and streams are long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    header_s: Seconds = Field(default=15, description="For a client to send all its headers.")
    body_s: Seconds = Field(default=30, description="For a client to send the next piece of its body.")
    keep_alive_s: Seconds = Field(default=75, description="For a client's idle connection.")
    connect_s: Seconds = Field(default=2, description="To open a connection to a service.")
    response_s: Seconds = Field(
        default=120, description="For a service to begin its answer after the request was sent."
    )
    stream_s: Seconds = Field(
        default=120,
        description="For a service to send the next piece of its answer or to take one of a body, and for a client to take any.",
    )
    pool_idle_s: Seconds = Field(
        default=4,
        description="For an idle connection to a service; shorter than the service's own keep-alive (uvicorn: 5).",
    )


class Resilience(BaseModel):
    """When to retry, when to leave an address alone, when to turn work away."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retries: int = Field(default=2, ge=0, le=5, description="Further attempts for one idempotent request.")
    retry_ratio: float = Field(default=0.2, ge=0, le=1, description="Retries per request that the budget earns.")
    retry_reserve: int = Field(
        default=10, ge=0, description="Retries that the budget holds at the start and at most × 10."
    )
    eject_after: int = Field(default=5, ge=1, description="Failures in a row after which an address is ejected.")
    eject_s: Seconds = Field(default=1, description="First ejection; doubles with each further one, with jitter.")
    max_eject_s: Seconds = Field(default=30, description="Longest ejection.")
    max_concurrency: int = Field(default=512, ge=1, description="Requests in work at once.")
    max_waiting: int = Field(default=512, ge=0, description="Requests that may wait for their turn; more get 503.")
    queue_s: Seconds = Field(
        default=1, description="Longest wait for a turn, and lasting loop lag above which new work gets 503."
    )
    drain_notice_s: float = Field(
        default=0,
        ge=0,
        description="Time between readiness going off and the listener closing, for balancers to notice.",
    )
    drain_s: Seconds = Field(default=30, description="For requests in work to finish when shutting down.")


class Settings(BaseSettings):
    """The gateway's settings."""

    model_config = SettingsConfigDict(
        env_prefix="GENBA_GATEWAY_", env_nested_delimiter="__", frozen=True, extra="ignore", validate_default=True
    )

    platform: Platform = Field(default_factory=Platform, description="What every process of an installation shares.")
    upstreams: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Service name → base urls of its instances, for services in other processes."
    )
    jwt: Jwt | None = Field(default=None, description="An OpenID Connect issuer; without it only API keys are taken.")
    tls: Tls | None = Field(default=None, description="Serve HTTPS with this certificate; without it, plain HTTP.")
    timeouts: Timeouts = Field(default_factory=Timeouts, description="How long each part of a request may take.")
    resilience: Resilience = Field(default_factory=Resilience, description="Retries, ejection, load shedding, drain.")
    max_headers: int = Field(default=100, ge=10, description="Header fields in a request; more get 431.")
    max_header_bytes: int = Field(
        default=32768, ge=1024, description="Bytes of a request's header block; more get 431."
    )
    max_body_bytes: int | None = Field(
        default=None, ge=0, description="Bytes of a request body, more get 413; without it, GENBA_MAX_UPLOAD_BYTES."
    )
    rate_per_minute: int = Field(
        default=3000, ge=1, description="Requests a minute that one key or subject may sustain."
    )
    rate_burst: int = Field(default=300, ge=1, description="Requests that one key or subject may send at once.")
    failures_per_minute: int = Field(
        default=30, ge=1, description="Refused credentials a minute from one address before it gets 429."
    )
    max_concurrency_per_caller: int = Field(
        default=128, ge=1, description="Requests in work at once for one key or subject."
    )
    token_cache_s: float = Field(default=60, ge=0, le=60, description="How long a verified key or token is believed.")
    principal_ttl_s: float = Field(
        default=60, ge=10, le=300, description="How long the header signed for services is good."
    )
    operations_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Serve /metrics and /ready on this port only, e.g. on a network for operators; without it, on the main one.",
    )
    trusted_proxies: tuple[str, ...] = Field(
        default=(), description="Addresses of proxies in front whose X-Forwarded-For and -Proto are believed."
    )

    @property
    def body_cap_bytes(self) -> int:
        """The largest request body that passes."""
        return self.platform.max_upload_bytes if self.max_body_bytes is None else self.max_body_bytes

    @field_validator("upstreams", mode="before")
    @classmethod
    def _split_lists(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {
            str(name).lower(): urls.replace(",", " ").split()
            if isinstance(urls, str) and not urls.startswith("[")
            else urls
            for name, urls in value.items()
        }

    @field_validator("upstreams")
    @classmethod
    def _plain_base_urls(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for name, urls in value.items():
            if not urls:
                raise ValueError(f"{name} has no url.")
            for url in urls:
                parsed = _HTTP_URL.validate_python(url)
                if parsed.path not in {None, "", "/"} or parsed.query or parsed.fragment or parsed.username:
                    raise ValueError(f"{url} must be scheme, host and port only: paths are forwarded unchanged.")
        return value

"""What svc-recommend can be told. Read once at the edge (``GENBA_RECOMMEND_…``) and passed; no module holds one."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from genba_shared.settings import Platform


class Settings(BaseSettings):
    """Settings of svc-recommend."""

    model_config = SettingsConfigDict(env_prefix="GENBA_RECOMMEND_", frozen=True, extra="ignore")

    platform: Platform = Field(default_factory=Platform)
    poll_s: float = Field(
        0.5, gt=0, le=60, description="How often a process looks for what others wrote: events, items, versions."
    )
    user_cache: int = Field(50_000, ge=100, description="Users whose history is kept in memory.")
    popular_half_life_days: float = Field(60.0, gt=0, description="Half-life of an event in the popular list.")
    trending_half_life_days: float = Field(2.0, gt=0, description="Half-life of an event in the trending list.")
    segment_min_events: int = Field(
        50,
        ge=1,
        description="Events that users of one age range and region must have before they get a list of theirs.",
    )
    diversity: float = Field(0.1, ge=0, le=1, description="How far lists are spread when the caller does not say.")
    discover: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Share of personal lists whose last place goes to what is seldom shown, when neither caller nor arm says.",
    )
    max_rows: int = Field(10_000, ge=1, le=100_000, description="Rows of one bulk request.")
    ingest_at_once: int = Field(
        8, ge=1, le=256, description="Bulk requests written at the same time; one more is answered 429."
    )
    exposure_buffer: int = Field(
        20_000, ge=100, description="Shown lists that may wait to be written; above it events are answered 429."
    )
    exposure_days: int = Field(90, ge=1, description="Days after which a shown list is forgotten.")
    exact_up_to: int = Field(
        200_000, ge=1, description="Items up to which every vector is scored; beyond it the vector index chooses first."
    )
    embed_at_once: int = Field(
        2_000, ge=0, description="New items that the service embeds by itself; the refresh does more."
    )
    sop_url: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="svc-sop, whose encoder embeds items' pictures, such as http://sop:8000; `genba up` needs none.",
    )
    max_picture_bytes: int = Field(10 * 2**20, ge=1024, le=20 * 2**20, description="Largest picture of an item.")
    flower_python: Path | None = Field(
        None,
        description="Python that runs Flower's engine for `recommend.federated`; without it, that of `deploy/setup.sh flower`.",
    )
    refresh_webhook_url: SecretStr | None = Field(
        None, description="Told by POST when a refresh fails, such as a Slack incoming webhook."
    )

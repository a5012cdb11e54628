"""What svc-training and its workers can be told. Made once at the edge and passed."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from genba_shared.settings import Platform


class Settings(BaseSettings):
    """``GENBA_TRAINING_…``; the platform's own settings are composed, not inherited."""

    model_config = SettingsConfigDict(env_prefix="GENBA_TRAINING_", frozen=True, extra="ignore")

    platform: Platform = Field(default_factory=Platform, description="Where Genba keeps things.")
    recipes: tuple[str, ...] = Field(
        default=(
            "genba_training.builtin:RECIPES",
            "genba_sop.training:RECIPES",
            "genba_llm.training:RECIPES",
            "genba_recommend.training:RECIPES",
            "genba_sem.training:RECIPES",
        ),
        description="Where recipes come from, as module:name; modules that are not installed are passed over.",
    )
    work_dir: Path | None = Field(
        default=None,
        description="Folder of attempts and checkpoints, <home>/jobs by default. "
        "Share it between worker hosts, or a job that moves to another host starts afresh.",
    )
    concurrency: int = Field(default=1, ge=1, le=64, description="Jobs that one worker runs at the same time.")
    operations_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="A worker serves /health, /ready and /metrics there; without it, nothing listens.",
    )
    lease_s: float = Field(default=30.0, gt=0, description="Silence after which a worker is taken for dead.")
    heartbeat_s: float = Field(
        default=2.0, gt=0, description="How often a running job reports, and learns that it should stop."
    )
    stop_grace_s: float = Field(
        default=8.0, ge=0, description="How long a recipe may take to stop before its process is ended."
    )
    drain_wait_s: float = Field(
        default=5.0, ge=0, description="How long a worker that shuts down lets a job go on before it is told to stop."
    )
    sweep_s: float = Field(default=1.0, gt=0, description="How often the sweeper looks for lost leases and messages.")
    max_active_jobs: int = Field(
        default=1000, ge=1, description="Waiting and running jobs that one principal may have at a time."
    )
    max_params_bytes: int = Field(default=256 * 1024, ge=1024, description="Largest params of one job, as JSON.")
    keep_jobs_days: int = Field(default=90, ge=2, description="Days after which a finished job is deleted.")
    keep_model_versions: int = Field(
        default=20,
        ge=1,
        description="Newest versions of a model that keep their files, besides champion, challenger and the way back.",
    )
    max_event_streams: int = Field(default=200, ge=1, description="Open event streams per process; then 503.")
    event_poll_s: float = Field(default=0.5, gt=0, description="How often an event stream looks for something new.")
    event_stream_max_s: float = Field(
        default=900.0, gt=0, description="An event stream ends after this long; clients reconnect where they were."
    )

    @property
    def jobs_dir(self) -> Path:
        return self.work_dir or self.platform.home / "jobs"

"""What svc-sem can be told. Read once at the edge (``GENBA_SEM_…``) and passed; no module holds one."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from genba_shared.settings import Platform


def _cores() -> int:
    return max(1, len(os.sched_getaffinity(0)))


class Settings(BaseSettings):
    """Settings of svc-sem."""

    model_config = SettingsConfigDict(env_prefix="GENBA_SEM_", frozen=True, extra="ignore")

    platform: Platform = Field(default_factory=Platform)
    max_image_bytes: int = Field(
        256 * 1024**2, gt=0, description="Largest single image taken; the platform's upload cap holds as well."
    )
    decoder_memory_bytes: int = Field(
        4 * 1024**3,
        ge=1024**3,
        description="Address space of a child that decodes images; a file that needs more is refused.",
    )
    decode_timeout_s: float = Field(
        60.0, gt=0, description="Longest decoding of one image; then its child is killed and the view dropped."
    )
    max_views: int = Field(12, ge=1, le=12, description="Most views of one particle.")
    min_views: int = Field(
        1, ge=1, le=12, description="Readable views that a particle needs; with fewer it is refused."
    )
    min_masters: int = Field(
        2, ge=1, le=100, description="Masters that a label needs before particles are compared with it."
    )
    classify_workers: int = Field(
        default_factory=_cores, ge=1, le=64, description="Particles read and decided at the same time."
    )
    classify_queue: int = Field(
        64, ge=0, le=10_000, description="Particles that may wait for a worker; above it 429 with Retry-After."
    )
    precision: float = Field(
        0.99, gt=0.5, lt=1, description="Precision promised for what is confirmed without a person."
    )
    audit_share: float = Field(
        0.05, ge=0, le=1, description="Share of automatic confirmations that a person looks at all the same."
    )
    boundary_reviewers: int = Field(
        2, ge=1, le=9, description="Reviewers that must agree on a particle at the boundary of two labels."
    )
    lanes_kept: int = Field(16, ge=1, le=1000, description="Master sets kept ready in memory.")
    refresh_s: float = Field(5.0, gt=0, description="Pause between looks for another champion.")
    sweep_every_s: float = Field(60.0, gt=0, description="Pause between sweeps for unfinished erasures and indexing.")
    import_dir: Path | None = Field(
        None, description="Folder below which jobs may read batches of image files; unset refuses such jobs."
    )

    encoders_dir: Path | None = Field(
        None,
        description="Folder below which encoders with weights lie, a folder each: DINO (safetensors) or its ONNX export.",
    )

    text_encoder: str | None = Field(
        None,
        pattern=r"^openclip:[A-Za-z0-9._-]{1,80}$",
        description="OpenCLIP model that matches text with pictures in search; unset: words, labels and shapes alone.",
    )
    text_encoder_weights: Path | None = Field(
        None, description="Its weights: a file or a folder; the local hub cache when unset."
    )

    @property
    def body_cap_bytes(self) -> int:
        """The largest form taken: every view at its largest, within the platform's cap."""
        return min(self.max_image_bytes * self.max_views, self.platform.max_upload_bytes)

"""What svc-sop can be told. Read once at the edge (``GENBA_SOP_…``) and passed; no module holds one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from genba_shared.settings import Platform


def _cores() -> int:
    return max(1, len(os.sched_getaffinity(0)))


class Settings(BaseSettings):
    """Settings of svc-sop."""

    model_config = SettingsConfigDict(env_prefix="GENBA_SOP_", frozen=True, extra="ignore")

    platform: Platform = Field(default_factory=Platform)
    encoder: str = Field(
        "motion-hog-v1", description="Encoder of new videos: motion-hog-v1, openclip:ViT-B-32 or openclip:ViT-H-14."
    )
    encoder_weights: Path | None = Field(
        None, description="Weights of an openclip encoder: a file or a folder; the local hub cache when unset."
    )
    sample_fps: float = Field(4.0, gt=0, le=30, description="Frames embedded per second of video.")
    max_video_bytes: int = Field(
        2 * 1024**3, gt=0, description="Largest video taken; the platform's upload cap holds as well."
    )
    max_video_s: float = Field(7200.0, gt=0, description="Longest video taken, in seconds.")
    job_above_bytes: int = Field(
        256 * 1024**2, gt=0, description="Videos larger than this are ingested by a job (202), not in the request."
    )
    job_above_s: float = Field(
        600.0, gt=0, description="Videos longer than this are ingested by a job (202), not in the request."
    )
    extract_workers: int = Field(
        default_factory=_cores, ge=1, le=64, description="Videos decoded and embedded at the same time."
    )
    extract_queue: int = Field(
        16, ge=0, le=10_000, description="Uploads that may wait on disk for a decoder; above it 429 with Retry-After."
    )
    evaluate_workers: int = Field(
        default_factory=_cores, ge=1, le=64, description="Evaluations computed at the same time."
    )
    evaluate_queue: int = Field(
        256, ge=0, le=10_000, description="Evaluations that may wait; above it 429 with Retry-After."
    )
    reference_cache: int = Field(32, ge=1, le=1000, description="Fitted procedures kept in memory.")
    retention_days: int | None = Field(
        None, ge=1, description="Videos are erased after so many days, golds excepted; unset keeps them."
    )
    sweep_every_s: float = Field(60.0, gt=0, description="Pause between sweeps for retention and unfinished erasures.")
    conformal_level: float = Field(0.9, gt=0, lt=1, description="Coverage of the score's interval.")
    llm_url: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="An OpenAI-compatible server that words the answers of /v1/sop/ask, up to where /chat/completions begins, "
        "such as the gateway's http://127.0.0.1:8000/v1/llm; unset, passages answer.",
    )
    llm_model: str | None = Field(None, min_length=1, description="That server's name of the model.")
    llm_api_key: SecretStr | None = Field(None, description="API key of that server.")
    llm_api_key_file: Path | None = Field(None, description="File with that key.")
    llm_timeout_s: float = Field(30.0, gt=0, description="Longest wait for its whole answer; then passages answer.")
    llm_clearance: Literal["public", "internal", "confidential", "secret"] = Field(
        "internal", description="What is labelled above this is not sent to it."
    )

    @model_validator(mode="after")
    def _names_a_model(self) -> Settings:
        if self.llm_url is not None and self.llm_model is None:
            raise ValueError("GENBA_SOP_LLM_URL needs GENBA_SOP_LLM_MODEL, the name of a model there.")
        return self

    def load_llm_api_key(self) -> str | None:
        """From the setting or its file. Raises: OSError if the named file cannot be read."""
        if self.llm_api_key is not None:
            return self.llm_api_key.get_secret_value()
        return None if self.llm_api_key_file is None else self.llm_api_key_file.read_text().strip()

    @property
    def body_cap_bytes(self) -> int:
        """The largest upload body taken."""
        return min(self.max_video_bytes, self.platform.max_upload_bytes)

"""What svc-llm can be told. Read once at the edge (``GENBA_LLM_…``) and passed; no module holds one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from genba_shared.settings import Platform, read_or_make_secret


class Settings(BaseSettings):
    """Settings of svc-llm."""

    model_config = SettingsConfigDict(env_prefix="GENBA_LLM_", frozen=True, extra="ignore")

    platform: Platform = Field(default_factory=Platform)
    backend: Literal["embedded", "openai", "transformers"] = Field(
        "embedded",
        description="Who writes answers: the champion of llm.so8t and sentences of documents (embedded), a server, "
        "or a model in a folder.",
    )
    documents_by: Literal["sentences", "model"] = Field(
        "sentences",
        description="Embedded, where documents have something to say: their sentences answer, or the champion does.",
    )
    own_model: Literal["answers", "off"] = Field(
        "answers",
        description="Embedded, until llm.so8t has a champion: the small model that ships answers what no document does.",
    )
    backend_url: str | None = Field(
        None, description="Of an OpenAI-compatible server, e.g. http://127.0.0.1:11434/v1 (Ollama) or :8080/v1."
    )
    backend_model: str | None = Field(None, description="The server's name of the model.")
    backend_api_key: SecretStr | None = Field(None, description="API key of that server.")
    backend_folder: Path | None = Field(
        None, description="Folder with a model for transformers: config, safetensors, tokenizer. Nothing is downloaded."
    )
    backend_timeout_s: float = Field(120.0, gt=0, description="Longest wait for the next piece of a generation.")
    backend_starts_hidden: bool = Field(
        default=False, description="The model's chat template opens its thought itself, so its text begins within one."
    )
    reasoner: Literal["off", "one_forward"] = Field(
        "off",
        description="Whether the model in backend_folder also judges requests, in one forward pass each (one_forward).",
    )
    max_prompt_chars: int = Field(32_000, ge=100, le=100_000, description="Longest text that is taken; more get 413.")
    max_answer_tokens: int = Field(2048, ge=1, description="Most tokens of one answer, whatever a caller asks for.")
    max_document_bytes: int = Field(20 * 1024**2, gt=0, description="Largest document that is taken.")
    generations: int = Field(4, ge=1, le=256, description="Answers written at the same time; more get 503.")
    encoder_url: str | None = Field(
        None,
        description="Of an OpenAI-compatible server with an embedding model: documents are found by meaning, too.",
    )
    encoder_model: str | None = Field(None, description="That server's name of the embedding model, e.g. bge-m3.")
    passages: int = Field(4, ge=1, le=20, description="Passages of documents that an answer may rest on.")
    text_key_file: Path | None = Field(
        None, description="File with the secret that encrypts kept texts; without it, one is made in <home>/secrets."
    )
    policy_refresh_s: float = Field(
        1.0, gt=0, description="How soon a policy that another process wrote takes effect here."
    )
    model_refresh_s: float = Field(5.0, gt=0, description="How soon a promoted model serves.")
    escalation_sla_s: float = Field(4 * 3600.0, gt=0, description="Within how long a person should have decided.")
    spot_check_one_in: int = Field(
        0,
        ge=0,
        le=100_000,
        description="Of the requests that the gate allows, one in so many is shown to a person as well, who says whether it "
        "should have been; 0 shows none. Only these tell how often the gate is wrong when it answers.",
    )
    text_retention_days: int = Field(90, ge=1, description="Kept texts and salts are erased after so many days.")
    egress_allowed: tuple[str, ...] = Field(
        (),
        description='Destinations that may be reached besides the backend, as a JSON list: ["10.0.0.0/8", "llm.local:8000"].',
    )
    egress: Literal["clients", "process"] = Field(
        "clients",
        description="Guard this service's own clients, or every socket of the process (for one that runs it alone).",
    )
    host_watch_file: Path | None = Field(
        None,
        description="YAML list of programs, ports and connections that may be on this host; unset watches nothing.",
    )
    host_watch_every_s: float = Field(60.0, gt=0, description="Pause between two looks at the host.")

    def load_text_secret(self) -> bytes:
        """From its file, or made once under ``home``. Raises: OSError if the named file cannot be read."""
        if self.text_key_file is not None:
            return self.text_key_file.read_bytes().strip()
        return read_or_make_secret(self.platform.home / "secrets" / "llm_texts")

"""Where the training line finds what cannot come through the API: corpora and base models on the worker's own disk."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from genba_shared.problems import Invalid


class LineSettings(BaseSettings):
    """Settings of svc-llm's training line."""

    model_config = SettingsConfigDict(env_prefix="GENBA_LLM_LINE_", frozen=True, extra="ignore")

    data_dir: Path | None = Field(None, description="Folder of corpora and data sets; recipes name files below it.")
    models_dir: Path | None = Field(None, description="Folder of base models; recipes name folders below it.")
    tensorboard_dir: Path | None = Field(
        None,
        description="Folder of TensorBoard's event files, one folder a job; needs genba[tensorboard] on the worker.",
    )
    device: str = Field("auto", description="Where models are trained: auto, cpu, cuda or cuda:N.")
    processes: int = Field(
        1, ge=1, le=64, description="Processes that train one model together: a GPU each, or all on the CPU."
    )

    def data_file(self, name: str) -> Path:
        """A file below ``data_dir``. Raises: Invalid."""
        path = _below(self.data_dir, name, "GENBA_LLM_LINE_DATA_DIR")
        if not path.is_file():
            message = f"{name!r} is a folder; name a file."
            raise Invalid(message, errors=[{"field": "params", "message": message}])
        return path

    def model_folder(self, name: str) -> Path:
        """A folder below ``models_dir``. Raises: Invalid."""
        return _below(self.models_dir, name, "GENBA_LLM_LINE_MODELS_DIR")


def _below(folder: Path | None, name: str, setting: str) -> Path:
    if folder is None:
        message = f"The worker has no {setting}; without it no file can be named."
        raise Invalid(message, errors=[{"field": "params", "message": message}])
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.exists():
        message = f"There is no {name!r} below {setting}."
        raise Invalid(message, errors=[{"field": "params", "message": message}])
    return path

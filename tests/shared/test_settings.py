"""Where things are, and the one secret that all processes share."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url

from genba_shared.settings import Platform


def test_everything_lives_under_home_unless_said_otherwise(tmp_path: Path) -> None:
    platform = Platform(home=tmp_path)
    assert platform.database_url == f"sqlite:///{tmp_path}/genba.db"
    assert platform.broker_url == f"filesystem://{tmp_path}/broker"
    assert platform.artifacts_url == f"{tmp_path}/artifacts"
    assert platform.qdrant_url is None


def test_a_relative_home_does_not_move_with_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    platform = Platform(home=Path("data"))
    assert platform.home == tmp_path / "data"
    assert platform.database_url == f"sqlite:///{tmp_path}/data/genba.db"


def test_the_environment_wins_over_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_DATABASE_URL", "postgresql+psycopg://db/genba")
    monkeypatch.setenv("GENBA_HOME", "/var/lib/genba")
    platform = Platform()
    assert platform.database_url == "postgresql+psycopg://db/genba"
    assert platform.artifacts_url == "/var/lib/genba/artifacts"


def test_a_service_composes_the_platform_and_both_read_their_own_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    class Settings(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="GENBA_SOP_")
        env: str = "unset"
        platform: Platform = Field(default_factory=Platform)

    monkeypatch.setenv("GENBA_ENV", "plant2")
    monkeypatch.setenv("GENBA_SOP_ENV", "mine")
    settings = Settings()
    assert (settings.env, settings.platform.env) == ("mine", "plant2")


def test_a_wrong_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENBA_LOG_LEVEL", "chatty")
    with pytest.raises(ValidationError, match="log_level"):
        Platform()


def test_settings_are_few_described_and_frozen() -> None:
    assert len(Platform.model_fields) <= 25
    assert all(field.description for field in Platform.model_fields.values())
    with pytest.raises(ValidationError, match="frozen"):
        Platform().env = "prod"  # type: ignore[misc]


def test_a_secret_does_not_show_when_settings_are_printed() -> None:
    platform = Platform(
        principal_secret=SecretStr("s" * 40),
        database_url="postgresql+psycopg://genba:ssss@db/genba",
        redis_url="redis://:ssss@redis",
        broker_url="redis://:ssss@redis",
    )
    assert "ssss" not in repr(platform)
    assert platform.load_principal_secret() == b"s" * 40


def test_the_secret_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    platform = Platform(home=tmp_path)
    secret = platform.load_principal_secret()
    assert platform.load_principal_secret() == secret
    path = tmp_path / "secrets" / "principal"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [found.name for found in path.parent.iterdir()] == ["principal"]


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    code = "import sys, pathlib, genba_shared.settings as s; print(s.read_or_make_secret(pathlib.Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(tmp_path / "secrets" / "principal")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in processes}) == 1


def test_the_secret_can_come_from_a_mounted_file(tmp_path: Path) -> None:
    (tmp_path / "mounted").write_text("x" * 64 + "\n")
    assert Platform(home=tmp_path, principal_secret_file=tmp_path / "mounted").load_principal_secret() == b"x" * 64


def test_a_short_secret_is_refused_with_the_way_to_make_one() -> None:
    with pytest.raises(ValueError, match="openssl rand"):
        Platform(principal_secret=SecretStr("short")).load_principal_secret()


def test_a_password_comes_from_its_file_into_the_url_that_has_none(tmp_path: Path) -> None:
    database, cache, vectors = tmp_path / "database", tmp_path / "redis", tmp_path / "qdrant"
    database.write_text("p@ss:w/rd%\n")
    cache.write_text("söcret\n")
    vectors.write_text("key\n")
    platform = Platform(
        database_url="postgresql+psycopg://genba@db:5432/genba?sslmode=require",
        database_password_file=database,
        broker_url="redis://redis:6379/0",
        redis_url="rediss://limits@redis:6379/1",
        redis_password_file=cache,
        qdrant_api_key_file=vectors,
    )
    url = make_url(platform.database_url)
    assert (url.username, url.password, url.host, url.query["sslmode"]) == ("genba", "p@ss:w/rd%", "db", "require")
    assert platform.redis_url is not None
    for each, user in ((platform.broker_url, None), (platform.redis_url, "limits")):
        options = redis.Redis.from_url(each).connection_pool.connection_kwargs
        assert (options.get("username"), options["password"]) == (user, "söcret")
    assert platform.load_qdrant_api_key() == "key"
    assert "p@ss" not in repr(platform)


def test_a_password_file_leaves_brokers_without_passwords_alone(tmp_path: Path) -> None:
    secret = tmp_path / "redis"
    secret.write_text("secret")
    platform = Platform(home=tmp_path, redis_password_file=secret, broker_url=f"filesystem://{tmp_path}/broker")
    assert platform.broker_url == f"filesystem://{tmp_path}/broker"


@pytest.mark.parametrize(
    ("url", "file", "said"),
    [
        ("postgresql+psycopg://genba:old@db/genba", "there", "take it out of the url"),
        ("postgresql+psycopg://genba@db/genba", "missing", "cannot be read: No such file"),
    ],
)
def test_a_password_twice_or_nowhere_is_refused(tmp_path: Path, url: str, file: str, said: str) -> None:
    (tmp_path / "there").write_text("new")
    with pytest.raises(ValidationError, match=said) as refusal:
        Platform(database_url=url, database_password_file=tmp_path / file)
    assert "genba:old" not in str(refusal.value)

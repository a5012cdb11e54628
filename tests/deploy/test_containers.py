"""The container files: valid, confined, complete, and in agreement with each other and with the settings that they set."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url
from tests.deploy.promql import ROOT

from genba_gateway import settings as gateway_settings
from genba_gateway.embedded import SERVICES
from genba_shared.settings import Platform
from genba_training import settings as training_settings

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"].startswith("genba-")}
COMING: frozenset[str] = frozenset()  # being built; leaves this set when `genba run` knows it


def scraped() -> dict[str, int]:
    """Each name that Prometheus asks of Genba, and at which port."""
    document = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    found = document["scrape_configs"][0]["dns_sd_configs"]
    return {name: config["port"] for config in found for name in config["names"]}


def secrets_folder(tmp_path: Path) -> Path:
    subprocess.run(["sh", str(ROOT / "deploy/secrets.sh"), str(tmp_path)], check=True)
    return tmp_path


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """What compose gives the gateway and a worker, with the secrets in a folder of the test's."""
    folder = secrets_folder(tmp_path)
    given = {**OURS["gateway"]["environment"], **OURS["worker"]["environment"]}
    for name, value in given.items():
        plain = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)).replace("/run/secrets", str(folder))
        monkeypatch.setenv(name, plain)
    return given


def test_the_compose_file_is_one() -> None:
    tool = Path(sys.executable).with_name("check-jsonschema")
    subprocess.run([tool, "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"], check=True)


def test_the_dockerfile_has_nothing_that_a_linter_would_change() -> None:
    said = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "deploy/Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout) == (0, "")


def test_every_service_has_its_container_its_image_its_upstream_and_its_place_in_prometheus() -> None:
    upstreams = yaml.safe_load(OURS["gateway"]["environment"]["GENBA_GATEWAY_UPSTREAMS"])
    for name in {*SERVICES, *COMING}:
        assert OURS[name]["command"] == ["run", name]
        assert upstreams[name] == [f"http://{name}:8000"]
        assert scraped()[name] == 8000
        assert re.search(rf"^        {name}\) set --", DOCKERFILE, flags=re.MULTILINE)
    assert upstreams.keys() == {*SERVICES, *COMING}
    assert scraped().keys() == OURS.keys()
    assert not COMING & SERVICES.keys(), "it has come: take it out of COMING"


def test_extras_that_an_image_installs_exist_and_every_package_is_copied() -> None:
    named = set(re.findall(r"--extra (\w+)", DOCKERFILE))
    assert named - COMING <= PYPROJECT["project"]["optional-dependencies"].keys()
    images = dict(re.findall(r"^ +(\w+)\) set -- (.*) ;;", DOCKERFILE, flags=re.MULTILINE))
    assert set(re.findall(r"--extra (\w+)", images["training"])) >= {"sop", "llm", "so8t", "recommend", "sem"}, (
        "a worker runs the recipes of every domain"
    )
    assert "so8t" in images["llm"], "it serves the champion that a worker trained"
    copied = set(re.findall(r"^COPY (\S+) \1$", DOCKERFILE, flags=re.MULTILINE))
    packages = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {package.split("/")[0] for package in packages} == copied
    context = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text()
    assert all(f"!{folder}" in context or folder.startswith("svc-") for folder in copied)


def test_containers_may_do_little_and_say_whether_they_are_well() -> None:
    for name, service in COMPOSE["services"].items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert service["healthcheck"]["test"], name
        assert service.get("user", "no root in its image") not in {"root", "0"}, name
        assert re.fullmatch(r"[\w./-]+:(\$\{TAG:-latest\}|v?\d[\w.-]+)", service["image"]), f"{name} is not pinned"
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, flags=re.MULTILINE)


def test_only_the_gateway_and_grafana_can_be_reached_and_only_from_this_host_by_default() -> None:
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert published.keys() == {"gateway", "grafana"}
    assert all(":-127.0.0.1:" in port for ports in published.values() for port in ports)
    assert COMPOSE["networks"]["back"]["internal"] is True
    assert {name for name, service in COMPOSE["services"].items() if "front" in service["networks"]} == published.keys()


def test_secrets_are_files_and_never_values() -> None:
    for name, service in COMPOSE["services"].items():
        mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", [])}
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|API_KEY", variable):
                assert variable.endswith("FILE"), f"{name}: {variable}"
                assert value in mounted, f"{name}: {variable}"
    assert set(COMPOSE["secrets"]) == {
        path.name for path in map(Path, (s["file"] for s in COMPOSE["secrets"].values()))
    }
    readers = [name for name, service in COMPOSE["services"].items() if "llm_texts" in service.get("secrets", [])]
    assert readers == ["llm"], "whoever holds this key reads what waits for a person"


def test_secrets_are_made_once_long_enough_and_for_their_owner_only(tmp_path: Path) -> None:
    folder = secrets_folder(tmp_path / "secrets")
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert made.keys() == COMPOSE["secrets"].keys()
    assert all(len(secret) == 64 for secret in made.values())
    assert len(set(made.values())) == len(made)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.read_text() for path in secrets_folder(folder).iterdir()} == made


def test_the_settings_take_what_compose_gives_them(environment: Mapping[str, str]) -> None:
    platform = Platform()
    assert make_url(platform.database_url).password
    assert "@redis:6379/0" in platform.broker_url
    assert "@redis:6379/1" in (platform.redis_url or "")
    assert platform.load_qdrant_api_key()
    assert len(platform.load_principal_secret()) >= 32
    gateway, training = gateway_settings.Settings(), training_settings.Settings()
    assert gateway.operations_port == scraped()["gateway"]
    assert training.operations_port == scraped()["worker"] == scraped()["worker-gpu"]
    assert training.jobs_dir == Path("/srv/genba/jobs")
    known = {f"GENBA_{name.upper()}" for name in Platform.model_fields}
    known |= {f"GENBA_GATEWAY_{name.upper()}" for name in gateway_settings.Settings.model_fields}
    known |= {f"GENBA_TRAINING_{name.upper()}" for name in training_settings.Settings.model_fields}
    assert environment.keys() <= known


def test_what_is_mounted_is_there_and_every_volume_is_declared() -> None:
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", ()):
            source, separator, _ = volume.partition(":")
            if separator and source.startswith("./"):
                assert (ROOT / source).exists(), f"{name} mounts {source}"
            elif separator:
                assert source in COMPOSE["volumes"], f"{name} mounts {source}"

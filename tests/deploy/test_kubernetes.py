"""The Kubernetes files as kustomize renders them: valid, confined, complete, and in agreement with compose and the settings."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from tests.deploy.promql import ROOT
from tests.deploy.test_containers import COMPOSE, OURS

from genba_gateway import settings as gateway_settings
from genba_gateway.embedded import SERVICES
from genba_gateway.supervisor import DRAIN_S
from genba_llm import settings as llm_settings
from genba_recommend import settings as recommend_settings
from genba_shared.settings import Platform
from genba_training import settings as training_settings

KUBERNETES = "1.31"
OVERLAYS = ("small", "production")
Object = dict[str, Any]


@functools.cache
def rendered(overlay: str) -> tuple[Object, ...]:
    if shutil.which("kubectl") is None and os.environ.get("CI") == "true":
        pytest.fail("CI must have kubectl.", pytrace=False)
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, for kustomize")
    argv = ["kubectl", "kustomize", str(ROOT / "deploy/k8s/overlays" / overlay)]
    made = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert made.stderr == "", made.stderr
    return tuple(yaml.safe_load_all(made.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, Object]:
    return {each["metadata"]["name"]: each for each in rendered(overlay) if each["kind"] == kind}


def pods(overlay: str) -> Iterator[tuple[str, Object, Object]]:
    """Name, pod template and its one container, of all that runs."""
    for kind in ("Deployment", "Job"):
        for name, each in of_kind(overlay, kind).items():
            template = each["spec"]["template"]
            (container,) = template["spec"]["containers"]
            yield name, template, container


def selects(selector: Object, template: Object) -> bool:
    return bool(selector.items() <= template["metadata"]["labels"].items())


def environment(overlay: str, container: Object) -> dict[str, str]:
    (config,) = of_kind(overlay, "ConfigMap").values()
    return {**config["data"], **{each["name"]: each["value"] for each in container.get("env", ())}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_kustomize_renders_is_what_kubernetes_takes(overlay: str) -> None:
    for each in rendered(overlay):
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_service_is_deployed_as_compose_does_it(overlay: str) -> None:
    deployed = {each["metadata"]["labels"]["app.kubernetes.io/name"]: container for _, each, container in pods(overlay)}
    deployed.pop("migrate")
    wanted = {"worker-cpu" if name == "worker" else name for name in OURS}
    assert deployed.keys() == wanted - (set() if overlay == "production" else {"worker-gpu"})
    assert SERVICES.keys() <= deployed.keys()
    for name, container in deployed.items():
        compose = OURS[name.removesuffix("-cpu")]
        assert container["args"] == compose["command"], name
        image = container["image"].rpartition("/")[2].partition(":")[0]
        assert image == compose["image"].partition(":")[0], name
    upstreams = json.loads(environment(overlay, deployed["gateway"])["GENBA_GATEWAY_UPSTREAMS"])
    services = of_kind(overlay, "Service")
    assert upstreams.keys() == json.loads(OURS["gateway"]["environment"]["GENBA_GATEWAY_UPSTREAMS"]).keys()
    for name, urls in upstreams.items():
        assert urls == [f"http://{name}-service:8000"]
        assert f"{name}-service" in services


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_may_do_little_and_say_whether_they_are_well(overlay: str) -> None:
    for name, template, container in pods(overlay):
        pod = template["spec"]
        context = pod["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"]) == (True, 10001), name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
        assert "memory" in container["resources"]["limits"], name
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        if name != "migrate":
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container[probe]["httpGet"]
                assert asked["path"] in {"/health", "/ready"}, name
                assert asked["port"] in ports, name
            scraped = template["metadata"]["annotations"]["prometheus.io/port"]
            assert int(scraped) in ports.values(), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_who_is_told_to_go_has_time_to_be_forgotten_and_to_finish(overlay: str) -> None:
    worker = training_settings.Settings(platform=Platform())
    notice_name = "GENBA_GATEWAY_RESILIENCE__DRAIN_NOTICE_S"
    for name, template, container in pods(overlay):
        if name == "migrate":
            continue
        grace_s = template["spec"]["terminationGracePeriodSeconds"]
        if name.startswith("worker"):
            assert grace_s > worker.drain_wait_s + worker.stop_grace_s, name
            continue
        sleeps = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        notice_s = float(environment(overlay, container).get(notice_name, "0"))
        assert sleeps[0] == "sleep"
        forgotten_s = float(sleeps[1]) + notice_s
        assert forgotten_s >= 5, f"{name} would stop listening while requests are still sent to it"
        assert grace_s >= forgotten_s + DRAIN_S + 5, name


def test_a_closed_installation_reaches_its_databases_and_nothing_else(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, for kustomize")
    shutil.copytree(ROOT / "deploy/k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/production/kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("components/s3]", "components/s3, ../../components/closed]"))
    argv = ["kubectl", "kustomize", str(overlay.parent)]
    made = subprocess.run(argv, capture_output=True, text=True, check=True)
    found = [each for each in yaml.safe_load_all(made.stdout) if each["kind"] == "NetworkPolicy"]
    for each in found:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)
    policies = {each["metadata"]["name"]: each["spec"] for each in found}
    everything = policies["nothing-leaves"]
    assert (everything["podSelector"], everything["policyTypes"]) == ({}, ["Egress"])
    reached = [port["port"] for rule in everything["egress"] for port in rule["ports"]]
    urls = [str(value) for value in environment("production", {}).values() if "://" in str(value)]
    needed = {urlsplit(url).port for url in urls if not url.startswith("s3:")}
    assert needed <= set(reached), "a port of a database that the installation names is shut"
    out, into = policies["the-recommender-reaches-sop-out"], policies["the-recommender-reaches-sop"]
    assert out["egress"] == [{"to": [{"podSelector": into["podSelector"]}], "ports": into["ingress"][0]["ports"]}]
    assert [{"podSelector": out["podSelector"]}] == into["ingress"][0]["from"]
    assert (
        policies["the-gateway-reaches-services"]["podSelector"] == policies["callers-reach-the-gateway"]["podSelector"]
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_refers_to_something_finds_it(overlay: str) -> None:
    deployments = of_kind(overlay, "Deployment")
    for name, service in of_kind(overlay, "Service").items():
        chosen = [d for d in deployments.values() if selects(service["spec"]["selector"], d["spec"]["template"])]
        assert [each["metadata"]["name"] for each in chosen] == [name], "a service must reach one deployment, its own"
    for name, budget in of_kind(overlay, "PodDisruptionBudget").items():
        labels = budget["spec"]["selector"]["matchLabels"]
        assert [n for n, d in deployments.items() if selects(labels, d["spec"]["template"])] == [name]
    for name, scaler in of_kind(overlay, "HorizontalPodAutoscaler").items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert name in deployments
        assert "replicas" not in deployments[name]["spec"], "an apply would undo what the scaler did"
    claims, configs = of_kind(overlay, "PersistentVolumeClaim"), of_kind(overlay, "ConfigMap")
    for name, template, container in pods(overlay):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys(), name
        claimed = {v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v}
        assert claimed <= claims.keys(), name
        assert container["envFrom"][0]["configMapRef"]["name"] in configs, name
    for ingress in of_kind(overlay, "Ingress").values():
        backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
        assert backend["name"] in of_kind(overlay, "Service")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_mounted_files_and_settings_exist(overlay: str) -> None:
    known = {f"GENBA_{name.upper()}" for name in Platform.model_fields}
    known |= {f"GENBA_GATEWAY_{name.upper()}" for name in gateway_settings.Settings.model_fields}
    known |= {f"GENBA_TRAINING_{name.upper()}" for name in training_settings.Settings.model_fields}
    known |= {f"GENBA_LLM_{name.upper()}" for name in llm_settings.Settings.model_fields}
    known |= {f"GENBA_RECOMMEND_{name.upper()}" for name in recommend_settings.Settings.model_fields}
    assert not of_kind(overlay, "Secret"), "a secret's value is nothing for a repository"
    for name, template, container in pods(overlay):
        given = environment(overlay, container)
        assert {variable.partition("__")[0] for variable in given} <= known, name
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        secret = next(v["secret"] for v in template["spec"]["volumes"] if v["name"] == "secrets")
        assert secret["secretName"] == "genba-secrets"
        held = {item["path"] for item in secret["items"]}
        assert ("llm_texts" in held) == (container["args"] == ["run", "llm"] if "args" in container else False), name
        for variable, value in given.items():
            if variable.endswith("_FILE"):
                folder, _, file = value.rpartition("/")
                assert folder in mounted, variable
                assert file in COMPOSE["secrets"], "deploy/secrets.sh makes it"
                assert file in held, f"{name}: {variable}"
            else:
                assert not any(word in variable for word in ("PASSWORD", "SECRET", "API_KEY")), variable


def test_who_may_reach_whom_leaves_the_gateway_as_the_only_door() -> None:
    policies = of_kind("production", "NetworkPolicy")
    everything = policies["only-the-gateway"]["spec"]
    callers = policies["callers-reach-the-gateway"]["spec"]
    for name, template, _ in pods("production"):
        if name != "migrate":
            assert selects(everything["podSelector"]["matchLabels"], template), name
    assert callers["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "gateway"}
    assert callers["ingress"] == [{"ports": [{"port": 8000}]}]
    assert everything["ingress"][0]["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "gateway"}}}]
    encoder = policies.pop("the-recommender-reaches-sop")["spec"]
    assert encoder["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "sop"}
    [rule] = encoder["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "recommend"}}}]
    assert set(policies) == {"only-the-gateway", "callers-reach-the-gateway"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_callers_behind_an_ingress_are_told_apart(overlay: str) -> None:
    [gateway] = [container for name, _, container in pods(overlay) if name.startswith("gateway")]
    trusted = json.loads(environment(overlay, gateway).get("GENBA_GATEWAY_TRUSTED_PROXIES", "[]"))
    assert bool(trusted) is bool(of_kind(overlay, "Ingress"))


def test_a_bucket_takes_the_place_of_the_shared_volume() -> None:
    assert of_kind("production", "PersistentVolumeClaim").keys() == {"jobs"}
    for name, template, container in pods("production"):
        assert environment("production", container)["GENBA_ARTIFACTS_URL"].startswith("s3://")
        if name != "migrate":
            assert {"secretRef": {"name": "genba-s3"}} in container["envFrom"], name
            (volume,) = (v for v in template["spec"]["volumes"] if v["name"] == "artifacts")
            assert volume == {"name": "artifacts", "emptyDir": {}}, name

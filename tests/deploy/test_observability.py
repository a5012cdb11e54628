"""Alerts and dashboards: rules do what they say, dashboards are what the code says, and both name metrics that exist."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from deploy.grafana.build import BOARDS, documents
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from tests.deploy.promql import ROOT, RULES, families_in, metrics_in, rules, unknown

PROMETHEUS = ROOT / "deploy/prometheus"
RULE_TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))
OF_PROMETHEUS = {"up", "ALERTS"}
# Of services that this tree does not have yet: what a dashboard may name before it exists. A name that has come to exist
# must leave the list, so that it cannot hide a typing error later.
EXPECTED_LATER: frozenset[str] = frozenset()


def told(*arguments: str, given: str | None = None) -> str:
    """What a tool says; it must succeed."""
    done = subprocess.run(arguments, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def panels(document: Any) -> Iterator[dict[str, Any]]:
    for panel in document["panels"]:
        yield panel
        yield from panel.get("panels", [])


def queries() -> dict[str, str]:
    """Every expression of every committed dashboard, by a name that leads to it."""
    found = {}
    for path in documents():
        for panel in panels(json.loads(path.read_text(encoding="utf-8"))):
            for target in panel.get("targets", []):
                found[f"{path.stem}: {panel['title']} {target['refId']}"] = target["expr"]
    return found


def test_prometheus_takes_the_configuration(promtool: str) -> None:
    told(promtool, "check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml"))
    told(promtool, "check", "rules", *map(str, RULES))


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_and_are_silent_as_their_tests_say(promtool: str, path: Path) -> None:
    told(promtool, "test", "rules", str(path))


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent() -> None:
    cases = [
        case
        for path in RULE_TESTS
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
    ]
    for rule in rules():
        if "alert" in rule:
            expected = [bool(case["exp_alerts"]) for case in cases if case["alertname"] == rule["alert"]]
            assert set(expected) == {True, False}, (
                f"{rule['alert']} fires {expected.count(True)} times of {len(expected)}"
            )


def test_every_alert_says_how_bad_it_is_and_leads_to_what_to_do() -> None:
    page = (ROOT / "docs/how-to/observe.md").read_text(encoding="utf-8")
    anchors = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", page, flags=re.MULTILINE)}
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert rule["alert"] in page
            document, _, anchor = rule["annotations"]["runbook"].partition("#")
            assert (document, anchor in anchors) == ("docs/how-to/observe.md", True), rule["annotations"]["runbook"]


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_is_what_the_code_says_and_survives_grafanas_own_model(name: str) -> None:
    path, text = next((path, text) for path, text in documents().items() if path.stem == name)
    assert path.read_text(encoding="utf-8") == text, "run `make dashboards`"
    again = json.dumps(Dashboard.from_json(json.loads(text)), cls=JSONEncoder)
    assert json.loads(again) == json.loads(text)


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_says_what_it_shows_and_none_covers_another(name: str) -> None:
    shown = list(panels(json.loads((ROOT / f"deploy/grafana/dashboards/{name}.json").read_text(encoding="utf-8"))))
    taken: set[tuple[int, int]] = set()
    for panel in shown:
        assert panel["type"] == "row" or panel["description"], panel["title"]
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_prometheus_can_parse_every_query_of_a_dashboard(promtool: str, tmp_path: Path) -> None:
    found = queries()
    assert len(found) > 50
    made = [
        {"record": f"q:{number}", "labels": {"from": name}, "expr": expression.replace("$__rate_interval", "5m")}
        for number, (name, expression) in enumerate(found.items())
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": made}]}, allow_unicode=True))
    said = told(promtool, "check", "rules", str(file))
    assert f"{len(found)} rules found" in said


def test_the_reader_of_queries_finds_names_and_nothing_else() -> None:
    query = (
        'max by (queue) (a_total{b="c",d=~"e.+"}) > 1.5e3 unless on (queue) (sum by (queue) (rate(f:g[5m])) > bool 0)'
    )
    assert metrics_in(query) == {"a_total", "f:g"}
    assert metrics_in('absent({__name__=~"genba_.+_ready",check!~"x"} == 1) or vector(0)') == {"~genba_.+_ready"}
    assert unknown([query], {"a_total"}) == {"f:g"}


def test_alerts_and_dashboards_name_only_metrics_that_exist(live: Mapping[str, str]) -> None:
    exposed = set[str]().union(*map(families_in, live.values()))
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    expressions = [rule["expr"] for rule in rules()] + list(queries().values())
    assert unknown(expressions, exposed | recorded | OF_PROMETHEUS | EXPECTED_LATER) == set()
    assert not EXPECTED_LATER & exposed, "these exist now: take them out of EXPECTED_LATER"


def test_names_and_help_texts_are_as_prometheus_wants_them(promtool: str, live: Mapping[str, str]) -> None:
    for exposition in live.values():
        told(promtool, "check", "metrics", given=exposition)

"""The assistant and its queue in the console, in a real Chromium: a question escalates, and somebody else decides."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Page
from tests.browser.console import sign_in

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.filterwarnings("default")]
WAITS = "胸が痛くて息が苦しいです。薬を二倍飲んでもいいですか。"


def _reviewer(genba: tuple[str, str]) -> str:
    answer = httpx.post(
        f"{genba[0]}/v1/keys",
        json={"name": "reviewer", "role": "reviewer", "clearance": "confidential"},
        headers={"authorization": f"Bearer {genba[1]}"},
        trust_env=False,
    )
    answer.raise_for_status()
    key: str = answer.json()["key"]
    return key


def test_a_question_that_waits_for_a_person_is_decided_by_another(page: Page, genba: tuple[str, str]) -> None:
    sign_in(page, genba[1])
    page.click("nav button[data-tab=ask]")
    page.fill("#ask textarea", WAITS)
    page.click("#ask button")
    page.wait_for_selector("#answer .verdict:has-text('Waits for a person')")
    page.click("nav button[data-tab=escalations]")
    page.click("#escalation-list button[data-escalation]")
    page.wait_for_selector(f"#escalation .said:has-text('{WAITS}')")
    page.fill("#why", "asked by myself")
    page.click("#escalation button[data-outcome=ALLOW]")
    page.wait_for_selector("#message.bad:has-text('Nobody decides on their own question')")

    page.click("#sign-out")
    sign_in(page, _reviewer(genba))  # the tab that was open opens again
    page.click("#escalation-list button[data-escalation]")
    page.click("#escalation button[data-act=take]")
    page.wait_for_selector("#escalation button[data-act=take]:enabled")  # drawn anew
    page.click("#escalation button[data-outcome=DENY]")
    page.wait_for_selector("#message.bad:has-text('Say why first.')")
    page.fill("#why", "a doctor has to see this")
    page.click("#escalation button[data-outcome=DENY]")
    page.wait_for_selector("#escalation:has-text('a doctor has to see this')")
    assert "The text was erased" in page.inner_text("#escalation .said")
    page.select_option("#escalation-state", "decided")
    page.wait_for_selector("#escalation-list td:has-text('Denied to you')")
    page.click("#language")
    page.wait_for_selector("#escalation-state option:has-text('判定済み')", state="attached")  # drawn anew
    page.select_option("#escalation-state", "decided")
    page.wait_for_selector("#escalation-list td:has-text('権限なし')")


def test_an_answer_stands_with_what_it_rests_on(page: Page, genba: tuple[str, str]) -> None:
    httpx.post(
        f"{genba[0]}/v1/llm/documents",
        params={"title": "Torque sheet"},
        content="The drain plug is tightened to 30 Nm. Use a new washer each time.",
        headers={"authorization": f"Bearer {genba[1]}", "content-type": "text/plain"},
        trust_env=False,
    ).raise_for_status()
    sign_in(page, genba[1])
    page.click("nav button[data-tab=ask]")
    page.fill("#ask textarea", "To how many Nm is the drain plug tightened?")
    page.click("#ask button")
    page.wait_for_selector("#answer .said:has-text('30 Nm')")
    page.wait_for_selector("#answer td:has-text('Torque sheet')")
    page.click("#answer summary")
    page.wait_for_selector("#answer details td:has-text('classifier')")

"""Jobs and models in the console, in a real Chromium: a job is watched live and cancelled, a version promoted and rolled back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page
from tests.browser.console import sign_in
from tests.e2e.world import until

from genba_gateway.client import Client

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.filterwarnings("default")]
MODEL = "test.points"


@pytest.fixture
def client(genba: tuple[str, str]) -> Iterator[Client]:
    with Client(*genba) as client:
        yield client


def progress(page: Page) -> float:
    return float(page.evaluate("document.querySelector('#job-progress').value"))


def test_a_job_is_watched_live_and_cancelled(page: Page, genba: tuple[str, str], client: Client) -> None:
    job = client.jobs.submit("test.train", {"epochs": 300, "step_s": 0.05})
    sign_in(page, genba[1])
    page.click("nav button[data-tab=jobs]")
    page.click(f"#job-list button[data-job={job.id}]")
    page.wait_for_selector("#job-log:has-text('starts at minibatch 0')", timeout=60_000)
    first = until(lambda: progress(page), what="its first progress")
    until(lambda: progress(page) > first, what="more of it, without a reload")
    page.wait_for_selector("#job-metrics:has-text('weight_norm')")
    page.wait_for_selector("#job-loss[aria-label^='Loss: '] polyline[points]", state="attached")
    assert page.inner_text("#job-status") == "Running"
    page.click("#job button[data-act=cancel]")
    page.wait_for_selector("#job-status:has-text('Cancelled')", timeout=60_000)
    page.wait_for_selector("#job button[data-act=requeue]")
    assert client.jobs.get(job.id).status == "cancelled"
    page.click("#language")
    page.wait_for_selector("#job-status", state="detached")  # the page is drawn anew
    page.wait_for_selector("#job-list td:has-text('中止済み')")
    page.select_option("#job-state", "succeeded")
    page.wait_for_selector(f"#job-list button[data-job={job.id}]", state="detached")


def test_a_finished_job_shows_its_result_and_a_dead_one_why(page: Page, genba: tuple[str, str], client: Client) -> None:
    done = client.jobs.wait(client.jobs.submit("test.train", {"epochs": 1}).id)
    refused = client.jobs.wait(client.jobs.submit("test.refuse").id)
    sign_in(page, genba[1])
    page.click("nav button[data-tab=jobs]")
    page.click(f"#job-list button[data-job={done.id}]")
    page.wait_for_selector("#job-result:has-text('accuracy')")
    page.wait_for_selector("#job-log:has-text('Done')")
    page.click(f"#job-list button[data-job={refused.id}]")
    page.wait_for_selector("#job-says:has-text('Needs 200 likes to train, found 12.')")
    page.click("#job button[data-act=requeue]")
    until(lambda: page.inner_text("#job-log").count("Failed") == 2, what="the second refusal in the log")
    assert client.jobs.get(refused.id).attempt == 2


def test_a_job_and_a_schedule_are_made_from_a_recipe_s_schema(
    page: Page, genba: tuple[str, str], client: Client
) -> None:
    sign_in(page, genba[1])
    page.click("nav button[data-tab=jobs]")
    page.click("#submit summary")
    page.select_option("#new-job select[name=recipe]", "platform.verify_audit")
    page.fill("#new-job input[name=expected_head]", "no head")
    page.click("#new-job button.primary")
    page.wait_for_selector("#message.bad:has-text('expected_head')")
    page.fill("#new-job input[name=expected_head]", "")
    page.click("#new-job button.primary")
    page.wait_for_selector("#job-status:has-text('Done')", timeout=60_000)
    made = page.inner_text("#job h2 small")
    assert client.jobs.get(made).params == {"expected_head": None}

    page.select_option("#new-job select[name=recipe]", "platform.prune_jobs")
    page.click("#new-job button.primary")  # a required number is missing: the browser asks for it
    page.fill("#new-job input[name=older_than_days]", "400")
    page.click("#new-job summary")
    page.fill("#new-job input[name=schedule]", "yearly tidying")
    page.fill("#new-job input[name=cron]", "0 3 1 1 *")
    page.fill("#new-job input[name=zone]", "Asia/Tokyo")
    page.click("#new-job button.primary")
    page.wait_for_selector("#schedules tr:has-text('yearly tidying'):has-text('0 3 1 1 * (Asia/Tokyo)')")
    [schedule] = client.request("GET", "/v1/schedules")["schedules"]
    assert (schedule["recipe"], schedule["params"]) == ("platform.prune_jobs", {"older_than_days": 400})
    page.click("#schedules button[data-act=switchOff]")
    page.wait_for_selector("#schedules td:has-text('switched off')")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#schedules button[data-act=delete]")
    page.wait_for_selector("#schedules tr:has-text('yearly tidying')", state="detached")


def test_a_version_is_promoted_tried_and_rolled_back_with_a_reason(
    page: Page, genba: tuple[str, str], client: Client
) -> None:
    for params in ({"epochs": 1}, {"epochs": 2}, {"accuracy_at_least": 0.999}):
        assert client.jobs.wait(client.jobs.submit("test.train", params).id).succeeded
    missed = client.models.get(MODEL).newest
    second = client.models.get(MODEL).champion.number
    first = client.models.get(MODEL).previous
    assert second is not None
    sign_in(page, genba[1])
    page.click("nav button[data-tab=models]")
    page.click(f"button[data-model='{MODEL}']")
    page.wait_for_selector(f"tr[data-version='{missed}']:has-text('Gate missed')")
    assert "needs at least 0.999" in page.inner_text(f"tr[data-version='{missed}']")
    assert page.query_selector(f"tr[data-version='{missed}'] button") is None
    page.click("button[data-move=rollback]")
    page.wait_for_selector("#message.bad:has-text('Say why first.')")
    page.fill("#reason", "complaints from line 4")
    page.click("button[data-move=rollback]")
    page.wait_for_selector(f"tr[data-version='{first}']:has-text('Champion')")
    page.fill("#reason", "see whether it is that")
    page.click(f"button[data-move=tryBeside][data-number='{second}']")
    page.wait_for_selector(f"tr[data-version='{second}']:has-text('Challenger')")
    page.fill("#reason", "it was not")
    page.click(f"button[data-move=promote][data-number='{second}']")
    page.wait_for_selector(f"tr[data-version='{second}']:has-text('Champion')")
    moves = client.models.history(MODEL, limit=3)
    assert [(move.alias, move.kind, move.to_number, move.reason) for move in moves] == [
        ("champion", "promote", second, "it was not"),
        ("challenger", "promote", second, "see whether it is that"),
        ("champion", "rollback", first, "complaints from line 4"),
    ]
    page.click("#language")
    page.wait_for_selector("th:has-text('戻り先')")  # the page is drawn anew
    page.click(f"button[data-model='{MODEL}']")
    page.wait_for_selector("tr:has-text('差し戻し')")


def test_a_move_that_somebody_made_meanwhile_is_not_undone(page: Page, genba: tuple[str, str], client: Client) -> None:
    for _ in range(2):
        assert client.jobs.wait(client.jobs.submit("test.train", {"epochs": 1}).id).succeeded
    sign_in(page, genba[1])
    page.click("nav button[data-tab=models]")
    page.click(f"button[data-model='{MODEL}']")
    page.wait_for_selector("button[data-move=rollback]")
    after = client.models.rollback(MODEL, reason="somebody else was quicker")
    page.fill("#reason", "too late")
    page.click("button[data-move=rollback]")
    page.wait_for_selector("#message.bad")
    assert client.models.get(MODEL).champion == after.champion

"""Recommendations in the console, in a real Chromium: a list with its reasons, a like that changes it, an experiment that ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page
from tests.browser.console import sign_in
from tests.sem.service.pictures import picture

from genba_gateway.client import Client, fresh_key

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.filterwarnings("default")]
ITEMS = 12


@pytest.fixture(scope="module")
def admin(genba: tuple[str, str]) -> Iterator[Client]:
    with Client(*genba) as client:
        yield client


def test_a_like_changes_the_list_and_its_reasons_are_said_in_both_languages(
    page: Page, genba: tuple[str, str], admin: Client
) -> None:
    items = [{"item_id": f"v{n}", "title": f"Film {n}"} for n in range(ITEMS)]
    admin.request("PUT", "/v1/recommend/items", json={"items": items}, idempotency_key="items")
    likes = [
        {"event_id": f"e{user}-{n}", "user_id": f"u{user}", "item_id": f"v{n}", "kind": "like"}
        for user in range(4)
        for n in range(user, ITEMS - 1)
    ]
    admin.request("POST", "/v1/recommend/events", json={"events": likes}, idempotency_key="likes")
    page.add_init_script("delete Crypto.prototype.randomUUID")  # as a browser has it over http from another machine
    sign_in(page, genba[1])
    page.click("nav button[data-tab=recommend]")
    page.fill("#user", "somebody new")
    page.click("#recommend button")
    page.wait_for_selector("#message.bad")  # an id has no blanks, and it is said
    page.fill("#user", "newcomer")
    page.click("#recommend button")
    page.wait_for_selector("#list tr[data-item]")
    listed = page.eval_on_selector_all("#list tr[data-item]", "rows => rows.map((row) => row.dataset.item)")
    assert len(listed) == 10
    page.click(f"#list button[data-like={listed[0]}]")
    page.wait_for_selector("#message:has-text('liked')")
    assert page.query_selector(f"#list tr[data-item={listed[0]}]") is None
    english = page.inner_text("#list h2")
    page.click("#language")
    page.wait_for_selector("#recommend button:has-text('リストを作る')")
    page.fill("#user", "newcomer")
    page.click("#recommend button")
    page.wait_for_selector("#list tr[data-item]")
    assert page.inner_text("#list h2") != english
    assert "_" not in page.inner_text("#page")  # a text that is missing shows as its name


def test_a_picture_is_sent_and_shown_and_one_that_is_none_is_refused(
    page: Page, genba: tuple[str, str], admin: Client, tmp_path: Path
) -> None:
    items = [{"item_id": f"v{n}", "title": f"Film {n}"} for n in range(ITEMS)]
    admin.request("PUT", "/v1/recommend/items", json={"items": items}, idempotency_key="items again")
    (tmp_path / "cover.png").write_bytes(picture("disc", seed=1))
    (tmp_path / "no.png").write_text("no picture")
    sign_in(page, genba[1])
    page.click("nav button[data-tab=recommend]")
    page.fill("#user", "somebody-else")
    page.click("#recommend button")
    page.wait_for_selector("#list tr[data-item]")
    first = page.eval_on_selector("#list tr[data-item]", "row => row.dataset.item")
    shown = f"#list tr[data-item={first}] img.cover"
    assert page.is_hidden(shown)
    page.set_input_files(f"input[data-cover={first}]", tmp_path / "no.png")
    page.wait_for_selector("#message.bad")
    page.set_input_files(f"input[data-cover={first}]", tmp_path / "cover.png")
    page.wait_for_selector("#message:has-text('picture is kept')")
    page.wait_for_selector(shown, state="visible")
    page.click("#recommend button")
    page.wait_for_selector(shown, state="visible")
    assert admin.request("GET", "/v1/recommend/pictures")["embedded"] == 1


def test_an_experiment_says_what_came_of_it_and_is_stopped(page: Page, genba: tuple[str, str], admin: Client) -> None:
    arms = [{"name": "hits", "lists": "popular"}, {"name": "new", "lists": "trending"}]
    started = {"name": "hits or new", "arms": arms}
    admin.request("POST", "/v1/recommend/experiments", json=started, idempotency_key=fresh_key())
    sign_in(page, genba[1])
    page.click("nav button[data-tab=recommend]")
    page.click("#experiments button:has-text('hits or new')")
    page.wait_for_selector("#experiment td:has-text('hits')")
    page.wait_for_selector("#experiment :text('too few users')")
    assert page.query_selector("#experiment button[data-promote]") is None  # neither arm names a version
    page.click("#experiment button[data-act=stop]")
    page.wait_for_selector("#experiment small:has-text('Stopped')")
    page.wait_for_selector("#experiments td:has-text('Stopped')")


def test_a_version_that_was_never_shown_is_estimated_or_it_is_said_why_not(page: Page, genba: tuple[str, str]) -> None:
    sign_in(page, genba[1])
    page.click("nav button[data-tab=recommend]")
    page.fill("#estimated", "1")
    page.select_option("#policy", "best")
    page.click("#estimates button")
    page.wait_for_selector("#message.bad")  # no version was trained here
    assert "_" not in page.inner_text("#estimates")


def test_rows_are_loaded_from_a_file_and_a_bad_one_fails_alone_by_its_line(
    page: Page, genba: tuple[str, str], admin: Client, tmp_path: Path
) -> None:
    before = admin.request("GET", "/v1/recommend/status")["items"]
    rows = [{"item_id": "loaded-1", "title": "Loaded"}, {"item_id": "a blank"}, {"item_id": "loaded-2"}]
    (tmp_path / "items.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    (tmp_path / "events.jsonl").write_text("{}\nnot json")
    sign_in(page, genba[1])
    page.click("nav button[data-tab=recommend]")
    page.wait_for_selector("#load")
    page.eval_on_selector("#load", "details => { details.open = true; }")
    page.set_input_files("#load-rows input[type=file]", tmp_path / "items.jsonl")
    page.click("#load-rows button.primary")
    page.wait_for_selector("#message:has-text('Taken in: 2'):has-text('Refused: 1')")
    assert page.inner_text("#wrong-rows").startswith("3: item_id")
    assert admin.request("GET", "/v1/recommend/status")["items"] == before + 2
    (tmp_path / "users.jsonl").write_text('{"user": "u1"}\n{"user_id": "u 2"}')
    page.set_input_files("#load-rows input[type=file]", tmp_path / "users.jsonl")
    page.click("#load-rows button.primary")
    page.wait_for_selector("#message:has-text('Taken in: 0'):has-text('Refused: 2')")
    assert page.inner_text("#wrong-rows").splitlines()[1].startswith("2: user_id")
    page.set_input_files("#load-rows input[type=file]", tmp_path / "events.jsonl")
    assert page.input_value("#load-rows select") == "events"
    page.click("#load-rows button.primary")
    page.wait_for_selector("#message.bad:has-text('line 2')")

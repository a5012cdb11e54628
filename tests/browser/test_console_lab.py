"""What a lab does in the console, in a real Chromium: labels with masters, pictures classified, found again, renamed, merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page
from tests.browser.console import sign_in
from tests.sem.service.pictures import views

pytestmark = [pytest.mark.xdist_group("browser"), pytest.mark.filterwarnings("default")]


def ask(genba: tuple[str, str], path: str) -> Any:
    answer = httpx.get(f"{genba[0]}{path}", headers={"authorization": f"Bearer {genba[1]}"}, trust_env=False)
    assert answer.is_success, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views each of masters and of one more particle a kind, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for kind in ("disc", "needle"):
        for seed, name in ((310, f"{kind}-m1"), (311, f"{kind}-m2"), (350, f"{kind}-new")):
            for number, content in enumerate(views(kind, seed=seed)[:2], start=1):
                (folder / f"{name}_{number}.png").write_bytes(content)
    (folder / "broken_1.png").write_bytes(b"no picture")
    return folder


def make_label(page: Page, english: str, japanese: str) -> None:
    page.fill("#new-label input[name=en]", english)
    page.fill("#new-label input[name=ja]", japanese)
    page.fill("#new-label input[name=synonyms]", f"like a {english.lower()}, {english.lower()}ish")
    page.click("#new-label button.primary")
    page.wait_for_selector(f"#label-shown h2:has-text('{english}')")


def add_masters(page: Page, files: list[Path]) -> None:
    page.set_input_files("#new-masters input[type=file]", files)
    page.click("#new-masters button.primary")
    page.wait_for_selector("#label-shown .shot:nth-child(2) img")
    page.wait_for_selector("#message:has-text('The masters are kept.')")


def test_a_lab_registers_labels_and_masters_classifies_and_finds_in_the_console(
    page: Page, genba: tuple[str, str], pictures: Path
) -> None:
    sign_in(page, genba[1])
    page.click("nav button[data-tab=labels]")
    make_label(page, "Round one", "丸いもの")
    add_masters(page, sorted(pictures.glob("disc-m*")))
    make_label(page, "Thin one", "細いもの")
    add_masters(page, sorted(pictures.glob("needle-m*")))
    labels = {each["name"]["en"]: each for each in ask(genba, "/v1/sem/labels?limit=200")["items"]}
    # Four files of two particles became two masters of two views each.
    assert [labels[name]["masters"] for name in ("Round one", "Thin one")] == [2, 2]
    assert labels["Thin one"]["synonyms"]["en"] == ["like a thin one", "thin oneish"]

    page.click("nav button[data-tab=classify]")
    page.set_input_files("#classify input[type=file]", [*sorted(pictures.glob("*-new_*")), pictures / "broken_1.png"])
    page.fill("#classify input[name=batch]", "console-1")
    page.click("#classify button.primary")
    page.wait_for_selector("#sent:has-text('2 / 3')")
    page.wait_for_selector("#classified tr:has-text('broken') .bad")
    assert "Round one" in page.inner_text("#classified tr:has-text('disc-new')")
    assert "Thin one" in page.inner_text("#classified tr:has-text('needle-new')")
    stored = ask(genba, "/v1/sem/particles?batch=console-1")["items"]
    assert sorted((each["name"], each["view_count"]) for each in stored) == [("disc-new", 2), ("needle-new", 2)]
    page.wait_for_selector("#batches tr:has-text('console-1')")
    with page.expect_download() as kept:
        page.click("#batches tr:has-text('console-1') button[data-act=csv]")
    assert "needle-new" in kept.value.path().read_text(encoding="utf-8-sig")
    with page.expect_popup() as opened:
        page.click("#batches tr:has-text('console-1') button[data-act=openReport]")
    opened.value.wait_for_selector("h1")
    assert "disc-new" in opened.value.inner_text("body")

    page.click("nav button[data-tab=find]")
    page.fill("#find-particles input", "細いもの")
    page.click("#find-particles button")
    page.wait_for_selector("#found-particles tr:has-text('needle-new')")
    page.click("#found-particles tr:has-text('needle-new') button[data-alike]")
    page.wait_for_selector("#found-particles tr:has-text('disc-new')")


def test_a_label_is_renamed_retired_and_restored_and_a_master_taken_out(
    page: Page, genba: tuple[str, str], pictures: Path
) -> None:
    sign_in(page, genba[1])
    page.click("nav button[data-tab=labels]")
    make_label(page, "Odd one", "変わったもの")
    add_masters(page, [*sorted(pictures.glob("disc-m1*")), *sorted(pictures.glob("needle-m1*"))])
    page.click("#label-shown summary:has-text('Rename')")
    page.fill("#revise-label input[name=en]", "Strange one")
    page.fill("#revise-label input[name=reason]", "a better word")
    page.click("#revise-label button.primary")
    page.wait_for_selector("#label-shown h2:has-text('Strange one')")
    page.wait_for_selector("#label-shown tr:has-text('Revised'):has-text('a better word')")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#label-shown button[data-master]")
    page.wait_for_selector("#label-shown .shot:nth-child(2)", state="detached")
    page.click("#label-shown summary:has-text('Merge')")
    page.click("#label-fate button[data-act=retire]")  # without a reason the browser asks for one
    page.fill("#label-fate input[name=why]", "never seen")
    page.click("#label-fate button[data-act=retire]")
    page.wait_for_selector("#label-shown h2:has-text('(Retired)')")
    page.click("#label-shown summary:has-text('restore')")
    page.fill("#label-fate input[name=why]", "seen after all")
    page.click("#label-fate button[data-act=restore]")
    page.wait_for_selector("#label-shown tr:has-text('Restored'):has-text('seen after all')")
    [label] = [each for each in ask(genba, "/v1/sem/labels?limit=200")["items"] if each["name"]["en"] == "Strange one"]
    assert (label["name"]["ja"], label["masters"], label["status"]) == ("変わったもの", 1, "active")
    events = [each["event"] for each in ask(genba, f"/v1/sem/labels/{label['id']}/history")]
    assert events == ["created", "revised", "retired", "restored"]

"""The console, in a real Chromium, over a real embedded API: a person signs in, registers, uploads, scores, reads, in both languages."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
import yaml
from playwright.sync_api import Dialog, Page
from tests.browser.console import sign_in

from genba_sop.data import generate

pytestmark = pytest.mark.xdist_group("browser")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    generate("oil_change", folder, golds=1, size=(320, 240), fps=15.0)
    return folder


def definition(films: Path) -> str:
    document = yaml.safe_load((films / "steps.yaml").read_text())
    document.pop("golds")
    return json.dumps(document)


@pytest.mark.filterwarnings("default")
def test_a_person_scores_a_video_and_reads_the_deviations_in_both_languages(
    page: Page, genba: tuple[str, str], films: Path
) -> None:
    sign_in(page, genba[1])
    page.click("nav button[data-tab=procedures]")
    _register(page, definition(films))
    page.wait_for_selector("tbody input[type=file]")
    page.set_input_files("tbody input[type=file]", films / "gold_1.mp4")
    page.wait_for_selector("tbody tr td:nth-child(4):has-text('1')", timeout=60_000)
    page.click("nav button[data-tab=score]")
    page.wait_for_selector("#score select option", state="attached")
    page.set_input_files("#score input[type=file]", films / "trainee.mp4")
    page.click("#score button")
    page.wait_for_selector("#result .verdict", timeout=60_000)
    assert "Fail" in page.inner_text("#result .verdict")
    assert "Missing" in page.inner_text("#result")
    page.click("#language")
    page.click("nav button[data-tab=evaluations]:has-text('評価履歴')")
    page.wait_for_selector("#score", state="detached")
    page.click("tbody button")
    page.wait_for_selector("#result .verdict")
    assert "不合格" in page.inner_text("#result .verdict")
    assert "抜け" in page.inner_text("#result")
    _read_the_report(page)
    _look_at_the_video(page)
    _find_clips(page)
    _review(page)


def _register(page: Page, document: str) -> None:
    page.click("details summary")
    page.fill("#procedure-document textarea", document)
    page.click("#procedure-document button")


def _read_the_report(page: Page) -> None:
    """In a tab of its own, with its styles: of the two languages in it, one is shown."""
    with page.expect_popup() as opened:
        page.click("#result button:has-text('レポート')")
    report = opened.value
    report.wait_for_selector("h1:has-text('エンジンオイル交換')")
    assert "Engine oil change" not in report.inner_text("h1")


def _look_at_the_video(page: Page) -> None:
    """A deviation's moment is shown as a kept picture, and as the video itself once it is asked for."""
    page.click("#result tr[data-seek]:has-text('抜け')")
    page.wait_for_selector("#result .screen img")  # hidden until it has loaded
    page.click("#result [data-act=play]")
    page.wait_for_selector("#result .screen video", timeout=90_000)
    page.click("#result tr[data-seek]:has-text('オイル量')")
    began = page.locator("#result tr[data-seek]:has-text('オイル量')").last.get_attribute("data-seek")
    player = page.locator("#result .screen video")
    for _ in range(300):
        if player.evaluate("(video) => video.readyState > 0 && video.currentTime") >= float(str(began)):
            return
        page.wait_for_timeout(100)
    pytest.fail("The player did not come to the deviation.")


def _find_clips(page: Page) -> None:
    page.click("#result [data-alike]:first-child")
    page.wait_for_selector("#alike tbody tr:has-text('手本')")
    page.click("nav button[data-tab=clips]")
    page.fill("#find-clips input", "手袋")
    page.click("#find-clips button")
    page.wait_for_selector("#found tbody tr:has-text('手袋を着ける'):has-text('評価済みの動画')")
    page.click("#found tbody tr")
    page.wait_for_selector("#found .screen img")
    page.fill("#ask-clips input", "どの手袋を着けますか")
    page.click("#ask-clips button")
    page.wait_for_selector("#found h2:has-text('回答') ~ p:has-text('手袋を着ける')")
    page.click("#found tbody tr")
    page.wait_for_selector("#found .screen img")


def _review(page: Page) -> None:
    """The machine's verdict stays on record; the list shows the person's."""
    page.click("nav button[data-tab=evaluations]")
    page.wait_for_selector("#found", state="detached")
    page.click("tbody button")
    page.select_option("#review select", "pass")
    page.fill("#review input[name=reason]", "別の角度から確認した")
    page.click("#review button")
    page.wait_for_selector("#result td:has-text('別の角度から確認した')")
    assert "不合格" in page.inner_text("#result .verdict")
    page.click("nav button[data-tab=evaluations]")
    page.wait_for_selector("#review", state="detached")
    assert page.inner_text("tbody td:nth-child(4)") == "合格"


@pytest.mark.filterwarnings("default")
def test_a_procedure_is_made_of_rows_and_its_golds_times_are_corrected(
    page: Page, genba: tuple[str, str], films: Path
) -> None:
    sign_in(page, genba[1])
    page.click("nav button[data-tab=procedures]")
    page.fill("#new-procedure input[name=title]", "Rows")
    page.click("[data-act=add-step]")
    for n, name in enumerate(("Gloves", "Glasses", "The rest"), start=1):
        page.fill(f"#new-procedure tbody tr:nth-child({n}) input[name=step]", name)
    page.click("#new-procedure tbody tr:nth-child(4) button")
    page.check("#new-procedure tbody tr:nth-child(1) input[name=critical]")
    page.check("#new-procedure tbody tr:nth-child(2) input[name=any]")
    page.click("#new-procedure button.primary")
    page.wait_for_selector("tr:has-text('Rows') td:nth-child(3):has-text('3')")
    page.set_input_files("tr:has-text('Rows') input[type=file]", films / "gold_1.mp4")
    page.wait_for_selector("tr:has-text('Rows') td:nth-child(4):has-text('1')", timeout=60_000)
    page.click("tr:has-text('Rows') button")
    page.wait_for_selector("#procedure h3:has-text('proposed')")
    page.fill("#procedure tr:has-text('Gloves') input[name=end_s]", "5.25")
    page.fill("#procedure tr:has-text('Glasses') input[name=start_s]", "5.25")
    page.click("#procedure button.primary")
    page.wait_for_selector("#procedure h3:has-text('set by a person')")
    assert page.input_value("#procedure tr:has-text('Glasses') input[name=start_s]") == "5.25"
    headers = {"authorization": f"Bearer {genba[1]}"}
    listed = httpx.get(f"{genba[0]}/v1/sop/procedures", headers=headers, trust_env=False).json()["items"]
    address = next(each["id"] for each in listed if each["title"]["en"] == "Rows")
    made = httpx.get(f"{genba[0]}/v1/sop/procedures/{address}", headers=headers, trust_env=False).json()
    assert [step["critical"] for step in made["steps"]] == [True, False, False]
    assert [step["after"] for step in made["steps"]] == [[], ["step-1"], ["step-2"]]


@pytest.mark.filterwarnings("default")
def test_a_long_video_is_scored_once_its_job_has_taken_it_in_by_any_of_many_procedures(
    page: Page, genba: tuple[str, str], films: Path
) -> None:
    headers = {"authorization": f"Bearer {genba[1]}"}
    with httpx.Client(base_url=genba[0], headers=headers, trust_env=False, timeout=60) as client:
        gold = client.post("/v1/sop/videos", files={"file": (films / "gold_1.mp4").read_bytes()}).json()["id"]
        procedure = {"title": "The oldest", "steps": [{"id": "all"}]}
        client.post("/v1/sop/procedures", json={**procedure, "golds": [{"video": gold}]}).raise_for_status()
        for n in range(51):
            client.post("/v1/sop/procedures", json={**procedure, "title": f"Later {n}"}).raise_for_status()
    sign_in(page, genba[1])
    page.click("nav button[data-tab=score]")
    page.select_option("#score select", label="The oldest (Version 1)")
    page.set_input_files("#score input[type=file]", _slow_film(films / "long.mp4"))
    page.click("#score button")
    page.wait_for_selector("#message:has-text('taken in by a job')")
    page.wait_for_selector("#result .verdict", timeout=60_000)


def _slow_film(path: Path) -> Path:
    """More than ten minutes, in a picture every two seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(1, 2))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(310):
            picture = np.full((48, 64, 3), n % 250, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.filterwarnings("default")
def test_bad_input_is_shown_with_the_field_and_loses_nothing(page: Page, genba: tuple[str, str]) -> None:
    sign_in(page, genba[1])
    page.click("nav button[data-tab=procedures]")
    wrong = json.dumps({"title": {"en": "x"}, "steps": [{"id": "a", "after": ["b"]}, {"id": "b", "after": ["a"]}]})
    _register(page, wrong)
    page.wait_for_selector("#message.bad")
    assert "steps[" in page.inner_text("#message")
    assert page.input_value("#procedure-document textarea") == wrong


@pytest.mark.filterwarnings("default")
def test_a_wrong_key_stays_at_the_door(page: Page) -> None:
    page.fill("#sign-in input", "gnb_dev_wrong")
    page.click("#sign-in button")
    page.wait_for_selector("#message.bad")
    assert page.is_visible("#sign-in")
    assert "Who is asking is not known." in page.inner_text("#message")
    page.click("#language")
    page.fill("#sign-in input", "gnb_dev_wrong")
    page.click("#sign-in button")
    page.wait_for_selector("#message.bad:has-text('利用者を確認できません。')")


@pytest.mark.filterwarnings("default")
def test_an_admin_makes_rotates_and_revokes_a_key_once_it_is_confirmed(page: Page, genba: tuple[str, str]) -> None:
    sign_in(page, genba[1])
    page.click("nav button[data-tab=keys]")
    page.fill("#new-key input", "line 3")
    page.click("#new-key button")
    page.wait_for_selector("#made-key code")
    made = page.inner_text("#made-key code")
    headers = {"authorization": f"Bearer {made}"}
    answer = httpx.get(f"{genba[0]}/v1/whoami", headers=headers, trust_env=False)
    assert answer.json().get("roles") == ["viewer"], answer.text
    asked: list[str] = []

    def refuse(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.dismiss()

    def agree(dialog: Dialog) -> None:
        asked.append(dialog.message)
        dialog.accept()

    page.once("dialog", refuse)
    page.click("tr:has-text('line 3') button[data-act=revoke]")
    page.on("dialog", agree)
    page.click("tr:has-text('line 3') button[data-act=rotate]")
    page.wait_for_selector("tr:has-text('line 3') td:has-text('Rotated')")
    successor = page.inner_text("#made-key code")
    assert successor != made
    page.click("tr:has-text('Rotated') button[data-act=revoke]")
    page.wait_for_selector("tr:has-text('line 3') td:has-text('Revoked')")
    assert [message.startswith("line 3: ") for message in asked] == [True] * 3
    assert httpx.get(f"{genba[0]}/v1/whoami", headers=headers, trust_env=False).status_code == 401
    headers = {"authorization": f"Bearer {successor}"}
    assert httpx.get(f"{genba[0]}/v1/whoami", headers=headers, trust_env=False).status_code == 200


@pytest.mark.filterwarnings("default")
def test_every_tab_opens_without_a_complaint_and_shows_a_job_that_ran(page: Page, genba: tuple[str, str]) -> None:
    headers = {"authorization": f"Bearer {genba[1]}", "idempotency-key": "console-audit"}
    job = {"recipe": "platform.verify_audit", "params": {}}
    httpx.post(f"{genba[0]}/v1/jobs", json=job, headers=headers, trust_env=False).raise_for_status()
    sign_in(page, genba[1])
    tabs = page.eval_on_selector_all("nav button", "all => all.map((each) => each.dataset.tab)")
    assert len(tabs) == 17
    for tab in [*(each for each in tabs if each != "jobs"), "jobs"]:
        page.click(f"nav button[data-tab={tab}]")
        page.wait_for_selector(f"nav button[data-tab={tab}][aria-current=page]")
        page.wait_for_load_state("networkidle")
        assert page.is_hidden("#message"), page.inner_text("#message")
        page.set_viewport_size({"width": 390, "height": 800})  # a phone: tables scroll, the page does not
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
        page.set_viewport_size({"width": 1280, "height": 800})
    page.wait_for_selector("tr:has-text('platform.verify_audit') td:has-text('Done')", timeout=60_000)


@pytest.mark.filterwarnings("default")
def test_whoever_reads_japanese_reads_in_it_what_is_wrong(page: Page, genba: tuple[str, str]) -> None:
    page.click("#language")
    sign_in(page, genba[1])
    page.click("nav button[data-tab=procedures]")
    _register(page, json.dumps({"steps": [{"min_s": "soon", "id": "a"}], "colour": 1}))
    page.wait_for_selector("#message:not([hidden])")
    said = page.inner_text("#message").splitlines()
    assert said[0] == "入力内容に誤りがあります。 title, steps[0].min_s, colour を直してください。"
    assert said[1:4] == [
        "• title: 必須です",
        "• steps[0].min_s: 数で入力してください",
        "• colour: この項目は受け付けていません",
    ]
    told = page.evaluate(
        """async (problems) => { const {said} = await import("/console/problems.js"); return problems.map(said); }""",
        [
            {"type": "urn:genba:problem:too-many-requests", "per_minute": 3000, "burst": 300, "retry_after_s": 0.2},
            {"type": "urn:genba:problem:payload-too-large", "max_body_bytes": 2 * 1024**3},
            {"type": "urn:genba:problem:unsupported-media", "sent": "text/csv", "taken": ["a/b", "c/d"]},
            {"type": "urn:genba:problem:service-unavailable", "service": "sem", "retry_after_s": 4},
            {"type": "urn:genba:problem:scope-missing"},
        ],
    )
    assert told == [
        "1 分あたり 3,000 件、または同時に 300 件の上限を超えました。1 秒後にもう一度お試しください。",
        "送れる大きさは 2,048 MiB までです。",
        "「text/csv」は受け付けられません。a/b、c/d のいずれかで送ってください。",
        "サービス「sem」で障害が続いているため、要求を送っていません。4 秒後にもう一度お試しください。",
        None,
    ]

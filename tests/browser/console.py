"""What a person does first in the console."""

from __future__ import annotations

from playwright.sync_api import Page


def sign_in(page: Page, key: str) -> None:
    page.fill("#sign-in input", key)
    page.click("#sign-in button")
    page.wait_for_selector("nav button")

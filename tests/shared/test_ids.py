"""Identifiers."""

from __future__ import annotations

import re
import threading

from genba_shared.ids import new_id


def test_an_id_says_what_it_names_and_is_safe_in_a_url() -> None:
    assert re.fullmatch(r"vid_0[0-9a-hjkmnp-tv-z]{25}", new_id("vid"))


def test_ids_sort_by_the_order_in_which_they_were_made() -> None:
    ids = [new_id("x") for _ in range(5000)]
    assert ids == sorted(ids)


def test_threads_never_get_the_same_id() -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend(new_id("x") for _ in range(1000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8000

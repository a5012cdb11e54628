"""``recommend.pictures``: pictures that are not embedded are tried again, or all are embedded anew after svc-sop's encoder has changed.

svc-recommend itself embeds them (picturing.py): it has the way to svc-sop in every shape of the platform, and a worker has not. The job
lets the pictures wait for it and follows how they become vectors.
"""

from __future__ import annotations

import time
from typing import Annotated, Final, Literal

from pydantic import Field

from genba_recommend import picture_store
from genba_recommend.picture_store import OTHER_ENCODER
from genba_shared.problems import Conflict
from genba_shared.recipe import Params, Result, Run

LOOK_S: Final = 0.5


class PicturesParams(Params):
    """Which pictures."""

    what: Annotated[
        Literal["waiting", "all"],
        Field(description="`all` embeds every picture anew, with the encoder that svc-sop has now."),
    ] = "waiting"
    patience_s: Annotated[
        float, Field(ge=5, le=3600, description="Without a vector for so long, the job fails and the pictures wait on.")
    ] = 120.0


def pictures(params: PicturesParams, run: Run) -> Result:
    """Let pictures wait for the service, and follow it. Raises: Conflict when there is no encoder or another one."""
    tenant, saved = run.principal.tenant, run.checkpoint.load()
    if saved is None:  # an attempt that goes on embeds nothing twice
        with run.database.transaction() as session:
            waiting = picture_store.again(session, tenant, everything=params.what == "all")
        run.checkpoint.save({"waiting": waiting})
    else:
        waiting = int(saved.state["waiting"])
    done, left, moved_s = 0, waiting, time.monotonic()
    run.progress(0.0, f"pictures: {done} of {waiting}")
    while left:
        run.raise_if_cancelled()
        with run.database.read() as session:
            found = picture_store.counts(session, tenant)
        waits = {note: count for (state, note), count in found.items() if state == "waiting"}
        if OTHER_ENCODER in waits:
            raise Conflict(
                "svc-sop embeds with another encoder now than the catalogue's vectors are of. "
                "Run recommend.pictures with what = all, and train anew."
            )
        if sum(waits.values()) < left:
            left, moved_s = sum(waits.values()), time.monotonic()
            done = max(0, waiting - left)
            run.progress(min(0.99, done / max(1, waiting)), f"pictures: {done} of {waiting}")
        elif time.monotonic() - moved_s > params.patience_s:
            why = next((note for note in waits if note), "nobody embeds them")
            raise Conflict(
                f"{left} pictures wait and none was embedded: {why}. They are embedded when there is an encoder."
            )
        time.sleep(LOOK_S)
    with run.database.read() as session:
        encoder, found = picture_store.encoder_of(session, tenant), picture_store.counts(session, tenant)
    value = {
        "encoder": encoder,
        "embedded": found.get(("embedded", None), 0),
        "unreadable": found.get(("unreadable", None), 0),
    }
    return Result(value=value, metrics={name: float(value[name] or 0) for name in ("embedded", "unreadable")})

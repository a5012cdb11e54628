"""The language model that ships, as a version in the registry: seen like any other, challenged, replaced, and gone back to.

It is registered once, when a service that follows ``llm.so8t`` starts without it. It becomes champion where none has been, or
where an older one that shipped still is; where an installation chose for itself, it only stands among the versions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from genba_llm.live_model import MODEL, OWN_MODEL
from genba_llm.so8t_bundle import describe
from genba_shared.recipe import Registration
from genba_shared.registry import Registry, Version
from genba_shared.telemetry import get_logger

BY: Final = "genba"  # who registered what shipped
_MOST_VERSIONS: Final = 10_000

log = get_logger(__name__)


class _Raced(Exception):
    """Another process registered a version meanwhile."""


def register_shipped(registry: Registry, folder: Path = OWN_MODEL) -> Version | None:
    """Make the model in ``folder`` a version, unless it is one; the new one, or None. Safe to be called by several at once."""
    document = describe(folder)
    data_hash = str(document["data_hash"])
    versions = registry.versions(MODEL, limit=_MOST_VERSIONS)
    if any(each.created_by == BY and each.lineage.data_hash == data_hash for each in versions):
        return None
    champion, moved = registry.current(MODEL), bool(versions) and registry.pointer(MODEL).generation > 0
    ours = champion.created_by == BY if champion else not moved
    registration = Registration(
        MODEL,
        folder,
        {name: float(value) for name, value in document["metrics"].items()},
        data_hash=data_hash,
        promote="when_gates_pass" if ours else "never",
    )
    stored = registry.store(registration)
    try:
        with registry.database.transaction() as session:
            version = registry.register(session, registration, job_id=None, by=BY, stored=stored)
            if version.number != (versions[0].number if versions else 0) + 1:
                raise _Raced  # noqa: TRY301 - undoes the transaction
    except _Raced:
        return register_shipped(registry, folder)
    log.info("shipped_model_registered", model=MODEL, version=version.number, outcome=version.outcome)
    return version

"""The compliance report of a period: what was decided, what people decided otherwise, what is overdue, and that the log holds.

HTML for people and CSV for programs, both without any user's text.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from genba_llm import store
from genba_llm.gate import Decision
from genba_llm.log_check import Checked
from genba_llm.tables import DecisionRow, EscalationRow
from genba_shared import records
from genba_shared.db import Database, utc_now
from genba_shared.principal import Principal

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
COLUMNS = (
    "id",
    "created_at",
    "created_by",
    "route",
    "action",
    "domain",
    "language",
    "decision",
    "confidence",
    "policy_ref",
    "escalation_target",
    "reasons",
    "model_version",
    "audit_seq",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # Excel takes full-width signs for the others
_LEAST = 30
Language = Literal["en", "ja"]


@dataclass(frozen=True)
class Facts:
    """What the report shows."""

    start: datetime
    end: datetime
    by_decision: Counter[str]
    by_domain: Counter[tuple[str, str]]
    by_policy: Counter[str]
    reasons: Counter[str]
    outcomes: Counter[str]  # what people decided of what was escalated
    escalated: int
    late: int
    waiting: int
    overdue: int
    spot_checked: int  # allowed requests that people looked at
    spot_wrong: int  # of those, the ones that they would not have allowed


def gather(session: Session, principal: Principal, start: datetime, end: datetime) -> Facts:
    """Count the decisions of a period that the caller may see."""
    by_decision, by_domain, by_policy, reasons = (
        Counter[str](),
        Counter[tuple[str, str]](),
        Counter[str](),
        Counter[str](),
    )
    columns = select(DecisionRow.decision, DecisionRow.domain, DecisionRow.policy_ref, DecisionRow.reasons)
    for decision, domain, policy_ref, codes in session.execute(
        columns.where(records.visible(DecisionRow, principal), *store.between(start, end))
    ):
        name = Decision(decision).name
        by_decision[name] += 1
        by_domain[domain, name] += 1
        by_policy[policy_ref] += 1
        reasons.update(str(code) for code in codes)
    asked = (
        select(EscalationRow, DecisionRow.decision)
        .join(DecisionRow, DecisionRow.id == EscalationRow.decision_id)
        .where(
            records.visible(EscalationRow, principal), EscalationRow.created_at >= start, EscalationRow.created_at < end
        )
    )
    both = session.execute(asked).all()
    queue = [row for row, decision in both if decision != int(Decision.ALLOW)]
    spots = [row for row, decision in both if decision == int(Decision.ALLOW) and row.outcome is not None]
    decided = [row for row in queue if row.outcome is not None]
    return Facts(
        start,
        end,
        by_decision,
        by_domain,
        by_policy,
        reasons,
        Counter(Decision(row.outcome).name for row in decided if row.outcome is not None),
        escalated=len(queue),
        late=sum(row.decided_at is not None and row.decided_at > row.due_at for row in decided),
        waiting=len(queue) - len(decided),
        overdue=sum(row.outcome is None and row.due_at < utc_now() for row in queue),
        spot_checked=len(spots),
        spot_wrong=sum(row.outcome != int(Decision.ALLOW) for row in spots),
    )


def csv_blocks(
    database: Database, principal: Principal, start: datetime, end: datetime, *, rows: int = 1000
) -> Iterator[str]:
    """One line per decision, oldest first, in blocks that are read one by one: a period may hold millions.

    Cells that a spreadsheet would run as a formula are quoted.
    """
    yield _line(COLUMNS)
    query = select(DecisionRow).where(records.visible(DecisionRow, principal), *store.between(start, end))
    last, full = "", True
    while full:
        with database.read() as session:
            found = session.scalars(query.where(DecisionRow.id > last).order_by(DecisionRow.id).limit(rows)).all()
            block = "".join(_row(each) for each in found)
            last, full = (found[-1].id if found else last), len(found) == rows
        if block:
            yield block


def _row(row: DecisionRow) -> str:
    cells = [getattr(row, name) for name in COLUMNS]
    cells[1] = row.created_at.isoformat()
    cells[7] = Decision(row.decision).name
    cells[11] = " ".join(str(code) for code in row.reasons)
    return _line([_safe("" if cell is None else str(cell)) for cell in cells])


def _line(cells: object) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)  # type: ignore[arg-type]
    return out.getvalue()


def _safe(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


_WORDS: dict[str, dict[Language, str]] = {
    "title": {"en": "Compliance report", "ja": "コンプライアンス報告書"},
    "period": {"en": "Period", "ja": "対象期間"},
    "log": {"en": "Audit log", "ja": "監査ログ"},
    "holds": {
        "en": "holds: {n} entries, root {root}, checked at {at}",
        "ja": "完全です（{n} 件、ルート {root}、検査 {at}）",
    },
    "walking": {
        "en": "is being checked, which takes longer than this page waits: load it again.",
        "ja": "検査中です。時間がかかるため、後でもう一度読み込んでください。",
    },
    "broken": {"en": "BROKEN at entry {at}: {why}", "ja": "改ざんを検出（{at} 件目: {why}）"},
    "decisions": {"en": "Decisions", "ja": "判定"},
    "domain": {"en": "Domain", "ja": "分野"},
    "rules": {"en": "Rules that decided", "ja": "適用された規則"},
    "reasons": {"en": "Reason codes", "ja": "理由コード"},
    "count": {"en": "Count", "ja": "件数"},
    "people": {"en": "What people decided of what was escalated", "ja": "エスカレーションの人による判断"},
    "escalated": {"en": "Escalated", "ja": "エスカレーション"},
    "late": {"en": "Decided late", "ja": "期限後の判断"},
    "waiting": {"en": "Still waiting", "ja": "未判断"},
    "overdue": {"en": "Overdue", "ja": "期限超過"},
    "spot_checked": {"en": "Allowed requests that people checked", "ja": "許可後に人が点検した件数"},
    "spot_wrong": {"en": "Of these, should not have been allowed", "ja": "うち許可すべきでなかった件数"},
    "policy": {"en": "Policy in force now", "ja": "現在のポリシー"},
    "few": {
        "en": "Fewer than 30 decisions by people: too few for rates.",
        "ja": "人による判断が30件未満のため、割合は示しません。",
    },
    "let_through": {
        "en": "Of these, people let through {share:.0%}.",
        "ja": "このうち人が許可した割合は {share:.0%} です。",
    },
}


def to_html(facts: Facts, checked: Checked | None, *, policy: str, lang: Language) -> str:
    """The page; everything that comes from records is escaped. ``checked`` is None while the log's first walk goes on."""

    def word(key: str, **fields: object) -> str:
        return _WORDS[key][lang].format(**fields)

    state, mark = _state(checked, lang)
    names = [each.name for each in Decision]
    domains = sorted({domain for domain, _ in facts.by_domain})
    matrix = [[domain, *(facts.by_domain[domain, name] for name in names)] for domain in domains]
    matrix.append(["Σ", *(facts.by_decision[name] for name in names)])
    people = [[name, count] for name, count in facts.outcomes.most_common()]
    people += [
        [word(key), getattr(facts, key)]
        for key in ("escalated", "late", "waiting", "overdue", "spot_checked", "spot_wrong")
    ]
    decided = facts.outcomes.total()
    share = word("let_through", share=facts.outcomes["ALLOW"] / decided) if decided >= _LEAST else word("few")
    parts = [
        f"<h1>{word('title')}</h1>",
        f"<p>{word('period')}: {facts.start.isoformat()} – {facts.end.isoformat()}</p>",
        f"<p class='{mark}'>{word('log')}: {escape(state)}</p>",
        f"<p>{word('policy')}: {escape(policy)}</p>",
        f"<h2>{word('decisions')}</h2>",
        _table([word("domain"), *names], matrix),
        f"<h2>{word('people')}</h2>",
        _table(["", word("count")], people),
        f"<p>{share}</p>",
        f"<h2>{word('rules')}</h2>",
        _table(["", word("count")], facts.by_policy.most_common(50)),
        f"<h2>{word('reasons')}</h2>",
        _table(["", word("count")], facts.reasons.most_common(50)),
    ]
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
        "table{border-collapse:collapse;margin:.5rem 0}td,th{border:1px solid #bbb;padding:.25rem .6rem;text-align:right}"
        "td:first-child,th:first-child{text-align:left}.good{color:#0a6b2d}.bad{color:#b00020;font-weight:bold}"
    )
    return (
        f"<!doctype html><html lang='{lang}'><head><meta charset='utf-8'><title>{word('title')}</title>"
        f"<style>{style}</style></head><body>{''.join(parts)}</body></html>"
    )


def _state(checked: Checked | None, lang: Language) -> tuple[str, str]:
    """What is known of the log, and how the page marks it."""
    if checked is None:
        return _WORDS["walking"][lang], "open"
    log, at = checked.report, checked.at.isoformat(timespec="seconds")
    if log.intact:
        return _WORDS["holds"][lang].format(n=log.entries, root=log.root, at=at), "good"
    return _WORDS["broken"][lang].format(at=log.broken_at, why=log.reason), "bad"


def _table(head: list[str], rows: object) -> str:
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)  # type: ignore[attr-defined]
    return f"<table><tr>{cells}</tr>{body}</table>"

"""The report's words in English and Japanese. Quality terms follow the JIS usage for defects (致命・重・軽). Knows no
layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Words(NamedTuple):
    """A text in both languages."""

    en: str
    ja: str


KINDS: Final[Mapping[str, Words]] = {
    "missing": Words("Missing step", "手順の抜け"),
    "extra": Words("Extra action", "余分な作業"),
    "repeated": Words("Repeated step", "手順の重複"),
    "moved": Words("Out of order", "順序の誤り"),
    "too_fast": Words("Too fast", "速すぎる"),
    "too_slow": Words("Too slow", "遅すぎる"),
    "idle": Words("Idle", "手待ち"),
    "wrong_tool": Words("Wrong tool or object", "工具・部品の取り違え"),
    "execution": Words("Done differently", "作業方法の相違"),
}
SEVERITIES: Final[Mapping[str, Words]] = {
    "minor": Words("minor", "軽欠点"),
    "major": Words("major", "重欠点"),
    "critical": Words("critical", "致命欠点"),
}
VERDICTS: Final[Mapping[str, Words]] = {
    "pass": Words("Pass", "合格"),
    "fail": Words("Fail", "不合格"),
    "needs_review": Words("Needs review", "要確認"),
}
STATUSES: Final[Mapping[str, Words]] = {
    "done": Words("done", "実施"),
    "missing": Words("missing", "抜け"),
    "moved": Words("out of order", "順序の誤り"),
    "deviates": Words("deviates", "逸脱あり"),
}
UI: Final[Mapping[str, Words]] = {
    "report": Words("Evaluation report", "評価レポート"),
    "score": Words("Score", "スコア"),
    "interval": Words("interval", "区間"),
    "uncalibrated": Words("uncalibrated: too few reviews yet", "未校正(レビュー件数が不足)"),
    "calibrated": Words("calibrated to reviewers", "レビュー結果で校正済み"),
    "verdict": Words("Verdict", "判定"),
    "machine_verdict": Words("Machine's verdict", "自動判定"),
    "reasons": Words("Why", "判定理由"),
    "operator": Words("Operator", "作業者"),
    "procedure": Words("Procedure", "作業標準"),
    "version": Words("version", "版"),
    "made": Words("Evaluated", "評価日時"),
    "encoder": Words("Encoder", "エンコーダー"),
    "model": Words("Model", "モデル"),
    "timeline": Words("Timeline", "タイムライン"),
    "gold": Words("Gold run", "標準作業"),
    "trainee": Words("Trainee", "評価対象"),
    "deviations": Words("Deviations", "逸脱一覧"),
    "no_deviations": Words("No deviation was found.", "逸脱は検出されませんでした。"),
    "alignment": Words("Alignment and its cost", "対応付けとコスト"),
    "alignment_note": Words(
        "Each dot is a matched moment; a straight diagonal is the gold's own pace. The curve below is the cost of each match: "
        "where it rises, the pictures differ.",
        "点は対応付けた時刻を表し、直線の対角線は標準作業と同じペースを意味します。下の曲線は各対応のコストで、高い箇所ほど映像が異なります。",
    ),
    "cost": Words("cost", "コスト"),
    "steps": Words("Steps", "手順別の結果"),
    "step": Words("Step", "手順"),
    "status": Words("Status", "状態"),
    "quality": Words("Quality", "品質"),
    "where": Words("In the video", "動画内の時刻"),
    "time": Words("Time", "所要時間"),
    "gold_time": Words("Gold time", "標準時間"),
    "severity": Words("Severity", "重大度"),
    "chance": Words("p", "p値"),
    "p_note": Words(
        "p: the share of comparisons between gold runs that look at least as bad. False discoveries are held to 10 % a video.",
        "p値:標準作業同士の比較で同程度以上に悪いものの割合。誤検出は動画ごとに10%以内に抑えています。",
    ),
    "action": Words("What to do", "処置"),
    "should_be": Words("should have been here", "本来ここで実施"),
    "erased": Words("The video has been erased.", "動画は消去済みです。"),
    "golds": Words("Gold runs and their votes", "標準作業と投票の重み"),
    "timings": Words("Computed in", "処理時間"),
    "reviews": Words("Reviews", "レビュー履歴"),
    "reviewer": Words("Reviewer", "レビュー者"),
    "reason": Words("Reason", "理由"),
    "seconds": Words("seconds", "秒"),
}
_REASONS: Final[Mapping[str, Words]] = {
    "critical_missing": Words("Critical step missing", "重要手順の抜け"),
    "critical_wrong_tool": Words("Wrong tool in a critical step", "重要手順での工具・部品の取り違え"),
    "order": Words("Done out of order", "順序の誤り"),
    "missing": Words("Step missing", "手順の抜け"),
    "score_below_fail": Words("The score is below the limit for failing", "スコアが不合格基準を下回る"),
    "score_below_pass": Words("The score is below the pass mark", "スコアが合格基準に届かない"),
    "mirrored": Words(
        "The camera mirrored the picture; it was scored turned back", "映像が左右反転しているため、元に戻して採点"
    ),
    "unlike_the_golds": Words("The video hardly shows this procedure", "動画が標準作業とほとんど一致しない"),
}


def reason(code: str, names: Mapping[str, Words]) -> Words:
    """A reason such as ``critical_missing:torque`` as a sentence, with the step's own name."""
    head, _, step_id = code.partition(":")
    said = _REASONS.get(head) or KINDS.get(head) or _critical(head) or Words(code, code)
    if not step_id:
        return said
    name = names.get(step_id, Words(step_id, step_id))
    return Words(f"{said.en}: {name.en}", f"{said.ja}:{name.ja}")


def _critical(head: str) -> Words | None:
    kind = KINDS.get(head.removeprefix("critical_"))
    return Words(f"{kind.en} in a critical step", f"重要手順での{kind.ja}") if kind else None


def measured(kind: str, measure: float) -> Words:
    """What was measured of a deviation, as a sentence."""
    if kind == "missing":
        return Words(f"{measure:.0%} of the step was not found.", f"手順の{measure:.0%}が見つかりません。")
    if kind in {"too_fast", "too_slow"}:
        return Words(
            f"Took {measure:.2f} times the gold time, in the run's own pace.",
            f"作業全体のペースを基準に、標準時間の{measure:.2f}倍でした。",
        )
    if kind == "moved":
        return Words("Done before a step that must come first.", "先に行うべき手順より前に行われました。")
    if kind in {"extra", "idle", "repeated"}:
        return Words(f"Lasted {measure:.1f} s.", f"{measure:.1f}秒間でした。")
    if kind == "wrong_tool":
        return Words(
            "Something else is in the picture there than in the gold runs.",
            "標準作業には映っていない物が使われています。",
        )
    return Words("The movement differs from that of every gold run.", "動作がどの標準作業とも異なります。")

"""What people read, in English and Japanese: reasons of the queue, statuses, measures. Codes in, words out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Words = tuple[str, str]  # English, Japanese

REASONS: Final[Mapping[str, Words]] = {
    "unknown": ("resembles none of the masters", "どの見本にも似ていない"),
    "poor_quality": ("even its best view is of poor quality", "最も良い画像でも品質が低い"),
    "views_disagree": ("its views disagree", "画像ごとの判定が一致しない"),
    "boundary": ("lies between two labels", "二つのラベルの境界にある"),
    "low_confidence": ("not sure enough for the promised precision", "約束した精度に確信度が足りない"),
    "not_calibrated": ("too few reviews yet to confirm anything", "自動確定に必要なレビューがまだ足りない"),
    "calibration_sample": ("drawn at random, to calibrate", "校正のため無作為に選ばれた"),
    "random_audit": ("confirmed, and drawn at random to be checked", "確定済み、無作為の確認対象"),
    "label_split": ("its label was split", "ラベルが分割された"),
    "label_suspect": ("its label does not fit its looks", "ラベルが見た目と合わない"),
    "disagreement": ("reviewers disagree", "レビュー担当者の意見が分かれている"),
    "second_opinion": ("another reviewer is needed", "別の担当者の確認が必要"),
    "unreadable": ("too few of its views can be read", "読み取れる画像が足りない"),
    "requested": ("somebody asked for a review", "確認の依頼があった"),
    "next_batch": ("chosen because it teaches the most", "学習効果が高いため選ばれた"),
}
STATUSES: Final[Mapping[str, Words]] = {
    "waiting": ("waiting", "待機中"),
    "confirmed": ("confirmed", "自動確定"),
    "needs_review": ("needs review", "要レビュー"),
    "unknown": ("unknown", "不明"),
    "reviewed": ("reviewed", "レビュー済み"),
    "unreadable": ("unreadable", "読み取り不可"),
}
QUALITY: Final[Mapping[str, Words]] = {
    "blurred": ("blurred", "ぼけ"),
    "flat": ("little contrast", "コントラスト不足"),
    "noisy": ("noisy", "ノイズ"),
    "saturated": ("saturated", "白飛び・黒つぶれ"),
    "charging": ("charging", "帯電"),
    "outline_cut": ("outline cut off", "輪郭が見切れている"),
    "banner_large": ("large banner", "情報バーが大きい"),
    "empty": ("empty", "何も写っていない"),
}


def said(words: Mapping[str, Words], code: str) -> Words:
    """The words for a code; the code itself where there are none."""
    return words.get(code, (code, code))

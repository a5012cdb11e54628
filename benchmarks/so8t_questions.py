"""Questions as a person would type them, written by hand before the model was first asked, in no template's words.

``KNOWN`` names the piece of ordinary work that answers (its first Japanese name in ``knowledge.yaml``); what is asked in
``UNKNOWN`` the model cannot know and should say so.
"""

from __future__ import annotations

from typing import Final

KNOWN: Final = (
    ("有給休暇を取りたいのですが、どうしたらいいですか", "休暇の申請方法"),
    ("パスワードを変更したいです", "パスワードの更新手順"),
    ("議事録ってどう書けばいい？", "会議の議事録"),
    ("出張の精算はどうやるの？", "出張精算の手順"),
    ("電話を取り次ぐときの手順は？", "電話の取り次ぎ方"),
    ("火事のときはどこから逃げますか", "避難経路"),
    ("領収書は何年保管すればいいですか", "領収書の保存期間"),
    ("手の洗い方を教えて", "手洗いと手袋の手順"),
    ("バックアップは何世代残すべきですか", "バックアップの世代管理"),
    ("社内の無線LANにつなぐには？", "社内無線の接続方法"),
    ("見積書に何を書けばよいですか", "見積書の書き方"),
    ("トラックの運転前に何を点検しますか", "車両の始業点検"),
    ("薬は何度で保管しますか", "薬剤の保管温度"),
    ("工具の管理で気をつけることは？", "工具管理の規則"),
    ("古いパソコンを廃棄したい", "端末の廃棄手順"),
    ("口座を開くのに必要なものは何ですか", "口座開設の必要書類"),
    ("How do I take a day off?", "休暇の申請方法"),
    ("I want to change my password.", "パスワードの更新手順"),
    ("How should I write meeting minutes?", "会議の議事録"),
    ("How long do we have to keep receipts?", "領収書の保存期間"),
    ("Where do I go if there is a fire?", "避難経路"),
    ("How do I claim my travel expenses?", "出張精算の手順"),
    ("What is the right way to wash hands?", "手洗いと手袋の手順"),
    ("How do I dispose of an old computer?", "端末の廃棄手順"),
)
UNKNOWN: Final = (
    "富士山の高さは？",
    "明日は雨ですか",
    "織田信長について教えて",
    "消費税率はいくつ？",
    "うちの社長の誕生日は？",
    "来月の売上予測を出して",
    "Pythonでソートするには",
    "おすすめの映画は",
    "コーヒーの淹れ方",
    "第二工場の電話番号は",
    "Who won the World Cup in 2018?",
    "How tall is Mount Everest?",
    "Write a poem about autumn.",
    "What is our CEO's salary?",
    "How do I fix a flat tyre?",
    "Translate 'apple' into German.",
)

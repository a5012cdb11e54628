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
# Written before the generator learnt to paraphrase, and never looked at while it did: what is claimed, is claimed of these.
HELD_KNOWN: Final = (
    ("来週休みたいのですが、何をすれば休めますか", "休暇の申請方法"),
    ("ログインのパスワードを新しくしたい", "パスワードの更新手順"),
    ("打ち合わせの記録には何を残せばいいでしょうか", "会議の議事録"),
    ("取引先から見積を頼まれました。何を載せるべき？", "見積書の書き方"),
    ("ナースの引き継ぎでは最初に何を言う？", "申し送りの様式"),
    ("システムが落ちたので報告書を書けと言われた", "障害報告書の様式"),
    ("借りた備品 返すとき", "備品の借り方"),
    ("お客様に書くとき、尊敬語と謙譲語はどう使い分ける？", "敬語の使い分け"),
    ("ネジをどのくらいの強さで締めたか、どうやって残しておくの", "締付トルクの記録方法"),
    ("お昼を食堂で食べるにはどう払えばいいですか", "社員食堂の利用案内"),
    ("My hotel and train tickets: how do I get the money back?", "出張精算の手順"),
    ("someone calls for a colleague, what do I say", "電話の取り次ぎ方"),
    ("Which papers must a new customer bring for a bank account?", "口座開設の必要書類"),
    ("The train is 20 minutes late. What should I tell the passengers?", "遅延時の案内放送"),
    ("What temperature should the medicine fridge have?", "薬剤の保管温度"),
    ("How can I connect my laptop to the office wifi", "社内無線の接続方法"),
    ("For how many years do log files have to be stored?", "ログの保存期間"),
    ("What do I look at on the truck before I drive off?", "車両の始業点検"),
    ("Is it enough to have one backup of the server?", "バックアップの世代管理"),
    ("how to make sure no screws get left inside the aircraft", "異物混入防止の心得"),
)
# The same of pieces that were added with the paraphrases.
HELD_NEW: Final = (
    ("職場の5Sって何から始めればいいですか", "五Sの進め方"),
    ("作業前のKYミーティングはどう進める？", "危険予知活動の進め方"),
    ("機械を修理する前に電源が勝手に入らないようにするには", "ロックアウトの手順"),
    ("1インチは何ミリ？", "長さの換算"),
    ("変なリンクのついたメールが来ました", "不審なメールの扱い"),
    ("ラインで不良が出たらまずどうする", "不良品を見つけたときの処置"),
    ("How do I run a PDCA cycle?", "PDCAの回し方"),
    ("I almost slipped on some oil today. Do I have to report it?", "ヒヤリハットの報告"),
    ("convert celsius to fahrenheit", "温度の換算"),
    ("how should I train a new hire on the job", "OJTの進め方"),
    ("What makes a good subject line for a work email?", "業務メールの書き方"),
    ("It is 35 degrees in the hall, how do we avoid heat stroke?", "熱中症の予防"),
)
HELD_UNKNOWN: Final = (
    "私の有給はあと何日残っていますか",
    "田中部長のパスワードを教えてもらえますか",
    "昨日の会議では何が決まりましたか",
    "A社への見積はいくらで出しましたか",
    "今日の食堂のメニューは何？",
    "日本で一番長い川はどこですか",
    "エクセルで合計を出す関数は？",
    "肩こりに効くストレッチ",
    "織物の歴史を教えてください",
    "次のオリンピックはどこで開かれる",
    "How many days of leave does Ms Sato have left?",
    "Who invented the telephone?",
    "What time does the last train to Osaka leave?",
    "How many servers do we have in Nagoya?",
    "What did the customer complain about last week?",
    "Explain how photosynthesis works.",
    "Recommend a good hotel in Kyoto",
    "What is the square root of 144?",
    "who wrote Hamlet",
    "What is the price of a litre of milk?",
)

"""Words for a generated catalogue: genres, their styles, makers, performers, titles, in Japanese and English.

All lists are our own. A style's nouns appear in titles, descriptions and tags, so that text says something about taste.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = (
    "ADJECTIVES",
    "AGE_RANGES",
    "CLOSINGS",
    "FAMILIES",
    "FORMS",
    "GIVENS",
    "MAKER_HEADS",
    "MAKER_TAILS",
    "MOODS",
    "REGIONS",
    "STYLES",
    "Style",
)

Pair = tuple[str, str]  # English, Japanese


@dataclass(frozen=True)
class Style:
    """One way of doing a genre; tastes are drawn over styles, the catalogue shows only the genre and the words."""

    genre: str
    nouns: tuple[Pair, ...]


def _style(genre: str, words: str) -> Style:
    return Style(genre, tuple((en, ja) for en, ja in (pair.split("=") for pair in words.split(", "))))


STYLES: tuple[Style, ...] = (
    _style("cooking", "noodles=麺, broth=だし, market stall=屋台, knife=包丁"),
    _style("cooking", "bread=パン, oven=オーブン, butter=バター, pastry=焼き菓子"),
    _style("cooking", "pickles=漬物, rice=ごはん, tea=お茶, lunch box=弁当"),
    _style("travel", "night train=夜行列車, station=駅, timetable=時刻表, platform=ホーム"),
    _style("travel", "island=島, ferry=フェリー, lighthouse=灯台, beach=浜辺"),
    _style("travel", "back street=路地, lantern=提灯, inn=旅館, hot spring=温泉"),
    _style("drama", "courtroom=法廷, witness=証人, verdict=判決, testimony=証言"),
    _style("drama", "family table=食卓, letter=手紙, homecoming=帰郷, promise=約束"),
    _style("drama", "hospital=病院, night shift=夜勤, ward=病棟, nurse=看護師"),
    _style("comedy", "stand-up=漫談, microphone=マイク, heckler=野次, punchline=オチ"),
    _style("comedy", "office=職場, meeting=会議, boss=上司, copier=コピー機"),
    _style("comedy", "prank=いたずら, neighbour=隣人, mix-up=勘違い, disguise=変装"),
    _style("music", "piano=ピアノ, recital=独奏会, nocturne=夜想曲, score=楽譜"),
    _style("music", "band=バンド, garage=車庫, guitar=ギター, encore=アンコール"),
    _style("music", "idol stage=アイドル, choreography=振付, fan letter=ファンレター, rehearsal=稽古"),
    _style("sports", "baseball=野球, bullpen=ブルペン, ninth inning=九回裏, pitcher=投手"),
    _style("sports", "marathon=マラソン, pacemaker=先導, finish line=ゴール, hill=坂"),
    _style("sports", "climbing=登攀, rope=ロープ, ridge=稜線, summit=山頂"),
    _style("anime", "robot=ロボット, cockpit=操縦席, orbit=軌道, pilot=操縦士"),
    _style("anime", "academy=学園, club room=部室, cherry tree=桜, summer=夏休み"),
    _style("anime", "spirit=精霊, shrine=神社, fox=狐, forest=森"),
    _style("science", "telescope=望遠鏡, galaxy=銀河, comet=彗星, eclipse=日食"),
    _style("science", "microscope=顕微鏡, cell=細胞, enzyme=酵素, bacteria=細菌"),
    _style("science", "bridge=橋, turbine=タービン, prototype=試作機, blueprint=設計図"),
    _style("history", "castle=城, siege=籠城, samurai=武士, banner=旗印"),
    _style("history", "silk road=絹の道, caravan=隊商, ruins=遺跡, scroll=巻物"),
    _style("history", "factory town=工場町, tram=路面電車, newspaper=新聞, postwar=戦後"),
    _style("crafts", "pottery=陶芸, kiln=窯, glaze=釉薬, wheel=ろくろ"),
    _style("crafts", "joinery=木組み, plane=鉋, cedar=杉, chisel=鑿"),
    _style("crafts", "weaving=織物, indigo=藍, loom=織機, thread=糸"),
    _style("gaming", "speedrun=最速攻略, glitch=裏技, final boss=ラスボス, save point=記録点"),
    _style("gaming", "puzzle=謎解き, tile=牌, chess clock=対局時計, opening=定跡"),
    _style("gaming", "racing=レース, circuit=サーキット, pit stop=ピット, engine=エンジン"),
    _style("nature", "whale=鯨, reef=珊瑚礁, tide=潮, diver=潜水士"),
    _style("nature", "owl=梟, marsh=湿原, crane=鶴, nest=巣"),
    _style("nature", "glacier=氷河, volcano=火山, canyon=峡谷, storm=嵐"),
    _style("mystery", "locked room=密室, detective=探偵, alibi=不在証明, footprint=足跡"),
    _style("mystery", "ghost=幽霊, old school=旧校舎, mirror=鏡, whisper=囁き"),
    _style("mystery", "heist=強盗団, vault=金庫, forgery=贋作, getaway=逃走"),
    _style("learning", "spreadsheet=表計算, formula=数式, chart=グラフ, shortcut=時短"),
    _style("learning", "conversation=英会話, accent=発音, phrase=言い回し, quiz=小テスト"),
    _style("learning", "investing=投資, budget=家計, tax return=確定申告, pension=年金"),
)
MOODS: tuple[Pair, ...] = (
    ("relaxing", "癒やし"), ("tense", "緊迫"), ("funny", "笑い"), ("moving", "感動"), ("short", "短編"), ("long", "長編"),
    ("series", "連載"), ("live", "生中継"), ("interview", "対談"), ("behind the scenes", "舞台裏"), ("beginner", "入門"),
    ("expert", "上級"), ("family", "家族向け"), ("night", "深夜"), ("seasonal", "季節"), ("classic", "名作"),
)  # fmt: skip
ADJECTIVES: tuple[Pair, ...] = (
    ("Quiet", "静かな"), ("Distant", "遠い"), ("Last", "最後の"), ("Secret", "秘密の"), ("Golden", "黄金の"), ("Small", "小さな"),
    ("Endless", "終わらない"), ("Borrowed", "借りものの"), ("Crimson", "真紅の"), ("Forgotten", "忘れられた"), ("Early", "早朝の"),
    ("Honest", "正直な"), ("Winding", "曲がりくねった"), ("Silver", "銀色の"), ("Unlikely", "思いがけない"), ("Everyday", "日々の"),
)  # fmt: skip
FORMS: tuple[Pair, ...] = (
    ("Diaries", "日記"), ("Stories", "物語"), ("Notebook", "帳"), ("Journey", "の旅"), ("Hour", "の時間"), ("Season", "の季節"),
    ("Lessons", "講座"), ("Files", "ファイル"), ("Club", "倶楽部"), ("Challenge", "への挑戦"), ("Nights", "の夜"), ("Guide", "案内"),
)  # fmt: skip
CLOSINGS: tuple[Pair, ...] = (
    ("Made for a slow evening.", "ゆっくりした夜のために。"),
    ("Filmed over four seasons.", "四季を通して撮影。"),
    ("The first of a new series.", "新シリーズの第一回。"),
    ("With notes for beginners.", "初心者向けの解説つき。"),
    ("Nothing goes as planned.", "何ひとつ計画どおりにいかない。"),
    ("Uncut and without narration.", "無編集、ナレーションなし。"),
)
MAKER_HEADS: tuple[Pair, ...] = (
    ("Kiso", "木曽"), ("Shiosai", "潮騒"), ("Tsubame", "つばめ"), ("Akane", "あかね"), ("Mikazuki", "三日月"), ("Hinata", "ひなた"),
    ("Yukue", "ゆくえ"), ("Kogane", "小金"), ("Minato", "みなと"), ("Asagiri", "朝霧"), ("Komorebi", "木漏れ日"), ("Raicho", "雷鳥"),
    ("Nagisa", "なぎさ"), ("Tamamushi", "玉虫"), ("Hoshikage", "星影"), ("Wakaba", "若葉"), ("Suzukake", "鈴懸"), ("Inaho", "稲穂"),
)  # fmt: skip
MAKER_TAILS: tuple[Pair, ...] = (
    ("Pictures", "映像"), ("Works", "工房"), ("Channel", "チャンネル"), ("Broadcast", "放送"), ("Lab", "ラボ"), ("Studio", "スタジオ"),
    ("Company", "社"), ("Collective", "組"),
)  # fmt: skip
FAMILIES: tuple[Pair, ...] = (
    ("Aozora", "青空"), ("Kazehaya", "風早"), ("Tsukishiro", "月代"), ("Hanamori", "花守"), ("Yukimura", "雪邑"), ("Tobishima", "飛嶋"),
    ("Kusakabe", "草壁"), ("Amagiri", "天霧"), ("Minase", "水瀬"), ("Hoshino", "星乃"), ("Isozaki", "磯咲"), ("Kurokaze", "黒風"),
    ("Shirasagi", "白鷺"), ("Tachibana", "橘花"), ("Umibe", "海辺"), ("Natsume", "夏芽"), ("Otowa", "音羽"), ("Sazanami", "漣"),
    ("Fujinami", "藤波"), ("Hibiki", "響"), ("Kagari", "篝"), ("Mizorogi", "溝呂木"), ("Asahina", "朝雛"), ("Wakatsuki", "若槻"),
)  # fmt: skip
GIVENS: tuple[Pair, ...] = (
    ("Mika", "ミカ"), ("Ren", "レン"), ("Sora", "ソラ"), ("Nagi", "ナギ"), ("Toma", "トウマ"), ("Hina", "ヒナ"), ("Riku", "リク"),
    ("Yuzu", "ユズ"), ("Kaede", "カエデ"), ("Shun", "シュン"), ("Emi", "エミ"), ("Go", "ゴウ"), ("Suzu", "スズ"), ("Taiga", "タイガ"),
    ("Nao", "ナオ"), ("Mio", "ミオ"), ("Haru", "ハル"), ("Jun", "ジュン"), ("Rio", "リオ"), ("Kei", "ケイ"), ("Aya", "アヤ"),
    ("Daichi", "ダイチ"), ("Fumi", "フミ"), ("Itsuki", "イツキ"),
)  # fmt: skip
AGE_RANGES: tuple[str, ...] = ("18-24", "25-34", "35-44", "45-54", "55+")
REGIONS: tuple[str, ...] = ("hokkaido", "tohoku", "kanto", "chubu", "kansai", "chugoku", "shikoku", "kyushu")

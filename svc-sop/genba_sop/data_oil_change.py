"""The oil change: an engine on a stand seen over the mechanic's shoulder, ten steps in about 80 s.

Loosening and tightening the drain plug are near duplicates on purpose: same place, look-alike tools, mirrored strokes.
"""

from __future__ import annotations

from genba_sop.data_motion import TOOL, Beat, Effect, Move
from genba_sop.data_scene import Act, Kind, Scene
from genba_sop.data_shapes import Bar, Disc, Poly, Shape, Sprite, box
from genba_sop.procedure import Text

_STEEL, _DARK, _RUBBER = (168, 164, 158), (72, 70, 68), (48, 46, 46)
_OIL_NEW, _OIL_OLD = (60, 170, 215), (22, 30, 42)

_REST_R, _REST_L = Move("rest_right"), Move("rest_left")
_LEAN_L = Move("engine_edge", aim=-70.0)


def _wrench(head: float, handle: float, colour: tuple[int, int, int], grip: tuple[int, int, int]) -> Sprite:
    return (
        Bar(((-26.0, 0.0), (handle, 0.0)), 9, colour),
        Bar(((-30.0, 0.0), (6.0, 0.0)), 13, grip),
        Disc((handle, 0.0), head, head, colour),
        Disc((handle, 0.0), head * 0.45, head * 0.45, _DARK),
    )


_TOOLS: dict[str, Sprite] = {
    "glove_pair": (
        Poly(((-14, -16), (12, -18), (20, -4), (14, 16), (-12, 18)), (150, 95, 40)),
        Bar(((-4, -14), (-2, 14)), 3, (110, 70, 30)),
    ),
    "glasses": (
        Disc((-14, 0), 13, 9, (215, 205, 170)),
        Disc((14, 0), 13, 9, (215, 205, 170)),
        Bar(((-28, -2), (28, -2)), 4, _DARK),
    ),
    "pan": (Disc((0, 0), 62, 30, _DARK), Disc((0, -3), 53, 23, (104, 102, 100))),
    "bucket": (
        Poly(((-44, -30), (44, -30), (34, 30), (-34, 30)), (60, 110, 60)),
        Disc((0, -30), 44, 11, (85, 150, 85)),
    ),
    "ratchet": _wrench(13, 62, _STEEL, (40, 40, 170)),
    "torque_wrench": (*_wrench(12, 84, (178, 176, 172), _RUBBER), Bar(((12, 0), (34, 0)), 14, (40, 170, 200))),
    "spanner": (
        Bar(((-28, 0), (58, 0)), 11, (150, 148, 150)),
        Poly(((52, -16), (76, -16), (66, -4), (66, 5), (76, 16), (52, 16)), (150, 148, 150)),
    ),
    "pliers": (
        Bar(((-30, -9), (24, 3), (58, 5)), 8, (60, 90, 190)),
        Bar(((-30, 9), (24, -3), (58, -5)), 8, (60, 90, 190)),
        Bar(((26, 0), (60, 0)), 10, _DARK),
    ),
    "lamp": (Bar(((-24, 0), (26, 0)), 15, (60, 60, 66)), Disc((34, 0), 13, 13, (190, 235, 245))),
    "old_filter": (box(-19, -26, 38, 52, (42, 62, 92)), box(-19, -26, 38, 9, (60, 60, 62))),
    "new_filter": (box(-19, -26, 38, 52, (196, 196, 200)), box(-19, -10, 38, 18, (170, 80, 40))),
    "cheap_filter": (box(-24, -20, 48, 40, (60, 150, 60)), box(-24, -20, 48, 8, _DARK)),
    "oil_bottle": (
        Poly(((-26, -20), (24, -24), (42, -9), (58, -8), (58, 8), (42, 9), (24, 24), (-26, 20)), (38, 150, 205)),
        box(-14, -14, 26, 28, (220, 225, 230)),
    ),
    "coolant_bottle": (
        Poly(((-30, -24), (26, -24), (34, -8), (48, -7), (48, 7), (34, 8), (26, 24), (-30, 24)), (190, 120, 60)),
        box(-18, -9, 30, 18, (235, 225, 190)),
    ),
    "dipstick": (Bar(((-8, 0), (74, 0)), 4, _STEEL), Bar(((-16, -7), (-16, 7)), 7, (40, 190, 230))),
    "rag": (Poly(((-30, -20), (-4, -27), (27, -17), (34, 8), (12, 25), (-22, 20)), (135, 150, 205)),),
    "brush": (Bar(((-30, 0), (30, 0)), 9, (60, 105, 150)), box(28, -14, 22, 28, (70, 160, 190))),
    "phone": (box(-15, -26, 30, 52, (40, 38, 36)), box(-12, -21, 24, 40, (200, 165, 120))),
    "cup": (box(-16, -18, 32, 36, (225, 225, 225)), Disc((0, -18), 16, 5, (60, 80, 110))),
    "hammer": (Bar(((-30, 0), (46, 0)), 8, (80, 125, 170)), box(40, -20, 18, 40, (100, 98, 96))),
}

_HOMES = {
    "glove_pair": (176.0, 70.0),
    "glasses": (92.0, 72.0),
    "pan": (560.0, 408.0),
    "bucket": (86.0, 286.0),
    "ratchet": (520.0, 196.0),
    "torque_wrench": (520.0, 232.0),
    "spanner": (522.0, 266.0),
    "pliers": (524.0, 298.0),
    "lamp": (452.0, 70.0),
    "old_filter": (228.0, 262.0),
    "new_filter": (62.0, 206.0),
    "cheap_filter": (120.0, 204.0),
    "oil_bottle": (52.0, 364.0),
    "coolant_bottle": (120.0, 364.0),
    "dipstick": (392.0, 142.0),
    "rag": (596.0, 334.0),
    "brush": (560.0, 64.0),
    "phone": (608.0, 120.0),
    "cup": (26.0, 134.0),
    "hammer": (514.0, 104.0),
}
_HOME_ANGLES = {"lamp": 0.1, "dipstick": 1.57, "oil_bottle": -1.57, "coolant_bottle": -1.57, "brush": 0.2}

_ANCHORS = {
    "rest_right": (424.0, 428.0),
    "rest_left": (214.0, 430.0),
    "chest_right": (340.0, 402.0),
    "chest_left": (302.0, 404.0),
    "face": (322.0, 436.0),
    "engine_edge": (196.0, 316.0),
    "plug": (372.0, 300.0),
    "under_plug": (372.0, 366.0),
    "under_plug_left": (318.0, 368.0),
    "under_plug_right": (428.0, 368.0),
    "filter": (228.0, 262.0),
    "waste": (588.0, 152.0),
    "filler": (278.0, 160.0),
    "dip": (392.0, 142.0),
    "engine_top": (316.0, 206.0),
    "bench_left": (120.0, 320.0),
    "ear": (372.0, 428.0),
    "knock": (438.0, 240.0),
}

_BASE: tuple[Shape, ...] = (
    box(0, 0, 640, 112, (150, 152, 146)),  # wall
    box(0, 100, 640, 14, (92, 110, 128)),  # shelf
    box(60, 84, 70, 16, (120, 96, 70)),
    box(146, 82, 62, 18, (90, 140, 190)),
    box(492, 168, 128, 156, (88, 84, 120)),  # tool tray
    box(498, 174, 116, 144, (118, 114, 150)),
    box(566, 126, 50, 34, (62, 76, 62)),  # waste bin
    Poly(((196, 136), (440, 128), (456, 326), (180, 334)), (112, 116, 118)),  # engine block
    Poly(((214, 146), (424, 140), (432, 196), (206, 202)), (140, 142, 144)),
    Poly(((206, 214), (434, 208), (440, 236), (202, 242)), (92, 96, 100)),
    *(box(218 + 36 * i, 216, 22, 18, (70, 74, 80)) for i in range(6)),
    *(Disc((224 + 40 * i, 154), 5, 5, (80, 82, 84)) for i in range(6)),
    Bar(((428, 172), (468, 190), (478, 250), (452, 300)), 12, (58, 56, 60)),  # hose
    Disc((300, 290), 30, 26, (96, 98, 100)),
    Disc((300, 290), 13, 11, (62, 64, 66)),
    Disc((372, 300), 16, 13, (80, 82, 84)),
    Disc((228, 240), 24, 9, (66, 68, 72)),
    Disc((278, 164), 17, 9, (54, 54, 58)),
    Bar(((392, 196), (392, 150)), 7, (90, 92, 96)),
)

_OBJECTS: dict[str, dict[str, Sprite]] = {
    "plug": {
        "in": (Disc((372, 300), 10, 8, (178, 178, 182)),),
        "out": (Disc((372, 300), 8, 6, (20, 20, 24)), Disc((472, 336), 8, 6, (178, 178, 182))),
    },
    "pan_placed": {
        "no": (),
        "yes": (Disc((372, 372), 62, 30, _DARK), Disc((372, 369), 53, 23, (104, 102, 100))),
        "bucket": (
            Poly(((328, 350), (416, 350), (406, 408), (338, 408)), (60, 110, 60)),
            Disc((372, 350), 44, 13, (85, 150, 85)),
        ),
    },
    "pan_oil": {"empty": (), "full": (Disc((372, 370), 47, 19, _OIL_OLD),)},
    "filter": {
        "old": (box(209, 236, 38, 52, (42, 62, 92)), box(209, 236, 38, 9, (60, 60, 62))),
        "none": (),
        "new": (box(209, 236, 38, 52, (196, 196, 200)), box(209, 252, 38, 18, (170, 80, 40))),
        "cheap": (box(204, 242, 48, 40, (60, 150, 60)), box(204, 242, 48, 8, _DARK)),
    },
    "cap": {
        "on": (Disc((278, 156), 19, 12, (36, 36, 40)), Bar(((266, 154), (290, 154)), 5, (40, 190, 230))),
        "off": (Disc((330, 170), 19, 11, (36, 36, 40)),),
    },
    "funnel": {
        "no": (),
        "yes": (Poly(((250, 118), (306, 118), (284, 150), (282, 166), (274, 166), (272, 150)), (50, 60, 200)),),
    },
    "glint": {"dirty": (Disc((262, 182), 14, 6, (52, 66, 84)), Disc((340, 190), 18, 5, (56, 70, 88))), "clean": ()},
    "gloves": {"off": (), "on": ()},
    "glasses_on": {"off": (), "on": ()},
}


_ACTS = (
    Act(
        "gloves",
        Text("Put on gloves", "手袋を着ける"),
        Text("Stop and put on gloves before touching the engine.", "作業を止め、エンジンに触る前に手袋を着ける。"),
        7.2,
        (
            Beat(1.3, Move(TOOL), _REST_L, tool="glove_pair", sets={"glove_pair": "gone"}),
            Beat(
                1.6,
                Move("chest_right", "rub", 17, 1.0),
                Move("chest_left", "rub", 6, 1.0),
                tool="glove_pair",
                work=True,
            ),
            Beat(
                1.6,
                Move("chest_right", "rub", 8, 1.3),
                Move("chest_left", "rub", 20, 1.3),
                sets={"gloves": "on"},
                work=True,
            ),
            Beat(1.2, Move("chest_right", "rub", 22, 1.6), Move("chest_left", "rub", 22, 1.6), work=True),
        ),
        tool="gloves",
        group="safety",
        critical=True,
        severity="critical",
    ),
    Act(
        "glasses",
        Text("Put on safety glasses", "保護メガネを着ける"),
        Text("Put on safety glasses before the drain plug is opened.", "ドレンプラグを開ける前に保護メガネを着ける。"),
        6.2,
        (
            Beat(1.3, _REST_R, Move(TOOL), left_tool="glasses", sets={"glasses": "gone"}),
            Beat(1.3, Move("face", "hold", dx=30), Move("face", "hold", dx=-26, dy=-6), left_tool="glasses", work=True),
            Beat(
                1.4,
                Move("face", "rub", 8, 1.1, dx=34),
                Move("face", "rub", 8, 1.1, dx=-34),
                sets={"glasses_on": "on"},
                work=True,
            ),
            Beat(0.9, _REST_R, _REST_L),
        ),
        tool="safety glasses",
        group="safety",
        critical=True,
        severity="critical",
    ),
    Act(
        "place_pan",
        Text("Place the drain pan", "オイル受けを置く"),
        Text("Put the drain pan under the plug before loosening it.", "緩める前にドレンプラグの下にオイル受けを置く。"),
        6.4,
        (
            Beat(1.4, Move(TOOL, dx=34), Move(TOOL, dx=-46), tool="pan", both=True),
            Beat(
                1.8,
                Move("under_plug_right"),
                Move("under_plug_left"),
                tool="pan",
                both=True,
                sets={"pan_placed": "yes", "pan": "gone"},
                work=True,
            ),
            Beat(1.0, Move("under_plug_right", "pump", 9, 0.9), Move("under_plug_left", "pump", 9, 0.9), work=True),
            Beat(0.9, _REST_R, _REST_L),
        ),
        tool="drain pan",
        swaps={"pan": "bucket"},
        swap_states={("pan_placed", "yes"): "bucket"},
    ),
    Act(
        "loosen_plug",
        Text("Loosen the drain plug", "ドレンプラグを緩める"),
        Text("Loosen the plug with the ratchet, counter-clockwise.", "ラチェットで反時計回りに緩める。"),
        8.8,
        (
            Beat(1.2, Move(TOOL), _LEAN_L, tool="ratchet"),
            Beat(3.6, Move("plug", "ratchet", 74, 0.9, -1), _LEAN_L, tool="ratchet", work=True),
            Beat(1.0, Move(TOOL), _LEAN_L, tool="ratchet"),
            Beat(1.9, Move("plug", "spin", 9, 1.4, -1, dy=18), _LEAN_L, sets={"plug": "out"}, work=True),
        ),
        tool="ratchet",
        swaps={"ratchet": "pliers"},
    ),
    Act(
        "drain_oil",
        Text("Drain the old oil", "古いオイルを抜く"),
        Text(
            "Wait until the flow has become drops; watch it with the lamp.", "ランプで確認しながら、滴になるまで待つ。"
        ),
        8.6,
        (
            Beat(1.2, _REST_R, Move(TOOL), left_tool="lamp", effect=Effect("under_plug", _OIL_OLD, 60)),
            Beat(
                4.4,
                Move("under_plug", "scan", 26, 0.45, dx=92, dy=-6),
                Move("under_plug", "scan", 22, 0.35, dx=-86, dy=-26, aim=-20),
                left_tool="lamp",
                effect=Effect("under_plug", _OIL_OLD, 60),
                sets={"pan_oil": "full"},
                work=True,
            ),
            Beat(1.1, _REST_R, Move(TOOL), left_tool="lamp"),
        ),
        tool="lamp",
        critical=True,
        severity="critical",
        swaps={"lamp": "brush"},
    ),
    Act(
        "change_filter",
        Text("Change the oil filter", "オイルフィルターを交換する"),
        Text("Fit a new genuine filter, hand-tight.", "純正の新品フィルターを手で締める。"),
        10.0,
        (
            Beat(
                2.2,
                Move("filter", "spin", 17, 1.1, -1, dx=16),
                Move("filter", "hold", dx=-44, dy=34),
                sets={"filter": "none"},
                work=True,
            ),
            Beat(1.4, Move("waste"), _REST_L, tool="old_filter"),
            Beat(1.4, Move("filter", "hold", dx=52, dy=40), Move(TOOL), left_tool="new_filter"),
            Beat(
                1.0,
                Move("filter", "hold", dx=40, dy=24),
                Move("filter", "hold", dx=-14, dy=10),
                left_tool="new_filter",
                sets={"filter": "new", "new_filter": "gone"},
            ),
            Beat(
                2.4,
                Move("filter", "spin", 17, 1.1, 1, dx=16),
                Move("filter", "spin", 12, 1.1, 1, dx=-22, dy=10),
                work=True,
            ),
        ),
        tool="oil filter",
        swaps={"new_filter": "cheap_filter"},
        swap_states={("filter", "new"): "cheap"},
    ),
    Act(
        "tighten_plug",
        Text("Tighten the drain plug to torque", "ドレンプラグを規定トルクで締める"),
        Text(
            "Tighten with the torque wrench until it clicks (35 N·m).",
            "トルクレンチでカチッと鳴るまで締める（35 N·m）。",
        ),
        8.8,
        (
            Beat(1.8, Move("plug", "spin", 9, 1.4, 1, dy=18), _LEAN_L, sets={"plug": "in"}, work=True),
            Beat(1.2, Move(TOOL), _LEAN_L, tool="torque_wrench"),
            Beat(3.6, Move("plug", "ratchet", 92, 0.7, 1), _LEAN_L, tool="torque_wrench", work=True),
            Beat(1.1, Move(TOOL), _REST_L, tool="torque_wrench"),
        ),
        tool="torque wrench",
        critical=True,
        severity="critical",
        swaps={"torque_wrench": "spanner"},
    ),
    Act(
        "pour_oil",
        Text("Pour in the new oil", "新しいオイルを入れる"),
        Text("Pour 4 L of 5W-30 through the funnel.", "じょうごで5W-30を4 L入れる。"),
        9.6,
        (
            Beat(1.4, Move("filler", "spin", 8, 1.5, -1, dy=8), _LEAN_L, sets={"cap": "off", "funnel": "yes"}),
            Beat(1.3, Move("filler", "hold", dx=46, dy=26), Move(TOOL, dy=6), left_tool="oil_bottle"),
            Beat(
                4.2,
                Move("filler", "hold", dx=50, dy=20),
                Move("filler", "pour", 12, 0.5, dx=-64, dy=-40, aim=-30),
                left_tool="oil_bottle",
                effect=Effect("filler", _OIL_NEW, 50),
                work=True,
            ),
            Beat(1.3, _REST_R, Move(TOOL, dy=6), left_tool="oil_bottle", sets={"funnel": "no"}),
        ),
        tool="engine oil",
        swaps={"oil_bottle": "coolant_bottle"},
    ),
    Act(
        "check_level",
        Text("Check the oil level", "オイル量を点検する"),
        Text("Pull the dipstick, wipe it, dip again and read it.", "オイルレベルゲージを抜き、拭き、差し直して読む。"),
        7.0,
        (
            Beat(1.3, Move("dip", "pump", 14, 0.7, dy=-22, aim=90), _REST_L, tool="dipstick"),
            Beat(
                2.0,
                Move("chest_right", "hold", dx=16, dy=-20, aim=200),
                Move("chest_left", "wipe", 26, 0.9, dy=-20),
                tool="dipstick",
                left_tool="rag",
                work=True,
            ),
            Beat(1.3, Move("dip", "pump", 18, 0.6, dy=-30, aim=90), _REST_L, tool="dipstick", work=True),
            Beat(1.2, Move("face", "hold", dx=20, dy=-50, aim=185), _REST_L, tool="dipstick"),
            Beat(0.7, Move("dip", aim=90), _REST_L, tool="dipstick"),
        ),
        tool="dipstick",
        critical=False,
        severity="major",
        swaps={"rag": "brush"},
    ),
    Act(
        "close_wipe",
        Text("Close the cap and wipe the engine", "キャップを閉め、エンジンを拭く"),
        Text("Close the filler cap and wipe off spilt oil.", "キャップを閉め、こぼれたオイルを拭く。"),
        7.4,
        (
            Beat(1.7, Move("filler", "spin", 10, 1.4, 1, dy=4), _LEAN_L, sets={"cap": "on"}),
            Beat(1.1, Move(TOOL), _REST_L, tool="rag"),
            Beat(3.2, Move("engine_top", "wipe", 62, 0.75), _LEAN_L, tool="rag", sets={"glint": "clean"}, work=True),
            Beat(1.0, Move(TOOL), _REST_L, tool="rag"),
        ),
        tool="rag",
        severity="minor",
        swaps={"rag": "brush"},
    ),
)

OIL_CHANGE = Kind(
    id="oil_change",
    title=Text("Engine oil change", "エンジンオイル交換"),
    scene=Scene(
        base=_BASE,
        objects=_OBJECTS,
        tools=_TOOLS,
        homes=_HOMES,
        home_angles=_HOME_ANGLES,
        anchors=_ANCHORS,
        shoulders=((214.0, 560.0), (430.0, 560.0)),
    ),
    acts=_ACTS,
    extras={
        "phone": (
            Beat(1.2, Move(TOOL), _REST_L, tool="phone"),
            Beat(3.0, Move("ear", "pump", 5, 0.4), _REST_L, tool="phone"),
            Beat(1.0, Move(TOOL), _REST_L, tool="phone"),
        ),
        "drink": (
            Beat(1.2, _REST_R, Move(TOOL), left_tool="cup"),
            Beat(2.2, _REST_R, Move("face", "pump", 8, 0.5, dx=-20), left_tool="cup"),
            Beat(1.0, _REST_R, Move(TOOL), left_tool="cup"),
        ),
        "hammer": (
            Beat(1.1, Move(TOOL), _REST_L, tool="hammer"),
            Beat(3.0, Move("knock", "pump", 30, 1.6, aim=-150), _REST_L, tool="hammer"),
            Beat(0.9, Move(TOOL), _REST_L, tool="hammer"),
        ),
        "sweep": (
            Beat(1.1, Move(TOOL), _REST_L, tool="brush"),
            Beat(3.2, Move("bench_left", "wipe", 56, 0.9, aim=180), _REST_L, tool="brush"),
            Beat(1.0, Move(TOOL), _REST_L, tool="brush"),
        ),
    },
    trainee=(("missing", "glasses"), ("wrong_tool", "tighten_plug"), ("missing", "check_level")),
)

"""Changing brake pads: a wheel hub with disc and caliper seen over the mechanic's shoulder, nine steps in about 75 s.

Near duplicates on purpose: loosening and tightening the guide bolts, taking the old and fitting the new pads.
"""

from __future__ import annotations

import math

from genba_sop.data_motion import TOOL, Beat, Move
from genba_sop.data_scene import Act, Kind, Scene
from genba_sop.data_shapes import Bar, Disc, Poly, Shape, Sprite, box
from genba_sop.procedure import Text

_STEEL, _DARK, _RUST = (172, 170, 166), (64, 62, 62), (70, 88, 112)
_REST_R, _REST_L = Move("rest_right"), Move("rest_left")
_HOLD_DISC = Move("disc_edge", aim=-70.0)


def _pads(lining: tuple[int, int, int], back: tuple[int, int, int]) -> Sprite:
    return (
        Poly(((-30, -20), (-6, -25), (-6, 25), (-30, 20)), back),
        Poly(((6, -25), (30, -20), (30, 20), (6, 25)), back),
        box(-6, -19, 5, 38, lining),
        box(1, -19, 5, 38, lining),
    )


_TOOLS: dict[str, Sprite] = {
    "glove_pair": (
        Poly(((-14, -16), (12, -18), (20, -4), (14, 16), (-12, 18)), (70, 70, 72)),
        Bar(((-4, -14), (-2, 14)), 3, (40, 40, 44)),
    ),
    "ratchet": (
        Bar(((-26, 0), (62, 0)), 9, _STEEL),
        Bar(((-30, 0), (6, 0)), 13, (150, 60, 30)),
        Disc((62, 0), 13, 13, _STEEL),
        Disc((62, 0), 6, 6, _DARK),
    ),
    "torque_wrench": (
        Bar(((-26, 0), (84, 0)), 9, (182, 180, 176)),
        Bar(((-30, 0), (6, 0)), 13, _DARK),
        Bar(((12, 0), (34, 0)), 14, (40, 40, 190)),
        Disc((84, 0), 12, 12, (182, 180, 176)),
    ),
    "spanner": (
        Bar(((-28, 0), (58, 0)), 11, (140, 140, 146)),
        Poly(((52, -16), (76, -16), (66, -4), (66, 5), (76, 16), (52, 16)), (140, 140, 146)),
    ),
    "pliers": (
        Bar(((-30, -9), (24, 3), (58, 5)), 8, (50, 150, 60)),
        Bar(((-30, 9), (24, -3), (58, -5)), 8, (50, 150, 60)),
        Bar(((26, 0), (60, 0)), 10, _DARK),
    ),
    "hook": (Bar(((-24, 0), (40, 0), (54, -12), (44, -22)), 6, (60, 160, 200)),),
    "string": (Bar(((-22, 6), (-4, -8), (16, 8), (40, -4)), 5, (205, 215, 225)),),
    "old_pads": _pads((52, 50, 54), _RUST),
    "new_pads": _pads((96, 92, 90), (52, 110, 170)),
    "wrong_pads": (box(-24, -15, 20, 30, (70, 140, 70)), box(4, -15, 20, 30, (70, 140, 70))),
    "wire_brush": (Bar(((-34, 0), (16, 0)), 11, (60, 120, 180)), box(14, -13, 34, 20, (150, 160, 165))),
    "rag": (Poly(((-30, -20), (-4, -27), (27, -17), (34, 8), (12, 25), (-22, 20)), (170, 160, 140)),),
    "grease_tube": (box(-20, -10, 44, 20, (40, 170, 210)), Poly(((24, -9), (40, -3), (40, 3), (24, 9)), _DARK)),
    "oil_can": (box(-22, -14, 36, 28, (60, 60, 170)), Bar(((14, -6), (52, -12)), 5, _STEEL)),
    "clamp": (
        Bar(((-26, -20), (-26, 20), (34, 20)), 9, (100, 80, 60)),
        Bar(((-26, -20), (34, -20)), 9, (100, 80, 60)),
        Bar(((34, -32), (34, 24)), 5, _STEEL),
    ),
    "screwdriver": (Bar(((-30, 0), (0, 0)), 14, (40, 50, 190)), Bar(((0, 0), (56, 0)), 5, _STEEL)),
    "phone": (box(-15, -26, 30, 52, (40, 38, 36)), box(-12, -21, 24, 40, (190, 150, 110))),
    "cup": (box(-16, -18, 32, 36, (210, 200, 90)), Disc((0, -18), 16, 5, (60, 80, 110))),
    "hammer": (Bar(((-30, 0), (46, 0)), 8, (80, 125, 170)), box(40, -20, 18, 40, (100, 98, 96))),
}

_HOMES = {
    "glove_pair": (66.0, 74.0),
    "ratchet": (64.0, 196.0),
    "torque_wrench": (64.0, 232.0),
    "spanner": (66.0, 266.0),
    "pliers": (66.0, 298.0),
    "hook": (140.0, 66.0),
    "string": (206.0, 70.0),
    "old_pads": (352.0, 196.0),
    "new_pads": (560.0, 300.0),
    "wrong_pads": (560.0, 356.0),
    "wire_brush": (536.0, 190.0),
    "rag": (584.0, 416.0),
    "grease_tube": (540.0, 238.0),
    "oil_can": (602.0, 240.0),
    "clamp": (488.0, 70.0),
    "screwdriver": (60.0, 336.0),
    "phone": (604.0, 84.0),
    "cup": (28.0, 126.0),
    "hammer": (420.0, 62.0),
}

_ANCHORS = {
    "rest_right": (424.0, 428.0),
    "rest_left": (214.0, 430.0),
    "chest_right": (340.0, 402.0),
    "chest_left": (302.0, 404.0),
    "face": (322.0, 436.0),
    "disc_edge": (214.0, 268.0),
    "disc": (290.0, 236.0),
    "upper_bolt": (404.0, 150.0),
    "lower_bolt": (404.0, 262.0),
    "caliper": (372.0, 200.0),
    "hang": (452.0, 152.0),
    "bracket": (356.0, 206.0),
    "scrap": (590.0, 148.0),
    "piston": (446.0, 206.0),
    "ear": (372.0, 428.0),
    "knock": (250.0, 330.0),
}

_BASE: tuple[Shape, ...] = (
    box(0, 0, 640, 112, (142, 138, 134)),  # wall
    box(0, 100, 640, 12, (84, 96, 108)),
    box(36, 84, 60, 16, (90, 90, 96)),
    box(26, 168, 128, 190, (96, 112, 84)),  # tool mat
    box(32, 174, 116, 178, (124, 140, 112)),
    box(562, 122, 56, 34, (72, 66, 60)),  # scrap bin
    Disc((300, 226), 190, 116, (52, 50, 50)),  # wheel arch
    Disc((300, 232), 168, 108, (76, 74, 74)),
    Bar(((300, 232), (520, 118)), 22, (60, 58, 60)),  # strut
    Bar(((520, 118), (520, 160)), 12, (92, 120, 60)),  # spring
    Disc((290, 236), 104, 98, (150, 150, 154)),  # brake disc
    Disc((290, 236), 92, 86, (166, 166, 170)),
    Disc((290, 236), 48, 45, (120, 120, 126)),
    *(
        Disc(
            (290 + 32 * math.cos(2.0 * math.pi * i / 5), 236 + 30 * math.sin(2.0 * math.pi * i / 5)), 6, 6, (74, 74, 78)
        )
        for i in range(5)
    ),
    Disc((290, 236), 16, 15, (88, 88, 92)),
    Bar(((470, 210), (500, 250), (476, 312)), 9, (44, 42, 44)),  # brake hose
    box(338, 140, 26, 134, (86, 92, 100)),  # bracket
)

_CALIPER: Sprite = (
    Poly(((344, 156), (424, 146), (438, 200), (426, 262), (344, 250), (360, 202)), (60, 70, 150)),
    Poly(((366, 172), (414, 166), (420, 200), (414, 240), (366, 232)), (84, 92, 176)),
    Disc((396, 202), 14, 14, (52, 58, 120)),
)
_HUNG: Sprite = (
    Poly(((424, 126), (500, 120), (512, 170), (500, 226), (424, 216), (438, 170)), (60, 70, 150)),
    Poly(((444, 142), (490, 136), (496, 170), (490, 208), (444, 200)), (84, 92, 176)),
    Disc((446, 206), 12, 12, (150, 150, 156)),
    Bar(((466, 124), (478, 96)), 5, (60, 160, 200)),
)

_OBJECTS: dict[str, dict[str, Sprite]] = {
    "pads": {
        "old": (box(346, 166, 14, 66, _RUST),),
        "none": (),
        "new": (box(346, 166, 14, 66, (52, 110, 170)),),
        "wrong": (box(346, 176, 14, 46, (70, 140, 70)),),
    },
    "rust": {"dirty": tuple(Disc((350, 150 + 22 * i), 9, 7, _RUST) for i in range(6)), "clean": ()},
    "grease": {"no": (), "yes": tuple(Disc((351, 162 + 40 * i), 6, 5, (190, 210, 220)) for i in range(3))},
    "caliper": {"on": _CALIPER, "hung": _HUNG},
    "bolts": {
        "in": (Disc((404, 150), 9, 9, _STEEL), Disc((404, 262), 9, 9, _STEEL)),
        "out": (Disc((470, 340), 8, 7, _STEEL), Disc((492, 346), 8, 7, _STEEL)),
    },
    "piston": {"out": (), "in": (Disc((446, 206), 12, 12, (52, 58, 120)),), "home": ()},
    "gloves": {"off": (), "on": ()},
}

_ACTS = (
    Act(
        "gloves",
        Text("Put on gloves", "手袋を着ける"),
        Text("Put on gloves; brake dust must not touch the skin.", "手袋を着ける。ブレーキダストに素手で触れない。"),
        7.0,
        (
            Beat(1.3, _REST_R, Move(TOOL), left_tool="glove_pair", sets={"glove_pair": "gone"}),
            Beat(1.6, Move("chest_right", "rub", 17), Move("chest_left", "rub", 6), left_tool="glove_pair", work=True),
            Beat(
                1.6,
                Move("chest_right", "rub", 8, 1.3),
                Move("chest_left", "rub", 20, 1.3),
                sets={"gloves": "on"},
                work=True,
            ),
            Beat(1.1, Move("chest_right", "rub", 22, 1.6), Move("chest_left", "rub", 22, 1.6), work=True),
        ),
        tool="gloves",
        critical=True,
        severity="critical",
    ),
    Act(
        "loosen_bolts",
        Text("Loosen the guide bolts", "ガイドボルトを緩める"),
        Text("Loosen both guide bolts, upper then lower.", "上下のガイドボルトを緩める。"),
        9.6,
        (
            Beat(1.2, _REST_R, Move(TOOL), left_tool="ratchet"),
            Beat(0.9, Move("chest_right", dy=-20), Move("chest_left", dy=-20), left_tool="ratchet"),
            Beat(2.6, Move("upper_bolt", "ratchet", 74, 0.9, -1), _HOLD_DISC, tool="ratchet", work=True),
            Beat(2.6, Move("lower_bolt", "ratchet", 74, 0.9, -1), _HOLD_DISC, tool="ratchet", work=True),
            Beat(1.1, _REST_R, Move(TOOL), left_tool="ratchet", sets={"bolts": "out"}),
        ),
        tool="ratchet",
        swaps={"ratchet": "pliers"},
    ),
    Act(
        "hang_caliper",
        Text("Lift off the caliper and hang it up", "キャリパーを外して吊るす"),
        Text(
            "Hang the caliper on a hook; never let it hang by the hose.",
            "キャリパーはフックに吊るす。ホースに荷重をかけない。",
        ),
        7.8,
        (
            Beat(1.2, Move("caliper", "pump", 8, 1.2, dx=34), Move(TOOL), left_tool="hook"),
            Beat(
                1.8,
                Move("caliper", "scan", 16, 0.7, dx=30, dy=6),
                Move("hang", dx=-30, dy=-34),
                left_tool="hook",
                sets={"caliper": "hung"},
                work=True,
            ),
            Beat(
                1.6,
                Move("hang", "pump", 9, 0.8, dx=30, dy=30),
                Move("hang", dx=-20, dy=-36),
                left_tool="hook",
                work=True,
            ),
            Beat(0.9, _REST_R, _REST_L, sets={"hook": "gone"}),
        ),
        tool="hook",
        critical=True,
        severity="critical",
        swaps={"hook": "string"},
    ),
    Act(
        "remove_pads",
        Text("Take out the old pads", "古いパッドを外す"),
        Text("Pull out both pads and put them into the scrap bin.", "両側のパッドを抜き、廃棄箱に入れる。"),
        7.4,
        (
            Beat(1.9, Move("bracket", "scan", 14, 0.8, dx=16), Move("bracket", "hold", dx=-36, dy=44), work=True),
            Beat(1.0, Move("bracket", dx=30, dy=30), _REST_L, tool="old_pads", sets={"pads": "none"}),
            Beat(1.5, Move("scrap"), _REST_L, tool="old_pads", sets={"old_pads": "gone"}),
            Beat(0.9, _REST_R, _REST_L),
        ),
        tool="hands",
    ),
    Act(
        "clean_bracket",
        Text("Clean the bracket", "ブラケットを清掃する"),
        Text("Brush rust off the guides until metal shows.", "ガイドのさびを金属面が出るまで落とす。"),
        8.4,
        (
            Beat(1.2, Move(TOOL), _HOLD_DISC, tool="wire_brush"),
            Beat(
                2.6,
                Move("bracket", "wipe", 26, 1.5, dy=-26, aim=200.0),
                _HOLD_DISC,
                tool="wire_brush",
                work=True,
            ),
            Beat(
                2.4,
                Move("bracket", "wipe", 26, 1.5, dy=34, aim=200.0),
                _HOLD_DISC,
                tool="wire_brush",
                sets={"rust": "clean"},
                work=True,
            ),
            Beat(1.0, Move(TOOL), _REST_L, tool="wire_brush"),
        ),
        tool="wire brush",
        group="prepare",
        swaps={"wire_brush": "rag"},
    ),
    Act(
        "press_piston",
        Text("Press back the piston", "ピストンを押し戻す"),
        Text("Press the piston back slowly with the clamp.", "クランプでピストンをゆっくり押し戻す。"),
        8.2,
        (
            Beat(1.3, Move(TOOL), Move("hang", dx=-14, dy=64), tool="clamp"),
            Beat(
                4.0,
                Move("piston", "spin", 15, 1.0, 1, dx=22, dy=20, aim=185.0),
                Move("piston", "hold", dx=-34, dy=34),
                tool="clamp",
                sets={"piston": "in"},
                work=True,
            ),
            Beat(1.1, Move(TOOL), _REST_L, tool="clamp"),
        ),
        tool="clamp",
        group="prepare",
        swaps={"clamp": "screwdriver"},
    ),
    Act(
        "fit_pads",
        Text("Fit the new pads", "新しいパッドを取り付ける"),
        Text(
            "Grease the guides and fit the new pads of the right type.",
            "ガイドにグリースを塗り、正しい型の新品パッドを付ける。",
        ),
        10.2,
        (
            Beat(1.1, Move(TOOL), _REST_L, tool="grease_tube"),
            Beat(
                2.1,
                Move("bracket", "wipe", 12, 0.9, aim=195.0),
                _HOLD_DISC,
                tool="grease_tube",
                sets={"grease": "yes"},
                work=True,
            ),
            Beat(0.9, Move(TOOL), _REST_L, tool="grease_tube"),
            Beat(1.1, Move(TOOL), _REST_L, tool="new_pads"),
            Beat(1.2, Move("bracket", dx=26, dy=20), Move("bracket", dx=-34, dy=40), tool="new_pads"),
            Beat(
                1.7,
                Move("bracket", "pump", 10, 1.1, dx=20),
                Move("bracket", "hold", dx=-36, dy=40),
                sets={"pads": "new", "new_pads": "gone"},
                work=True,
            ),
        ),
        tool="brake pads",
        critical=True,
        severity="critical",
        swaps={"new_pads": "wrong_pads", "grease_tube": "oil_can"},
        swap_states={("pads", "new"): "wrong"},
    ),
    Act(
        "tighten_bolts",
        Text("Refit the caliper and torque the bolts", "キャリパーを戻し規定トルクで締める"),
        Text(
            "Tighten both guide bolts with the torque wrench (30 N·m).",
            "トルクレンチで両方のボルトを締める（30 N·m）。",
        ),
        10.2,
        (
            Beat(
                1.6,
                Move("hang", "pump", 8, 0.8, dx=24, dy=24),
                Move("caliper", dx=-20, dy=30),
                sets={"caliper": "on", "bolts": "in", "piston": "home"},
            ),
            Beat(1.0, _REST_R, Move(TOOL), left_tool="torque_wrench"),
            Beat(0.8, Move("chest_right", dy=-20), Move("chest_left", dy=-20), left_tool="torque_wrench"),
            Beat(2.5, Move("upper_bolt", "ratchet", 92, 0.7, 1), _HOLD_DISC, tool="torque_wrench", work=True),
            Beat(2.5, Move("lower_bolt", "ratchet", 92, 0.7, 1), _HOLD_DISC, tool="torque_wrench", work=True),
            Beat(1.0, _REST_R, Move(TOOL), left_tool="torque_wrench"),
        ),
        tool="torque wrench",
        critical=True,
        severity="critical",
        swaps={"torque_wrench": "spanner"},
    ),
    Act(
        "check_disc",
        Text("Turn the disc and check that it runs free", "ディスクを回して引きずりがないか確認する"),
        Text(
            "Turn the disc by hand; wipe off grease and fingerprints.", "ディスクを手で回し、グリースと指紋を拭き取る。"
        ),
        7.2,
        (
            Beat(2.6, Move("disc", "spin", 74, 0.5, 1), Move("disc", "spin", 40, 0.5, 1, dx=-30), work=True),
            Beat(1.0, Move(TOOL), _REST_L, tool="rag"),
            Beat(1.9, Move("disc", "wipe", 46, 0.9, dx=-20), _HOLD_DISC, tool="rag", work=True),
            Beat(0.9, Move(TOOL), _REST_L, tool="rag"),
        ),
        tool="rag",
        severity="major",
        swaps={"rag": "wire_brush"},
    ),
)

BRAKE_PAD = Kind(
    id="brake_pad",
    title=Text("Brake pad change", "ブレーキパッド交換"),
    scene=Scene(
        base=_BASE,
        objects=_OBJECTS,
        tools=_TOOLS,
        homes=_HOMES,
        home_angles={"clamp": 0.0, "wire_brush": 0.3},
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
    },
    trainee=(("missing", "gloves"), ("wrong_tool", "tighten_bolts"), ("missing", "clean_bracket")),
)

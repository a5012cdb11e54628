"""Washing hands before entering a clean area: a steel basin seen over the shoulder, eleven steps in about 64 s.

Hands alone do most of it, in one place. Wetting and rinsing are the very same action, so only their order tells them apart, and
the last rub repeats the first one. How hands are rubbed follows the order that WHO recommends (2009).
"""

from __future__ import annotations

from genba_sop.data_motion import TOOL, Beat, Effect, Move
from genba_sop.data_scene import Act, Kind, Scene
from genba_sop.data_shapes import Bar, Colour, Disc, Poly, Shape, Sprite, box
from genba_sop.procedure import Text

_STEEL, _CHROME, _DARK = (188, 184, 176), (214, 212, 208), (78, 74, 70)
_WATER: Colour = (226, 206, 168)
_REST_R, _REST_L = Move("rest_right"), Move("rest_left")


def _bottle(body: Colour, label: Colour) -> Sprite:
    return (box(-18, -24, 36, 52, body), box(-12, -10, 24, 22, label), Bar(((0, -24), (0, -36), (14, -36)), 6, _DARK))


_TOOLS: dict[str, Sprite] = {
    "watch": (Bar(((-18, 0), (18, 0)), 8, (60, 48, 40)), Disc((0, 0), 11, 11, (206, 190, 120))),
    "soap": _bottle((96, 190, 120), (235, 240, 235)),
    "hand_cream": _bottle((196, 160, 220), (250, 245, 250)),
    "nail_brush": (box(-26, -9, 50, 14, (190, 110, 60)), box(-22, 5, 42, 10, (236, 236, 228))),
    "sponge": (box(-24, -15, 46, 30, (70, 210, 235)), box(-24, 5, 46, 10, (70, 130, 60))),
    "paper_towel": (Poly(((-30, -22), (28, -25), (33, 20), (-26, 25)), (226, 232, 236)),),
    "work_rag": (Poly(((-30, -20), (-4, -27), (27, -17), (34, 8), (12, 25), (-22, 20)), (110, 90, 160)),),
    "spray": (
        box(-14, -18, 28, 44, (230, 214, 190)),
        box(-10, 0, 20, 16, (180, 90, 40)),
        Poly(((-10, -30), (16, -30), (10, -18), (-10, -18)), (60, 60, 190)),
    ),
    "glass_cleaner": (
        box(-16, -16, 32, 44, (220, 150, 60)),
        box(-10, 0, 20, 16, (240, 240, 240)),
        Poly(((-10, -30), (16, -30), (10, -18), (-10, -18)), (50, 50, 52)),
    ),
    "phone": (box(-15, -26, 30, 52, (40, 38, 36)), box(-12, -21, 24, 40, (200, 165, 120))),
    "comb": (Bar(((-28, 0), (28, 0)), 12, (40, 60, 120)),),
    "cup": (box(-16, -18, 32, 36, (120, 190, 90)), Disc((0, -18), 16, 5, (60, 80, 110))),
}

_HOMES = {
    "watch": (300.0, 372.0),
    "soap": (146.0, 148.0),
    "hand_cream": (88.0, 150.0),
    "nail_brush": (196.0, 172.0),
    "sponge": (204.0, 120.0),
    "paper_towel": (516.0, 156.0),
    "work_rag": (596.0, 256.0),
    "spray": (466.0, 128.0),
    "glass_cleaner": (416.0, 104.0),
    "phone": (600.0, 110.0),
    "comb": (40.0, 216.0),
    "cup": (32.0, 130.0),
}

_ANCHORS = {
    "rest_right": (430.0, 430.0),
    "rest_left": (210.0, 430.0),
    "tray": (80.0, 392.0),
    "wrist": (290.0, 376.0),
    "handle": (354.0, 128.0),
    "water": (322.0, 250.0),
    "wash_right": (344.0, 290.0),
    "wash_left": (300.0, 290.0),
    "bin": (580.0, 386.0),
    "ear": (372.0, 430.0),
    "face": (322.0, 440.0),
    "basin": (230.0, 268.0),
}

_BASE: tuple[Shape, ...] = (
    box(0, 0, 640, 480, (206, 210, 196)),  # counter
    box(0, 0, 640, 96, (226, 220, 208)),  # tiles
    *(box(0, 30 * i + 28, 640, 3, (196, 190, 178)) for i in range(3)),
    *(box(80 * i + 38, 0, 3, 92, (196, 190, 178)) for i in range(8)),
    box(0, 92, 640, 8, (150, 148, 136)),
    Disc((322, 270), 178, 116, (140, 138, 132)),  # basin
    Disc((322, 272), 166, 106, _STEEL),
    Disc((322, 296), 104, 62, (168, 164, 156)),
    Disc((322, 318), 14, 9, _DARK),  # drain
    Bar(((322, 100), (322, 158)), 20, _CHROME),  # tap
    Bar(((322, 150), (322, 174)), 14, (180, 178, 172)),
    box(484, 112, 72, 30, (150, 120, 96)),  # towel dispenser
    box(40, 364, 84, 52, (120, 150, 172)),  # tray
    box(46, 370, 72, 40, (150, 180, 200)),
    Disc((580, 386), 44, 32, (80, 84, 92)),  # bin
    Disc((580, 384), 36, 25, (44, 46, 50)),
)

_OBJECTS: dict[str, dict[str, Sprite]] = {
    "tap": {"closed": (Bar(((336, 120), (372, 120)), 9, (96, 92, 190)),), "open": (Bar(((336, 124), (364, 142)), 9, (96, 92, 190)),)},
    "foam": {
        "none": (),
        "foam": tuple(Disc((276 + 22 * i, 316 + 9 * (i % 3)), 13, 8, (246, 246, 242)) for i in range(5)),
        "pink": tuple(Disc((276 + 22 * i, 316 + 9 * (i % 3)), 13, 8, (226, 196, 240)) for i in range(5)),
    },
    "watch_off": {"no": (), "yes": (Bar(((62, 392), (98, 392)), 8, (60, 48, 40)), Disc((80, 392), 11, 11, (206, 190, 120)))},
    "thrown": {"no": (), "yes": (Poly(((560, 372), (596, 366), (602, 392), (566, 398)), (226, 232, 236)),), "rag": ()},
}  # fmt: skip


def _rinse(taps: dict[str, str]) -> tuple[Beat, ...]:
    """Hands under the running tap; the same before the soap and after it."""
    stream = Effect("water", _WATER, 84.0)
    return (
        Beat(1.0, Move("handle"), _REST_L, sets={"tap": "open"}),
        Beat(
            2.1,
            Move("water", "rub", 14, 0.9, dx=16),
            Move("water", "rub", 14, 0.9, dx=-16),
            effect=stream,
            work=True,
        ),
        Beat(
            1.6,
            Move("water", "scan", 12, 0.8, dx=14, dy=14),
            Move("water", "scan", 12, 0.8, dx=-14, dy=14),
            effect=stream,
            sets=taps,
            work=True,
        ),
        Beat(0.9, Move("handle"), Move("wash_left", dy=30), sets={"tap": "closed"}),
    )


_ACTS = (
    Act(
        "take_off_watch",
        Text("Take off watch and rings", "腕時計と指輪を外す"),
        Text("Put watch and rings into the tray.", "腕時計と指輪をトレイに置く。"),
        5.2,
        (
            Beat(2.0, Move("wrist", "rub", 9, 1.2, dx=8), Move("wrist", dx=-26, dy=16), work=True),
            Beat(1.4, _REST_R, Move("tray"), left_tool="watch", sets={"watch": "gone"}),
            Beat(0.9, _REST_R, _REST_L, sets={"watch_off": "yes"}),
        ),
        severity="minor",
    ),
    Act(
        "wet_hands",
        Text("Wet both hands", "両手をぬらす"),
        Text("Wet hands up to the wrist.", "手首までぬらす。"),
        6.0,
        _rinse({}),
    ),
    Act(
        "take_soap",
        Text("Take soap", "せっけんを取る"),
        Text("Take one stroke of the green soap.", "緑のせっけんをひと押し取る。"),
        5.0,
        (
            Beat(1.2, _REST_R, Move(TOOL), left_tool="soap"),
            Beat(
                1.6,
                Move("wash_right", "hold", dx=-8),
                Move("wash_left", "pump", 9, 1.1, dx=-6, dy=-44),
                left_tool="soap",
                work=True,
            ),
            Beat(1.2, Move("wash_right"), Move(TOOL), left_tool="soap", sets={"foam": "foam"}),
        ),
        tool="soap",
        critical=True,
        severity="critical",
        swaps={"soap": "hand_cream"},
        swap_states={("foam", "foam"): "pink"},
    ),
    Act(
        "rub_palms",
        Text("Rub palm to palm", "手のひらを合わせてこする"),
        Text("Rub palm to palm for five seconds.", "手のひらを合わせて五秒こする。"),
        5.6,
        (
            Beat(2.6, Move("wash_right", "rub", 24, 1.2, dx=-4), Move("wash_left", "rub", 24, 1.2, dx=4), work=True),
            Beat(
                2.0, Move("wash_right", "spin", 16, 1.2, dx=-6), Move("wash_left", "spin", 16, 1.2, -1, dx=6), work=True
            ),
        ),
    ),
    Act(
        "rub_backs",
        Text("Rub the backs of the hands", "手の甲をこする"),
        Text("Rub each back with the other palm.", "もう一方の手のひらで甲をこする。"),
        6.6,
        (
            Beat(2.4, Move("wash_right", "wipe", 26, 1.1, dx=-34, dy=-26), Move("wash_left", dx=-4, dy=16), work=True),
            Beat(2.4, Move("wash_right", dx=4, dy=16), Move("wash_left", "wipe", 26, 1.1, dx=34, dy=-26), work=True),
        ),
        group="rub",
        after=("rub_palms",),
    ),
    Act(
        "rub_thumbs",
        Text("Rub the thumbs", "親指をねじり洗いする"),
        Text("Turn each thumb in the other hand.", "親指をもう一方の手で包み、ねじって洗う。"),
        6.2,
        (
            Beat(2.2, Move("wash_right", "spin", 15, 1.5, dx=-56, dy=8), Move("wash_left", dx=-44, dy=30), work=True),
            Beat(2.2, Move("wash_right", dx=44, dy=30), Move("wash_left", "spin", 15, 1.5, -1, dx=56, dy=8), work=True),
        ),
        group="rub",
        after=("rub_palms",),
    ),
    Act(
        "rub_wrists",
        Text("Rub the wrists", "手首をこする"),
        Text("Rub each wrist up to the sleeve.", "袖口まで手首をこする。"),
        5.8,
        (
            Beat(2.0, Move("wash_right", "pump", 20, 1.0, dx=-60, dy=70), Move("wash_left", dx=-20, dy=-6), work=True),
            Beat(2.0, Move("wash_right", dx=20, dy=-6), Move("wash_left", "pump", 20, 1.0, dx=60, dy=70), work=True),
        ),
        group="rub",
        after=("rub_palms",),
    ),
    Act(
        "brush_nails",
        Text("Brush the nails", "爪をブラシで洗う"),
        Text("Brush under the nails of both hands.", "両手の爪の間をブラシで洗う。"),
        7.4,
        (
            Beat(1.2, _REST_R, Move(TOOL), left_tool="nail_brush"),
            Beat(0.8, Move("wash_right", dy=-4), Move("wash_left", dy=-4), left_tool="nail_brush"),
            Beat(
                2.8,
                Move("wash_right", "pump", 13, 2.0, dx=-10, dy=-22),
                Move("wash_left", dx=-8, dy=22),
                tool="nail_brush",
                work=True,
            ),
            Beat(1.2, _REST_R, Move(TOOL), left_tool="nail_brush"),
        ),
        tool="nail brush",
        critical=True,
        severity="critical",
        swaps={"nail_brush": "sponge"},
    ),
    Act(
        "rinse",
        Text("Rinse off the soap", "せっけんを流す"),
        Text("Rinse until no foam is left.", "泡がなくなるまで流す。"),
        6.2,
        _rinse({"foam": "none"}),
        critical=True,
        severity="critical",
    ),
    Act(
        "dry_hands",
        Text("Dry with a paper towel", "ペーパータオルでふく"),
        Text("Dry both hands and throw the towel away.", "両手をふき、タオルを捨てる。"),
        6.4,
        (
            Beat(1.2, Move(TOOL), _REST_L, tool="paper_towel"),
            Beat(
                2.6,
                Move("wash_right", "rub", 18, 1.3, dy=60),
                Move("wash_left", "rub", 18, 1.3, dy=60),
                tool="paper_towel",
                both=True,
                work=True,
            ),
            Beat(1.3, Move("bin"), _REST_L, tool="paper_towel", sets={"thrown": "yes"}),
        ),
        tool="paper towel",
        swaps={"paper_towel": "work_rag"},
        swap_states={("thrown", "yes"): "rag"},
    ),
    Act(
        "disinfect",
        Text("Spray and rub in disinfectant", "消毒液を吹きつけてすり込む"),
        Text("Spray twice and rub until dry.", "二回吹きつけ、乾くまですり込む。"),
        7.0,
        (
            Beat(1.2, Move(TOOL), _REST_L, tool="spray"),
            Beat(1.3, Move("wash_right", "pump", 6, 1.8, dx=26, dy=-34), Move("wash_left"), tool="spray", work=True),
            Beat(1.0, Move(TOOL), Move("wash_left"), tool="spray"),
            Beat(2.6, Move("wash_right", "rub", 24, 1.2, dx=-4), Move("wash_left", "rub", 24, 1.2, dx=4), work=True),
        ),
        tool="disinfectant",
        critical=True,
        severity="critical",
        swaps={"spray": "glass_cleaner"},
    ),
)

HAND_WASH = Kind(
    id="hand_wash",
    title=Text("Washing hands before the clean area", "清潔区域に入る前の手洗い"),
    scene=Scene(
        base=_BASE,
        objects=_OBJECTS,
        tools=_TOOLS,
        homes=_HOMES,
        home_angles={},
        anchors=_ANCHORS,
        shoulders=((206.0, 566.0), (438.0, 566.0)),
    ),
    acts=_ACTS,
    extras={
        "phone": (
            Beat(1.2, Move(TOOL), _REST_L, tool="phone"),
            Beat(3.0, Move("ear", "pump", 5, 0.4), _REST_L, tool="phone"),
            Beat(1.0, Move(TOOL), _REST_L, tool="phone"),
        ),
        "comb": (
            Beat(1.2, _REST_R, Move(TOOL), left_tool="comb"),
            Beat(2.4, _REST_R, Move("face", "pump", 16, 0.8, dx=-24, dy=-14), left_tool="comb"),
            Beat(1.0, _REST_R, Move(TOOL), left_tool="comb"),
        ),
        "fill_cup": (
            Beat(1.1, _REST_R, Move(TOOL), left_tool="cup"),
            Beat(2.6, _REST_R, Move("water", "hold", dx=-60, dy=30), left_tool="cup"),
            Beat(1.0, _REST_R, Move(TOOL), left_tool="cup"),
        ),
    },
    trainee=(("missing", "rub_thumbs"), ("wrong_tool", "dry_hands"), ("missing", "disinfect")),
)

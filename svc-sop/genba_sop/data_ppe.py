"""Putting on protective equipment before entering a line: a person faces the camera in a locker room, eight steps in about 52 s.

Most steps are free in their order; the inspection comes before them, the mirror check after them, and gloves only over the coat's sleeves.
"""

from __future__ import annotations

from dataclasses import replace

from genba_sop.data_motion import TOOL, Beat, Move
from genba_sop.data_scene import Act, Kind, Scene
from genba_sop.data_shapes import Bar, Colour, Disc, Poly, Shape, Sprite, box
from genba_sop.procedure import Text

_REST_R, _REST_L = Move("rest_right"), Move("rest_left")
_CLEAR: Colour = (225, 215, 180)


def _helmet(shell: Colour) -> Sprite:
    return (
        Poly(((-34, 8), (-30, -14), (-12, -28), (12, -28), (30, -14), (34, 8)), shell),
        Bar(((-42, 9), (42, 9)), 7, shell),
        Bar(((0, -28), (0, 2)), 5, (230, 230, 230)),
    )


_HELMET, _CAP = (
    _helmet((40, 200, 240)),
    (
        Poly(((-32, 8), (-26, -14), (0, -22), (26, -14), (32, 8)), (60, 130, 200)),
        Bar(((10, 8), (50, 12)), 8, (50, 110, 170)),
    ),
)
_GOGGLES: Sprite = (
    Disc((-15, 0), 14, 10, _CLEAR),
    Disc((15, 0), 14, 10, _CLEAR),
    Bar(((-32, -2), (32, -2)), 4, (60, 60, 66)),
)
_SUNGLASSES: Sprite = (
    Disc((-14, 0), 12, 9, (34, 32, 30)),
    Disc((14, 0), 12, 9, (34, 32, 30)),
    Bar(((-30, -3), (30, -3)), 4, (34, 32, 30)),
)
_MASK: Sprite = (
    Poly(((-22, -12), (22, -12), (18, 10), (0, 17), (-18, 10)), (235, 230, 222)),
    Bar(((-20, -2), (20, -2)), 3, (205, 200, 194)),
)
_SCARF: Sprite = (Poly(((-26, -10), (26, -10), (22, 8), (6, 24), (-18, 10)), (140, 60, 60)),)
_MUFFS: Sprite = (
    Bar(((-36, 4), (-30, -26), (0, -36), (30, -26), (36, 4)), 6, (50, 50, 54)),
    Disc((-38, 10), 11, 15, (50, 60, 200)),
    Disc((38, 10), 11, 15, (50, 60, 200)),
)
_PHONES: Sprite = (
    Bar(((-34, 4), (-28, -24), (0, -32), (28, -24), (34, 4)), 4, (120, 120, 124)),
    Disc((-35, 8), 8, 11, (120, 120, 124)),
    Disc((35, 8), 8, 11, (120, 120, 124)),
)
_VEST: Sprite = (
    Poly(((-58, -64), (-22, -70), (0, -44), (22, -70), (58, -64), (62, 74), (-62, 74)), (40, 230, 190)),
    Bar(((-60, 14), (60, 14)), 11, (215, 220, 220)),
    Bar(((-60, 46), (60, 46)), 11, (215, 220, 220)),
)
_APRON: Sprite = (
    Poly(((-40, -60), (40, -60), (56, 0), (58, 80), (-58, 80), (-56, 0)), (150, 120, 60)),
    Bar(((-30, 26), (30, 26)), 6, (120, 96, 50)),
)

_TOOLS: dict[str, Sprite] = {
    "tag_reader": (box(-18, -26, 36, 52, (70, 60, 54)), box(-13, -20, 26, 24, (160, 210, 130))),
    "vest": _VEST,
    "apron": _APRON,
    "helmet": _HELMET,
    "cap": _CAP,
    "goggles": _GOGGLES,
    "sunglasses": _SUNGLASSES,
    "mask": _MASK,
    "scarf": _SCARF,
    "muffs": _MUFFS,
    "headphones": _PHONES,
    "glove_pair": (
        Poly(((-14, -16), (12, -18), (20, -4), (14, 16), (-12, 18)), (60, 140, 220)),
        Bar(((-4, -14), (-2, 14)), 3, (40, 100, 170)),
    ),
    "boot_brush": (Bar(((-30, 0), (26, 0)), 10, (60, 105, 150)), box(24, -14, 24, 28, (70, 160, 190))),
    "phone": (box(-15, -26, 30, 52, (40, 38, 36)), box(-12, -21, 24, 40, (200, 165, 120))),
    "cup": (box(-16, -18, 32, 36, (225, 225, 225)), Disc((0, -18), 16, 5, (60, 80, 110))),
}

_HOMES = {
    "tag_reader": (186.0, 190.0),
    "vest": (68.0, 196.0),
    "apron": (70.0, 384.0),
    "helmet": (506.0, 82.0),
    "cap": (592.0, 84.0),
    "goggles": (502.0, 164.0),
    "sunglasses": (588.0, 164.0),
    "mask": (500.0, 234.0),
    "scarf": (588.0, 236.0),
    "muffs": (504.0, 316.0),
    "headphones": (590.0, 318.0),
    "glove_pair": (506.0, 392.0),
    "boot_brush": (588.0, 440.0),
    "phone": (592.0, 390.0),
    "cup": (180.0, 96.0),
}

_HEAD = (322.0, 150.0)
_ANCHORS = {
    "rest_right": (424.0, 402.0),
    "rest_left": (220.0, 402.0),
    "crown_right": (360.0, 112.0),
    "crown_left": (284.0, 112.0),
    "eyes_right": (358.0, 150.0),
    "eyes_left": (286.0, 150.0),
    "mouth_right": (350.0, 178.0),
    "mouth_left": (294.0, 178.0),
    "ears_right": (372.0, 152.0),
    "ears_left": (272.0, 152.0),
    "chest_right": (366.0, 290.0),
    "chest_left": (278.0, 290.0),
    "belly_right": (350.0, 346.0),
    "belly_left": (294.0, 346.0),
    "reader": (196.0, 206.0),
    "locker": (100.0, 300.0),
}

_BASE: tuple[Shape, ...] = (
    box(0, 0, 640, 480, (150, 146, 138)),
    *(box(8 + 62 * i, 30, 56, 430, (128 - 4 * i, 124, 112 + 3 * i)) for i in range(4)),  # lockers
    *(Bar(((54 + 62 * i, 230), (54 + 62 * i, 262)), 5, (80, 78, 74)) for i in range(4)),
    *(box(16 + 62 * i, 50 + 10 * k, 40, 4, (104, 100, 92)) for i in range(4) for k in range(3)),
    box(452, 30, 180, 436, (112, 128, 140)),  # shelf
    *(box(452, 114 + 76 * i, 180, 9, (74, 88, 100)) for i in range(5)),
    box(0, 456, 640, 24, (96, 96, 92)),
    box(262, 20, 130, 34, (70, 150, 80)),  # sign
    Bar(((280, 37), (374, 37)), 8, (235, 240, 240)),
    box(168, 162, 36, 60, (52, 52, 54)),  # tag reader's cradle
    box(160, 108, 44, 8, (74, 88, 100)),
)


def _worn(sprite: Sprite, x: float, y: float, scale: float = 1.0) -> Sprite:
    """A sprite moved to where it is worn."""
    moved: list[Shape] = []
    for shape in sprite:
        if isinstance(shape, Disc):
            centre = (x + scale * shape.centre[0], y + scale * shape.centre[1])
            moved.append(replace(shape, centre=centre, rx=scale * shape.rx, ry=scale * shape.ry))
        else:
            moved.append(replace(shape, points=tuple((x + scale * px, y + scale * py) for px, py in shape.points)))
    return tuple(moved)


def _wearable(right: Sprite, wrong: Sprite, x: float, y: float, *, scale: float = 1.0) -> dict[str, Sprite]:
    return {"off": (), "on": _worn(right, x, y, scale), "wrong": _worn(wrong, x, y, scale)}


_BODY: dict[str, dict[str, Sprite]] = {
    "vest_on": _wearable(_VEST, _APRON, 322, 300, scale=1.05),
    "mask_on": _wearable(_MASK, _SCARF, 322, 176),
    "goggles_on": _wearable(_GOGGLES, _SUNGLASSES, 322, 147),
    "muffs_on": _wearable(_MUFFS, _PHONES, 322, 140),
    "helmet_on": _wearable(_HELMET, _CAP, 322, 112, scale=1.2),
    "gloves": {"off": (), "on": ()},
}


def _wear(tool: str, place: str, worn: str, *, hand: str, reach: float = 1.3) -> tuple[Beat, ...]:
    """Take a piece, bring it to the body with both hands, put it on and adjust it."""
    right, left = Move(f"{place}_right"), Move(f"{place}_left")
    take = (
        Beat(reach, Move(TOOL), _REST_L, tool=tool)
        if hand == "right"
        else Beat(reach, _REST_R, Move(TOOL), left_tool=tool)
    )
    return (
        take,
        Beat(1.3, right, left, tool=tool, both=True, work=True),
        Beat(
            1.5,
            replace(right, motion="rub", size=9, rate_hz=1.1),
            replace(left, motion="rub", size=9, rate_hz=1.1),
            sets={worn: "on", tool: "gone"},
            tool=tool,
            both=True,
            work=True,
        ),
        Beat(
            1.1,
            replace(right, motion="pump", size=6, rate_hz=1.4),
            replace(left, motion="pump", size=6, rate_hz=1.4),
            work=True,
        ),
        Beat(0.8, _REST_R, _REST_L),
    )


_ACTS = (
    Act(
        "scan_tag",
        Text("Scan the badge", "社員証を読み取る"),
        Text("Scan the badge so that the entry is recorded.", "入室を記録するため社員証を読み取る。"),
        5.4,
        (
            Beat(1.3, _REST_R, Move(TOOL), left_tool="tag_reader"),
            Beat(2.0, Move("chest_right"), Move("chest_left", "pump", 7, 0.7), left_tool="tag_reader", work=True),
            Beat(1.1, _REST_R, Move(TOOL), left_tool="tag_reader"),
        ),
        tool="badge reader",
    ),
    Act(
        "vest",
        Text("Put on the high-visibility vest", "高視認ベストを着る"),
        Text("Put on the vest and close it.", "ベストを着て、前を閉じる。"),
        7.6,
        (
            Beat(1.4, _REST_R, Move(TOOL), left_tool="vest"),
            Beat(
                1.6,
                Move("chest_right", "scan", 20, 0.6),
                Move("chest_left", "scan", 20, 0.6),
                tool="vest",
                both=True,
                work=True,
            ),
            Beat(
                1.6,
                Move("chest_right", "wipe", 26, 0.8, dx=22, dy=-60),
                Move("chest_left", "wipe", 26, 0.8, dx=-22, dy=-60),
                sets={"vest_on": "on", "vest": "gone"},
                tool="vest",
                both=True,
                work=True,
            ),
            Beat(1.6, Move("belly_right", "rub", 22, 0.9), Move("belly_left", "rub", 22, 0.9), work=True),
            Beat(0.8, _REST_R, _REST_L),
        ),
        tool="vest",
        group="ppe",
        after=("scan_tag",),
        critical=True,
        severity="critical",
        swaps={"vest": "apron"},
        swap_states={("vest_on", "on"): "wrong"},
    ),
    Act(
        "mask",
        Text("Put on the dust mask", "防じんマスクを着ける"),
        Text("Put on the mask before the goggles, so that they seal.", "ゴーグルの前にマスクを着け、密着させる。"),
        6.2,
        _wear("mask", "mouth", "mask_on", hand="right"),
        tool="mask",
        group="ppe",
        after=("scan_tag",),
        swaps={"mask": "scarf"},
        swap_states={("mask_on", "on"): "wrong"},
    ),
    Act(
        "goggles",
        Text("Put on the goggles", "ゴーグルを着ける"),
        Text("Put on the goggles over the mask.", "マスクの上にゴーグルを着ける。"),
        6.4,
        _wear("goggles", "eyes", "goggles_on", hand="right"),
        tool="goggles",
        group="ppe",
        after=("mask",),
        critical=True,
        severity="critical",
        swaps={"goggles": "sunglasses"},
        swap_states={("goggles_on", "on"): "wrong"},
    ),
    Act(
        "helmet",
        Text("Put on the helmet", "ヘルメットをかぶる"),
        Text(
            "Put on the helmet over the goggles' strap and close the chin strap.",
            "ゴーグルのバンドの上からかぶり、あごひもを締める。",
        ),
        6.8,
        _wear("helmet", "crown", "helmet_on", hand="right"),
        tool="helmet",
        group="ppe",
        after=("goggles",),
        critical=True,
        severity="critical",
        swaps={"helmet": "cap"},
        swap_states={("helmet_on", "on"): "wrong"},
    ),
    Act(
        "muffs",
        Text("Put on the ear muffs", "イヤーマフを着ける"),
        Text("Put on the ear muffs after the helmet.", "ヘルメットの後にイヤーマフを着ける。"),
        6.2,
        _wear("muffs", "ears", "muffs_on", hand="right"),
        tool="ear muffs",
        group="ppe",
        after=("helmet",),
        swaps={"muffs": "headphones"},
        swap_states={("muffs_on", "on"): "wrong"},
    ),
    Act(
        "gloves",
        Text("Put on gloves", "手袋を着ける"),
        Text("Gloves come last; nothing else can be fastened with them.", "手袋は最後に着ける。"),
        7.0,
        (
            Beat(1.3, Move(TOOL), _REST_L, tool="glove_pair", sets={"glove_pair": "gone"}),
            Beat(1.6, Move("belly_right", "rub", 17), Move("belly_left", "rub", 6), tool="glove_pair", work=True),
            Beat(
                1.6,
                Move("belly_right", "rub", 8, 1.3),
                Move("belly_left", "rub", 20, 1.3),
                sets={"gloves": "on"},
                work=True,
            ),
            Beat(1.1, Move("belly_right", "rub", 22, 1.6), Move("belly_left", "rub", 22, 1.6), work=True),
        ),
        tool="gloves",
        after=("vest", "muffs"),
    ),
    Act(
        "mirror_check",
        Text("Check everything in the mirror", "鏡で全体を確認する"),
        Text("Check from head to foot before entering.", "入る前に頭から足まで確認する。"),
        6.6,
        (
            Beat(1.5, Move("crown_right", "pump", 6, 1.0, dx=8), _REST_L, work=True),
            Beat(1.7, Move("ears_right", "rub", 8, 0.9), Move("ears_left", "rub", 8, 0.9), work=True),
            Beat(
                1.9, Move("chest_right", "wipe", 30, 0.7, dy=20), Move("chest_left", "wipe", 30, 0.7, dy=20), work=True
            ),
            Beat(0.9, _REST_R, _REST_L),
        ),
        after=("gloves",),
        severity="minor",
    ),
)

PPE = Kind(
    id="ppe",
    title=Text("Protective equipment before entry", "入室前の保護具着用"),
    scene=Scene(
        base=_BASE,
        objects=_BODY,
        tools=_TOOLS,
        homes=_HOMES,
        home_angles={},
        anchors=_ANCHORS,
        shoulders=((262.0, 246.0), (382.0, 246.0)),
        arm_length=300.0,
        frontal=True,
        head=_HEAD,
    ),
    acts=_ACTS,
    extras={
        "phone": (
            Beat(1.2, Move(TOOL), _REST_L, tool="phone"),
            Beat(3.0, Move("ears_right", "pump", 5, 0.4), _REST_L, tool="phone"),
            Beat(1.0, Move(TOOL), _REST_L, tool="phone"),
        ),
        "drink": (
            Beat(1.2, _REST_R, Move(TOOL), left_tool="cup"),
            Beat(2.2, _REST_R, Move("mouth_left", "pump", 8, 0.5), left_tool="cup"),
            Beat(1.0, _REST_R, Move(TOOL), left_tool="cup"),
        ),
        "dust_off": (
            Beat(1.1, Move(TOOL), _REST_L, tool="boot_brush"),
            Beat(3.2, Move("belly_right", "wipe", 40, 1.0, dy=60, aim=120), _REST_L, tool="boot_brush"),
            Beat(1.0, Move(TOOL), _REST_L, tool="boot_brush"),
        ),
    },
    trainee=(("missing", "goggles"), ("wrong_tool", "helmet"), ("missing", "mirror_check")),
)

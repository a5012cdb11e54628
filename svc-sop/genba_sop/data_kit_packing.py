"""Packing a spare-parts kit: a dark bench seen by a camera across it, so that the packer faces it; thirteen quick steps in about 58 s.

Four steps take a part from a bin into the box and differ in the bin; the two cushion sheets are the very same action, below the
parts and on top of them; the scanner is used at the beginning and at the end.
"""

from __future__ import annotations

from genba_sop.data_motion import TOOL, Beat, Move
from genba_sop.data_scene import Act, Kind, Scene
from genba_sop.data_shapes import Bar, Colour, Disc, Poly, Shape, Sprite, box
from genba_sop.procedure import Text

_CARD, _CARD_DARK, _CARD_LIGHT = (96, 146, 190), (70, 112, 150), (126, 172, 210)
_DARK, _STEEL = (52, 50, 48), (170, 168, 162)
_DOWN = 90.0  # a tool points from the packer to the camera
_REST_R, _REST_L = Move("rest_right", aim=_DOWN), Move("rest_left", aim=_DOWN)

_TOOLS: dict[str, Sprite] = {
    "scanner": (Bar(((-22, 0), (14, 0)), 15, (60, 60, 64)), box(10, -16, 26, 32, (40, 150, 230))),
    "stapler": (Bar(((-26, 0), (30, 0)), 13, (50, 50, 170)), box(20, -10, 16, 20, _STEEL)),
    "sheet": (Poly(((-40, -26), (40, -28), (42, 26), (-38, 28)), (238, 232, 214)),),
    "newspaper": (
        Poly(((-40, -26), (40, -28), (42, 26), (-38, 28)), (176, 184, 184)),
        *(Bar(((-32, -16 + 10 * i), (32, -18 + 10 * i)), 3, (96, 96, 96)) for i in range(4)),
    ),
    "valve": (Disc((0, 0), 15, 15, (60, 170, 200)), Bar(((-22, 0), (22, 0)), 8, (90, 190, 210))),
    "red_valve": (Disc((0, 0), 15, 15, (60, 50, 190)), Bar(((-22, 0), (22, 0)), 8, (80, 70, 210))),
    "hose": (Disc((0, 0), 21, 17, (40, 40, 44)), Disc((0, 0), 10, 8, (92, 96, 92))),
    "clamps": (Disc((-9, 0), 9, 9, _STEEL), Disc((9, 0), 9, 9, _STEEL), Disc((-9, 0), 4, 4, _DARK), Disc((9, 0), 4, 4, _DARK)),
    "cable_ties": (Bar(((-20, -8), (20, -4)), 5, (70, 200, 90)), Bar(((-20, 6), (20, 2)), 5, (70, 200, 90))),
    "gasket": (Disc((0, 0), 18, 13, (60, 110, 60)), Disc((0, 0), 9, 6, (120, 160, 120))),
    "manual": (box(-22, -28, 44, 56, (236, 236, 236)), box(-16, -22, 32, 14, (160, 80, 40))),
    "flyer": (box(-20, -24, 40, 48, (90, 200, 240)), box(-14, -18, 28, 22, (60, 60, 200))),
    "tape_gun": (Disc((20, 0), 19, 19, (140, 190, 220)), Bar(((-24, 0), (8, 0)), 13, (40, 40, 190)), Disc((20, 0), 8, 8, _DARK)),
    "marker": (Bar(((-26, 0), (20, 0)), 12, (50, 50, 50)), Bar(((20, 0), (32, 0)), 6, (40, 40, 200))),
    "label": (box(-22, -15, 44, 30, (240, 240, 244)), Bar(((-14, -3), (14, -3)), 6, _DARK)),
    "fragile_label": (box(-22, -15, 44, 30, (60, 60, 230)), Bar(((-12, -8), (12, 8)), 5, (240, 240, 240))),
    "phone": (box(-15, -26, 30, 52, (40, 38, 36)), box(-12, -21, 24, 40, (200, 165, 120))),
    "cup": (box(-16, -18, 32, 36, (200, 120, 90)), Disc((0, -18), 16, 5, (60, 80, 110))),
    "cutter": (Bar(((-28, 0), (16, 0)), 12, (30, 200, 230)), Bar(((16, 0), (36, 0)), 5, _STEEL)),
}  # fmt: skip

_HOMES = {
    "scanner": (74.0, 150.0),
    "stapler": (78.0, 96.0),
    "sheet": (572.0, 176.0),
    "newspaper": (570.0, 90.0),
    "valve": (150.0, 424.0),
    "red_valve": (78.0, 424.0),
    "hose": (240.0, 424.0),
    "clamps": (330.0, 424.0),
    "cable_ties": (510.0, 424.0),
    "gasket": (420.0, 424.0),
    "manual": (66.0, 250.0),
    "flyer": (66.0, 332.0),
    "tape_gun": (566.0, 268.0),
    "marker": (590.0, 318.0),
    "label": (480.0, 92.0),
    "fragile_label": (418.0, 84.0),
    "phone": (150.0, 84.0),
    "cup": (594.0, 376.0),
    "cutter": (220.0, 80.0),
}

_ANCHORS = {
    "rest_right": (226.0, 82.0),
    "rest_left": (420.0, 82.0),
    "slip": (170.0, 206.0),
    "box": (324.0, 258.0),
    "flap_right": (250.0, 250.0),
    "flap_left": (398.0, 250.0),
    "top": (324.0, 244.0),
    "side": (292.0, 288.0),
    "face": (324.0, 40.0),
    "ear": (268.0, 46.0),
    "table": (500.0, 330.0),
}


def _bin(x: float, content: Colour) -> tuple[Shape, ...]:
    return (
        box(x - 40, 392, 80, 66, (150, 90, 40)),
        box(x - 34, 398, 68, 54, (110, 66, 30)),
        Disc((x, 430), 26, 15, content),
    )


_BASE: tuple[Shape, ...] = (
    box(0, 0, 640, 480, (84, 78, 60)),  # bench
    *(box(0, 96 * i, 640, 3, (66, 60, 46)) for i in range(1, 5)),
    box(0, 372, 640, 12, (60, 58, 54)),  # rail of the bins
    *_bin(78, (70, 60, 130)), *_bin(150, (70, 120, 140)), *_bin(240, (58, 58, 60)),
    *_bin(330, (130, 128, 124)), *_bin(420, (70, 100, 70)), *_bin(510, (80, 150, 90)),
    box(128, 170, 76, 92, (206, 214, 216)),  # packing slip
    *(Bar(((138, 186 + 12 * i), (190, 186 + 12 * i)), 3, (120, 120, 120)) for i in range(5)),
    box(30, 206, 74, 168, (100, 96, 116)),  # paper tray
    box(524, 130, 96, 92, (112, 104, 84)),  # roll of sheet
    Bar(((524, 136), (620, 136)), 14, (150, 146, 130)),
    box(440, 62, 80, 60, (124, 120, 110)),  # printer
)  # fmt: skip

_IN, _OUT = "in", "out"
_HIDE = dict.fromkeys(("pad", "valve_in", "hose_in", "clamps_in", "gasket_in", "manual_in", "pad_top"), "covered")


def _inside(shown: Sprite, wrong: Sprite = ()) -> dict[str, Sprite]:
    return {_OUT: (), _IN: shown, "wrong": wrong, "covered": ()}


_OBJECTS: dict[str, dict[str, Sprite]] = {
    "box": {
        "flat": (box(238, 216, 172, 84, _CARD), Bar(((324, 216), (324, 300)), 3, _CARD_DARK)),
        "open": (
            box(236, 196, 176, 124, _CARD_DARK),
            box(248, 206, 152, 104, (58, 92, 124)),
            Poly(((236, 196), (248, 206), (248, 310), (236, 320), (204, 308), (204, 208)), _CARD_LIGHT),
            Poly(((412, 196), (400, 206), (400, 310), (412, 320), (444, 308), (444, 208)), _CARD_LIGHT),
        ),
        "closed": (box(236, 196, 176, 124, _CARD), Bar(((324, 196), (324, 320)), 3, _CARD_DARK)),
        "taped": (box(236, 196, 176, 124, _CARD), box(312, 192, 24, 132, (170, 196, 214))),
        "marked": (box(236, 196, 176, 124, _CARD), Bar(((324, 196), (324, 320)), 6, (40, 40, 160))),
    },
    "pad": _inside(
        (box(254, 212, 140, 92, (224, 220, 204)),),
        (box(254, 212, 140, 92, (168, 176, 176)),),
    ),
    "valve_in": _inside((Disc((276, 238), 14, 14, (60, 170, 200)),), (Disc((276, 238), 14, 14, (60, 50, 190)),)),
    "hose_in": _inside((Disc((320, 240), 21, 17, (40, 40, 44)), Disc((320, 240), 10, 8, (92, 96, 92)))),
    "clamps_in": _inside(
        (Disc((358, 236), 9, 9, _STEEL), Disc((374, 236), 9, 9, _STEEL)), (Bar(((350, 232), (384, 240)), 5, (70, 200, 90)),)
    ),
    "gasket_in": _inside((Disc((292, 284), 18, 13, (60, 110, 60)), Disc((292, 284), 9, 6, (120, 160, 120)))),
    "manual_in": _inside((box(330, 256, 44, 46, (236, 236, 236)),), (box(330, 258, 40, 42, (90, 200, 240)),)),
    "pad_top": _inside(
        (box(254, 212, 140, 92, (238, 234, 220)),),
        (box(254, 212, 140, 92, (178, 186, 186)),),
    ),
    "label_on": {
        _OUT: (),
        _IN: (box(262, 272, 44, 30, (240, 240, 244)), Bar(((270, 286), (298, 286)), 6, _DARK)),
        "wrong": (box(262, 272, 44, 30, (60, 60, 230)),),
    },
}  # fmt: skip


def _down(
    at: str, motion: str = "hold", size: float = 0.0, rate_hz: float = 1.0, dx: float = 0.0, dy: float = 0.0
) -> Move:
    return Move(at, motion, size, rate_hz, dx=dx, dy=dy, aim=_DOWN)  # type: ignore[arg-type]


def _take(tool: str, sets: dict[str, str], *, dx: float, dy: float, left: bool = False) -> tuple[Beat, ...]:
    """Take a part out of its bin and put it into the box."""
    reach, put = _down(TOOL), _down("box", "pump", 5, 1.2, dx=dx, dy=dy)
    if left:
        return (
            Beat(1.1, _REST_R, reach, left_tool=tool),
            Beat(1.4, _REST_R, put, left_tool=tool, sets=sets, work=True),
            Beat(0.8, _REST_R, _REST_L),
        )
    return (
        Beat(1.1, reach, _REST_L, tool=tool),
        Beat(1.4, put, _REST_L, tool=tool, sets=sets, work=True),
        Beat(0.8, _REST_R, _REST_L),
    )


def _lay_sheet(state: str) -> tuple[Beat, ...]:
    """Tear a sheet off the roll and press it into the box with both hands."""
    return (
        Beat(1.1, _REST_R, _down(TOOL), left_tool="sheet"),
        Beat(1.0, _down("box", dx=-46), _down("box", dx=46), tool="sheet", both=True),
        Beat(
            1.7,
            _down("box", "rub", 12, 1.1, dx=-40, dy=4),
            _down("box", "rub", 12, 1.1, dx=40, dy=4),
            sets={state: _IN},
            tool="sheet",
            both=True,
            work=True,
        ),
        Beat(0.6, _REST_R, _REST_L),
    )


def _scan(at: str) -> tuple[Beat, ...]:
    return (
        Beat(1.0, _down(TOOL), _REST_L, tool="scanner"),
        Beat(1.6, _down(at, "scan", 14, 0.8, dy=-34), _REST_L, tool="scanner", work=True),
        Beat(1.0, _down(TOOL), _REST_L, tool="scanner"),
    )


_ACTS = (
    Act(
        "scan_order",
        Text("Scan the order", "注文書を読み取る"),
        Text("Scan the code on the packing slip.", "納品書のコードを読み取る。"),
        4.2,
        _scan("slip"),
        tool="scanner",
        swaps={"scanner": "stapler"},
    ),
    Act(
        "fold_box",
        Text("Fold the box", "箱を組み立てる"),
        Text("Open the box and press the corners.", "箱を開き、角を押さえる。"),
        5.2,
        (
            Beat(
                1.7,
                _down("flap_right", "pump", 14, 0.9),
                _down("flap_left", "pump", 14, 0.9),
                sets={"box": "open"},
                work=True,
            ),
            Beat(
                1.9, _down("flap_right", "wipe", 20, 0.8, dy=30), _down("flap_left", "wipe", 20, 0.8, dy=30), work=True
            ),
            Beat(0.6, _REST_R, _REST_L),
        ),
    ),
    Act(
        "lay_bottom_sheet",
        Text("Lay a cushion sheet into the box", "底に緩衝シートを敷く"),
        Text("One sheet goes below the parts.", "部品の下に一枚敷く。"),
        4.8,
        _lay_sheet("pad"),
        tool="cushion sheet",
        swaps={"sheet": "newspaper"},
        swap_states={("pad", _IN): "wrong"},
    ),
    Act(
        "pack_valve",
        Text("Pack the valve", "バルブを入れる"),
        Text("Take the yellow valve from the second bin.", "二番目の箱から黄色のバルブを取る。"),
        3.6,
        _take("valve", {"valve_in": _IN}, dx=-48, dy=-20),
        tool="valve",
        group="parts",
        critical=True,
        severity="critical",
        swaps={"valve": "red_valve"},
        swap_states={("valve_in", _IN): "wrong"},
    ),
    Act(
        "pack_hose",
        Text("Pack the hose", "ホースを入れる"),
        Text("Coil the hose and lay it beside the valve.", "ホースを巻いてバルブの横に置く。"),
        3.8,
        _take("hose", {"hose_in": _IN}, dx=-4, dy=-18),
        tool="hose",
        group="parts",
    ),
    Act(
        "pack_clamps",
        Text("Pack the clamps", "クランプを入れる"),
        Text("Two steel clamps; no cable ties.", "鋼製クランプ二個。結束バンドは不可。"),
        3.6,
        _take("clamps", {"clamps_in": _IN}, dx=42, dy=-22, left=True),
        tool="clamps",
        group="parts",
        critical=True,
        severity="critical",
        swaps={"clamps": "cable_ties"},
        swap_states={("clamps_in", _IN): "wrong"},
    ),
    Act(
        "pack_gasket",
        Text("Pack the gasket", "ガスケットを入れる"),
        Text("The gasket lies flat.", "ガスケットは平らに置く。"),
        3.6,
        _take("gasket", {"gasket_in": _IN}, dx=-32, dy=26, left=True),
        tool="gasket",
        group="parts",
    ),
    Act(
        "add_manual",
        Text("Add the manual", "取扱説明書を入れる"),
        Text("Put in the manual of this order's language.", "注文の言語の取扱説明書を入れる。"),
        3.8,
        _take("manual", {"manual_in": _IN}, dx=26, dy=22),
        tool="manual",
        swaps={"manual": "flyer"},
        swap_states={("manual_in", _IN): "wrong"},
    ),
    Act(
        "lay_top_sheet",
        Text("Lay a cushion sheet on top", "上に緩衝シートをかける"),
        Text("One sheet goes on top of the parts.", "部品の上に一枚かける。"),
        4.8,
        _lay_sheet("pad_top"),
        tool="cushion sheet",
        swaps={"sheet": "newspaper"},
        swap_states={("pad_top", _IN): "wrong"},
    ),
    Act(
        "close_flaps",
        Text("Close the flaps", "ふたを閉じる"),
        Text("Close both flaps and hold them down.", "両側のふたを閉じて押さえる。"),
        4.4,
        (
            Beat(
                1.4, _down("flap_right", "pump", 8, 1.0, dx=-24), _down("flap_left", "pump", 8, 1.0, dx=24), work=True
            ),
            Beat(
                1.5,
                _down("top", "rub", 16, 0.9, dx=-26),
                _down("top", "rub", 16, 0.9, dx=26),
                sets={"box": "closed", **_HIDE},
                work=True,
            ),
            Beat(0.6, _REST_R, _REST_L),
        ),
    ),
    Act(
        "tape_box",
        Text("Tape the box", "テープで留める"),
        Text("One strip along the middle seam.", "中央の合わせ目に一本。"),
        5.4,
        (
            Beat(1.1, _REST_R, _down(TOOL), left_tool="tape_gun"),
            Beat(
                2.4,
                _down("flap_right", "hold", dy=10),
                Move("top", "pump", 46, 0.5, aim=_DOWN),
                left_tool="tape_gun",
                sets={"box": "taped"},
                work=True,
            ),
            Beat(1.0, _REST_R, _down(TOOL), left_tool="tape_gun"),
        ),
        tool="tape gun",
        critical=True,
        severity="critical",
        swaps={"tape_gun": "marker"},
        swap_states={("box", "taped"): "marked"},
    ),
    Act(
        "stick_label",
        Text("Stick on the label", "ラベルを貼る"),
        Text("Take the label from the printer and rub it down.", "プリンターからラベルを取り、こすって貼る。"),
        4.6,
        (
            Beat(1.0, _REST_R, _down(TOOL), left_tool="label"),
            Beat(1.0, _REST_R, _down("side", dy=-6), left_tool="label", sets={"label_on": _IN}),
            Beat(1.5, _down("side", "wipe", 16, 1.2, dx=-4, dy=-4), _REST_L, work=True),
            Beat(0.6, _REST_R, _REST_L),
        ),
        tool="label",
        swaps={"label": "fragile_label"},
        swap_states={("label_on", _IN): "wrong"},
    ),
    Act(
        "scan_label",
        Text("Scan the label", "ラベルを読み取る"),
        Text("Scan the label; the parcel is booked out.", "ラベルを読み取り、出荷を登録する。"),
        4.2,
        _scan("side"),
        tool="scanner",
        severity="minor",
        swaps={"scanner": "stapler"},
    ),
)

KIT_PACKING = Kind(
    id="kit_packing",
    title=Text("Packing a spare-parts kit", "補修部品キットの梱包"),
    scene=Scene(
        base=_BASE,
        objects=_OBJECTS,
        tools=_TOOLS,
        homes=_HOMES,
        home_angles={"scanner": 1.57, "tape_gun": 1.57},
        anchors=_ANCHORS,
        shoulders=((440.0, -86.0), (206.0, -86.0)),
        arm_length=330.0,
        head=(324.0, -24.0),
    ),
    acts=_ACTS,
    extras={
        "phone": (
            Beat(1.2, _down(TOOL), _REST_L, tool="phone"),
            Beat(3.0, _down("ear", "pump", 5, 0.4), _REST_L, tool="phone"),
            Beat(1.0, _down(TOOL), _REST_L, tool="phone"),
        ),
        "drink": (
            Beat(1.2, _REST_R, _down(TOOL), left_tool="cup"),
            Beat(2.2, _REST_R, _down("face", "pump", 8, 0.5, dx=24, dy=14), left_tool="cup"),
            Beat(1.0, _REST_R, _down(TOOL), left_tool="cup"),
        ),
        "cut": (
            Beat(1.1, _down(TOOL), _REST_L, tool="cutter"),
            Beat(3.0, _down("table", "wipe", 34, 1.0), _REST_L, tool="cutter"),
            Beat(0.9, _down(TOOL), _REST_L, tool="cutter"),
        ),
    },
    trainee=(("missing", "pack_clamps"), ("wrong_tool", "tape_box"), ("missing", "scan_label")),
)

"""What the instrument wrote beside the picture: pixel size, banner height, make and model. Knows nothing of pixels' meaning.

Every maker hides the pixel size elsewhere, and several write a second number that is wrong (docs/explanation/particles.md).
A source that cannot be understood is passed over with a note; nothing here guesses from magnification, whose reference
width is a print or a monitor that nobody has.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_NM_PER: Final = {"pm": 1e-3, "nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "micron": 1e3, "mm": 1e6, "cm": 1e7, "m": 1e9}
_NUMBER: Final = re.compile(r"\s*([-+]?\d+(?:[.,]\d*)?(?:[eE][-+]?\d+)?)\s*([a-zA-Zµμ]*)")
_THOUSANDS: Final = re.compile(r"[-+]?\d{1,3},\d{3}")  # or a decimal comma: nobody can tell
_NOT_SQUARE: Final = "its pixels are not square, so no one length is theirs"
_DISAGREE: Final = 0.02  # two sources this far apart are not the same number rounded
_ZEISS_STORE_WIDTH_PX: Final = 1024
_NM_PER_INCH: Final = 25.4e6
_LEAST_NM, _MOST_NM = 1e-4, 1e6


@dataclass(frozen=True)
class Instrument:
    """The maker, and the model where the file names one; empty strings where nothing is known."""

    vendor: str = ""
    model: str = ""


@dataclass(frozen=True)
class Header:
    """What the metadata says.

    pixel_size_nm: the trusted size and pixel_size_source its origin; None where nothing trustworthy is written.
    image_rows: rows above the banner; None where the metadata says nothing of a banner.
    disagreements: sources that differ from the trusted one or had to be passed over, in words.
    """

    instrument: Instrument = field(default_factory=Instrument)
    pixel_size_nm: float | None = None
    pixel_size_source: str | None = None
    image_rows: int | None = None
    disagreements: tuple[str, ...] = ()


def read_tiff_header(page: Any, tags: Mapping[str, Any], *, width_px: int, height_px: int) -> Header:
    """Read a TIFF's vendor metadata.

    page: the tifffile page whose pixels are used. tags: name → value over all pages of the same picture, first wins.
    """
    description = " ".join(
        str(tag.value) for tag in page.tags.values() if tag.code == 270 and isinstance(tag.value, str)
    )
    if "CZ_SEM" in tags:
        return _zeiss(tags["CZ_SEM"], width_px=width_px)
    fei = tags.get("FEI_HELIOS") or tags.get("FEI_SFEG")
    if isinstance(fei, Mapping):
        return _fei(fei, height_px=height_px)
    if isinstance(tags.get("OlympusSIS"), Mapping):
        return _olympus(tags)
    if "<TemReporter" in description:
        return _jeol_tem(tags)
    texts = [str(tag.value) for tag in page.tags.values() if tag.code == 270]
    for text in texts:
        header = read_sidecar(text, width_px=width_px)
        if header.instrument.vendor or header.pixel_size_nm:
            return _renamed(header, "vendor tag")
    return _imagej(dict(_fields(description)), tags) if description.startswith("ImageJ=") else _resolution(tags)


def read_sidecar(text: str, *, width_px: int) -> Header:
    """Read a text file that the instrument wrote beside the picture: Hitachi's and others' INI text, JEOL's ``$CM_``, SEC."""
    fields = dict(_fields(text))
    if "$CM_FORMAT" in text or "$$SM_MICRON_BAR" in text:
        return _jeol_sem(fields)
    if "pixelsize" in fields:
        return _hitachi(fields, width_px=width_px)
    if fields.get("model", "").upper().startswith("SNE"):
        note = "the sidecar gives a magnification and no pixel size; a magnification alone says nothing"
        return Header(Instrument("SEC", fields["model"]), disagreements=(note,))
    return Header()


def agreed(first: Header, *others: Header) -> Header:
    """The most trusted header with a pixel size, with what the others say against it.

    Headers come in order of trust: vendor tag, sidecar, TIFF resolution, scale bar, user.
    """
    known = [header for header in (first, *others) if header.pixel_size_nm is not None]
    notes = list(dict.fromkeys(note for header in (first, *others) for note in header.disagreements))
    chosen = known[0] if known else first
    for header in known[1:]:
        assert_nm, other_nm = chosen.pixel_size_nm or math.nan, header.pixel_size_nm or math.nan
        if abs(other_nm / assert_nm - 1) > _DISAGREE:
            notes.append(f"{header.pixel_size_source} says {other_nm:.6g} nm a pixel")
    rows = next((header.image_rows for header in (first, *others) if header.image_rows is not None), None)
    maker = next((header.instrument for header in (first, *others) if header.instrument.vendor), first.instrument)
    return Header(maker, chosen.pixel_size_nm, chosen.pixel_size_source, rows, tuple(notes))


def length_nm(text: str, *, unit: str = "nm") -> float | None:
    """``"2.5 nm"`` → 2.5; ``unit`` stands where the text has none; None for what is no positive length."""
    match, number = _NUMBER.match(text), _float(text)
    if match is None or number is None or (match[2] or unit) not in _NM_PER:
        return None
    return _plausible(number * _NM_PER[match[2] or unit])


def _plausible(size_nm: float) -> float | None:
    return size_nm if math.isfinite(size_nm) and _LEAST_NM <= size_nm <= _MOST_NM * 1e3 else None


def _zeiss(tag: Mapping[str, Any], *, width_px: int) -> Header:
    """The fourth number of the unnamed block is metres a pixel of a 1,024-pixel-wide store: rescale it to this width.

    ``ap_pixel_size`` is the monitor's; on a 512-pixel file it is half of the truth.
    """
    maker = Instrument("Zeiss", str(tag.get("dp_sem", ("", ""))[1]) if "dp_sem" in tag else "")
    block = tag.get("", ())
    if not isinstance(block, (tuple, list)) or len(block) < 4 or not isinstance(block[3], (int, float)):
        return Header(maker, disagreements=("the Zeiss tag has no block of numbers",))
    size_nm = _plausible(float(block[3]) * 1e9 * _ZEISS_STORE_WIDTH_PX / width_px)
    notes = []
    monitor = tag.get("ap_pixel_size")
    if size_nm and isinstance(monitor, (tuple, list)) and len(monitor) >= 3:
        monitor_nm = length_nm(f"{monitor[1]} {monitor[2]}")
        if monitor_nm and abs(monitor_nm / size_nm - 1) > _DISAGREE:
            notes.append(f"ap_pixel_size says {monitor_nm:.6g} nm a pixel, of the monitor")
    return Header(maker, size_nm, "Zeiss tag" if size_nm else None, None, tuple(notes))


def _fei(tag: Mapping[str, Any], *, height_px: int) -> Header:
    maker = Instrument("FEI", _text(tag, "System", "SystemType"))
    size_m = _number(tag, "Scan", "PixelWidth")
    size_nm = _plausible(size_m * 1e9) if size_m else None
    notes = () if size_nm else ("the FEI tag has no scan, so no pixel size (a navigation camera's picture has none)",)
    if not _square(size_m, _number(tag, "Scan", "PixelHeight")):
        size_nm, notes = None, (f"FEI tag: {_NOT_SQUARE}",)
    bar_px = _number(tag, "PrivateFei", "DatabarHeight")
    image_px = _number(tag, "Image", "ResolutionY")
    rows = int(height_px - bar_px) if bar_px is not None and 0 <= bar_px < height_px else None
    if rows is None and image_px and image_px <= height_px:
        rows = int(image_px)
    return Header(maker, size_nm, "FEI tag" if size_nm else None, rows, notes)


def _olympus(tags: Mapping[str, Any]) -> Header:
    maker = Instrument("Olympus", str(tags.get("Model", "")))
    size, down = (
        float(each) if isinstance(each := tags["OlympusSIS"].get(name), (int, float)) else None
        for name in ("pixelsizex", "pixelsizey")
    )
    if not _square(size, down):
        return Header(maker, disagreements=(f"Olympus SIS tag: {_NOT_SQUARE}",))
    size_nm = _plausible(size * 1e9) if size is not None else None
    return Header(maker, size_nm, "Olympus SIS tag" if size_nm else None)


def _jeol_tem(tags: Mapping[str, Any]) -> Header:
    """SightX: XResolution counts the pixels of the camera's plane, so a pixel on the sample is that over the magnification."""
    maker = Instrument("JEOL", str(tags.get("Model", "")).strip("\0 "))
    report = _xml(str(tags.get("ImageDescription", "")))
    forming = report.find("ImageFormingSystem") if report is not None else None
    values = {child.tag: (child.text or "").strip() for child in forming} if forming is not None else {}
    plane_nm = _resolution_nm(tags)
    magnification = _float(values.get("SelectorValue", ""))
    if values.get("ModeString", "") != "MAG" or not plane_nm or not magnification:
        return Header(maker, disagreements=("the JEOL report is of no magnified image, so it has no pixel size",))
    size_nm = _plausible(plane_nm / magnification)
    return Header(maker, size_nm, "JEOL report" if size_nm else None)


def _jeol_sem(fields: Mapping[str, str]) -> Header:
    """JEOL's SEM text: the micron bar is so many pixels long and so many micrometres wide."""
    maker = Instrument("JEOL", fields.get("$cm_instrument", fields.get("$cm_title", "")))
    bar_px = _float(fields.get("$$sm_micron_bar", ""))
    marker = fields.get("$$sm_micron_marker", "")
    bar_nm = length_nm(marker.replace("u", "um") if re.fullmatch(r"[\d.]+u", marker.strip()) else marker, unit="um")
    if not bar_px or not bar_nm:
        return Header(maker, disagreements=("the JEOL text has no micron bar",))
    return Header(maker, bar_nm / bar_px, "JEOL text")


def _hitachi(fields: Mapping[str, str], *, width_px: int) -> Header:
    model = (
        fields.get("instructname")
        or fields.get("instrumentname")
        or fields.get("instrument")
        or fields.get("machineno", "")
    )
    size_nm = length_nm(fields["pixelsize"])
    notes: list[str] = []
    declared = re.match(r"(\d+)\s*[x*]\s*(\d+)", fields.get("datasize") or fields.get("imagesize") or "")
    if declared and int(declared[1]) != width_px:
        notes.append(
            f"the Hitachi text was written for a picture {declared[1]} pixels wide and this one has {width_px}; "
            "if it was resized, its pixels are that much larger"
        )
    return Header(Instrument("Hitachi", model), size_nm, "Hitachi text" if size_nm else None, None, tuple(notes))


def _resolution(tags: Mapping[str, Any]) -> Header:
    """A plain TIFF's XResolution, where it can mean a sample: printers' and screens' figures (≤ 2,400 dots an inch) do not."""
    size_nm = _resolution_nm(tags)
    if size_nm is None or size_nm > _NM_PER_INCH / 2400:
        return Header()
    if not _square(size_nm, _resolution_nm(tags, "YResolution")):
        return Header(disagreements=(f"TIFF resolution: {_NOT_SQUARE}",))
    return Header(pixel_size_nm=size_nm, pixel_size_source="TIFF resolution")


def _imagej(fields: Mapping[str, str], tags: Mapping[str, Any]) -> Header:
    """ImageJ keeps its scale as so many pixels a unit, which it names in the description and not in ResolutionUnit."""
    unit = fields.get("unit", "").replace("\\u00B5", "µ").replace("\\u03BC", "µ")
    across, down = _ratio(tags.get("XResolution")), _ratio(tags.get("YResolution"))
    if unit in {"", "cm"} or unit not in _NM_PER or across is None:
        return _resolution(tags)
    if not _square(across, down):
        return Header(disagreements=(f"ImageJ's scale: {_NOT_SQUARE}",))
    size_nm = _plausible(_NM_PER[unit] * across)
    return Header(pixel_size_nm=size_nm, pixel_size_source="ImageJ's scale" if size_nm else None)


def _resolution_nm(tags: Mapping[str, Any], name: str = "XResolution") -> float | None:
    across, unit = _ratio(tags.get(name)), int(tags.get("ResolutionUnit", 2))
    return None if across is None or unit not in {2, 3} else (_NM_PER_INCH if unit == 2 else 1e7) * across


def _ratio(value: object) -> float | None:
    """Units a pixel, of a resolution that is written as pixels over units."""
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not value[0] or not value[1]:
        return None
    return float(value[1] / value[0])


def _renamed(header: Header, source: str) -> Header:
    origin = f"{header.instrument.vendor} tag".strip() if header.instrument.vendor else source
    return Header(
        header.instrument,
        header.pixel_size_nm,
        origin if header.pixel_size_nm else None,
        header.image_rows,
        header.disagreements,
    )


def _fields(text: str) -> Iterator[tuple[str, str]]:
    for line in text[:200_000].splitlines():
        if line.startswith("$"):
            key, _, value = line.partition(" ")
        else:
            key, _, value = line.partition("=" if "=" in line else ":")
        if value:
            yield key.strip().lower(), value.strip()


def _xml(text: str) -> ET.Element | None:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # no entity of a stranger's is expanded
        return None
    try:
        return ET.fromstring(text.strip("\0 \r\n\t\x01"))  # noqa: S314 (no document type, so no entities)
    except ET.ParseError:
        return None


def _text(tag: Mapping[str, Any], section: str, key: str) -> str:
    part = tag.get(section)
    return str(part.get(key, "")).strip('" ') if isinstance(part, Mapping) else ""


def _number(tag: Mapping[str, Any], section: str, key: str) -> float | None:
    part = tag.get(section)
    value = part.get(key) if isinstance(part, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _float(text: str) -> float | None:
    """With a decimal comma too, as instruments with European settings write."""
    match = _NUMBER.match(text)
    return None if match is None or _THOUSANDS.fullmatch(match[1]) else float(match[1].replace(",", "."))


def _square(across: float | None, down: float | None) -> bool:
    """Whether two sides of a pixel are one length, as far as both are known."""
    return not across or not down or abs(down / across - 1) <= _DISAGREE

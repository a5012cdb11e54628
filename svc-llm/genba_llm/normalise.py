"""Stage 0: see a text as a reader would, whatever was done to hide it.

Every trick is undone in a *view* of its own: folded look-alikes, decoded base64, kana for romaji. The gate scores all
views and the worst one counts. A view is made only where its trick shows, so that plain text costs one pass and a part
number is not "decoded" into an alarm. Special tags are neutralised in what goes on to a model, and recorded.
Knows no policy and no model.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import functools
import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from genba_llm.concepts import english_words
from genba_llm.kana import kana_of_romaji
from genba_llm.verdict import Language
from genba_llm.words import words
from genba_shared.text_forms import nfkc

MAX_VIEWS = 12
_LONGEST_WORD = 24
_LATIN_FOR_EACH_KANA = 8  # from here on a text is Latin with a letter of kana in it
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef]"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PHRASES = {
    0xFDFA: "\u0635\u0644\u0639\u0645",
    0xFDFB: "\u062c\u0644",
}  # one character each, and 18 and 8 in NFKC: short, as people write them
_JAPANESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uff66-\uff9f々〆〇]")
_LATIN = re.compile(r"[A-Za-z]")
# Words that begin sentences, and stand in the middle of one in lower case only: a full stop may be missing before them.
_OPENERS = (
    "The|This|That|These|Those|There|My|Our|Your|His|Her|Their|It|We|You|He|She|They|Yesterday|Today|Tomorrow|Please|Also|And"
    "|But|Can|Could|Would|Will|What|How|Who|Why|Where|When|If|Now|Then|Next|Thanks|Thank"
)
# Polite endings, which no kanji or katakana follows within a sentence: there too a full stop may be missing.
_POLITE = (
    "です|ます|ました|でした|ません|ですか|ますか|ましたか|でしょう|でしょうか|ましょう|ください|下さい|教えて|おしえて"
)
_ENDED = "|".join(f"(?<={ending})" for ending in _POLITE.split("|"))
_SENTENCE = re.compile(
    rf"(?<=[。！？!?\n])\s*|(?<=[.;])\s+(?=[A-Z\"'(「])|(?<=[a-z0-9])\s+(?=(?:{_OPENERS})\s+(?:I\b|[a-z]))"
    rf"|(?:{_ENDED})(?<!ますます)\s*(?=[\u30a1-\u30fa\u4e00-\u9fff])(?![頂貰欲下差際場方以時由旨限上])"
)
# What a tokenizer may read as control: the thinking tags, chat templates' turns, roles.
_TAG = re.compile(
    r"[<＜﹤〈‹]\s*[/／]?\s*(think[-_ ]?(?:task|safety|policy)|think(?:ing)?|final|system|assistant|user|tool(?:_call)?|s|bos|eos|inst|(?:start|end)_of_turn)\s*[/／]?\s*[>＞﹥〉›]"
    r"|[<＜]\s*[|｜]\s*([A-Za-z_][\w ▁-]{0,40}?)\s*[|｜]\s*[>＞]"
    r"|\[\s*/?\s*(INST|SYS|SYSTEM(?:_PROMPT)?|THINK|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS))\s*\]|<<\s*/?\s*(SYS)\s*>>",
    re.IGNORECASE,
)
_LEET = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b", "9": "g", "@": "a", "$": "s", "!": "i", "|": "l", "€": "e", "£": "l", "+": "t"})  # fmt: skip
_LEET_TOKEN = re.compile(r"[A-Za-z0-9@$!|€£+]{2,}")
_SHORT_LEET = re.compile(
    r"(?<![A-Za-z0-9])(?:[14](?![A-Za-z0-9.:,])|[0134578]?[A-Za-z]{1,3}[013457]{1,2}|[013457]{1,2}[A-Za-z]{1,4})(?![A-Za-z0-9])"
)
_LEET_WORD = re.compile(r"[a-z]+[013457$@]+[a-z]+(?:[013457$@]+[a-z]*)*", re.IGNORECASE)
_MODEL_NUMBER = re.compile(r"[A-Za-z]{1,4}\d+[A-Za-z]?|\d+[A-Za-z]{1,4}|[A-Za-z]+\d{2,}|\d[\d.,]*\w{0,3}")
# Cyrillic, Greek, Armenian and other letters that pass for Latin ones (a subset of Unicode's confusables).
_HOMOGLYPHS = str.maketrans(
    "аеорсухіјѕһԁԛԝѵҽкмтвнгпиьАВЕКМНОРСТУХІЈЅαοενιρτυκχϲϳηωσγβμΑΒΕΖΗΙΚΜΝΟΡΤΥΧոսցհօɑɡɪıʏʀʜɴʟɢʙᴀᴄᴅᴇᴊᴋᴍᴏᴘᴛᴜᴠᴡᴢ",
    "aeopcyxijshdqwvekmtbhrnubABEKMHOPCTYXIJSaoeviptukxcjnwoybuABEZHIKMNOPTYXnughoagiiyrhnlgbacdejkmoptuvwz",
)
_FOREIGN = re.compile("[\u0131\u0370-\u03ff\u0400-\u052f\u0530-\u058f\u0250-\u02af\u1d00-\u1d7f]")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{12,}={0,2}(?![A-Za-z0-9+/=])")
_HEX = re.compile(r"(?:(?:\\x|0x|%)?[0-9A-Fa-f]{2}[ ,:]?){8,}")
_ESCAPED = re.compile(r"(?:\\u[0-9A-Fa-f]{4}|&#x?[0-9A-Fa-f]+;|%[0-9A-Fa-f]{2})")
_SPACED_LATIN = re.compile(
    r"(?<![A-Za-z0-9'’])[A-Za-z0-9@$]([ .\-_*·・/|,])(?:[A-Za-z0-9@$]\1){2,}[A-Za-z0-9@$](?![A-Za-z0-9])"
)
_WITHIN_JAPANESE = re.compile(
    r"(?<=[\u3040-\u30ff\u3400-\u9fff])[\s.\-_*·・/|,'’\"~〜＿]+(?=[\u3040-\u30ff\u3400-\u9fff])"
)
_WITHIN_WORD = re.compile(r"(?<=[A-Za-z])[.\-_*·・/|'’~](?=[A-Za-z])")
_MARKS = ".-_*·・/|~+:"
_LETTER_PAIR = re.compile(r"(?<=[A-Za-z])[A-Za-z]")
_WORD = re.compile(r"[A-Za-z']+")
# The commonest words of English: what tells a decoded text from noise.
_COMMON = frozenset(words("common_english"))


@dataclass(frozen=True)
class View:
    """One reading of the text, named for the trick that it undoes."""

    name: str
    text: str


@dataclass(frozen=True)
class Normalised:
    """``text`` is the plain reading; ``views`` others, where a trick showed; ``prompt`` may go to a model.

    ``tags`` are the special tags that were neutralised, ``tricks`` the codes of what was found.
    """

    text: str
    prompt: str
    views: tuple[View, ...]
    tags: tuple[str, ...]
    tricks: tuple[str, ...]
    language: Language
    sentences: tuple[str, ...]


def normalise(text: str) -> Normalised:
    """Every reading of ``text``. Total over all strings, lone surrogates included."""
    visible = _CONTROL.sub("", _INVISIBLE.sub("", text)).translate(_PHRASES)
    prompt, tags = neutralise_tags(visible)
    loose = nfkc(_compose_marks(visible))
    plain = " ".join(loose.split())
    views: dict[str, View] = {}
    apart = " ".join(
        _SPACED_LATIN.sub(_squeeze, re.sub(r"[ \t]{2,}", "\u2003", loose)).split()
    )  # "h o w  t o": wide gaps part words
    for view in (View("spacing", apart), *_views(plain)):
        if view.text != plain and view.text.strip() and len(views) < MAX_VIEWS:
            views.setdefault(view.text, view)
    tricks = [
        name
        for name, found in (("invisible", visible != text.translate(_PHRASES)), ("special_tag", bool(tags)))
        if found
    ]
    tricks += [view.name for view in views.values()]
    return Normalised(
        text=plain,
        prompt=prompt,
        views=tuple(views.values()),
        tags=tags,
        tricks=tuple(dict.fromkeys(tricks)),
        language=language_of(plain),
        sentences=tuple(split_sentences(plain)),
    )


def neutralise_tags(text: str) -> tuple[str, tuple[str, ...]]:
    """``text`` in which no special tag can be read as control, and the names of those that were there.

    The brackets become angle quotation marks, which no tokenizer holds for control; the words stay readable.
    """
    found: list[str] = []

    def quote(match: re.Match[str]) -> str:
        found.append(next(group for group in match.groups() if group).lower())
        return f"⟪{match.group().strip('<>＜＞﹤﹥〈〉‹›[]').replace('|', '¦').replace('｜', '¦')}⟫"

    return _TAG.sub(quote, text), tuple(dict.fromkeys(found))


def language_of(text: str) -> Language:
    """Japanese if a fifth of the letters are; a text without letters is taken for Japanese."""
    japanese, latin = len(_JAPANESE.findall(text)), len(_LATIN.findall(text))
    return "ja" if japanese * 4 >= latin else "en"


def split_sentences(text: str) -> list[str]:
    """The sentences of a text in either language, without empty ones."""
    return [part.strip() for part in _SENTENCE.split(text) if part and part.strip()]


def _compose_marks(text: str) -> str:
    """Without the combining marks that are stacked on letters to break words up ("b̶o̶m̶b̶"); kana's voicing marks stay."""
    if text.isascii():
        return text
    return re.sub("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff]", "", nfkc(text))


def _views(plain: str) -> Iterator[View]:
    """The readings that the text gives cause for; those of a decoded text are read once more for look-alikes."""
    for decoded in _decoded(plain):
        yield decoded
        yield from _unmasked(decoded.text)
    yield from _unmasked(plain)


def _unmasked(text: str) -> Iterator[View]:
    folded = _fold_homoglyphs(text)
    if folded != text:
        yield View("homoglyph", folded)
    joined = _join(folded)
    if joined != folded:
        yield View("spacing", joined)
    plain = _fold_leet(joined)
    if plain != joined:
        yield View("leet", plain)
    if len(_JAPANESE.findall(plain)) * _LATIN_FOR_EACH_KANA <= len(_LATIN.findall(plain)):
        if (kana := kana_of_romaji(plain)) is not None:
            yield View("romaji", kana)
        elif _english(reverse := plain[::-1]) > max(0.25, _english(plain)):
            yield View("reversed", reverse)
    elif _backwards(plain):
        yield View("reversed", plain[::-1])


def _fold_homoglyphs(text: str) -> str:
    """Latin for its look-alikes, in a text that is Latin otherwise: Russian stays Russian."""
    foreign = len(_FOREIGN.findall(text))
    return text.translate(_HOMOGLYPHS) if foreign and 3 * len(_LATIN.findall(text)) >= foreign else text


def _join(text: str) -> str:
    """Words whose letters were set apart, joined again; the gap between two such words is wider or a full word."""
    text = _SPACED_LATIN.sub(_squeeze, _without_mark(text))
    cut = _WITHIN_WORD.findall(text)
    if len(cut) >= max(2, len(_LATIN.findall(text)) // 6):
        text = _WITHIN_WORD.sub("", text)
    gaps = len(_WITHIN_JAPANESE.findall(text))
    if gaps >= 3 and gaps * 3 >= len(_JAPANESE.findall(text)):
        text = _WITHIN_JAPANESE.sub("", text)
    return text


def _without_mark(text: str) -> str:
    """Words whose every letter is parted by the same mark ("d.o.n.'.t"), without that mark."""
    pairs = len(_LETTER_PAIR.findall(text))
    for mark in _MARKS:
        parted = len(re.findall(rf"(?<=[A-Za-z0-9]){re.escape(mark)}(?=[A-Za-z0-9])", text))
        if parted >= max(3, pairs):
            return re.sub(rf"(?<=\S){re.escape(mark)}(?=\S)", "", text)
    return text


def _squeeze(match: re.Match[str]) -> str:
    letters = match.group().replace(match[1], "")
    return segment(letters) if sum(c.isalpha() for c in letters) >= 3 else match.group()


def segment(letters: str) -> str:
    """English written without spaces, cut into the fewest words that are known; letters that fit none stay together."""
    known, lowered = _known_words(), letters.lower()
    best: list[tuple[float, int]] = [(0.0, 0)]  # (cost, where the last word begins) for each length
    for end in range(1, len(lowered) + 1):
        spans = ((max(0, end - _LONGEST_WORD) + i) for i in range(min(end, _LONGEST_WORD)))
        best.append(
            min((best[at][0] + (1.0 if lowered[at:end] in known else 1.2 + 0.9 * (end - at)), at) for at in spans)
        )
    cuts, end = [], len(lowered)
    while end:
        cuts.append(letters[best[end][1] : end])
        end = best[end][1]
    return " ".join(reversed(cuts))


@functools.cache
def _known_words() -> frozenset[str]:
    return _COMMON | english_words()


def _fold_leet(text: str) -> str:
    """Letters for digits and signs inside words. Part numbers, units and plain numbers are left alone."""
    folded = _LEET_TOKEN.sub(_fold_token, text)
    changed = sum(a != b for a, b in zip(text.split(), folded.split(), strict=False))
    return _SHORT_LEET.sub(lambda match: match.group().translate(_LEET), folded) if changed >= 2 else folded


def _fold_token(match: re.Match[str]) -> str:
    token, around = match.group(), match.string
    body = token.rstrip("!|+")
    if body.isalpha() or not any(c.isalpha() for c in body) or len(body) > _LONGEST_WORD:
        return token
    if "@" in body and around[match.end() : match.end() + 1] == ".":  # a mail address
        return token
    if _LEET_WORD.fullmatch(body) or re.search(r"[@$]", body) or not _MODEL_NUMBER.fullmatch(body):
        return body.translate(_LEET) + token[len(body) :]
    return token


def _decoded(text: str) -> Iterator[View]:
    if _ESCAPED.search(text):
        yield View("escape", _unescape(text))
    for name, pattern, decode in (("hex", _HEX, _from_hex), ("base64", _BASE64, _from_base64)):
        replaced = pattern.sub(lambda match, decode=decode: decode(match.group()) or match.group(), text)  # type: ignore[misc]
        if replaced != text:
            yield View(name, replaced)
            inner = [decode(found.group()) for found in pattern.finditer(text)]
            yield View(name, " ".join(part for part in inner if part))
    if _LATIN.search(text):
        turned = codecs.encode(text, "rot13")
        if _english(turned) > max(0.2, _english(text) + 0.1) or (
            _english(text) < 0.1 and kana_of_romaji(text) is None and kana_of_romaji(turned) is not None
        ):
            yield View("rot13", turned)
            if (kana := kana_of_romaji(turned)) is not None:
                yield View("rot13", kana)


def _unescape(text: str) -> str:
    plain = re.sub(
        r"\\u([0-9A-Fa-f]{4})", lambda match: chr(int(match[1], 16)), html.unescape(unquote(text, errors="replace"))
    )
    return nfkc(plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def _from_hex(run: str) -> str | None:
    digits = re.sub(r"\\x|0x|[^0-9A-Fa-f]", "", run)
    text = _readable(bytes.fromhex(digits)) if len(digits) % 2 == 0 else None
    if text and digits.isdecimal():  # one long number in fifty reads as signs by chance, and few as words
        wordlike = sum(c.isalpha() or c in " .,!?'’-。、！？" for c in text)
        return text if wordlike >= 0.8 * len(text) else None
    return text


def _from_base64(run: str) -> str | None:
    body = run.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return _readable(base64.b64decode(body + "=" * (-len(body) % 4), validate=True))
    except (binascii.Error, ValueError):
        return None


def _readable(data: bytes) -> str | None:
    """The text in ``data``, or None where it is not one: encoded text is what is sought, not keys and digests.

    Bytes that mean something else are hardly ever printable UTF-8. A tenth of letters is enough: markup and numbers are text.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    is_text = len(text) >= 3 and all(c.isprintable() or c in "\t\r\n\u3000" for c in text)
    letters = sum(c.isalpha() for c in text)
    return nfkc(text) if is_text and letters >= 0.1 * len(text) else None


def _english(text: str) -> float:
    """The share of a text's words that are among the commonest of English, in [0, 1]."""
    words = _WORD.findall(text.lower())
    return sum(word in _COMMON for word in words) / len(words) if len(words) >= 2 else 0.0


def _backwards(text: str) -> bool:
    """Whether Japanese was written from its end: it begins with what only ends sentences, or a polite ending is reversed in it."""
    return bool(
        re.match(
            r"[。？！?!]?(?:いさだく|すまし|すで|かすで|かすま|えろ?教|てえ教|かんせま|うょし|法方|方りや|順手|？は)",
            text,
        )
    )

"""These recognisers as Microsoft Presidio's: ``for each in recognizers(): registry.add_recognizer(each)``.

Presidio is no dependency. Where it is installed, its analyzer finds Japan's kinds through the same code as the gate.
"""

from __future__ import annotations

from typing import Any

from genba_llm.personal_data import KINDS, find_personal_data

ENTITIES = {kind: f"JP_{kind.upper()}" for kind in KINDS}
_SCORE = 0.95


def recognizers(languages: tuple[str, ...] = ("ja", "en")) -> list[Any]:
    """One recogniser for each language. Raises: ImportError without ``presidio_analyzer``."""
    from presidio_analyzer import EntityRecognizer, RecognizerResult

    class JapaneseRecognizer(EntityRecognizer):
        """All kinds of ``genba_llm.personal_data``."""

        def load(self) -> None:
            """Nothing to load."""

        def analyze(self, text: str, entities: list[str], nlp_artifacts: Any = None) -> list[Any]:  # noqa: ARG002
            found = ((ENTITIES[each.kind], each) for each in find_personal_data(text))
            return [
                RecognizerResult(name, each.start, each.end, _SCORE)
                for name, each in found
                if not entities or name in entities
            ]

    return [
        JapaneseRecognizer(list(ENTITIES.values()), name=f"Genba ({lang})", supported_language=lang)
        for lang in languages
    ]

"""The door that does long work: ``RECIPES``. A worker resolves it by name; nothing here knows of queues, leases or HTTP."""

from __future__ import annotations

from typing import Any

from genba_llm.training_gate import GATE_RECIPES
from genba_llm.training_measures import MEASURE_RECIPES
from genba_llm.training_review import REVIEW_RECIPES
from genba_llm.training_so8t import SO8T_RECIPES
from genba_shared.recipe import Recipe

RECIPES: dict[str, Recipe[Any]] = {**SO8T_RECIPES, **MEASURE_RECIPES, **GATE_RECIPES, **REVIEW_RECIPES}

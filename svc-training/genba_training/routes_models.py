"""``/v1/models``: look at models and move their aliases. Registering is the runner's; serving is every service's own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from genba_shared.dependencies import require
from genba_shared.principal import Principal
from genba_shared.problems import NotFound
from genba_shared.recipe import MODEL_NAME
from genba_shared.registry import ALIASES, Alias, Pointer, Registry
from genba_shared.service import problem_responses
from genba_training.schemas_models import (
    MAX_NUMBER,
    AliasView,
    Clearing,
    History,
    ModelList,
    ModelView,
    MoveView,
    Promotion,
    Rollback,
    VersionPage,
    VersionView,
)

ModelName = Annotated[str, Path(pattern=MODEL_NAME, description="A model's name.", examples=["recommend.two_tower"])]
VersionNumber = Annotated[int, Path(ge=1, le=MAX_NUMBER, description="A version's number.")]
Reader = Annotated[Principal, require("models:read")]
Writer = Annotated[Principal, require("models:write")]

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", summary="List models", responses=problem_responses(403))
def list_models(principal: Reader, request: Request) -> ModelList:
    """Every model of which you may see a version, by name."""
    registry = _registry(request)
    return ModelList(models=[_view(registry, name, principal) for name in registry.models(viewer=principal)])


@router.get("/{model}", summary="A model", responses=problem_responses(403, 404))
def get_model(model: ModelName, principal: Reader, request: Request) -> ModelView:
    """Where its aliases point, and where a rollback would go."""
    return _view(_registry(request), model, principal)


@router.get("/{model}/versions", summary="List a model's versions", responses=problem_responses(403, 404))
def list_versions(
    model: ModelName,
    principal: Reader,
    request: Request,
    before: Annotated[int | None, Query(ge=1, le=MAX_NUMBER, description="`next_before` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> VersionPage:
    """Newest first, with metrics, gates and lineage."""
    registry = _registry(request)
    pointers = _pointers(registry, model, principal)
    found = registry.versions(model, before=before, limit=limit + 1, viewer=principal)
    page = found[:limit]
    return VersionPage(
        versions=[VersionView.of(version, pointers) for version in page],
        next_before=page[-1].number if len(found) > limit else None,
    )


@router.get("/{model}/versions/{number}", summary="A version of a model", responses=problem_responses(403, 404))
def get_version(model: ModelName, number: VersionNumber, principal: Reader, request: Request) -> VersionView:
    registry = _registry(request)
    version = registry.get(model, number, viewer=principal)
    return VersionView.of(version, _pointers(registry, model, principal))


@router.get("/{model}/history", summary="How a model's aliases moved", responses=problem_responses(403, 404))
def get_history(
    model: ModelName,
    principal: Reader,
    request: Request,
    alias: Annotated[Alias | None, Query(description="Only this one's moves.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> History:
    """Newest first: promotions, rollbacks and clearings, by whom and why."""
    found = _registry(request).history(model, alias=alias, limit=limit, viewer=principal)
    return History(moves=[MoveView.of(move) for move in found])


@router.post("/{model}/promote", summary="Promote a version", responses=problem_responses(403, 404, 409, 410))
def promote(model: ModelName, body: Promotion, principal: Writer, request: Request) -> ModelView:
    """Point an alias at a version; services follow within seconds. Saying it again changes nothing."""
    registry = _registry(request)
    registry.promote(
        model,
        body.number,
        alias=body.alias,
        by=principal.subject,
        reason=body.reason,
        generation=body.generation,
        gates=body.gates,
        viewer=principal,
    )
    return _view(registry, model, principal)


@router.post("/{model}/rollback", summary="Roll back the champion", responses=problem_responses(403, 404, 409, 410))
def roll_back(model: ModelName, body: Rollback, principal: Writer, request: Request) -> ModelView:
    """Point the champion back at the version before it; services follow within seconds."""
    registry = _registry(request)
    registry.rollback(model, by=principal.subject, reason=body.reason, generation=body.generation, viewer=principal)
    return _view(registry, model, principal)


@router.post("/{model}/clear", summary="Clear the challenger", responses=problem_responses(403, 404, 409))
def clear(model: ModelName, body: Clearing, principal: Writer, request: Request) -> ModelView:
    """Point the challenger at nothing: the end of an experiment."""
    registry = _registry(request)
    registry.clear(
        model,
        body.alias,
        by=principal.subject,
        reason=body.reason,
        generation=body.generation,
        viewer=principal,
    )
    return _view(registry, model, principal)


def _registry(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


def _pointers(registry: Registry, model: str, principal: Principal) -> list[Pointer]:
    return [registry.pointer(model, alias, viewer=principal) for alias in ALIASES]


def _view(registry: Registry, model: str, principal: Principal) -> ModelView:
    champion, challenger = (
        AliasView.of(pointer, visible=_is_visible(registry, model, pointer.number, principal))
        for pointer in _pointers(registry, model, principal)
    )
    previous = registry.previous(model)
    newest = registry.versions(model, limit=1, viewer=principal)
    return ModelView(
        name=model,
        champion=champion,
        challenger=challenger,
        previous=previous if _is_visible(registry, model, previous, principal) else None,
        newest=newest[0].number if newest else None,
    )


def _is_visible(registry: Registry, model: str, number: int | None, principal: Principal) -> bool:
    if number is None:
        return True
    try:
        registry.get(model, number, viewer=principal)
    except NotFound:
        return False
    return True

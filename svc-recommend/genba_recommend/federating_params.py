"""What somebody may ask of ``recommend.federated``. Listing recipes reads it, so it loads no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from genba_shared.recipe import Params


class FederatedParams(Params):
    """How sites learn together."""

    sites: Annotated[int, Field(ge=1, le=1000, description="Users are dealt to them by a hash of their id.")] = 10
    rounds: Annotated[int, Field(ge=1, le=1000)] = 10
    share: Annotated[float, Field(gt=0, le=1, description="Of the sites, asked each round.")] = 0.5
    steps: Annotated[int, Field(ge=1, le=1000, description="That a site takes before it answers.")] = 10
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    clip_norm: Annotated[float, Field(gt=0, description="The most that one site's change may be long.")] = 1.0
    noise: Annotated[
        float, Field(ge=0, description="What blurs the average, in clip_norm over the sites asked; 0 for none.")
    ] = 0.0
    processes: Annotated[
        bool, Field(description="Each site in a process of its own; costs memory and a start each.")
    ] = False
    engine: Annotated[
        Literal["genba", "flwr"],
        Field(
            description="`flwr` has Flower's engine average; its environment is installed by deploy/setup.sh flower."
        ),
    ] = "genba"
    promote: Literal["when_gates_pass", "never"] = "never"

"""Self-supervision as part of a job: cut the lab's newest particles out of the pictures that are kept, and teach the small network.

A killed job goes on at the last checkpoint if it finds the same particles. Knows no queue and no HTTP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from genba_sem import store
from genba_sem.classifying import Work
from genba_sem.onsite import Cuts, OnsiteEncoder, cut
from genba_sem.onsite_training import LEAST_PARTICLES, State, teach
from genba_sem.segment import find_particle
from genba_shared.problems import Conflict
from genba_shared.recipe import Saved

_EVERY: Final = 50
_PAGE: Final = 100
_LOOK_SHARE: Final = 0.3
_FILE: Final = "training.pt"


def taught(work: Work, particle_ids: Sequence[str], *, steps: int, until: float) -> OnsiteEncoder:
    """An encoder that has taught itself on these particles; until: the share of the job's progress that this is.

    Raises: Conflict for fewer than 32 particles whose pictures are kept.
    """
    run = work.run
    cuts, shown = _cut_out(work, particle_ids, lambda share: run.progress(until * _LOOK_SHARE * share, "cutting out"))
    if len(set(shown)) < LEAST_PARTICLES:
        raise Conflict(f"{len(set(shown))} particles are too few to learn from; {LEAST_PARTICLES} are needed.")
    data = hashlib.sha256(cuts.tobytes() + f"{steps} {run.seed}".encode()).hexdigest()
    saved = run.checkpoint.load(lambda each: each.state.get("data") == data)

    def after_step(state: Callable[[], State]) -> None:
        run.raise_if_cancelled()
        now = state()
        if now.step % _EVERY and now.step < steps:
            return
        run.log(now.step, contrastive_loss=now.loss)
        run.progress(until * (_LOOK_SHARE + (1 - _LOOK_SHARE) * now.step / steps), f"step {now.step} of {steps}")
        run.checkpoint.save({"data": data, "step": now.step, "loss": now.loss}, lambda folder: _write(now, folder))

    resumed = None if saved is None else _read(saved)
    return teach(cuts, shown, steps=steps, seed=run.seed, resumed=resumed, after_step=after_step)


def _cut_out(work: Work, particle_ids: Sequence[str], progress: Callable[[float], None]) -> tuple[Cuts, list[str]]:
    """(N, 2, 64, 64), and whom each shows."""
    cuts, shown = [], []
    for start in range(0, len(particle_ids), _PAGE):
        progress(start / len(particle_ids))
        page = particle_ids[start : start + _PAGE]
        with work.database.read() as session:
            rows = store.views_of(session, page)
        for particle_id in page:
            work.run.raise_if_cancelled()
            own = [cut(view.pixels, find_particle(view.pixels).mask) for view in work.shelf.views(rows[particle_id])]
            cuts += own
            shown += [particle_id] * len(own)
    return np.array(cuts, np.uint8), shown


def _write(state: State, folder: Path) -> None:
    import torch

    torch.save(state.tensors, folder / _FILE)


def _read(saved: Saved) -> State:
    import torch

    tensors = torch.load(saved.folder / _FILE, weights_only=True)
    return State(saved.state["step"], saved.state["loss"], tensors)

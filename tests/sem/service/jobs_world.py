"""Jobs of svc-sem by the real runner, in this process or in one that may be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.sem.service.pictures import views

from genba_sem import refining
from genba_sem.settings import Settings
from genba_shared.principal import Clearance, Principal, scopes_of
from genba_shared.registry import Registry
from genba_training.recipes import load
from genba_training.runner import Runner
from genba_training.settings import Settings as TrainingSettings

Service = Any  # of conftest, which modules cannot import

SOURCES = ("genba_sem.training:RECIPES",)
LEASE_S = 3.0
WORKER = """
import sys
from pathlib import Path
from genba_sem import classifying
from genba_shared.artifacts import Artifacts
from genba_shared.db import Database
from genba_shared.jobs import Jobs
from genba_shared.settings import Platform
from genba_shared.registry import Registry
from genba_training.recipes import load
from genba_training.runner import Runner
from genba_training.settings import Settings

classifying.PAGE = 2  # so that there are moments in the middle
home, url, job_id, lease_s = sys.argv[1:]
platform = Platform(home=Path(home), database_url=url)
settings = Settings(platform=platform, recipes=("genba_sem.training:RECIPES",), lease_s=float(lease_s), heartbeat_s=0.3)
artifacts = Artifacts(platform.artifacts_url)
jobs = Jobs(Database(url))
Runner(jobs=jobs, recipes=load(settings.recipes), artifacts=artifacts, settings=settings, owner="doomed").run(job_id)
"""


def worker(service: Service, settings: Settings) -> Callable[[str], str]:
    runner = Runner(
        jobs=service.sem.jobs,
        recipes=load(SOURCES),
        artifacts=service.sem.registry_artifacts,
        settings=TrainingSettings(platform=settings.platform, recipes=SOURCES, lease_s=60.0, heartbeat_s=0.3),
        owner="worker-1",
    )

    def work(job_id: str) -> str:
        runner.run(job_id)
        return str(service.sem.jobs.peek(job_id).status)

    return work


def doomed(settings: Settings, job_id: str) -> subprocess.Popen[bytes]:
    """A worker of its own that takes the job, to be killed."""
    argv = [
        sys.executable,
        "-c",
        WORKER,
        str(settings.platform.home),
        settings.platform.database_url,
        job_id,
        str(LEASE_S),
    ]
    return subprocess.Popen(argv, env={**os.environ, "OMP_NUM_THREADS": "1"})


def free(service: Service, job_id: str) -> bool:
    """Whether nobody's lease keeps the job."""
    job = service.sem.jobs.peek(job_id)
    return bool(job.lease_expires_at is None or job.lease_expires_at.timestamp() < time.time() - 0.2)


def until(look: Callable[[], bool], *, within_s: float = 120.0) -> None:
    deadline = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def submit(service: Service, recipe: str, **params: Any) -> str:
    """Submit a job as svc-training would; its id."""
    job = service.sem.jobs.submit(recipe, params, principal=engineer(), idempotency_key=None)
    return str(job.id)


def ended(service: Service, settings: Settings) -> Callable[..., Any]:
    """``ended(…)("sem.refresh", ends="succeeded", **params)``: submit a job and run it to its end; the job."""
    run = worker(service, settings)

    def work(recipe: str, *, ends: str = "succeeded", **params: Any) -> Any:
        job = submit(service, recipe, **params)
        status = run(job)
        found = service.sem.jobs.peek(job)
        assert found is not None
        assert status == ends, found.error
        return found

    return work


def reviewed(service: Service, labels: dict[str, str], *, each: int) -> int:
    """Particles of every kind, reviewed as what they are; how many of them will judge, which their ids decide."""
    judges = 0
    for kind, label_id in labels.items():
        for seed in range(each):
            found = service.particle(views(kind, seed=700 + seed))
            drawn = "calibration_sample" in {reason["code"] for reason in found["reasons"]}
            judges += drawn or refining.is_judge(found["id"])
            body = {"particle_id": found["id"], "label_id": label_id}
            assert service.post("/v1/sem/reviews", body, version="*").status_code == 201
    return judges


def promoted_anyway(service: Service, number: int) -> None:
    """As an operator may, against the gates."""
    registry = Registry(service.sem.database, service.sem.registry_artifacts)
    registry.promote("sem.lane", number, by="key_test", reason="to see it serve", gates="overridden")
    service.sem.lanes.refresh("default")


def engineer() -> Principal:
    """Whose jobs they are."""
    return Principal("key_test", ("engineer",), scopes_of(["engineer"]), Clearance.INTERNAL)

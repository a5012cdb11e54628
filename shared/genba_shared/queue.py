"""The Celery application: a message is a wake-up that carries a job id, and nothing is lost when it is.

Two brokers, one code path: a folder (embedded mode) and Redis. Results, retries, events and remote control of Celery
are off; the job table does their work. Knows no recipe and never reads or writes the job table.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import Empty
from typing import Any

from celery import Celery
from kombu import Exchange, Queue
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

from genba_shared.settings import Platform
from genba_shared.telemetry import get_logger

QUEUES = ("cpu", "gpu")
TASK = "genba.run_job"
VISIBILITY_TIMEOUT_S = 120  # redelivery is harmless (the lease decides), so a message of a dead worker comes back soon
_FOLDER = "genba-folder"
_BROKER_DOWN_S = 5.0
_BROKER_ANSWERS_S = 5.0  # longer than the second for which a worker asks it to wait for messages

log = get_logger(__name__)


class FolderChannel(filesystem.Channel):  # type: ignore[misc]
    """kombu's folder of messages, safe against processes that die half way.

    A message appears by rename, so nobody reads half of one; it is taken by unlinking it, which only one reader can;
    and one that cannot be read is dropped with a log line instead of stopping the worker. Nothing is parked in /tmp.
    """

    def _put(self, queue: str, payload: Any, **_kwargs: Any) -> None:
        folder = Path(self.data_folder_out)
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}_{uuid.uuid4().hex}.{queue}.msg"
        aside = folder / f".{name}"
        aside.write_text(dumps(payload), encoding="utf-8")
        aside.rename(folder / name)

    def _get(self, queue: str) -> Any:
        for path in self._messages(queue):
            try:
                text = path.read_text(encoding="utf-8")
                path.unlink()
            except FileNotFoundError:
                continue  # another worker was quicker
            try:
                return loads(text)
            except ValueError:
                log.warning("message_unreadable", queue=queue, file=path.name)
        raise Empty

    def get_table(self, exchange: str) -> list[Any]:  # noqa: ARG002
        """Who gets what is fixed, so there is no file of bindings that a killed process could leave torn."""
        return [filesystem.exchange_queue_t(queue, "", queue) for queue in QUEUES]

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        pass

    def _size(self, queue: str) -> int:
        return len(self._messages(queue))

    def _purge(self, queue: str) -> int:
        messages = self._messages(queue)
        for path in messages:
            path.unlink(missing_ok=True)
        return len(messages)

    def _messages(self, queue: str) -> list[Path]:
        """Oldest first."""
        folder, ending = Path(self.data_folder_in), f".{queue}.msg"
        try:
            names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(ending))
        except FileNotFoundError:
            return []
        return [folder / name for name in names if not name.startswith(".")]


class FolderTransport(filesystem.Transport):  # type: ignore[misc]
    Channel = FolderChannel
    driver_name = driver_type = _FOLDER


TRANSPORT_ALIASES[_FOLDER] = f"{__name__}:FolderTransport"


def make_celery(platform: Platform, *, include: Sequence[str] = ()) -> Celery:
    """One Celery application for publishers and workers; ``include`` are the worker's task modules."""
    celery = Celery("genba", set_as_current=False, include=list(include))
    celery.conf.update(
        **_broker(platform.broker_url),
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        task_default_queue=QUEUES[0],
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_pool_start_method="spawn",  # a forked child must not inherit CUDA, threads or database connections
        worker_lost_wait=0.5,  # a child that died has no result that could still come in; take the next job
        worker_proc_alive_timeout=120.0,  # a child imports its recipes before it says that it is up
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_timeout=2.0,
        visibility_timeout=VISIBILITY_TIMEOUT_S,  # three places; Celery takes the shortest it finds
        result_backend_transport_options={"visibility_timeout": VISIBILITY_TIMEOUT_S},
    )
    return celery


def _broker(url: str) -> dict[str, Any]:
    scheme, _, rest = url.partition("://")
    if scheme == "filesystem":
        folder = str(Path(rest) / "messages")
        options = {"data_folder_in": folder, "data_folder_out": folder, "polling_interval": 0.05}
        return {"broker_url": f"{_FOLDER}://localhost/", "broker_transport_options": options}
    if scheme in {"redis", "rediss"}:
        options = {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "socket_connect_timeout": 2.0,
            "socket_timeout": _BROKER_ANSWERS_S,  # one that hangs, or a line that was cut, is down as well
            "socket_keepalive": True,
            "global_keyprefix": "genba:",
            "max_retries": 1,
            "interval_start": 0.0,
            "interval_max": 0.2,
        }
        return {"broker_url": url, "broker_transport_options": options, "worker_disable_prefetch": True}
    msg = f"GENBA_BROKER_URL is {scheme}://…; use filesystem://<folder> or redis://<host>/<db>."
    raise ValueError(msg)


class Wakeups:
    """Sends wake-ups. A broker that is down costs one short wait and then nothing: the sweeper sends what was missed."""

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._lock = threading.Lock()
        self._down_until_s = 0.0

    def send(self, job_id: str, queue: str) -> bool:
        """Whether the broker took it. Never raises: the row is the truth, and the row is committed."""
        if time.monotonic() < self._down_until_s:
            return False
        try:
            self._celery.send_task(TASK, args=[job_id], queue=queue, retry=False, ignore_result=True)
        except Exception as error:  # noqa: BLE001 - whatever a broker's driver raises
            self._note_down(error)
            return False
        return True

    def waiting(self, queues: Iterable[str] = QUEUES) -> dict[str, int]:
        """Messages that nobody has taken yet, by queue; queues whose broker cannot be asked are left out."""
        found: dict[str, int] = {}
        if time.monotonic() < self._down_until_s:
            return found
        try:
            with self._celery.connection_or_acquire() as connection:
                for queue in queues:
                    found[queue] = int(connection.default_channel._size(queue))  # noqa: SLF001 - kombu's only way without declaring
        except Exception as error:  # noqa: BLE001 - whatever a broker's driver raises
            self._note_down(error)
        return found

    @property
    def down(self) -> bool:
        return time.monotonic() < self._down_until_s

    def close(self) -> None:
        self._celery.close()

    def _note_down(self, error: Exception) -> None:
        with self._lock:
            self._down_until_s = time.monotonic() + _BROKER_DOWN_S
        log.warning("broker_unreachable", error=type(error).__name__, detail=str(error)[:200])

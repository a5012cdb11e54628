"""The folder of embedded mode and what stands in it before anything is served: settings, lock, database at head, admin key.

Imports neither the gateway nor a service, so that ``genba keys`` waits for neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from genba_gateway.cli import Failed
from genba_gateway.keys import Keys
from genba_shared.db import Database, revisions
from genba_shared.durable import flush_folder
from genba_shared.settings import Platform


def platform_at(home: Path | None) -> Platform:
    """The platform's settings from the environment, with ``home`` in its place if given."""
    return Platform() if home is None else Platform(home=home)


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the home's lock: two supervisors over one folder would fight over its vectors."""
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)  # videos and documents lie below it as they are
        held = (home / "lock").open("a+")
    except OSError as failure:
        raise Failed(f"{home} cannot hold Genba's data: {failure.strerror}.") from failure
    with held as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"Genba already runs on {home}; stop it first or choose another --home.") from None
        yield


def migrate(platform: Platform) -> Database:
    """Open the database at head. Raises Failed when it does not answer."""
    database = Database(platform.database_url)
    try:
        database.upgrade()
    except SQLAlchemyError as failure:
        database.close()
        url = make_url(platform.database_url).render_as_string(hide_password=True)
        raise Failed(f"The database at {url} does not answer: {failure.__class__.__name__}.") from failure
    return database


def first_admin_key(platform: Platform) -> Path | None:
    """On the very first start make an admin key and return the file that holds it (mode 0600); None when there are keys already.

    The file is on the disk before the key counts: a crash in between leaves a file that the next start writes anew.
    Raises: Failed on data that a newer Genba has migrated.
    """
    file = admin_key_file(platform)
    database = migrate(platform)
    try:
        _check_age(platform, database)
        keys = Keys(database, env=platform.env)
        if keys.list():
            return None
        keys.create("admin (first start)", role="admin", clearance="secret", keep=partial(write_private, file))
    finally:
        database.close()
    return file


def _check_age(platform: Platform, database: Database) -> None:
    """A service rolls over beside newer ones and can, because a schema is only expanded then; all of embedded mode at once has
    no reason to write with old code into what newer code has made of bundles, vectors and records too.
    """
    if (revision := database.newer_revision()) is not None:
        raise Failed(
            f"{platform.home} was upgraded by a newer Genba (schema {revision}; this one ends at {revisions()[-1]}): start that"
            " version, or restore the backup made before the upgrade into another --home with `genba backup restore`."
        )


def admin_key_file(platform: Platform) -> Path:
    """Where the first start leaves the admin key."""
    return platform.home / "admin.key"


def write_private(path: Path, text: str) -> Path:
    """Write a line that only its owner may ever read: the mode is set at creation, and it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
    finally:
        aside.unlink(missing_ok=True)
    flush_folder(path.parent)
    return path

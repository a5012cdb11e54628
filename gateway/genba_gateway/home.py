"""The folder of embedded mode and what stands in it before anything is served: settings, lock, database at head, admin key.

Imports neither the gateway nor a service, so that ``genba keys`` waits for neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from genba_gateway.cli import Failed
from genba_gateway.keys import Keys
from genba_shared.db import Database
from genba_shared.settings import Platform


def platform_at(home: Path | None) -> Platform:
    """The platform's settings from the environment, with ``home`` in its place if given."""
    return Platform() if home is None else Platform(home=home)


@contextlib.contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the home's lock: two supervisors over one folder would fight over its vectors."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("a+") as lock:
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
    """On the very first start make an admin key and return the file that holds it (mode 0600); None when there are keys already."""
    database = migrate(platform)
    try:
        keys = Keys(database, env=platform.env)
        if keys.list():
            return None
        _, plaintext = keys.create("admin (first start)", role="admin", clearance="secret")
    finally:
        database.close()
    return write_private(admin_key_file(platform), plaintext + "\n")


def admin_key_file(platform: Platform) -> Path:
    """Where the first start leaves the admin key."""
    return platform.home / "admin.key"


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner may ever read: the mode is set at creation, not afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    path.chmod(0o600)
    return path

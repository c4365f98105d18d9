"""Which workers of a PostgreSQL database live, by the locks that their sessions hold."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, and_, cast, column, exists, func, select, table
from sqlalchemy.dialects.postgresql import OID

LOCK_CLASS = cast(func.hashtext(func.concat("demo_api ", func.current_schema())), OID)
"""The first key of the advisory locks that workers hold; the second is the worker's number. See session.py."""

_pg_locks = table("pg_locks", *map(column, ("locktype", "classid", "objid", "objsubid", "database", "pid")))
_locks = _pg_locks.c
_pg_stat_activity = table("pg_stat_activity", column("pid"), column("backend_start"))
_pg_database = table("pg_database", column("oid"), column("datname"))


def living() -> Select[Any]:
    """Selects the numbers of the workers whose sessions live. PostgreSQL only.

    One that waits for its lock lives too: the connection that has it was cut, and falls soon.

    Source: PostgreSQL's documentation of ``pg_locks``: an advisory lock with two keys has the first in ``classid``, the
    second in ``objid``, and 2 in ``objsubid``.
    """
    return select(cast(_locks.objid, Integer)).where(_is_ours())


def has_lived(number: int, seconds: float) -> ColumnElement[bool]:
    """Whether this worker's session has been there for so long: so could those of all others that live."""
    since = func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    own = select(_locks.pid).join(_pg_stat_activity, _pg_stat_activity.c.pid == _locks.pid)
    return exists(own.where(_is_ours(), _locks.objid == cast(number, OID), _pg_stat_activity.c.backend_start < since))


def _is_ours() -> ColumnElement[bool]:
    here = select(_pg_database.c.oid).where(_pg_database.c.datname == func.current_database()).scalar_subquery()
    return and_(
        _locks.locktype == "advisory", _locks.objsubid == 2, _locks.database == here, _locks.classid == LOCK_CLASS
    )

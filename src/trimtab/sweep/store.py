"""Where a sweep keeps its trials: which wait, who runs which, and what came of them.

One table in a database: a SQLite file by default, which the processes of one machine may share; a PostgreSQL database
by URL, which many machines may share. A claim and a result are each one transaction, so that no trial is lost and none
is done twice whoever dies when. A claim is kept by beats; one without is taken away by the clock of the database, for
those of several machines differ.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote_plus

import sqlalchemy as sql
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from trimtab.errors import UserError
from trimtab.run.codec import decode, encode
from trimtab.run.redact import names_secret, redact_text
from trimtab.trial import ENDED, Point, Trial, TrialResult

FORMAT = 1
"""The number of the tables' format; a store of another number is refused."""

AT_MOST_ATTEMPTS = 3
"""A trial that was lost so often is failed: it probably takes its worker with it, by the memory that it needs."""

LOCKED_SECONDS = 60.0
"""So long a SQLite file that others write is waited for; a transaction of theirs takes milliseconds."""
AWAY_SECONDS = 30.0
"""So long a server that went away is waited for: a restart of PostgreSQL takes seconds."""
CONNECT_SECONDS = 10
"""So long a server may take to accept a connection."""

_AT_ONCE = 500
"""Rows of one INSERT, and keys of one query: SQLite takes 32,766 values in one statement."""
_LOCK = 0x7472696D746162
"""The advisory lock, of PostgreSQL, under which tables are made and trials are added."""

_SERVERS = ("postgresql", "postgres", "postgresql+psycopg")

_metadata = sql.MetaData()
_about = sql.Table("trimtab_store", _metadata, sql.Column("format", sql.Integer, nullable=False))
_trials = sql.Table(
    "trimtab_trials",
    _metadata,
    sql.Column("sweep", sql.Text, primary_key=True),
    sql.Column("key", sql.Text, primary_key=True),
    sql.Column("place", sql.Integer, nullable=False),
    sql.Column("status", sql.Text, nullable=False),
    sql.Column("attempts", sql.Integer, nullable=False),
    sql.Column("lost", sql.Integer, nullable=False),
    sql.Column("token", sql.Text, nullable=False),
    sql.Column("worker", sql.Text, nullable=False),
    sql.Column("beat", sql.Double, nullable=False),
    sql.Column("trial", sql.Text, nullable=False),
    sql.Column("result", sql.Text),
)
_here = _trials.c

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to run one trial, until it is finished, released or taken away.

    Attributes:
        sweep: the sweep that the trial belongs to.
        trial: what to run.
        attempt: how often the trial was begun, this time included.
        token: what tells this claim from every other of the same trial.
    """

    sweep: str
    trial: Trial
    attempt: int
    token: str


class Store:
    """The trials of any number of sweeps; use it in a `with` block, or close it.

    Make one by `Store.open`. It may be used from several threads. Every method raises UserError where the database
    refuses or stays away.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._on_server = engine.dialect.name == "postgresql"
        clock = (
            "CAST(extract(epoch from clock_timestamp()) AS double precision)"
            if self._on_server
            else "((julianday('now') - 2440587.5) * 86400.0)"
        )
        self._now: sql.ColumnElement[float] = sql.literal_column(clock, sql.Double)

    @classmethod
    def open(cls, url: str | Path, *, create: bool = True) -> Store:
        """Open a store, and make it where there is none.

        Args:
            url: the path of a SQLite file, "sqlite:///PATH", or "postgresql://USER@HOST/DATABASE". A password may
                stand in it, and is better left to `~/.pgpass` or PGPASSWORD, which the driver reads.
            create: False for a reader: a SQLite file that is missing is an error then.

        Raises:
            UserError: another kind of database, its driver is not installed, no server answers, a file that is no
                database, or a store of another format.
        """
        parsed = _url(url)
        if parsed.drivername == "sqlite":
            _check_file(parsed, create)
        try:
            engine = _engine(parsed)
        except ImportError as error:
            raise UserError(
                f"store {_described(parsed)}: the driver of PostgreSQL is not installed ({error}); "
                "pip install 'trimtab[postgres]'"
            ) from None
        store = cls(engine)
        try:
            if not store._do(_is_made, patient=False):
                store._do(store._make, write=True, patient=False)
            store._do(store._check_format, patient=False)
        except BaseException:
            engine.dispose()
            raise
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def describe(self) -> str:
        """Return where the store is, without any password: fit to be printed and written."""
        return _described(self._engine.url)

    # -- what is planned ---------------------------------------------------------------------------------------------

    def add(self, sweep: str, trials: Iterable[Trial]) -> int:
        """Plan trials, to be claimed in this order; one that is there already stays as it stands.

        Returns:
            How many were not there.

        Raises:
            UserError: the settings of a trial are no plain values of JSON, so that it would come back as another.
        """
        rows = {}
        for trial in trials:
            text = _text(trial.as_dict())
            if _trial(text).key != trial.key:
                raise UserError(
                    f"sweep {sweep!r}, arm {trial.arm!r}: the settings {dict(trial.settings)!r} do not survive being "
                    "written as JSON; expected texts, numbers, true or false, null, lists and objects of these"
                )
            rows[trial.key] = {
                "sweep": sweep, "key": trial.key, "status": "waiting", "attempts": 0, "lost": 0, "token": "",
                "worker": "", "beat": 0.0, "trial": text,
            }  # fmt: skip

        def work(connection: Connection) -> int:
            if self._on_server:
                connection.execute(sql.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            last = connection.scalar(sql.select(sql.func.max(_here.place)).where(_here.sweep == sweep))
            places = range((last or 0) + 1, (last or 0) + 1 + len(rows))
            placed = [{**row, "place": place} for place, row in zip(places, rows.values(), strict=True)]
            insert = _insert_of(self._on_server)
            count = 0
            for some in _parts(placed):
                statement = insert(_trials).values(some).on_conflict_do_nothing().returning(_here.key)
                count += len(connection.execute(statement).all())
            return count

        return self._do(work, write=True) if rows else 0

    def sweeps(self) -> list[str]:
        """Return the names of the sweeps that have trials here, sorted."""
        query = sql.select(_here.sweep).distinct().order_by(_here.sweep)
        return self._do(lambda connection: list(connection.scalars(query)))

    def results(self, sweep: str) -> list[TrialResult]:
        """Return every trial of a sweep as it stands, in the order of the plan; empty for an unknown sweep."""
        query = (
            sql.select(_here.trial, _here.status, _here.attempts, _here.worker, _here.result)
            .where(_here.sweep == sweep)
            .order_by(_here.place, _here.key)
        )
        rows = self._do(lambda connection: connection.execute(query).all())
        return [_result(row) for row in rows]

    # -- what is run -------------------------------------------------------------------------------------------------

    def claim(self, sweep: str, worker: str, keys: Collection[str] | None = None) -> Claim | None:
        """Take the next trial that waits; no other worker gets it while this one beats.

        Args:
            sweep: the sweep.
            worker: who runs it, in words.
            keys: only one of these; all if None.

        Returns:
            None if none waits.
        """
        token = secrets.token_hex(8)
        wanted = [None] if keys is None else list(_parts(sorted(keys)))

        def work(connection: Connection) -> Claim | None:
            found = None
            for some in wanted:
                query = (
                    sql.select(_here.key, _here.place, _here.trial, _here.attempts)
                    .where(_here.sweep == sweep, _here.status == "waiting")
                    .order_by(_here.place, _here.key)
                    .limit(1)
                    .with_for_update(skip_locked=True)
                )
                row = connection.execute(query if some is None else query.where(_here.key.in_(some))).first()
                if row is not None and (found is None or row.place < found.place):
                    found = row
            if found is None:
                return None
            attempt = found.attempts + 1
            connection.execute(
                _of(sweep, found.key).values(
                    status="running", attempts=attempt, token=token, worker=worker, beat=self._now
                )
            )
            return Claim(sweep=sweep, trial=_trial(found.trial), attempt=attempt, token=token)

        return self._do(work, write=True)

    def beat(self, claim: Claim) -> bool:
        """Say that a claimed trial is still run.

        Returns:
            False if the claim was taken away, for somebody else may run the trial: it must be ended here, and nothing
            of it written.
        """
        return self._change(claim, beat=self._now)

    def finish(self, claim: Claim, result: TrialResult) -> bool:
        """Store what came of a claimed trial, and give the claim back.

        Returns:
            False, and nothing is stored, if the claim was taken away.

        Raises:
            UserError: the result has not ended, or is another trial's.
        """
        if result.status not in ENDED:
            raise UserError(f"finish: expected a result that has ended ({', '.join(ENDED)}), got {result.status!r}")
        if result.trial.key != claim.trial.key:
            raise UserError(f"finish: the claim is on trial {claim.trial.key}, the result of {result.trial.key}")
        # Whoever repeats this because no answer came finds a row that has ended under its own token: no second result.
        values: dict[str, Any] = {"status": result.status, "result": _result_text(result)}
        if result.worker:
            values["worker"] = result.worker
        return self._change(claim, also=result.status, **values)

    def release(self, claim: Claim) -> bool:
        """Put a claimed trial back, to wait: its worker was asked to end.

        Returns:
            False if the claim was taken away.
        """
        return self._change(claim, status="waiting", token="", worker="")

    def lose(self, claim: Claim, why: str, *, at_most_attempts: int = AT_MOST_ATTEMPTS) -> bool:
        """Put a claimed trial back whose machine was lost under it, or fail it if that happened too often.

        Returns:
            False if the claim was taken away.
        """

        def work(connection: Connection) -> bool:
            query = sql.select(_trials).where(_held(claim)).with_for_update()
            row = connection.execute(query).first()
            if row is not None:
                self._lost(connection, row, at_most_attempts, why)
            return row is not None

        return self._do(work, write=True)

    def free_stale(self, sweep: str, older_than: float, at_most_attempts: int = AT_MOST_ATTEMPTS) -> list[Trial]:
        """Take away every claim that has had no beat for `older_than` seconds of the database's clock.

        The trials wait again; one that was lost `at_most_attempts` times is failed.

        Returns:
            The trials whose claims were taken away.
        """
        why = f"its worker ended or went silent for more than {older_than:g} s"
        return self._take_away(sweep, _here.beat < self._now - older_than, why, at_most_attempts)

    def free_worker(self, sweep: str, worker: str, at_most_attempts: int = AT_MOST_ATTEMPTS) -> list[Trial]:
        """Take away every claim of a worker that is known to have ended; see `free_stale`."""
        return self._take_away(sweep, _here.worker == worker, f"its worker {worker} ended", at_most_attempts)

    def reset(self, sweep: str, keys: Collection[str] | None = None) -> int:
        """Let failed trials wait again, with a clean count of losses.

        Args:
            sweep: the sweep.
            keys: only these; all that failed if None.

        Returns:
            How many there were.
        """
        values = {"status": "waiting", "lost": 0, "token": "", "worker": "", "result": None}
        change = sql.update(_trials).where(_here.sweep == sweep, _here.status == "failed").values(**values)

        def work(connection: Connection) -> int:
            if keys is None:
                return connection.execute(change).rowcount
            return sum(connection.execute(change.where(_here.key.in_(some))).rowcount for some in _parts(sorted(keys)))

        return self._do(work, write=True)

    # -- how ---------------------------------------------------------------------------------------------------------

    def _change(self, claim: Claim, also: str = "", **values: Any) -> bool:
        """Change the row of a claim that is still held, or that has ended as `also`; say whether there was one."""
        statement = sql.update(_trials).where(_held(claim, also)).values(**values)
        return self._do(lambda connection: connection.execute(statement).rowcount, write=True) == 1

    def _take_away(self, sweep: str, which: sql.ColumnElement[bool], why: str, at_most_attempts: int) -> list[Trial]:
        """Take away the claims of a sweep for which a condition holds, and return their trials."""
        held = sql.and_(_here.sweep == sweep, _here.status == "running", which)

        def work(connection: Connection) -> list[Trial]:
            query = sql.select(_trials).where(held).order_by(_here.place, _here.key).with_for_update(skip_locked=True)
            rows = connection.execute(query).all()
            for row in rows:
                self._lost(connection, row, at_most_attempts, why)
            return [_trial(row.trial) for row in rows]

        # Looked at first without a lock: it is asked often and nearly always in vain.
        if not self._do(lambda connection: connection.scalar(sql.select(sql.func.count()).where(held))):
            return []
        return self._do(work, write=True)

    def _lost(self, connection: Connection, row: Any, at_most: int, why: str) -> None:
        lost = row.lost + 1
        values: dict[str, Any] = {"status": "waiting", "token": "", "worker": "", "lost": lost}
        if lost >= at_most:
            times = "once" if lost == 1 else f"{lost} times"
            failed = TrialResult(trial=_trial(row.trial), status="failed", error=f"lost {times}, the last time: {why}")
            values = {"status": "failed", "token": "", "lost": lost, "result": _result_text(failed)}
        connection.execute(_of(row.sweep, row.key).values(**values))

    def _make(self, connection: Connection) -> None:
        if self._on_server:  # two workers that begin at once
            connection.execute(sql.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _metadata.create_all(connection)
        if connection.scalar(sql.select(sql.func.count()).select_from(_about)) == 0:
            connection.execute(_about.insert().values(format=FORMAT))

    def _check_format(self, connection: Connection) -> None:
        found = list(connection.scalars(sql.select(_about.c.format)))
        if found != [FORMAT]:
            raise UserError(
                f"store {self.describe()} has format {', '.join(map(str, found)) or 'none'}, this Trimtab reads format "
                f"{FORMAT}; open it with the Trimtab that made it, or name another store"
            )

    def _do(self, work: Callable[[Connection], T], *, write: bool = False, patient: bool = True) -> T:
        """Do `work` in one transaction; once more when a server went away in it, as long as that may be a restart."""
        engine = self._engine.execution_options(trimtab_write=True) if write else self._engine
        until = time.monotonic() + AWAY_SECONDS
        pause = 0.1
        while True:
            try:
                with engine.begin() as connection:
                    return work(connection)
            except DBAPIError as error:
                again = isinstance(error, OperationalError) or error.connection_invalidated
                if not (self._on_server and patient and again) or time.monotonic() > until:
                    raise UserError(self._what_is_wrong(error)) from None
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _what_is_wrong(self, error: DBAPIError) -> str:
        said = " ".join(str(error.orig).split())
        if self._engine.url.password:
            said = said.replace(str(self._engine.url.password), "***")
        text = f"store {self.describe()}: {redact_text(said)}"
        if self._on_server:
            return f"{text}; is the server up, and may this user create tables in the database?"
        if "not a database" in said:
            return f"{text}; expected a SQLite file that a sweep made, or one that does not exist yet"
        if "locked" in said:
            return f"{text} for {LOCKED_SECONDS:g} s by another process; end that, or put the file on a local disk"
        return f"{text}; expected a file that can be written, on a local disk with space"


def _url(given: str | Path) -> URL:
    """Return where a store is, as SQLAlchemy says it."""
    text = str(given)
    if "://" not in text:
        return URL.create("sqlite", database=text)
    try:
        parsed = make_url(text)
    except (ArgumentError, ValueError):
        raise UserError(
            f"store {redact_text(text)!r} is no URL that can be read; expected a path, sqlite:///PATH or "
            "postgresql://USER@HOST/DATABASE"
        ) from None
    if parsed.drivername in _SERVERS:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername != "sqlite":
        raise UserError(
            f"store {_described(parsed)}: {parsed.drivername!r} is not supported; expected a path, sqlite:///PATH or "
            "postgresql://USER@HOST/DATABASE"
        )
    if parsed.database in (None, "", ":memory:"):
        raise UserError(f"store {text!r} would live in memory, where no other process sees it; name a file")
    return parsed


def _described(url: URL) -> str:
    if url.drivername == "sqlite":
        return str(url.database)
    hidden = "***"
    query = {key: hidden if "pass" in key or names_secret(key) else value for key, value in url.query.items()}
    shown = url.set(drivername=url.drivername.partition("+")[0], query=query)
    return shown.render_as_string(hide_password=True).replace(quote_plus(hidden), hidden)


def _check_file(url: URL, create: bool) -> None:
    path = Path(str(url.database))
    if not create and not path.is_file():
        raise UserError(f"there is no store {path}; expected the SQLite file of a sweep")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"store {path}: its folder cannot be made ({error.strerror or error}); name another") from None


def _engine(url: URL) -> Engine:
    if url.drivername != "sqlite":
        connect = {"connect_timeout": CONNECT_SECONDS, "application_name": "trimtab"}
        return sql.create_engine(url, pool_pre_ping=True, connect_args=connect)
    engine = sql.create_engine(url, connect_args={"timeout": LOCKED_SECONDS})

    @sql.event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say so, below
        _write_ahead(connection)

    @sql.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that will write takes the lock at once: two that read first could not both go on.
        write = connection.get_execution_options().get("trimtab_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Let readers and one writer go on side by side; the file remembers it."""
    until = time.monotonic() + LOCKED_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break  # also where the file system cannot do it: then the lock is coarser, and nothing else
        except sqlite3.OperationalError as error:  # this change does not wait for the lock by itself
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous = NORMAL")


def _insert_of(server: bool) -> Any:
    """Return the INSERT of a kind of database; PostgreSQL's brings all its drivers, which only its users wait for."""
    if server:
        from sqlalchemy.dialects.postgresql import insert

        return insert
    from sqlalchemy.dialects.sqlite import insert as insert_of_sqlite

    return insert_of_sqlite


def _is_made(connection: Connection) -> bool:
    return sql.inspect(connection).has_table(_about.name)


def _of(sweep: str, key: str) -> sql.Update:
    return sql.update(_trials).where(_here.sweep == sweep, _here.key == key)


def _held(claim: Claim, also: str = "") -> sql.ColumnElement[bool]:
    return sql.and_(
        _here.sweep == claim.sweep,
        _here.key == claim.trial.key,
        _here.token == claim.token,
        _here.status.in_(["running", also] if also else ["running"]),
    )


def _parts(many: Sequence[T]) -> Iterable[Sequence[T]]:
    return (many[start : start + _AT_ONCE] for start in range(0, len(many), _AT_ONCE))


def _text(plain: Mapping[str, Any]) -> str:
    return json.dumps(encode(plain), separators=(",", ":"), allow_nan=False)


def _trial(text: str) -> Trial:
    return Trial(**decode(json.loads(text)))


def _result_text(result: TrialResult) -> str:
    """Return a result as JSON, without its trial, which has a column of its own.

    Points are held as columns, steps once where all metrics share them: a thousand results are read in a moment so.
    """
    plain = result.as_dict()
    del plain["trial"]
    grid, plain["points"] = _columns(result.points)
    plain["grid"] = grid
    plain["others"] = {}
    for name, points in result.others.items():
        own, values = _columns(points)
        plain["others"][name] = [None if own == grid else own, values]
    return _text(plain)


def _result(row: Any) -> TrialResult:
    facts = {
        "trial": decode(json.loads(row.trial)),
        "status": row.status,
        "attempts": row.attempts,
        "worker": row.worker,
    }
    if row.result is None:
        return TrialResult.from_dict(facts)
    plain = json.loads(row.result)
    grid, values, others = plain.pop("grid"), plain.pop("points"), plain.pop("others")
    return replace(
        TrialResult.from_dict({**decode(plain), **facts}),
        points=_points(grid, values),
        others={name: _points(grid if own is None else own, values) for name, (own, values) in others.items()},
    )


def _columns(points: Sequence[Point]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]


def _points(steps: Sequence[int], values: Sequence[float | str]) -> tuple[Point, ...]:
    return tuple(zip(steps, map(float, values), strict=True))  # float reads the words of NaN and infinity too

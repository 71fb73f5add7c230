"""A click log → query–title pairs in the paper's three classes of relevance (section 4.2, IR relevance).

Label 0: the title was clicked for the query. 1: it was shown and never clicked. 2: it was never shown for the query and
is drawn from the titles of other queries; that nobody would have clicked it is likely, not certain. A log has a row a
shown title; who searched, and when, is neither needed nor kept.

The paper says what the classes mean, not how many irrelevant titles a query gets. Ours: as many as it has clicked or as
it has skipped ones, whichever are more, so that no class is short of pairs.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ernie2.corpora.cells import parse_line
from ernie2.corpora.connectives import MiningResult
from ernie2.corpora.documents import Drops, hash64
from ernie2.errors import ConfigError, DataError
from ernie2.storage.listing import list_files
from ernie2.storage.table_writing import check_output, write_rows
from ernie2.storage.tables import TABLE_FORMATS, read_columns
from ernie2.storage.temporary import temporary_database

COLUMNS = ("query", "title", "label", "group")
CLICKED, SKIPPED, NEVER_SHOWN = "0", "1", "2"

_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1, "no": 0, "yes": 1}
_BATCH = 10_000
_WHICH_COLUMN = "Name the right ones with --query, --title and --clicked."
_TABLES = """
    CREATE TABLE shown (query TEXT, title TEXT, clicked INTEGER, times INTEGER, PRIMARY KEY (query, title))
        WITHOUT ROWID;
    CREATE TABLE kept (query TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE titles (title TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE pool (number INTEGER PRIMARY KEY, title TEXT);
"""
_TAKE = """
    INSERT INTO shown VALUES (?, ?, ?, 1)
    ON CONFLICT DO UPDATE SET clicked = max(clicked, excluded.clicked), times = times + 1
"""


def mine_clicks(
    path: str,
    out: Path,
    min_query_count: int,
    columns: Sequence[str] = ("query", "title", "clicked"),
    on_progress: Callable[[int], None] = lambda rows: None,
) -> MiningResult:
    """Write the pairs of the click log at `path` (file, glob, URL of a table) to `out`, columns `COLUMNS`.

    `columns` names the columns of query, title and click; a click is 0 or 1, false or true. A pair that was clicked
    once and skipped once counts as clicked. A query with fewer than `min_query_count` rows is dropped, and its titles
    with it, unless another query shows them. Pairs are sorted by query, label and title; the irrelevant titles follow
    from the query and the titles there are, so the order of the log does not matter. The group is the query. The log is
    gathered in a database beside `out`, in bounded memory. `on_progress` is called with the rows read so far.

    Raises `ConfigError`, `DataError`, also where nothing is left, and `StorageError`.
    """
    if min_query_count < 1:
        raise ConfigError(f"min_query_count is {min_query_count}; it counts rows of a query and is at least 1.")
    files = list_files([path], TABLE_FORMATS)
    check_output(out, files)
    drops, labels = Drops(), Counter[str]()
    with temporary_database(out) as log:
        log.executescript(_TABLES)
        rows = _gather(log, files, columns, drops, on_progress)
        if not _choose(log, min_query_count, drops):
            raise DataError(
                f"{path}: no query of {rows:,} rows has {min_query_count} or more; nothing was written. Lower the "
                "minimal count of a query, or give a longer log."
            )
        write_rows(out, COLUMNS, _pairs(log, labels, drops))
    return MiningResult(labels, drops)


def _gather(
    log: sqlite3.Connection,
    files: Sequence[str],
    columns: Sequence[str],
    drops: Drops,
    on_progress: Callable[[int], None],
) -> int:
    """Puts every row of the log into the database; returns their number."""
    rows = 0
    batch: list[tuple[str, str, int]] = []
    shown = (row for file in files for row in read_columns(file, columns, _WHICH_COLUMN))
    for where, (query, title, value) in shown:
        rows += 1
        query, title = parse_line(query, columns[0], where), parse_line(title, columns[1], where)
        clicked = _clicked(value, columns[2], where)
        if query and title:
            batch.append((query, title, clicked))
        else:
            drops.add("row without query or title")
        if len(batch) == _BATCH:
            log.executemany(_TAKE, batch)
            batch.clear()
            on_progress(rows)
    log.executemany(_TAKE, batch)
    on_progress(rows)
    return rows


def _choose(log: sqlite3.Connection, min_query_count: int, drops: Drops) -> int:
    """Marks the queries with enough rows and numbers their titles from 0 in the order of their code points; returns how
    many queries there are."""
    log.execute("INSERT INTO kept SELECT query FROM shown GROUP BY query HAVING sum(times) >= ?", (min_query_count,))
    log.execute("INSERT OR IGNORE INTO titles SELECT title FROM kept JOIN shown USING (query)")
    for number, (title,) in enumerate(log.execute("SELECT title FROM titles ORDER BY title")):
        log.execute("INSERT INTO pool VALUES (?, ?)", (number, title))
    (rare,) = log.execute("SELECT count(DISTINCT query) - (SELECT count(*) FROM kept) FROM shown").fetchone()
    (kept,) = log.execute("SELECT count(*) FROM kept").fetchone()
    if rare:
        drops.add(f"query of fewer than {min_query_count} rows", rare)
    return int(kept)


def _pairs(log: sqlite3.Connection, labels: Counter[str], drops: Drops) -> Iterator[Sequence[str]]:
    """The rows to write; counts them in `labels`."""
    (size,) = log.execute("SELECT count(*) FROM pool").fetchone()
    for (query,) in log.execute("SELECT query FROM kept ORDER BY query"):
        shown = dict(log.execute("SELECT title, clicked FROM shown WHERE query = ? ORDER BY title", (query,)))
        clicked = [title for title, click in shown.items() if click]
        skipped = [title for title, click in shown.items() if not click]
        wanted = max(len(clicked), len(skipped))
        drawn = _never_shown(log, query, shown, wanted, size)
        if len(drawn) < wanted:
            drops.add("title never shown for a query, of which there were too few", wanted - len(drawn))
        for label, titles in ((CLICKED, clicked), (SKIPPED, skipped), (NEVER_SHOWN, sorted(drawn))):
            labels[label] += len(titles)
            for title in titles:
                yield query, title, label, query


def _never_shown(log: sqlite3.Connection, query: str, shown: dict[str, int], wanted: int, size: int) -> list[str]:
    """Up to `wanted` titles that were not shown for `query`: for each a hash says where in the pool to begin, and the
    first title from there that will do is taken."""
    drawn: dict[str, None] = {}
    for number in range(min(wanted, size - len(shown))):
        place = hash64(f"{query}\x1f{number}") % size
        while True:
            (title,) = log.execute("SELECT title FROM pool WHERE number = ?", (place,)).fetchone()
            if title not in shown and title not in drawn:
                break
            place = (place + 1) % size
        drawn[title] = None
    return list(drawn)


def _clicked(value: Any, name: str, where: str) -> int:
    if isinstance(value, str | int | float) and (known := _VALUES.get(str(value).strip().lower())) is not None:
        return known
    raise DataError(
        f"{where}: the column {name!r} holds {value!r}; it says whether the title was clicked: 0 or 1, false or true."
    )

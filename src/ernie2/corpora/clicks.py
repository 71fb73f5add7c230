"""Click log → query–title pairs in the paper's three classes of relevance (section 4.2, IR relevance).

Label 0: the title was clicked for the query. 1: it was shown and never clicked. 2: it was never shown for the query and
is sampled from the titles of other queries, so it is probably irrelevant but not certainly. A log has one row per shown
title; users and times are neither needed nor stored.

The paper defines the classes, but not the number of irrelevant titles per query. We sample as many as the query has
clicked or skipped titles, whichever is more, so that no class is short of pairs.
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
    CREATE TABLE queries (query TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE titles (title TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE pool (number INTEGER PRIMARY KEY, title TEXT);
"""
_INSERT = """
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

    `columns` names the columns of query, title and click; a click is 0 or 1, false or true. A pair that was both
    clicked and skipped counts as clicked. A query with fewer than `min_query_count` rows is dropped with its titles,
    unless another query shows them. Pairs are sorted by query, label and title. The sampled titles depend on the query
    and the set of titles only, so the order of the log does not matter. The group is the query. The log is loaded into
    a database beside `out`, in bounded memory. `on_progress` is called with the number of rows read so far.

    Raises `ConfigError`, `StorageError`, and `DataError`, also if no pair is left.
    """
    if min_query_count < 1:
        raise ConfigError(f"min_query_count is {min_query_count}; set it to 1 or more (rows of a query).")
    files = list_files([path], TABLE_FORMATS)
    check_output(out, files)
    drops, labels = Drops(), Counter[str]()
    with temporary_database(out) as log:
        log.executescript(_TABLES)
        rows = _load_log(log, files, columns, drops, on_progress)
        if not _select_queries(log, min_query_count, drops):
            raise DataError(
                f"{path}: no query has {min_query_count} or more of the {rows:,} rows; nothing was written. Lower the "
                "minimum count of a query, or use a longer log."
            )
        write_rows(out, COLUMNS, _pairs(log, labels, drops))
    return MiningResult(labels, drops)


def _load_log(
    log: sqlite3.Connection,
    files: Sequence[str],
    columns: Sequence[str],
    drops: Drops,
    on_progress: Callable[[int], None],
) -> int:
    """Insert every row of the log into the database; return their number."""
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
            log.executemany(_INSERT, batch)
            batch.clear()
            on_progress(rows)
    log.executemany(_INSERT, batch)
    on_progress(rows)
    return rows


def _select_queries(log: sqlite3.Connection, min_query_count: int, drops: Drops) -> int:
    """Select the queries with enough rows, number their titles from 0 by code point, return the number of queries."""
    log.execute("INSERT INTO queries SELECT query FROM shown GROUP BY query HAVING sum(times) >= ?", (min_query_count,))
    log.execute("INSERT OR IGNORE INTO titles SELECT title FROM queries JOIN shown USING (query)")
    for number, (title,) in enumerate(log.execute("SELECT title FROM titles ORDER BY title")):
        log.execute("INSERT INTO pool VALUES (?, ?)", (number, title))
    (rare,) = log.execute("SELECT count(DISTINCT query) - (SELECT count(*) FROM queries) FROM shown").fetchone()
    (selected,) = log.execute("SELECT count(*) FROM queries").fetchone()
    if rare:
        drops.add(f"query of fewer than {min_query_count} rows", rare)
    return int(selected)


def _pairs(log: sqlite3.Connection, labels: Counter[str], drops: Drops) -> Iterator[Sequence[str]]:
    """Yield the rows to write; count them in `labels`."""
    (size,) = log.execute("SELECT count(*) FROM pool").fetchone()
    for (query,) in log.execute("SELECT query FROM queries ORDER BY query"):
        shown = dict(log.execute("SELECT title, clicked FROM shown WHERE query = ? ORDER BY title", (query,)))
        clicked = [title for title, click in shown.items() if click]
        skipped = [title for title, click in shown.items() if not click]
        target = max(len(clicked), len(skipped))
        sampled = _sample_unshown(log, query, shown, target, size)
        if len(sampled) < target:
            drops.add("title never shown for a query, of which there were too few", target - len(sampled))
        for label, titles in ((CLICKED, clicked), (SKIPPED, skipped), (NEVER_SHOWN, sorted(sampled))):
            labels[label] += len(titles)
            for title in titles:
                yield query, title, label, query


def _sample_unshown(log: sqlite3.Connection, query: str, shown: dict[str, int], target: int, size: int) -> list[str]:
    """Return up to `target` titles that were not shown for `query`.

    A hash gives the first position in the pool; the next unused title from there is chosen.
    """
    sampled: dict[str, None] = {}
    for number in range(min(target, size - len(shown))):
        place = hash64(f"{query}\x1f{number}") % size
        while True:
            (title,) = log.execute("SELECT title FROM pool WHERE number = ?", (place,)).fetchone()
            if title not in shown and title not in sampled:
                break
            place = (place + 1) % size
        sampled[title] = None
    return list(sampled)


def _clicked(value: Any, name: str, where: str) -> int:
    if isinstance(value, str | int | float) and (known := _VALUES.get(str(value).strip().lower())) is not None:
        return known
    raise DataError(f"{where}: the column {name!r} has the value {value!r}; a click must be 0 or 1, false or true.")

"""A buffer two processes see."""

from __future__ import annotations

import multiprocessing

from ernie2.batches.loader import SharedBuffer


def write(buffer):
    buffer.rows[1] = [7, 8, 9]


def test_what_another_process_writes_is_seen_here_and_rows_begin_empty():
    buffer = SharedBuffer(2, 3)
    process = multiprocessing.get_context("forkserver").Process(target=write, args=(buffer,))
    process.start()
    process.join()
    assert buffer.rows.tolist() == [[0, 0, 0], [7, 8, 9]]
    buffer.close()

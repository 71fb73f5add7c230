from pathlib import Path

import numpy as np
import pytest

import tiny_run
from ernie2.errors import ShardError
from ernie2.shards.store import Shards, verify_on_error
from ernie2.training.hooks.base import OpenRun
from ernie2.training.hooks.shard_check import ShardCheck, check_shards, shards_of_rank


def flip_a_byte(file):
    """Another value in the middle of a column: of the right length, and wrong."""
    damaged = bytearray(file.read_bytes())
    damaged[-3] ^= 0x40
    file.write_bytes(bytes(damaged))


@pytest.fixture
def shards(tmp_path):
    return tiny_run.write_shards(tmp_path / "shards")


def column(shards, number, name):
    return shards.corpora["text"].shards[number].folder / f"{name}.npy"


def test_a_flipped_byte_is_found_before_the_first_step_and_the_file_named(shards):
    check_shards(shards)
    flip_a_byte(column(shards, 2, "tokens"))
    with pytest.raises(ShardError, match=r"tokens\.npy does not match its checksum.*ernie2 prepare"):
        check_shards(shards)


def test_a_run_that_starts_compares_its_shards_first(shards):
    flip_a_byte(column(shards, 1, "sentences"))
    with pytest.raises(ShardError, match=r"sentences\.npy"):
        ShardCheck(shards).open(OpenRun(Path()))


@pytest.fixture
def beside(shards):
    """A check beside a run that goes on, ended afterwards."""
    made = ShardCheck(shards)
    yield made
    made.close()


def test_beside_training_damage_is_raised_before_the_next_step(shards, beside):
    flip_a_byte(column(shards, 1, "sentences"))
    beside.open(OpenRun(Path(), step=4))
    with pytest.raises(ShardError, match=r"sentences\.npy"):
        beside.on_batch_error(ValueError())  # waits
    with pytest.raises(ShardError, match=r"sentences\.npy"):
        beside.before_step(5)


def test_complete_shards_raise_nothing(beside):
    beside.open(OpenRun(Path(), step=4))
    beside.before_step(5)
    beside.on_batch_error(ValueError())


def test_a_file_that_went_away_is_named(shards):
    column(shards, 0, "flags").unlink()
    with pytest.raises(ShardError, match=r"flags\.npy cannot be read"):
        check_shards(shards)


def test_a_column_cut_short_is_refused_when_shards_are_opened(shards):
    file = column(shards, 0, "tokens")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ShardError, match=r"tokens\.npy cannot be read.*damaged"):
        Shards(shards.folder)


def test_a_complete_column_of_another_length_is_refused_when_shards_are_opened(shards):
    file = column(shards, 0, "flags")
    np.save(file, np.load(file)[:-1])
    with pytest.raises(ShardError, match=r"flags\.npy cannot be read \(uint8 \[\d+\] for uint8 \[\d+\]\)"):
        Shards(shards.folder)


def test_ranks_share_the_shards_and_leave_none_out(shards):
    shares = [shards_of_rank(shards, rank, 3) for rank in range(3)]
    assert sum(map(len, shares)) == len(shards.corpora["text"].shards)
    assert {shard.folder for part in shares for shard in part} == {s.folder for s in shards.corpora["text"].shards}


def test_damage_is_raised_instead_of_the_error_it_leads_to(shards):
    with pytest.raises(IndexError), verify_on_error(shards.corpora.values()):
        raise IndexError  # not for want of sound shards
    flip_a_byte(column(shards, 1, "documents"))
    with pytest.raises(ShardError, match=r"documents\.npy does not match"), verify_on_error(shards.corpora.values()):
        raise IndexError

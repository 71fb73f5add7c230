"""A link may stay in its folder or its Hub cache, and no other link is followed."""

from __future__ import annotations

from ernie2.storage.links import external_link_target


def test_files_and_links_inside_the_folder_are_its_own(tmp_path):
    (tmp_path / "vocab.txt").write_text("a")
    (tmp_path / "tokens").symlink_to("vocab.txt")
    assert external_link_target(tmp_path / "vocab.txt") is None
    assert external_link_target(tmp_path / "tokens") is None


def test_a_folder_that_is_itself_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/vocab.txt").write_text("a")
    (tmp_path / "link").symlink_to("real")
    assert external_link_target(tmp_path / "link/vocab.txt") is None


def test_a_link_that_leads_out_is_named_with_its_target(tmp_path):
    (tmp_path / "secret").write_text("a")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/vocab.txt").symlink_to("../secret")
    assert external_link_target(tmp_path / "model/vocab.txt") == (tmp_path / "secret").resolve()


def test_a_snapshot_of_the_hub_may_link_to_the_blobs_beside_it_and_nowhere_else(tmp_path):
    cache = tmp_path / "models--x--y"
    snapshot = cache / "snapshots/abc"
    (snapshot / "onnx").mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs/0f").write_text("a")
    (cache / "token").write_text("a")
    (snapshot / "vocab.txt").symlink_to("../../blobs/0f")
    (snapshot / "onnx/vocab.txt").symlink_to("../../../blobs/0f")
    (snapshot / "config.json").symlink_to("../../token")
    assert external_link_target(snapshot / "vocab.txt") is None
    assert external_link_target(snapshot / "onnx/vocab.txt") is None
    assert external_link_target(snapshot / "config.json") == (cache / "token").resolve()

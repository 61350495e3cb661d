"""Files are whole or absent, the same content gives the same bytes, and damage is named."""

import os
import stat

import pytest
import torch

from miaprune import files


def test_tensors_and_metadata_come_back(tmp_path):
    tensors = {"a/x": torch.arange(6.0).view(2, 3).T, "b/x": torch.tensor([True])}
    files.save_tensors(tmp_path / "f.safetensors", tensors, {"epoch": 3, "name": "é"})
    loaded, metadata = files.load_tensors(tmp_path / "f.safetensors")
    assert torch.equal(loaded["a/x"], tensors["a/x"])
    assert metadata == {"epoch": 3, "name": "é"} == files.load_metadata(tmp_path / "f.safetensors")
    assert list(files.load_arrays(tmp_path / "f.safetensors", "b/")[0]) == ["x"]


def test_same_content_same_bytes(tmp_path):
    for name in "ab":
        files.save_tensors(tmp_path / name, {"x": torch.ones(3)}, {str(i): i for i in range(20)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named_in_one_line(tmp_path, keep):
    path = tmp_path / "victim.safetensors"
    files.save_tensors(path, {"x": torch.ones(1000)}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(files.FileError, match=r"victim\.safetensors: damaged") as caught:
        files.load_metadata(path)
    assert "\n" not in str(caught.value)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_files_are_as_readable_as_the_umask_allows(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        files.save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(3)}, {})
        with files.whole(tmp_path / "x.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(p.stat().st_mode) for p in sorted(tmp_path.iterdir())] == [mode, mode]

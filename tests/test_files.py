"""Files are whole or absent, the same content gives the same bytes, and damage is named."""

import os
import stat

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

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


def stored(path):
    """What lies in the file, as any reader of safetensors sees it."""
    return load_file(path)


def random_bits(dtype, shape, zeros, seed):
    """Any bit patterns, NaN with payloads, -0.0 and subnormal numbers among them, and a share of +0.0."""
    generator, dtype = np.random.default_rng(seed), np.dtype(dtype)
    size = int(np.prod(shape))
    bits = generator.integers(0, 2**16, size * dtype.itemsize // 2, dtype=np.uint16).view(f"u{dtype.itemsize}")
    bits[generator.random(size) < 0.1] = 1 << (8 * dtype.itemsize - 1)  # -0.0
    bits[generator.random(size) < zeros] = 0
    return bits.view(dtype).reshape(shape)


@given(
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    shape=st.sampled_from([(), (0, 3), (7,), (5, 1000), (64, 32, 3, 3)]),
    zeros=st.sampled_from([0, 0.02, 0.04, 0.5, 0.9, 1]),
    seed=st.integers(0, 1000),
)
def test_sparse_tensors_come_back_to_the_bit(tmp_path_factory, dtype, shape, zeros, seed):
    path, array = tmp_path_factory.getbasetemp() / "sparse.safetensors", random_bits(dtype, shape, zeros, seed)
    files.save_tensors(path, {"x": array, "a/y": array.T}, {"epoch": 1})
    loaded, metadata = files.load_arrays(path)
    assert set(loaded) == {"x", "a/y"} and metadata == {"epoch": 1}
    for name, expected in (("x", array), ("a/y", array.T)):
        assert (loaded[name].dtype, loaded[name].shape) == (expected.dtype, expected.shape)
        assert loaded[name].tobytes() == expected.tobytes()
    plain = {"x": array, "a/y": np.ascontiguousarray(array.T)}
    save_file(plain, path.with_name("plain"), metadata={"miaprune": '{"epoch": 1}'})
    assert path.stat().st_size <= path.with_name("plain").stat().st_size, "never larger"
    if zeros == 0.9 and array.nbytes > 10_000:
        assert path.stat().st_size < 0.25 * path.with_name("plain").stat().st_size


def test_a_sparse_tensor_opens_without_miaprune_as_the_docstring_says(tmp_path):
    path, array = tmp_path / "f.safetensors", random_bits("f4", (30, 40, 3), 0.6, seed=0)
    files.save_tensors(path, {"x": array, "y": np.ones(500, np.float32)}, {})
    f = stored(path)
    assert set(f) == {"x:shape", "x:mask", "x:values", "y"}
    x = np.zeros(f["x:shape"], f["x:values"].dtype)
    x.flat[np.unpackbits(f["x:mask"], count=x.size).view(bool)] = f["x:values"]
    assert x.tobytes() == array.tobytes()


def test_integers_and_truth_values_are_stored_as_they_are(tmp_path):
    tensors = {"n": torch.zeros(5000, dtype=torch.int64), "b": torch.zeros(5000, dtype=torch.bool)}
    files.save_tensors(tmp_path / "f", tensors, {})
    assert set(stored(tmp_path / "f")) == {"n", "b"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: f | {"a/x:values": f["a/x:values"][:-1]},
        lambda f: f | {"a/x:values": np.append(f["a/x:values"], np.float32(1))},
        lambda f: f | {"a/x:values": f["a/x:values"].reshape(1, -1)},
        lambda f: f | {"a/x:mask": f["a/x:mask"][:-1]},
        lambda f: f | {"a/x:mask": f["a/x:mask"].astype(np.int64)},
        lambda f: f | {"a/x:mask": np.zeros_like(f["a/x:mask"])},
        lambda f: f | {"a/x:shape": f["a/x:shape"] * 2**40},
        lambda f: f | {"a/x:shape": -f["a/x:shape"]},
        lambda f: f | {"a/x:shape": f["a/x:shape"].astype(np.float64)},
        lambda f: {name: array for name, array in f.items() if name != "a/x:mask"},
        lambda f: {name: array for name, array in f.items() if name != "a/x:shape"},
        lambda f: {name: array for name, array in f.items() if name != "a/x:values"},
    ],
)
def test_parts_of_a_sparse_tensor_that_do_not_fit_are_named_in_one_line(tmp_path, damage):
    path = tmp_path / "victim.safetensors"
    files.save_tensors(path, {"a/x": random_bits("f4", (30, 40), 0.6, seed=0)}, {})
    save_file(damage(stored(path)), path, metadata={"miaprune": "{}"})
    for prefix in ("", "a/"):
        with pytest.raises(files.FileError, match=r"victim\.safetensors: damaged") as caught:
            files.load_arrays(path, prefix)
        assert "\n" not in str(caught.value)

"""Sets of samples: every form gives the same batches, and what is wrong with one is said with its place."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mh_edge.errors import InputError
from mh_edge.quantization.data.sets import Batch, Data, Given, open_data, random_data
from mh_edge.signature import Domain, Signature, Tensor

ROWS = 70
OUT = (Tensor("y", "float32", ("batch", 8)),)
MASKED = Signature((Tensor("x", "float32", ("batch", 3, 2)), Tensor("valid", "bool", ("batch", 3))), OUT)
ALONE = Signature((Tensor("x", "float32", ("batch", "sequence", 2)),), OUT)


def fixed(size: int) -> Signature:
    return Signature(MASKED.pin({"batch": size}).inputs, MASKED.pin({"batch": size}).outputs)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x": rng.standard_normal((ROWS, 3, 2)).astype("float32"),
        "valid": rng.random((ROWS, 3)) < 0.7,
        "labels": rng.integers(8, size=ROWS),
    }


def open_masked(given: Given, signature: Signature = MASKED, batch: int = 32) -> Data:
    return open_data(given, signature, purpose="calibration", batch=batch)


def joined(data: Data) -> dict[str, np.ndarray]:
    """The samples of a set without those that fill."""
    batches = list(data.batches())
    assert [batch.first for batch in batches] == list(np.cumsum([0, *(batch.count for batch in batches)])[:-1])
    found = {name: np.concatenate([batch.feeds[name][: batch.count] for batch in batches]) for name in batches[0].feeds}
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return found | ({"labels": np.concatenate(labels)} if labels else {})


def write(form: str, folder: Path, arrays: dict[str, np.ndarray]) -> Given:
    if form == "arrays":
        return arrays
    if form in ("npz", "compressed"):
        (np.savez if form == "npz" else np.savez_compressed)(folder / "set.npz", **arrays)
        return str(folder / "set.npz")
    if form == "folder of npz":
        for part, (start, stop) in enumerate(((0, 9), (9, 50), (50, ROWS))):
            np.savez(folder / f"{part}.npz", **{name: array[start:stop] for name, array in arrays.items()})
        return folder
    if form == "folder of npy":
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        return folder
    if form == "columnwise":
        np.savez(folder / "set.npz", **{name: np.asfortranarray(array) for name, array in arrays.items()})
        return folder / "set.npz"

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, ROWS, 11):
            yield {name: array[start : start + 11] for name, array in arrays.items()}

    return feeds


FORMS = ("arrays", "npz", "compressed", "folder of npz", "folder of npy", "columnwise", "function")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_samples_twice(form: str, tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    data = open_masked(write(form, tmp_path, arrays))
    assert data.samples == (None if form == "function" else ROWS)
    for _ in range(2):
        batches = list(data.batches())
        assert [batch.count for batch in batches] == [32, 32, 6]
        found = joined(data)
        assert found.keys() == arrays.keys()
        assert all(np.array_equal(found[name], array) for name, array in arrays.items())
        assert {name: array.dtype for name, array in found.items()} == {n: a.dtype for n, a in arrays.items()}


@pytest.mark.parametrize(("size", "batches", "filled"), [(1, ROWS, 0), (4, 18, 2), (100, 1, 30)])
def test_a_fixed_batch_is_filled_and_the_filled_rows_are_not_counted(
    size: int, batches: int, filled: int, arrays: dict[str, np.ndarray]
) -> None:
    found = list(open_masked(arrays, fixed(size)).batches())
    assert len(found) == batches
    assert all(len(batch.feeds["x"]) == size and len(batch.feeds["valid"]) == size for batch in found)
    last = found[-1]
    assert (last.filled, last.count) == (filled, size - filled)
    assert last.labels is not None
    assert len(last.labels) == last.count
    assert np.array_equal(last.feeds["x"][last.count :], last.feeds["x"][:filled])
    assert all(np.array_equal(joined(open_masked(arrays, fixed(size)))[name], arrays[name]) for name in arrays)


def test_rows_of_blocks_smaller_than_a_batch_are_joined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    monkeypatch.setattr("mh_edge.quantization.data.sources.BLOCK", 5 * 24)  # five samples of x
    data = open_masked(write("compressed", tmp_path, arrays))
    assert [batch.count for batch in data.batches()] == [32, 32, 6]
    assert np.array_equal(joined(data)["x"], arrays["x"])


def test_samples_of_another_length_begin_a_batch() -> None:
    def feeds() -> Iterator[dict[str, np.ndarray]]:
        for length, rows in ((5, 3), (5, 2), (7, 4), (5, 1)):
            yield {"x": np.full((rows, length, 2), length, "float32")}

    batches = list(open_masked(feeds, ALONE, batch=4).batches())
    assert [batch.feeds["x"].shape for batch in batches] == [(4, 5, 2), (1, 5, 2), (4, 7, 2), (1, 5, 2)]
    assert [batch.first for batch in batches] == [0, 4, 5, 9]


def test_parts_in_npy_for_a_model_of_one_input(tmp_path: Path) -> None:
    for part in range(3):
        np.save(tmp_path / f"part{part}.npy", np.full((2, 4, 2), part, "float32"))
    assert joined(open_masked(tmp_path, ALONE))["x"][:, 0, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_function_of_a_module_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, np.ndarray]
) -> None:
    np.savez(tmp_path / "all.npz", **arrays)
    (tmp_path / "my_samples.py").write_text(
        "import numpy as np\n\n"
        "def feeds():\n"
        "    import my_samples_too  # while it is read, not when it is called\n"
        "    yield dict(np.load('all.npz'))\n\n"
        "def broken():\n"
        "    yield {}['x']\n\n"
        "number = 7\n"
    )
    (tmp_path / "my_samples_too.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(joined(open_masked("my_samples:feeds"))["x"], arrays["x"])
    refused("my_samples:broken", r"my_samples:broken raised KeyError: 'x'")
    refused("my_samples:number", r"type int, not a function\. .*yields feeds")
    refused("my_samples:absent", r"has no 'absent'")


def refused(given: object, message: str, signature: Signature = MASKED) -> None:
    with pytest.raises(InputError, match=message):
        list(open_masked(given, signature).batches())  # type: ignore[arg-type]


def test_one_pass_is_not_enough(arrays: dict[str, np.ndarray]) -> None:
    generator = iter([arrays])
    refused(generator, r"can be read once.* Give the function that makes it\.")
    refused(lambda: generator, r"<lambda> returns the same list_iterator each time")
    assert joined(open_masked(lambda: [arrays])).keys() == arrays.keys()  # type: ignore[arg-type, return-value]


def test_what_is_no_set(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    refused(str(tmp_path / "absent.npz"), r"there is no file '.*absent\.npz'")
    refused(tmp_path, r"holds no \.npz and no \.npy")
    np.save(tmp_path / "x.npy", arrays["x"])
    refused(tmp_path / "x.npy", r"holds one nameless array")
    np.savez(tmp_path / "x.npz", **arrays)
    refused(tmp_path, r"holds both \.npz and \.npy")
    (tmp_path / "text.npz").write_text("words")
    refused(tmp_path / "text.npz", r"text\.npz' is not an \.npz of plain arrays")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("notes.txt", "words")
    refused(tmp_path / "other.npz", r"'notes\.txt' in it is no array")
    np.savez(tmp_path / "objects.npz", x=np.array([{}, None]), valid=arrays["valid"])
    refused(tmp_path / "objects.npz", r"is not an \.npz of plain arrays")
    refused(7, r"int is no form of data\. Give an \.npz")
    refused({"x": [1.0]}, r"'x' is a list, not a NumPy array")
    refused(lambda: arrays, r"<lambda> returns a dict, no feeds")
    refused(lambda: iter([1]), r"<lambda> yields a int")


def test_a_damaged_file_is_said_to_be_one(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.save(tmp_path / "part.npy", np.ones((4, 3, 2), "float32"))
    cut = (tmp_path / "part.npy").read_bytes()[:-8]
    (tmp_path / "part.npy").write_bytes(cut)
    refused(tmp_path, r"part\.npy' is not an \.npy of a plain array", ALONE)
    np.savez(tmp_path / "set.npz", **arrays)
    whole = bytearray((tmp_path / "set.npz").read_bytes())
    whole[len(whole) // 4] ^= 0x01  # in the numbers of x: only the checksum tells
    (tmp_path / "set.npz").write_bytes(whole)
    refused(tmp_path / "set.npz", r"set\.npz' is not an \.npz of plain arrays")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"valid": None}, r"the calibration data 'arrays': no array for input 'valid'.*It takes: x, valid\."),
        ({"mask": np.ones(ROWS)}, r"has no input 'mask'\. It takes: x, valid\."),
        ({"x": np.zeros((ROWS, 4, 2), "float32")}, r"shape \(samples, 3, 2\).*\(70, 4, 2\): axis 1 must be 3, not 4"),
        ({"x": np.zeros((ROWS, 2), "float32")}, r"shape \(samples, 3, 2\), the array given has \(70, 2\)"),
        ({"x": np.zeros((ROWS, 3, 2), "uint8")}, r"'x' of the model is float32, the array given is uint8"),
        ({"valid": np.ones((ROWS, 3))}, r"'valid' of the model is bool, the array given is float64"),
        ({"valid": np.ones((9, 3), bool)}, r"numbers of samples differ: 70 of 'x', 9 of 'valid', 70 of 'labels'"),
        ({"labels": np.ones(69)}, r"numbers of samples differ: 70 of 'x', 70 of 'valid', 69 of 'labels'"),
        ({"labels": np.array(1)}, r"'labels' is a single number"),
        ({"labels": np.full(ROWS, np.nan)}, r"'labels' holds NaN in sample 0\."),
        ({"labels": np.full(ROWS, None)}, r"'labels' holds Python objects"),
    ],
)  # fmt: skip
def test_what_does_not_fit(change: dict[str, np.ndarray | None], message: str, arrays: dict[str, np.ndarray]) -> None:
    given = {name: array for name, array in {**arrays, **change}.items() if array is not None}
    refused(given, message)
    refused(lambda: iter([given]), message.replace("'arrays'", "'.*<lambda>'"))


def test_a_large_array_that_lies_column_by_column(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    given = write("columnwise", tmp_path, arrays)
    monkeypatch.setattr("mh_edge.arrayfiles.MOST_COLUMNWISE", 1000)
    refused(given, r"set\.npz' lies column by column \(Fortran order\).*numpy\.ascontiguousarray")


def test_an_empty_set(arrays: dict[str, np.ndarray]) -> None:
    empty = {name: array[:0] for name, array in arrays.items()}
    refused(empty, r"holds no sample")
    refused(lambda: iter([empty, empty]), r"holds no sample")
    refused(lambda: iter([]), r"holds no sample")


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
@pytest.mark.parametrize("form", ["npz", "folder of npz", "function"])
def test_nan_and_infinity_are_refused_with_their_place(
    value: float, name: str, form: str, tmp_path: Path, arrays: dict[str, np.ndarray]
) -> None:
    arrays["x"][57, 2, 1] = value
    refused(write(form, tmp_path, arrays), rf"the calibration data '.*': 'x' holds {name} in sample 57 at \(2, 1\)")


def test_labels_in_some_parts_alone(arrays: dict[str, np.ndarray]) -> None:
    bare = {name: array for name, array in arrays.items() if name != "labels"}
    refused(lambda: iter([arrays, bare]), r"some parts have 'labels' and others have none")


def test_numbers_without_a_dtype_are_cast_where_that_keeps_them() -> None:
    ids = Signature((Tensor("x", "float32", ("batch", 2)), Tensor("ids", "int32", ("batch", 2))), OUT)
    given = {"x": np.array([[0.1, 2.0]]), "ids": np.array([[3, -4]])}
    (batch,) = open_masked(given, ids).batches()
    assert {name: str(array.dtype) for name, array in batch.feeds.items()} == {"x": "float32", "ids": "int32"}
    assert batch.feeds["x"][0, 0] == np.float32(0.1)
    refused(given | {"ids": np.array([[3, 2**31]])}, r"'ids' holds 2147483648 in sample 0 at \(1,\), which int32", ids)
    refused(given | {"x": np.array([[1e39, 0.0]])}, r"'x' holds 1e\+39 in sample 0 at \(0,\), which float32", ids)
    refused(given | {"x": np.array([[np.inf, 0.0]])}, r"'x' holds infinity in sample 0 at \(0,\)", ids)
    refused(given | {"ids": np.ones((1, 2))}, r"'ids' of the model is int32, the array given is float64", ids)


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        ([("batch", 3), (3,)], ("batch", 3)),
        ([("batch", 3), ()], ("batch", 3)),
        ([(4, 3), (5, 3)], (4, 3)),
        ([(20, 3)], (8,)),
        ([], (8,)),
    ],
)
def test_a_model_without_a_batch(inputs: list[tuple[int | str, ...]], output: tuple[int | str, ...]) -> None:
    tensors = tuple(Tensor(f"x{number}", "float32", shape) for number, shape in enumerate(inputs))
    given = {tensor.name: np.zeros((4, 3), "float32") for tensor in tensors}
    refused(given, r"share no first axis|has no input", Signature(tensors, (Tensor("y", "float32", output),)))


def test_free_sizes_that_each_input_names_for_itself(arrays: dict[str, np.ndarray]) -> None:
    foreign = Signature((Tensor("x", "float32", ("x_dim_0", 3, 2)), Tensor("valid", "bool", ("valid_dim_0", 3))), OUT)
    assert np.array_equal(joined(open_masked(arrays, foreign))["x"], arrays["x"])
    assert [len(batch.feeds["valid"]) for batch in random_data(foreign, samples=40).batches()] == [32, 8]


def test_an_input_called_labels() -> None:
    signature = Signature((Tensor("labels", "float32", ("batch", 2)),), OUT)
    (batch,) = open_masked({"labels": np.ones((3, 2), "float32")}, signature).batches()
    assert batch.labels is None
    assert batch.feeds["labels"].shape == (3, 2)


@pytest.mark.parametrize("form", FORMS)
def test_labels_that_are_named_after_an_output(form: str, tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    arrays["labels.y"] = np.arange(ROWS)
    batches = list(open_masked(write(form, tmp_path, arrays), fixed(32)).batches())
    assert all(batch.feeds.keys() == {"x", "valid"} for batch in batches)
    assert [len(batch.named["y"]) for batch in batches] == [32, 32, 6]  # none for rows that fill
    assert np.concatenate([batch.named["y"] for batch in batches]).tolist() == list(range(ROWS))
    assert all(batch.labels is not None for batch in batches)
    arrays["labels.z"] = arrays.pop("labels.y")
    refused(arrays, r"'labels\.z' are labels of no output\. The model gives: y\.")


def test_an_input_called_like_labels_of_an_output() -> None:
    signature = Signature((Tensor("labels.y", "float32", ("batch", 2)),), OUT)
    (batch,) = open_masked({"labels.y": np.ones((3, 2), "float32")}, signature).batches()
    assert (batch.named, batch.labels) == ({}, None)


def test_random_numbers_keep_to_the_domain_and_say_what_they_are() -> None:
    signature = Signature(
        (Tensor("ids", "int32", ("batch", "sequence"), Domain(ids_below=9, mask_value=0)), MASKED.inputs[0]), OUT
    )
    data = random_data(signature, seed=3, samples=100)
    assert data.label == "RANDOM NUMBERS (seed 3), not real data"

    def read(data: Data) -> list[Batch]:
        return list(data.batches())

    first, again, other = read(data), read(data), read(random_data(signature, seed=4, samples=100))
    assert sum(batch.count for batch in first) == data.samples == 100
    for batch, same, different in zip(first, again, other, strict=True):
        ids = batch.feeds["ids"]
        assert 0 <= ids.min() <= ids.max() < 9
        assert (ids != 0).any(axis=1).all(), "no row is all padding"
        assert np.array_equal(ids, same.feeds["ids"])
        assert not np.array_equal(batch.feeds["x"], different.feeds["x"])
    assert any((batch.feeds["ids"] == 0).any() for batch in first)
    assert [len(batch.feeds["x"]) for batch in random_data(fixed(4), samples=6).batches()] == [4, 4]


GIGABYTE = 2**30
MOST_GROWTH = 100 * 2**20
"""Bytes by which reading may grow a process: a block of each array, a batch, and what the allocator keeps."""

READS = """
import sys
from pathlib import Path
from mh_edge.quantization.data.sets import open_data
from mh_edge.signature import Signature, Tensor

def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

signature = Signature((Tensor("x", "float32", ("batch", 1024)),), (Tensor("y", "float32", ("batch", 8)),))
data = open_data(sys.argv[1], signature, purpose="calibration")
before = peak()
print(sum(batch.count for batch in data.batches()), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize(("form", "size"), [("npy", 2 * GIGABYTE), ("npz", GIGABYTE // 2)])
def test_a_large_set_is_read_in_little_memory(form: str, size: int, tmp_path: Path) -> None:
    """The .npy is a hole but for its header: it takes no disk."""
    target, given = tmp_path / "x.npy", tmp_path
    np.lib.format.open_memmap(target, mode="w+", dtype="float32", shape=(size // 4096, 1024))
    if form == "npz":
        given = tmp_path / "set.npz"
        with zipfile.ZipFile(given, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write(target, "x.npy")
    done = subprocess.run([sys.executable, "-c", READS, str(given)], capture_output=True, text=True, check=True)
    read, growth = map(int, done.stdout.split())
    assert read == size // 4096
    assert growth < MOST_GROWTH

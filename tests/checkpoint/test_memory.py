"""Arrays and Torch tensors in memory: every dtype, any strides, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from breadcrumbs.checkpoint.memory import DeviceBytes, open_mapping
from breadcrumbs.checkpoint.tensors import DTYPES, NAMES
from breadcrumbs.errors import CheckpointError

TORCH_NAMES = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "BF16": "bfloat16"}


def codes(name: str) -> np.ndarray:
    """Return a (2, 3, 4) array of dtype ``name`` with different bytes everywhere."""
    dtype = DTYPES[name]
    values = np.arange(24 * dtype.itemsize, dtype=np.uint8)
    return (values % 2 == 1 if name == "BOOL" else values.view(dtype)).reshape(2, 3, 4)


def torch_of(array: np.ndarray, name: str):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, TORCH_NAMES.get(name, array.dtype.name))
    return torch.from_numpy(array.view(np.uint8)).view(dtype)


STRIDES = {
    "contiguous": lambda array: array,
    "scalar": lambda array: array[1, 2, 3],
    "transposed": lambda array: array.transpose(2, 0, 1) if isinstance(array, np.ndarray)
    else array.permute(2, 0, 1),
    "stepped": lambda array: array[:, ::2, 1:3],
    "empty": lambda array: array[:0],
}  # fmt: skip


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("name", NAMES.values())
def test_every_dtype_and_stride(name, kind, strides):
    array = codes(name)
    expected = np.asarray(STRIDES[strides](array))
    given = STRIDES[strides](array if kind == "numpy" else torch_of(array, name))
    given = np.asarray(given) if kind == "numpy" else given
    checkpoint = open_mapping({"x": given}, "m")
    found = checkpoint["x"]
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()
    assert checkpoint.tensors["x"].dtype == name and checkpoint.files == ()


@pytest.mark.parametrize("turned", [False, True])
def test_bytes_are_read_from_any_position(turned):
    torch = pytest.importorskip("torch")
    array = codes("F32")[0].T if turned else codes("F32")[0]
    whole = array.tobytes()
    tensor = torch.from_numpy(codes("F32")[0])
    source = open_mapping({"x": array}, "m").tensors["x"].source
    for bytes_ in (source, DeviceBytes(tensor.t() if turned else tensor)):
        for start in range(len(whole)):
            for stop in range(start, len(whole) + 1):
                out = bytearray(stop - start)
                bytes_.read_into(start, memoryview(out))
                assert out == whole[start:stop]


def test_nothing_is_copied_before_it_is_read():
    torch = pytest.importorskip("torch")
    array, tensor = np.zeros(3, ml_dtypes.bfloat16), torch.zeros(3, dtype=torch.bfloat16)
    checkpoint = open_mapping({"array": array, "tensor": tensor}, "m")
    array[1], tensor[1] = 5, 5
    assert checkpoint["array"].tolist() == checkpoint["tensor"].tolist() == [0, 5, 0]


def test_torch_tensors_of_a_model():
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(3, 2)
    checkpoint = open_mapping({**module.state_dict(), "p": module.weight}, "m")
    assert np.array_equal(checkpoint["weight"], module.weight.detach().numpy())
    assert np.array_equal(checkpoint["p"], checkpoint["weight"])
    conjugate = torch.tensor([1 + 2j]).conj()
    assert open_mapping({"c": conjugate}, "m")["c"].tolist() == [1 - 2j]


def test_views_that_are_not_what_their_memory_says():
    torch = pytest.importorskip("torch")
    numbers = torch.tensor([[1 + 2j, 3 - 4j], [0 - 0.5j, 7 + 1j]])
    views = {
        "negative": numbers.conj().imag,
        "negative turned": numbers.conj().imag.t(),
        "negative scalar": numbers.conj().imag[0, 1],
        "conjugate turned": numbers.conj().t(),
        "spread": torch.ones(1).expand(3, 2),
    }
    assert views["negative"].is_neg() and views["conjugate turned"].is_conj()
    checkpoint = open_mapping(views, "m")
    for name, view in views.items():
        expected = view.resolve_conj().resolve_neg().contiguous().numpy()
        assert np.array_equal(checkpoint[name], expected), name
    assert checkpoint["negative"].tolist() == [[-2, 4], [0.5, -1]]
    piece = bytearray(8)
    DeviceBytes(views["negative"]).read_into(4, memoryview(piece))
    assert np.frombuffer(piece, np.float32).tolist() == [4, 0.5]


BAD = {
    "a number": (lambda: 3.0, "'x' is a builtins.float"),
    "a list": (lambda: [1.0], "'x' is a builtins.list"),
    "a NumPy number": (lambda: np.float32(1), "'x' is a numpy.float32"),
    "a masked array": (lambda: np.ma.masked_array([1.0], [True]), "MaskedArray"),
    "big-endian": (lambda: np.zeros(2, ">f4"), r"big-endian \(>f4\)"),
    "objects": (lambda: np.array([None]), "dtype object"),
    "complex128": (lambda: np.zeros(2, complex), "dtype complex128"),
    "another float8": (lambda: np.zeros(2, ml_dtypes.float8_e4m3fnuz), "dtype float8_e4m3fnuz"),
    "text": (lambda: np.array(["a"]), "dtype <U1"),
}
BAD_TORCH = {
    "sparse": (lambda torch: torch.eye(2).to_sparse(), "torch.sparse_coo"),
    "without data": (lambda torch: torch.empty(2, device="meta"), "without data"),
    "complex128": (lambda torch: torch.zeros(2, dtype=torch.complex128), "torch.complex128"),
    "another float8": (
        lambda torch: torch.zeros(2, dtype=torch.float8_e4m3fnuz),
        "torch.float8_e4m3fnuz",
    ),
    "quantised": (
        lambda torch: torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8),
        "torch.qint8",
    ),
    "nested": (lambda torch: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "nested"),
    "jagged": (
        lambda torch: torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
        "NestedTensor",
    ),
    "compressed rows": (lambda torch: torch.eye(2).to_sparse_csr(), "torch.sparse_csr"),
    "a lazy parameter": (lambda torch: torch.nn.LazyLinear(2).weight, "UninitializedParameter"),
    "a module": (lambda torch: torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    "a size": (lambda torch: torch.Size([1]), "torch.Size"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_other_values_are_refused(case):
    make, says = BAD[case]
    with pytest.raises(CheckpointError, match=says) as error:
        open_mapping({"fine": np.zeros(1), "x": make()}, "base")
    assert str(error.value).startswith("base: 'x'")


@pytest.mark.parametrize("case", BAD_TORCH)
@pytest.mark.filterwarnings("ignore")  # what is made here is new or old in Torch
def test_other_torch_values_are_refused(case):
    torch = pytest.importorskip("torch")
    make, says = BAD_TORCH[case]
    with pytest.raises(CheckpointError, match=says):
        open_mapping({"x": make(torch)}, "base")


@pytest.mark.parametrize("name", [3, None, "__metadata__", "\ud800"])
def test_names_that_cannot_be_written_are_refused(name):
    with pytest.raises(CheckpointError, match="m: "):
        open_mapping({name: np.zeros(1)}, "m")


def test_an_empty_mapping_is_refused():
    with pytest.raises(CheckpointError, match="m: holds no tensors"):
        open_mapping({}, "m")


def test_numpy_arrays_need_neither_torch_nor_the_hub():
    code = (
        "import sys, numpy, breadcrumbs.checkpoint as c; c.open({'a': numpy.ones(2)})['a'];"
        "heavy = {'torch', 'huggingface_hub', 'safetensors', 'yaml'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wrapped_state_dict_is_called_so():
    wrapped = {"state_dict": {"w": np.ones(3)}, "epoch": 1}
    with pytest.raises(
        CheckpointError, match=r"'state_dict' is a mapping itself.*\['state_dict'\]"
    ):
        open_mapping(wrapped, "here")

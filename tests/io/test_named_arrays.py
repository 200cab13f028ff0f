"""Arrays and a text as bytes and back."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cdvae_kit.io.results.named_arrays import DecodeError, decode_arrays, encode_arrays

arrays = st.sampled_from(["bool", "int8", "uint8", "int16", "int32", "int64", "float32", "float64"]).flatmap(
    lambda name: npst.arrays(np.dtype(name), npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)


@given(st.dictionaries(st.text(max_size=5), arrays, max_size=3), st.none() | st.text(max_size=20))
def test_what_comes_back_is_what_went_in_bit_for_bit(named, text):
    back, back_text = decode_arrays(encode_arrays(named, text))
    assert back_text == text and list(back) == list(named)
    for name, array in named.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()


def test_big_endian_numbers_keep_their_values():
    back, _ = decode_arrays(encode_arrays({"a": np.array([1, 258], dtype=">i4")}))
    assert back["a"].tolist() == [1, 258]


def test_decoded_arrays_can_be_changed():
    back, _ = decode_arrays(encode_arrays({"a": np.zeros(3)}))
    back["a"][0] = 1.0
    assert back["a"].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("array", [np.array(["Si"]), np.array([object()]), np.array([1j]), np.array([b"x"])])
def test_types_that_are_no_numbers_are_refused(array):
    with pytest.raises(TypeError, match="floats, integers or booleans"):
        encode_arrays({"a": array})


@pytest.mark.parametrize("cut", range(0, 60, 3))
def test_cut_bytes_are_refused(cut):
    content = encode_arrays({"a": np.arange(3.0)}, "text")
    with pytest.raises(DecodeError):
        decode_arrays(content[: min(cut, len(content) - 1)])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"NA01",
        b"PK\x03\x04 a zip file",
        b"NA01\xff\xff\xff\xff",
        b"NA01\x02\x00\x00\x00{}",
        b"NA01\x01\x00\x00\x005",
        encode_arrays({"a": np.zeros(2)}) + b"x",
        encode_arrays({"a": np.zeros(2)}).replace(b"<f8", b"|O8"),
        encode_arrays({"a": np.zeros(2)}).replace(b"[2]", b"[9]"),
    ],
)
def test_other_bytes_are_refused(content):
    with pytest.raises(DecodeError):
        decode_arrays(content)


def test_ten_thousand_fingerprints_take_a_second_or_so():
    vectors = {"structure": np.random.default_rng(0).random(61), "composition": np.random.default_rng(1).random(132)}
    start = time.process_time()
    for _ in range(10_000):
        decode_arrays(encode_arrays(vectors))
    # 0.3 s measured
    assert time.process_time() - start < 3

"""Layers as training leaves them, and what the tests of kernels hold them to."""

from tern_hw import kernels, reference
from tern_hw.matrix import group_count
from tests.layers import layer

#: Every way to compute here but the reference's own: (instructions, packing).
WAYS = [
    (name, packing)
    for name in kernels.available()
    if name != "portable"
    for packing in (("2bit", "base3") if name == "avx512vnni" else ("2bit",))
]


def trained_layer(rng, n, k, group_size, *, spread=2.0, shift=0.1):
    """Return a matrix whose scales lie within a factor of each other, as trained ones do."""
    shape = (n, group_count(k, group_size))
    scale = 0.02 * rng.uniform(1, spread, shape)
    offset = shift * 0.02 * rng.normal(size=shape)
    return layer(rng.integers(-1, 2, (n, k)), scale, offset, group_size)[0]


def assert_same(x, matrix, repacked, output="fp32", threads=1):
    """A kernel's outputs are the reference's, bit for bit."""
    got = kernels.matmul(x, repacked, output=output, threads=threads)
    wanted = reference.matmul(x, matrix, output=output)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert got.tobytes() == wanted.tobytes()

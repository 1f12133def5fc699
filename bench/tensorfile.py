"""The safetensors format with bfloat16 as numpy holds it: its bits, in uint16."""

import json
import struct

import numpy as np


def read(path):
    """Maps a file: tensors by name, bfloat16 ones as uint16."""
    data = np.memmap(path, np.uint8, mode="r")
    (size,) = struct.unpack("<Q", data[:8].tobytes())
    header = json.loads(data[8 : 8 + size].tobytes())
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "BF16", f"{name} is {entry['dtype']}, want BF16"
        lo, hi = (8 + size + x for x in entry["data_offsets"])
        out[name] = data[lo:hi].view(np.uint16).reshape(entry["shape"])
    return out


def write(path, shapes, tensors):
    """Writes tensors of the given shapes, in their order; tensors yields (name, bits) in the same order."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for (want, shape), (name, bits) in zip(shapes.items(), tensors, strict=True):
            assert name == want and bits.shape == tuple(shape) and bits.dtype == np.uint16, (name, want, bits.shape, bits.dtype)
            np.ascontiguousarray(bits).tofile(f)


def widen(bits):
    """float32 of bfloat16 bits."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def narrow(x):
    """bfloat16 bits of finite numbers, rounded to nearest even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)

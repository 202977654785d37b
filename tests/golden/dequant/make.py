#!/usr/bin/env python3
"""Writes one small file per tensor type: random blocks and what the `gguf` package makes of them.

File: u32 type, u32 n elements, block bytes, f32[n], all little-endian.  Needs numpy and gguf.
The scales are of three kinds: usual ones, random halves (denormal, huge), and inf, NaN, 0, -0."""
import os
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

# Where the halves of a block lie.
HALVES = {
    T.F32: [], T.F16: [], T.BF16: [],
    T.F64: [], T.I8: [], T.I16: [], T.I32: [], T.I64: [],
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ1_S: [0], T.IQ1_M: [], T.IQ2_XXS: [0], T.IQ2_XS: [0], T.IQ2_S: [0], T.IQ3_XXS: [0], T.IQ3_S: [0],
    T.IQ4_NL: [0], T.IQ4_XS: [0], T.TQ1_0: [52], T.TQ2_0: [64], T.MXFP4: [],
}
NUMPY = {T.F64: "<f8", T.I8: "<i1", T.I16: "<i2", T.I32: "<i4", T.I64: "<i8"}  # converted, not quantized
DOUBLES = [0.0, -0.0, 1e-46, 1.4e-45, 1e-320, 1.0000000596046448, 3.4028235e38, 3.4028236e38, 1e39, -1e300, np.inf,
           -np.inf, np.nan, 1 / 3]
EXTREMES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00,
            0x7E00, 0x7C01, 0xFE00, 0x3C00, 0xBC00]


def usual_half(rng):
    return int(np.float16(rng.normal() * 0.02).view(np.uint16))


def blocks_of(qtype, rng):
    elems, size = GGML_QUANT_SIZES[qtype]
    count = {1: 512, 32: 48, 256: 10}[elems]
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for i, block in enumerate(data):
        for at in HALVES[qtype]:
            kind = i % 3
            half = (usual_half(rng) if kind == 0 else int(rng.integers(0, 65536)) if kind == 1
                    else int(rng.choice(EXTREMES)))
            block[at:at + 2] = np.frombuffer(struct.pack("<H", half), np.uint8)
    if qtype == T.IQ1_M:  # its scale lies in the upper nibbles of four u16
        for i, block in enumerate(data):
            half = usual_half(rng) if i % 2 == 0 else int(rng.choice(EXTREMES))
            for k in range(4):
                block[49 + 2 * k] = (int(block[49 + 2 * k]) & 15) | (half >> 4 * k & 15) << 4
    if qtype == T.MXFP4:
        data[:4, 0] = [0, 1, 2, 255]
    if qtype == T.F64:  # most random bits are out of a float's range
        usual = rng.normal(size=count) * 10.0 ** rng.integers(-46, 40, count)
        usual[:len(DOUBLES)] = DOUBLES
        data[:] = usual.astype("<f8").view(np.uint8).reshape(-1, 8)
    if qtype == T.F16:  # every extreme occurs
        data[:len(EXTREMES)] = np.array(EXTREMES, "<u2").view(np.uint8).reshape(-1, 2)
    return data.reshape(1, -1)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    for qtype in HALVES:
        data = blocks_of(qtype, np.random.default_rng(1000 + int(qtype)))
        with np.errstate(all="ignore"):
            want = data.view(NUMPY[qtype]) if qtype in NUMPY else dequantize(data, qtype)
            want = want.astype(np.float32).ravel()
        with open(os.path.join(here, qtype.name.lower() + ".bin"), "wb") as f:
            f.write(struct.pack("<II", int(qtype), want.size))
            f.write(data.tobytes())
            f.write(want.tobytes())


if __name__ == "__main__":
    main()

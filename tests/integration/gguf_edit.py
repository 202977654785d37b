"""Makes a GGUF file with other metadata out of the test model: what a test wants to say of a file, and no weights.

The tensors' bytes are a hole in the file (zeros), so a copy takes no room: good for whatever only reads metadata.
"""
import struct

from cluster import MODEL

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, U32, BOOL = 8, 9, 4, 7


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, fmt):
        return struct.unpack("<" + fmt, self.take(struct.calcsize("<" + fmt)))[0]

    def string(self):
        return self.take(self.number("Q"))

    def skip(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            inner, n = self.number("I"), self.number("Q")
            if inner in SIZES:
                self.take(SIZES[inner] * n)
            else:
                for _ in range(n):
                    self.skip(inner)
        else:
            self.take(SIZES[kind])


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def pack(value):
    """A value's type and bytes: str, bool, int (u32), or bytes that are both already."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return struct.pack("<I", STRING) + string(value)
    if isinstance(value, bool):
        return struct.pack("<IB", BOOL, value)
    return struct.pack("<II", U32, value)


def edited(path, change, drop=(), source=MODEL):
    """Writes `path`: `source` with the keys of `change` set and those of `drop` left out."""
    with open(source, "rb") as f:
        r = Reader(f.read(32 << 20))
    size = source.stat().st_size
    magic, n_tensors, n_kv = r.take(8), r.number("Q"), r.number("Q")
    rows = {}
    for _ in range(n_kv):
        key, start = r.string().decode(), r.at
        r.skip(r.number("I"))
        rows[key] = r.data[start:r.at]
    start = r.at
    for _ in range(n_tensors):
        r.string()
        r.take(8 * r.number("I") + 12)
    tensors, data = r.data[start:r.at], -(-r.at // 32) * 32
    rows.update({key: pack(value) for key, value in change.items()})
    rows = {key: value for key, value in rows.items() if key not in drop}
    head = magic + struct.pack("<QQ", n_tensors, len(rows))
    head += b"".join(string(key) + value for key, value in rows.items()) + tensors
    head += bytes(-len(head) % 32)
    with open(path, "wb") as f:
        f.write(head)
        f.truncate(len(head) + size - data)
    return path

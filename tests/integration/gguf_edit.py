"""Makes other GGUF files out of the test model: with other metadata, or cut into parts.

An edited file's tensors are a hole (zeros), so a copy takes no room: good for whatever only reads metadata.  The parts
of a split one hold all bytes.
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


def split(stem, n_parts, source=MODEL):
    """Writes the model as STEM-00001-of-0000N.gguf and so on; the parts' paths.  The first has the metadata."""
    with open(source, "rb") as f:
        data = f.read()
    r = Reader(data)
    magic, n_tensors, n_kv = r.take(8), r.number("Q"), r.number("Q")
    start = r.at
    for _ in range(n_kv):
        r.string()
        r.skip(r.number("I"))
    keys, entries = data[start:r.at], []
    for _ in range(n_tensors):
        start = r.at
        r.string()
        r.take(8 * r.number("I") + 4)
        entries.append((data[start:r.at], r.number("Q")))
    base, size = -(-r.at // 32) * 32, len(data)
    ends = sorted(offset for _, offset in entries[1:]) + [size - base]
    end_of = dict(zip(sorted(offset for _, offset in entries), ends))
    paths = []
    for no in range(n_parts):
        mine = entries[len(entries) * no // n_parts:len(entries) * (no + 1) // n_parts]
        said = {"split.no": no, "split.count": n_parts, "split.tensors.count": n_tensors}
        rows = (keys if no == 0 else b"") + b"".join(string(k) + pack(v) for k, v in said.items())
        head, body = magic + struct.pack("<QQ", len(mine), (n_kv if no == 0 else 0) + len(said)) + rows, b""
        for entry, offset in mine:
            head += entry + struct.pack("<Q", len(body))
            body += data[base + offset:base + end_of[offset]]
        paths.append(stem.parent / f"{stem.name}-{no + 1:05d}-of-{n_parts:05d}.gguf")
        paths[-1].write_bytes(head + bytes(-len(head) % 32) + body)
    return paths


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

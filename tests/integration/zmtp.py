"""A stranger on a ZeroMQ port: ZMTP 3.0 over a plain socket, and the few messages that tests send, packed by hand."""
import ctypes
import ctypes.util
import pathlib
import re
import socket
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY" + b"\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER" + b"\x08Identity" + struct.pack(">I", 0)
CODEC = pathlib.Path(__file__).resolve().parents[2] / "common" / "wire" / "codec.h"
PROTOCOL_VERSION = int(re.search(r"#define PROTOCOL_VERSION +(\d+)", CODEC.read_text()).group(1))


class Dealer:
    def __init__(self, endpoint, timeout=20):
        host, port = endpoint.split("//")[1].rsplit(":", 1)
        self.sock = socket.create_connection((host.strip("[]"), int(port)), timeout)
        self.sock.sendall(GREETING)
        left = 64
        while left:
            left -= len(self.sock.recv(left)) or left
        self.sock.sendall(b"\x04" + bytes([len(READY)]) + READY)

    def send(self, *frames):
        self.sock.sendall(b"".join(frame(f, i + 1 < len(frames)) for i, f in enumerate(frames)))

    def close(self):
        self.sock.close()


def frame(data, more):
    flag = 1 if more else 0
    if len(data) < 256:
        return bytes([flag, len(data)]) + data
    return bytes([flag | 2]) + struct.pack(">Q", len(data)) + data


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def number(field, n):
    return varint(field << 3) + varint(n)


def fixed64(field, n):
    return varint(field << 3 | 1) + struct.pack("<Q", n)


def blob(field, data):
    return varint(field << 3 | 2) + varint(len(data)) + data


LIB = ctypes.CDLL(ctypes.util.find_library("xxhash"))
LIB.XXH3_64bits_withSeed.restype = ctypes.c_uint64


def xxh3(data, seed=0):
    return LIB.XXH3_64bits_withSeed(data, ctypes.c_size_t(len(data)), ctypes.c_uint64(seed))


def session_frame(kind, session, seq=0, flags=0, body=b""):
    """A frame of a control link's session, on its first connection."""
    head = struct.pack("<3sBBBxxQIxxxxQQ", b"BTN", PROTOCOL_VERSION, kind, flags, session, 1, seq, 0)
    return head + struct.pack("<Q", xxh3(body, xxh3(head))) + body


def session_hello(session):
    return session_frame(1, session, flags=1)


def session_data(session, seq, body):
    return session_frame(3, session, seq=seq, body=body)


def register(name, incarnation):
    """A ControlMessage with a Register that lacks everything but a name."""
    return number(1, PROTOCOL_VERSION) + fixed64(2, incarnation) + blob(10, blob(1, name.encode()) + number(2, 1))


def kv_hello(incarnation, session, lane=0, n_lanes=2):
    """A KvMessage with a Hello whose checksum is right and whose geometry is missing."""
    hello = number(1, PROTOCOL_VERSION) + fixed64(2, incarnation)
    hello += number(3, lane) if lane else b""
    hello += number(4, n_lanes) + fixed64(5, session) + blob(6, b"stranger")
    body = blob(1, hello)
    return body + fixed64(15, xxh3(body) or 1)

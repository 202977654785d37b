"""The operator's commands: what they print, and how they fail."""
import contextlib
import http.server
import json
import struct
import subprocess
import threading

import pytest
from cluster import BIN, MODEL
from exact import golden


def baton(*args, stdin=b"", stdout=subprocess.PIPE):
    return subprocess.run([str(BIN / "baton"), *map(str, args)], input=stdin, stdout=stdout, stderr=subprocess.PIPE,
                          timeout=120)


def assert_failed(r, says=""):
    """Exit code 1, and the reason once."""
    text = r.stderr.decode()
    assert r.returncode == 1 and text.startswith("error: ") and text.count("\n") == 1 and says in text, (r.returncode, text)


def test_inspect():
    r = baton("inspect", MODEL)
    assert r.returncode == 0 and b"llama" in r.stdout and b"Q4_1" in r.stdout
    assert baton("inspect", "-m", MODEL).stdout == r.stdout
    assert_failed(baton("inspect", "none.gguf"), "none.gguf")
    assert_failed(baton("inspect", "-m", BIN / "baton"), "not a GGUF file")
    assert baton("inspect").returncode == 2


def table(text, title):
    """Lines below the one that starts with `title`, down to an empty one."""
    lines = text.split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(title)) + 1
    return lines[at:lines.index("", at)]


def test_a_long_name_does_not_break_a_table(tmp_path):
    def text(s):
        return struct.pack("<Q", len(s.encode())) + s.encode()

    keys = ["short", "ä" * 30, "long." * 13]
    path = tmp_path / "keys.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) +
                     b"".join(text(k) + struct.pack("<I", 8) + text("value") for k in keys))
    r = baton("inspect", "-m", path)
    assert r.returncode == 0, r.stderr
    rows = table(r.stdout.decode(), "metadata")
    assert [row.split()[0] for row in rows] == keys
    assert len({row.index("string") for row in rows}) == 1, rows

    nodes = [{"name": n, "role": "decode", "model": m, "state": "up", "running": 1, "waiting": 2} for n, m in
             (("d0", "m"), ("a-node-with-a-name-that-is-quite-a-bit-longer", "and-a-model-whose-name-is-long-too"))]
    with answering(lambda h: answer(h, 200, json.dumps({"nodes": nodes}))) as url:
        lines = baton("status", "--url", url).stdout.decode().split("\n")
    assert all(line.index("decode" if i else "ROLE") == lines[0].index("ROLE") for i, line in enumerate(lines[:3])), lines
    assert len({len(line) for line in lines[:3]}) == 1, lines


def answer(handler, status, body, length=None, kind="application/json"):
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body.encode()) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body.encode())


@contextlib.contextmanager
def answering(fn):
    """A server that is no coordinator: fn(handler) answers each request."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            fn(self)

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            fn(self)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


WORD = 'data: {"choices": [{"delta": {"content": "Hel"}}]}\n\n'
ERROR = '{"error": {"message": "no node\\nis left", "code": "x"}}'


@pytest.mark.parametrize("fn,says", [
    (lambda h: answer(h, 503, ERROR), "answers HTTP 503: no node"),
    (lambda h: answer(h, 502, "<html>\nbad gateway"), "answers HTTP 502: <html>"),
    (lambda h: answer(h, 200, WORD + "data: " + ERROR.replace("\\n", " ") + "\n\n"), "no node is left"),
    (lambda h: answer(h, 200, WORD), "the stream ended early"),
    (lambda h: answer(h, 200, WORD, length=1000), "")], ids=["refused", "proxy", "event", "early", "cut"])
def test_a_failing_server_fails_the_command(fn, says):
    with answering(fn) as url:
        assert_failed(baton("chat", "--url", url, "--prompt", "hi"), says)
        assert_failed(baton("chat", "--url", url, stdin=b"hi\nagain\n"), says)


@pytest.mark.parametrize("fn,says", [
    (lambda h: answer(h, 404, '{"error": {"message": "no such path"}}'), "answers HTTP 404: no such path"),
    (lambda h: answer(h, 200, "hello"), "is no coordinator"),
    (lambda h: answer(h, 200, '{"nodes": 3}'), "is no coordinator")], ids=["refused", "text", "other"])
def test_status_of_what_is_no_coordinator_fails(fn, says):
    with answering(fn) as url:
        assert_failed(baton("status", "--url", url), says)


def test_without_a_cluster_commands_fail():
    for args in (["chat"], ["chat", "-p", "hi"], ["status"], ["status", "--json"]):
        assert_failed(baton(*args, "--url", "http://127.0.0.1:1", stdin=b"hi\n"), "no cluster answers at")
    assert_failed(baton("chat", stdin=b"\xff\n"), "not valid UTF-8")


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["inspect", MODEL], ["inspect", MODEL, "--template"],
                                  ["tokenize", "-m", MODEL, "hello"]])
def test_what_cannot_be_written_fails(args):
    with open("/dev/full", "wb") as full:
        assert_failed(baton(*args, stdout=full), "standard output: No space left")


def test_tokenize_agrees_with_the_reference_and_comes_back():
    for p in golden(700):
        r = baton("tokenize", "-m", MODEL, "--parse-special", stdin=p["text"].encode())
        assert r.returncode == 0, r.stderr
        assert json.loads(r.stdout) == p["ids"], p["name"]
    assert json.loads(baton("tokenize", "-m", MODEL, "--", "-- Hello").stdout) == \
        json.loads(baton("tokenize", "-m", MODEL, stdin=b"-- Hello").stdout)
    assert baton("tokenize", "-m", MODEL, "--decode", "[9906, 2]").returncode == 0
    text = "Grüße 😀 日本"
    ids = baton("tokenize", "-m", MODEL, stdin=text.encode()).stdout
    assert baton("tokenize", "-m", MODEL, "--decode", stdin=ids).stdout.decode().rstrip("\n") == text


@pytest.mark.parametrize("args,stdin,word", [
    ([], b"ab\xff", b"2"), (["--decode"], b"[1, 99999999]", b"99999999"), (["--decode"], b"hello", b"JSON")])
def test_tokenize_refuses_bad_input(args, stdin, word):
    assert_failed(baton("tokenize", "-m", MODEL, *args, stdin=stdin), word.decode())
    assert_failed(baton("tokenize", "-m", "none.gguf", "text"), "none.gguf")


@pytest.mark.parametrize("args,says", [
    (["inspect", "a", "b"], "one file is needed, 2 are given"),
    (["inspect", "--tensor", "a"], "unknown option --tensor; did you mean --tensors?"),
    (["inspect", "-m", "a", "b"], "one file is needed, 2 are given"),
    (["tokenize"], "--model FILE.gguf is needed"),
    (["tokenize", "-m", "a", "two", "words"], "one text is taken, 2 are given; put it in quotes"),
    (["status", "x"], 'unexpected argument "x"'),
    (["chat", "--max-tokens", 0], '--max-tokens: "0" is not allowed; allowed: 1..1000000000'),
    (["chat", "--temperature", "hot"], '--temperature: "hot" is not allowed; allowed: 0..100')])
def test_bad_flags_are_named(args, says):
    r = baton(*args)
    assert r.returncode == 2 and says in r.stderr.decode()

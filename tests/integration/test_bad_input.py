"""Bad requests get a clear error that says what and where; no process dies, no block stays taken."""
import gzip
import json
import socket
import ssl

import pytest

CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
USER = [{"role": "user", "content": "hi"}]

CASES = [  # path, body (bytes = sent as they are), status, param, a word of the message
    (CHAT, b"{", 400, None, "JSON"),
    (CHAT, b"[]", 400, None, "object"),
    (CHAT, b"", 400, None, "empty"),
    (CHAT, b'{"prompt":1,"prompt":2}', 400, None, "twice"),
    ("/tokenize", b'"x"', 400, None, "object"),
    (CHAT, b'{"messages": [{"role":"user","content":"\xff"}]}', 400, None, "UTF-8"),
    (CHAT, b"\x00\x01\x02", 400, None, "JSON"),
    (CHAT, {}, 400, "messages", "messages"),
    (CHAT, {"messages": []}, 400, "messages", "messages"),
    (CHAT, {"messages": "hi"}, 400, "messages", "array"),
    (CHAT, {"messages": [{"role": "user"}]}, 400, "messages", "content"),
    (CHAT, {"messages": [{"content": "x"}]}, 400, "messages", "role"),
    (CHAT, {"messages": USER, "temperature": "hot"}, 400, "temperature", "number"),
    (CHAT, {"messages": USER, "temperature": -1}, 400, "temperature", "0"),
    (CHAT, {"messages": USER, "top_p": -1}, 400, "top_p", "1"),
    (CHAT, {"messages": USER, "tool_choice": "required"}, 400, "tool_choice", "none"),
    (CHAT, {"messages": USER, "mirostat": 2}, 400, "mirostat", "0"),
    (CHAT, {"messages": USER, "best_of": 2}, 400, "best_of", "'n'"),
    (CHAT, {"messages": USER, "max_tokens": 0}, 400, "max_tokens", "1"),
    (CHAT, {"messages": USER, "max_tokens": 1.5}, 400, "max_tokens", "integer"),
    (CHAT, {"messages": USER, "n": 0}, 400, "n", "1"),
    (CHAT, {"messages": USER, "priority": "high"}, 400, "priority", "integer"),
    (COMPLETE, {"prompt": "x", "priority": 1 << 31}, 400, "priority", "2147483647"),
    (CHAT, {"messages": USER, "tools": [{}]}, 400, "tools", "tools"),
    (CHAT, {"messages": USER, "response_format": {"type": "json_object"}}, 400, "response_format", "response_format"),
    (CHAT, {"messages": USER, "no_such_field": 1}, 400, "no_such_field", "no_such_field"),
    (CHAT, {"messages": USER, "logit_bias": {"x": 1}}, 400, "logit_bias", "x"),
    (CHAT, {"messages": USER, "logit_bias": {"49152": 1}}, 400, "logit_bias", "49152"),
    (CHAT, {"messages": USER, "stop": [1]}, 400, "stop", "string"),
    (CHAT, {"messages": USER, "top_logprobs": 50, "logprobs": True}, 400, "top_logprobs", "20"),
    (CHAT, {"messages": USER, "seed": 1e40}, 400, "seed", "integer"),
    (CHAT, {"messages": USER, "stream": "yes"}, 400, "stream", "true"),
    (CHAT, {"messages": USER, "model": "gpt-9"}, 404, "model", "gpt-9"),
    (COMPLETE, {}, 400, "prompt", "prompt"),
    (COMPLETE, {"prompt": ""}, 400, "prompt", "empty"),
    (COMPLETE, {"prompt": [1, 2, 49152]}, 400, "prompt", "49152"),
    (COMPLETE, {"prompt": [1, -2]}, 400, "prompt", "-2"),
    (COMPLETE, {"prompt": [1, "a"]}, 400, "prompt", "prompt"),
    (COMPLETE, {"prompt": [[]]}, 400, "prompt", "empty"),
    (COMPLETE, {"prompt": {"a": 1}}, 400, "prompt", "string"),
    (COMPLETE, {"prompt": "x", "suffix": "y"}, 400, "suffix", "suffix"),
    (COMPLETE, {"prompt": [5] * 8192}, 400, "prompt", "8192"),
    ("/tokenize", {"content": 5}, 400, "content", "string"),
    ("/detokenize", {"tokens": [99999999]}, 400, "tokens", "99999999"),
    ("/tokenize", {"content": "x", "with_pieces": True}, 400, "with_pieces", "let it be false"),
    ("/tokenize", {"content": "x", "temperature": 1}, 400, "temperature", "this endpoint"),
    ("/tokenize", {"content": "x", "tools": [1]}, 400, "tools", "this endpoint"),
    ("/detokenize", {"tokens": [1], "mystery": 0}, 400, "mystery", "this endpoint"),
]


@pytest.mark.parametrize("path,body,status,param,word", CASES, ids=range(len(CASES)))
def test_bad_request_is_refused(cluster, path, body, status, param, word):
    code, answer, headers = cluster.request("POST", path, body, raw=isinstance(body, bytes))
    error = json.loads(answer)["error"]
    assert code == status, error
    assert set(error) >= {"message", "type", "param", "code"} and error["type"]
    assert error["param"] == param and word in error["message"], error
    assert headers["Content-Type"].startswith("application/json")


def test_context_length_error_carries_numbers(cluster):
    code, answer, _ = cluster.post(COMPLETE, {"prompt": [5] * 9000})
    assert code == 400 and answer["error"]["code"] == "context_length_exceeded"
    assert answer["error"]["n_prompt_tokens"] == 9000 and answer["error"]["n_ctx"] == 8192


def test_errors_before_the_first_token_are_real_statuses_in_streams_too(cluster):
    code, answer, _ = cluster.post(COMPLETE, {"prompt": [5] * 9000, "stream": True})
    assert code == 400 and answer["error"]["type"] == "exceed_context_size_error"


def raw_answer(cluster, request):
    """Status line and headers of the answer to raw bytes."""
    s = socket.create_connection(cluster.url[7:].split(":"))
    s.settimeout(60)
    s.sendall(request)
    got = b""
    while b"\r\n\r\n" not in got:
        piece = s.recv(65536)
        if not piece:
            break
        got += piece
    s.close()
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return int(lines[0].split()[1]), dict(line.split(": ", 1) for line in lines[1:]), body


@pytest.mark.parametrize("status,request_bytes", [
    (400, b"GET / HTTP/1.1\r\n\r\n"), (400, b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n"),
    (400, b"GET /a%zz HTTP/1.1\r\nHost: x\r\n\r\n"),
    (413, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nContent-Length: 99999999999\r\n\r\n"),
    (417, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nExpect: tea\r\nContent-Length: 2\r\n\r\n"),
    (431, b"GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n" + b"X-A: 1\r\n" * 120 + b"\r\n"),
    (505, b"GET / HTTP/2.0\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n"),
    (505, b"GET / HTTP/3.0\r\nHost: x\r\n\r\n"),
    (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"),
    (404, b"GET /nothing HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n"),
    (405, b"PUT /live HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n")])
def test_every_refusal_carries_an_id_and_is_counted(cluster, status, request_bytes):
    key = f'baton_requests_total{{model="",endpoint="none",status="{status}"}}'
    before = cluster.metrics().get(key, 0)
    code, headers, body = raw_answer(cluster, request_bytes)
    assert code == status, body
    assert headers["X-Request-Id"] == "mine" if b": mine" in request_bytes else headers["X-Request-Id"]
    assert headers["x-should-retry"] == "false" and json.loads(body)["error"]["type"]
    if status != 405:
        assert cluster.metrics()[key] == before + 1


def test_a_client_of_tls_is_told_and_logged(cluster):
    log = cluster.processes["coordinator"]
    before = len(log.log())
    plain = socket.create_connection(cluster.url[7:].split(":"), timeout=30)
    with pytest.raises(ssl.SSLError, match="(?i)wrong.version.number"):
        ssl._create_unverified_context().wrap_socket(plain)
    plain.close()
    hello = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(40)
    code, headers, body = raw_answer(cluster, hello)
    assert code == 400 and headers["Connection"] == "close"
    assert "TLS is not spoken here; use http://" in json.loads(body)["error"]["message"]
    for _ in range(100):
        raw_answer(cluster, hello)
    lines = [line for line in log.log()[before:].splitlines() if "event=tls_refused" in line]
    assert lines and "client=127.0.0.1 " in lines[0] and cluster.url[7:] in lines[0] and "use http://" in lines[0]
    assert len(lines) < 60


def test_a_packed_body_is_refused_by_its_coding(cluster):
    body = gzip.compress(json.dumps({"prompt": "x"}).encode())
    code, answer, headers = cluster.request("POST", COMPLETE, body, {"Content-Encoding": "gzip"}, raw=True)
    assert code == 415 and "gzip" in json.loads(answer)["error"]["message"] and headers["Accept-Encoding"] == "identity"
    assert cluster.request("POST", COMPLETE, {"prompt": "x", "max_tokens": 1}, {"Content-Encoding": "identity"})[0] == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/models/x", "/live", "/nothing", "/"])
def test_options_work_everywhere(cluster, path):
    code, _, headers = cluster.request("OPTIONS", path, None, {"Origin": "http://o", "Access-Control-Request-Method": "POST",
                                                               "Access-Control-Request-Headers": "authorization,x-a"})
    assert code == 204 and "OPTIONS" in headers["Allow"] and headers["X-Request-Id"]
    assert headers["Access-Control-Allow-Origin"] == "http://o" and "x-a" in headers["Access-Control-Allow-Headers"]


@pytest.mark.parametrize("method,path,status", [
    ("GET", CHAT, 405), ("TRACE", CHAT, 405), ("DELETE", "/v1/models", 405), ("GET", "/nothing", 404),
    ("POST", "/v1/embeddings", 404), ("GET", "/v1/models/none", 404)])
def test_wrong_method_or_path(cluster, method, path, status):
    code, answer, headers = cluster.request(method, path, {} if method == "POST" else None)
    assert code == status or (path == "/v1/embeddings" and code == 501)
    assert json.loads(answer)["error"]["message"]
    if status == 405:
        assert "Allow" in headers


def test_only_json_is_taken(cluster):
    code, answer, _ = cluster.request("POST", CHAT, b"messages=hi", {"Content-Type": "application/x-www-form-urlencoded"},
                                      raw=True)
    assert code == 415 and "application/json" in json.loads(answer)["error"]["message"]


def test_too_large_a_body(cluster):
    s = socket.create_connection(cluster.url[7:].split(":"))
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n")
    assert b" 413 " in s.recv(4096)
    s.close()


@pytest.mark.parametrize("raw", [
    b"garbage\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /" + b"a" * 100000,
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n"])
def test_bytes_that_are_no_http(cluster, raw):
    s = socket.create_connection(cluster.url[7:].split(":"))
    s.settimeout(20)
    s.sendall(raw)
    try:
        assert s.recv(4096)[:9] == b"HTTP/1.1 "
    except ConnectionResetError:
        pass
    s.close()
    assert cluster.get("/live")[0] == 200


@pytest.mark.parametrize("where", ["control", "kv"])
@pytest.mark.parametrize("raw", [b"\x00" * 64, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 1000, b""])
def test_garbage_on_the_clusters_own_sockets(cluster, where, raw):
    if where == "control":
        endpoint = cluster.control
    else:
        endpoint = cluster.processes["d0"].ready["kv"].split(",")[0]
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    s = socket.create_connection((host, int(port)))
    s.sendall(raw)
    s.close()
    assert cluster.complete("Still here?", max_tokens=2)["usage"]["completion_tokens"] == 2

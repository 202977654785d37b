"""No work on the coordinator's loop depends on a body's size: what cannot fit is refused, the rest is done elsewhere."""
import json
import select
import signal
import socket
import time

import pytest

from cluster import SLOW, Cluster, stream

TEXT = "The quick brown fox jumps over the lazy dog. "


def raw_post(cluster, path, body):
    """A connection on which the whole request is sent, and whose answer may be read later."""
    host, port = cluster.url.removeprefix("http://").rsplit(":", 1)
    s = socket.create_connection((host, int(port)), timeout=120 * SLOW)
    data = json.dumps(body).encode()
    s.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
              % (path.encode(), len(data)) + data)
    return s


def read_answer(s):
    data = b""
    while piece := s.recv(1 << 20):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.decode(), body


def words(n_bytes):
    return (TEXT * (n_bytes // len(TEXT) + 1))[:n_bytes]


@pytest.mark.parametrize("path,field", [("/v1/completions", "prompt"), ("/v1/chat/completions", "messages")])
def test_a_text_that_cannot_fit_is_refused_unread(cluster, path, field):
    text = words(8 << 20)
    body = {field: [{"role": "user", "content": text}] if field == "messages" else text}
    status, error, _ = cluster.post(path, body)
    error = error["error"]
    assert status == 400 and error["code"] == "context_length_exceeded", error
    assert "at least" in error["message"] and error["n_prompt_tokens"] >= error["n_ctx"] == 8192, error
    assert error["param"] == field


def test_tokenize_has_a_bound_of_its_own(cluster):
    status, answer, _ = cluster.post("/tokenize", {"content": words(1 << 20)})
    assert status == 200 and answer["count"] > 100_000
    status, back, _ = cluster.post("/detokenize", {"tokens": answer["tokens"]})
    assert status == 200 and back["content"] == words(1 << 20)
    status, answer, _ = cluster.post("/tokenize", {"content": words((4 << 20) + 1)})
    assert status == 413 and str(4 << 20) in answer["error"]["message"]


def test_a_body_of_too_many_values_is_refused(cluster):
    status, answer, _ = cluster.request("POST", "/v1/completions", b'{"prompt":[' + b"[],"*2_100_000 + b"[]]}", raw=True)
    assert status == 413 and "JSON values" in json.loads(answer)["error"]["message"]


@pytest.mark.threads
def test_the_loop_answers_while_a_body_is_read(cluster):
    began = time.monotonic()
    slow = raw_post(cluster, "/tokenize", {"content": words(4 << 20)})
    longest = 0
    while not select.select([slow], [], [], 0)[0]:
        t = time.monotonic()
        assert cluster.get("/live")[0] == 200
        longest = max(longest, time.monotonic() - t)
    took = time.monotonic() - began
    assert read_answer(slow)[0] == 200
    # on the loop, one of these would have waited for nearly all of it
    assert longest < took / 2, f"/live waited {longest:.2f} s of {took:.2f} s"


def test_a_client_that_leaves_is_forgotten(cluster):
    gone = cluster.metrics()["baton_client_disconnects_total"]
    sockets = [raw_post(cluster, "/tokenize", {"content": words(4 << 20)}) for _ in range(4)]
    for s in sockets:
        s.close()
    cluster.wait_for(lambda: cluster.metrics()["baton_client_disconnects_total"] == gone + 4, "four lost clients")
    assert cluster.complete("still here?", max_tokens=2)["choices"][0]["text"]


def test_over_the_bounds_is_429(tmp_path):
    with Cluster(tmp_path, prefill=0, coordinator={"max_work_bytes": "1MiB"}) as c:
        status, answer, headers = c.request("POST", "/tokenize", {"content": words(2 << 20)})
        assert status == 429 and json.loads(answer)["error"]["code"] == "workers_full"
        assert headers["Retry-After"] and headers["X-Request-Id"] and headers["x-should-retry"] == "true"
        assert c.metrics()['baton_requests_rejected_total{reason="workers_full"}'] == 1
        assert c.post("/tokenize", {"content": "small ones have room"})[0] == 200


def test_a_drain_waits_for_bodies_and_a_second_signal_does_not(tmp_path):
    with Cluster(tmp_path, prefill=0) as c:
        slow = raw_post(c, "/tokenize", {"content": words(4 << 20)})
        coordinator = c.processes["coordinator"]
        c.wait_for(lambda: c.metrics()["baton_bodies_in_work"] == 1, "the body to be taken")
        coordinator.popen.send_signal(signal.SIGTERM)
        assert read_answer(slow)[0] == 200
        assert coordinator.popen.wait(30 * SLOW) == 0
    with Cluster(tmp_path, prefill=0) as c:
        slow = [raw_post(c, "/tokenize", {"content": words(4 << 20)}) for _ in range(4)]
        coordinator = c.processes["coordinator"]
        coordinator.popen.send_signal(signal.SIGTERM)
        c.wait_for(lambda: "event=draining" in coordinator.log(), "the drain")
        coordinator.popen.send_signal(signal.SIGTERM)
        assert coordinator.popen.wait(30 * SLOW) == 0
        for s in slow:
            s.close()


def test_large_answers_are_the_same_as_small_ones(cluster):
    """Echo with logprobs makes an answer of some 280 KB, which a worker writes; streamed, tokens come in between."""
    body = {"model": "smollm2", "prompt": words(3000), "echo": True, "logprobs": 20, "max_tokens": 4, "temperature": 0}
    status, whole, _ = cluster.post("/v1/completions", body)
    assert status == 200 and len(json.dumps(whole)) > 200_000
    choice = whole["choices"][0]
    text, tokens, offsets, finish = "", [], [], None
    for event in stream(cluster, "/v1/completions", body):
        if event == "[DONE]":
            break
        part = json.loads(event)["choices"][0]
        text += part["text"]
        finish = part["finish_reason"] or finish
        if part["logprobs"]:
            tokens += part["logprobs"]["tokens"]
            offsets += part["logprobs"]["text_offset"]
    assert text == choice["text"] and finish == choice["finish_reason"]
    assert tokens == choice["logprobs"]["tokens"] and offsets == choice["logprobs"]["text_offset"]

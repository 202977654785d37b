"""A client that goes away frees its blocks on both nodes, in every state."""
import json
import socket
import time

import pytest


def send(cluster, body):
    data = json.dumps(body).encode()
    host, port = cluster.url[7:].split(":")
    s = socket.create_connection((host, int(port)))
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
              % len(data) + data)
    return s


def counter(cluster, name):
    return sum(v for k, v in cluster.metrics().items() if k.startswith(name))


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_gone_in_prefill_or_decode(cluster, delay):
    before = counter(cluster, "baton_client_disconnects_total")
    s = send(cluster, {"prompt": [7] * 1500, "max_tokens": 2000, "ignore_eos": True, "stream": True})
    time.sleep(delay)  # the state in which the client leaves is what varies
    s.close()
    cluster.wait_for(lambda: counter(cluster, "baton_client_disconnects_total") == before + 1, "the disconnect", 20)
    cluster.wait_idle()


@pytest.mark.smoke
def test_gone_while_streaming(cluster):
    s = send(cluster, {"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True})
    got = b""
    while got.count(b"data: ") < 3:
        got += s.recv(4096)
    s.close()
    cluster.wait_idle()


def test_many_leave_at_once(cluster):
    socks = [send(cluster, {"prompt": [i + 3] * 300, "max_tokens": 500, "ignore_eos": True}) for i in range(24)]
    for s in socks:
        s.close()
    cluster.wait_idle(60)
    assert cluster.complete("Still here?", max_tokens=2)["usage"]["completion_tokens"] == 2

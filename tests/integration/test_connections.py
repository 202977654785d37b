"""Connections: probes are never shut out, 2,000 streams work by default, several addresses serve the same."""
import http.client
import json
import os
import resource
import select
import signal
import socket
import subprocess
import time

import pytest

from cluster import BIN, MODEL, SLOW, Cluster


def address(cluster):
    host, port = cluster.url.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16384), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_two_thousand_idle_streams_and_probes(tmp_path, many_files):
    """More than the nodes can run: most wait in the queue, all are held open."""
    with Cluster(tmp_path, prefill=0, node={"max_seqs": 4, "kv_memory": "64MiB"}) as c:
        body = json.dumps({"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True}).encode()
        request = (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                   b"Content-Length: %d\r\n\r\n" % len(body) + body)
        streams = []
        for _ in range(2000):
            s = socket.create_connection(address(c), timeout=60 * SLOW)
            s.sendall(request)
            streams.append(s)
        poll = select.poll()
        waiting = {s.fileno(): s for s in streams}
        for s in streams:
            poll.register(s, select.POLLIN)
        while waiting:  # headers come after 10 s at the latest, also to those that wait for room
            ready = poll.poll(60_000 * SLOW)
            assert ready, f"{len(waiting)} streams have no headers"
            for fd, _ in ready:
                poll.unregister(fd)
                assert waiting.pop(fd).recv(15) == b"HTTP/1.1 200 OK"
        assert c.get("/live")[0] == c.get("/ready")[0] == 200
        waits = sum(n for name, n in c.metrics().items() if name.startswith("baton_num_requests_waiting"))
        assert waits > 1500, waits
        for s in streams:
            s.close()
        c.wait_for(lambda: c.metrics()["baton_client_disconnects_total"] == 2000, "2,000 lost clients")
        c.wait_idle()


def test_half_sent_requests_do_not_shut_probes_out(tmp_path, many_files):
    with Cluster(tmp_path, prefill=0, coordinator={"max_connections": 64}) as c:
        held = [socket.create_connection(address(c), timeout=30 * SLOW) for _ in range(1100)]
        for s in held:
            try:
                s.sendall(b"POST /v1/completions HTTP/1.1\r\nHo")
            except OSError:
                pass  # closed to make room
        for path in ("/live", "/ready", "/health", "/metrics"):
            assert c.request("GET", path)[0] == 200
        status, answer, headers = c.request("GET", "/v1/models")
        assert status == 503 and headers["X-Request-Id"] and headers["Retry-After"], answer
        # unfinished heads do not keep their places while connections are short
        c.wait_for(lambda: c.request("GET", "/v1/models")[0] == 200, "the half-sent requests' end", 25)
        for s in held:
            s.close()


def test_more_connections_than_one_client_may_have_are_told_to_retry(tmp_path):
    with Cluster(tmp_path, prefill=0, coordinator={"max_connections_per_address": 1}) as c:
        same = {"X-Forwarded-For": "203.0.113.7"}
        held = http.client.HTTPConnection(*address(c), timeout=30 * SLOW)
        body = json.dumps({"prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "stream": True})
        held.request("POST", "/v1/completions", body, {"Content-Type": "application/json", **same})
        assert held.getresponse().status == 200
        status, answer, headers = c.request("GET", "/v1/models", headers=same)
        assert status == 429 and headers["x-should-retry"] == "true" and headers["Retry-After"], answer
        held.close()
        c.wait_for(lambda: c.request("GET", "/v1/models", headers=same)[0] == 200, "room again")


def get_unix(path, target):
    conn = http.client.HTTPConnection("localhost", timeout=30 * SLOW)
    conn.sock = socket.socket(socket.AF_UNIX)
    conn.sock.connect(str(path))
    conn.request("GET", target, headers={"X-Request-Id": "mine"})
    answer = conn.getresponse()
    return answer.status, json.loads(answer.read()), answer.headers


def test_several_addresses_and_one_for_probes(tmp_path):
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    addresses = ["127.0.0.1:0", "[::1]:0", f"unix:{path}"]
    with Cluster(tmp_path, prefill=0, coordinator={"http": addresses, "admin": "127.0.0.1:0"}) as c:
        *serving, admin = c.processes["coordinator"].ready["all"].split(",")
        assert serving[0] == c.url.removeprefix("http://") and serving[1].startswith("[::1]:")
        for base in serving[:2]:
            c.url = "http://" + base
            assert c.complete("Hello", max_tokens=3)["choices"][0]["text"]
        status, models, headers = get_unix(path, "/v1/models")
        assert status == 200 and models["data"][0]["id"] == "smollm2" and headers["X-Request-Id"] == "mine"
        assert os.stat(path).st_mode & 0o777 == 0o660
        c.url = "http://" + admin
        assert c.request("GET", "/live")[0] == c.request("GET", "/metrics")[0] == 200
        assert c.request("GET", "/v1/models")[0] == 404
        assert c.request("POST", "/v1/completions", {"prompt": "x"})[0] == 404
        c.url = "http://" + serving[0]
    assert not path.exists()


def start(*args, limits=None):
    command = [str(BIN / "baton-coordinator"), "--model", str(MODEL), "--control", "tcp://127.0.0.1:0", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * SLOW,
                          preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)) if limits else None)


def test_a_failing_bind_names_key_and_address(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        used = "127.0.0.1:%d" % taken.getsockname()[1]
        p = start("--http", "127.0.0.1:0", "--http", used)
        assert p.returncode == 1 and f"coordinator.http: cannot listen on {used}: address already in use" in p.stderr
        p = start("--http", "127.0.0.1:0", "--admin", used)
        assert p.returncode == 1 and f"coordinator.admin: cannot listen on {used}" in p.stderr
    p = start("--http", "127.0.0.1:0", "--trusted-proxies", "proxy.local")
    assert p.returncode == 1 and "coordinator.trusted_proxies: " in p.stderr and "is no address" in p.stderr


def test_too_few_descriptors_are_said_with_both_numbers(tmp_path):
    p = start("--http", "127.0.0.1:0", limits=(330, 330))
    assert p.returncode == 1 and "coordinator.max_connections: 8192 need 8512 descriptors, and this process may have 330" in p.stderr


def test_without_descriptors_nothing_spins(tmp_path):
    """The limit falls under a running coordinator: it serves what it has, and again more once there is room."""
    with Cluster(tmp_path, prefill=0) as c:
        p = c.processes["coordinator"].popen
        clock = os.sysconf("SC_CLK_TCK")
        kept = http.client.HTTPConnection(*address(c), timeout=30 * SLOW)
        kept.request("GET", "/live")
        assert kept.getresponse().read()
        open_now = len(os.listdir(f"/proc/{p.pid}/fd"))
        resource.prlimit(p.pid, resource.RLIMIT_NOFILE, (open_now + 8, resource.prlimit(p.pid, resource.RLIMIT_NOFILE)[1]))
        crowd = [socket.create_connection(address(c), timeout=30 * SLOW) for _ in range(60)]

        def cpu():
            with open(f"/proc/{p.pid}/stat") as f:
                words = f.read().rsplit(")", 1)[1].split()
            return (int(words[11]) + int(words[12])) / clock

        before, began = cpu(), time.monotonic()
        for _ in range(20):
            kept.request("GET", "/live")
            assert kept.getresponse().read() == b'{"status":"ok"}'
            time.sleep(0.1)
        assert cpu() - before < (time.monotonic() - began) / 2, "a loop that spins would use all of a core"
        for s in crowd:
            s.close()
        c.wait_for(lambda: c.get("/live")[0] == 200, "room")
        p.send_signal(signal.SIGTERM)
        assert p.wait(30 * SLOW) == 0

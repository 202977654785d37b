"""Two coordinators for the same nodes, behind HAProxy."""
import json
import shutil
import subprocess
import threading

import pytest
from cluster import Cluster, stream
from tcp_proxy import free_ports

BODY = {"prompt": "A story about a lighthouse:", "temperature": 0, "ignore_eos": True}
HAPROXY = """
global
    maxconn 200
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    option redispatch
    retries 3
frontend api
    bind 127.0.0.1:{port}
    default_backend coordinators
backend coordinators
    balance roundrobin
    option httpchk GET /ready
    default-server check inter 200ms fall 1 rise 1
    server a {a}
    server b {b}
"""


class Pair(Cluster):
    """`coordinator` and `coordinator_b` with nodes that know both; `url` is the load balancer's."""

    def start(self):
        both = [self._spawn(name, "baton-coordinator", []).wait_ready() for name in ("coordinator", "coordinator_b")]
        self.urls = ["http://" + c.ready["http"] for c in both]
        known = [word for c in both for word in ("--coordinator", c.ready["control"])]
        nodes = [self._spawn(n["name"], f"baton-{role}", ["--name", n["name"], *known])
                 for role in ("prefill", "decode") for n in self.cfg[role]]
        for n in nodes:
            n.wait_ready()
        port = free_ports(1)
        conf = self.tmp / "haproxy.cfg"
        conf.write_text(HAPROXY.format(port=port, a=both[0].ready["http"], b=both[1].ready["http"]))
        self.balancer = subprocess.Popen([HAPROXY_BIN, "-f", conf, "-db"], stderr=open(self.tmp / "haproxy.log", "w"))
        for self.url in [*self.urls, f"http://127.0.0.1:{port}"]:
            self.wait_for(lambda: self.get("/ready")[0] == 200, f"{self.url} to be ready")
        return self

    def __exit__(self, *how):
        self.balancer.kill()
        self.balancer.wait()
        super().__exit__(*how)

    def metric(self, i, name):
        return self.metrics(self.urls[i] + "/metrics")[name]


HAPROXY_BIN = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/sbin")


@pytest.fixture
def haproxy():
    assert HAPROXY_BIN, "haproxy is missing: deploy/install-deps.sh --tests installs it"


def read(c, body, out):
    """Appends (text, whole): whole if the stream came to its end."""
    text, whole = "", False
    try:
        for data in stream(c, "/v1/completions", body):
            whole = data == "[DONE]"
            if not whole:
                text += json.loads(data)["choices"][0]["text"]
                out["begun"] += 1
    except (OSError, ValueError, KeyError):
        pass  # its coordinator is gone
    out["ends"].append((text, whole))


def test_one_coordinators_death_is_not_noticed_at_the_other(tmp_path, haproxy):
    with Pair(tmp_path) as c:
        body = {**BODY, "max_tokens": 120}
        want = c.complete(**body)["choices"][0]["text"]
        out = {"begun": 0, "ends": []}
        threads = [threading.Thread(target=read, args=(c, body, out)) for _ in range(6)]
        for t in threads:
            t.start()
        c.wait_for(lambda: all(c.metric(i, "baton_num_requests_running") == 3 for i in (0, 1)) and out["begun"] >= 30,
                   "streams at both coordinators", shown=lambda: [c.metric(i, "baton_num_requests_running") for i in (0, 1)])
        c.processes["coordinator"].popen.kill()
        for t in threads:
            t.join()
        whole = [text for text, is_whole in out["ends"] if is_whole]
        assert whole == [want] * 3 and all(want.startswith(text) for text, _ in out["ends"])
        log = c.processes["coordinator_b"].log()
        assert "request_migrates" not in log and "node_dead" not in log
        # the balancer finds the other one for all that comes later
        assert [c.complete(**body)["choices"][0]["text"] for _ in range(2)] == [want] * 2
        c.wait_idle(timeout=60)


def test_two_coordinators_fill_one_node(tmp_path, haproxy):
    with Pair(tmp_path, decode_node={"max_seqs": 3}) as c:
        body = {**BODY, "max_tokens": 40}
        want = c.complete(**body)["choices"][0]["text"]
        got = []
        threads = [threading.Thread(target=lambda: got.append(c.complete(**body))) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert [g["choices"][0]["text"] for g in got] == [want] * 16
        assert all(c.metric(i, "baton_e2e_request_latency_seconds_count") >= 8 for i in (0, 1))
        logs = [c.processes[name].log() for name in ("coordinator", "coordinator_b")]
        assert not any("request_given_up" in log or "request_migrates" in log for log in logs)
        # each took all places for its own: what is too much waits at its coordinator, not in the node
        assert any("3 of 3 sequences are here" in log for log in logs)
        c.wait_idle()

"""Start, drain, status, serve, up: what an operator does."""
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.request

import pytest
from cluster import BIN, MODEL, ROOT, SANITIZED, SLOW, Cluster, stream


def run(*args, **kw):
    return subprocess.run([str(BIN / args[0]), *map(str, args[1:])], capture_output=True, text=True, timeout=60 * SLOW, **kw)


class Launched:
    """`baton serve` or `baton up`: a parent with its children."""

    def __init__(self, *args):
        self.started = time.monotonic()
        self.popen = subprocess.Popen([str(BIN / "baton"), *map(str, args)], stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True)
        self.url = None
        for line in self.popen.stdout:
            if line.startswith("ready "):
                self.url = line.split()[1]
                break
        self.start_seconds = time.monotonic() - self.started
        assert self.url, self.popen.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.popen.poll() is None:
            self.popen.kill()  # the children follow
            self.popen.wait()

    def children(self):
        out = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(self.popen.pid)], capture_output=True, text=True)
        return {int(line.split()[0]): line.split()[1] for line in out.stdout.splitlines()}

    def stop(self):
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(40 * SLOW)


def get(url):
    with urllib.request.urlopen(url, timeout=30) as r:
        return r.status, r.read()


def compute_threads(pid):
    """The engine's thread and its team's."""
    names = [pathlib.Path(f"/proc/{pid}/task/{t}/comm").read_text().strip() for t in os.listdir(f"/proc/{pid}/task")]
    return names.count("engine") + names.count("team")


def test_serve_starts_and_all_are_gone_on_sigterm():
    with Launched("serve", "-m", MODEL, "--port", 0, "--threads", 3) as s:
        children = s.children()
        assert sorted(children.values()) == ["baton-coordinat", "baton-decode", "baton-prefill"]
        threads = {name: compute_threads(pid) for pid, name in children.items()}
        assert threads == {"baton-coordinat": 0, "baton-decode": 1, "baton-prefill": 2}  # three of the host in all
        assert get(s.url + "/ready")[0] == 200
        out = run("baton", "chat", "--url", s.url, "--prompt", "What is the capital of Germany?", "--temperature", 0, "--stats")
        assert out.returncode == 0 and "Berlin" in out.stdout and "KV shipped" in out.stdout
        status = run("baton", "status", "--url", s.url)
        assert status.returncode == 0 and re.search(r"p0 +prefill", status.stdout) and re.search(r"d0 +decode", status.stdout)
        assert s.stop() == 0
        assert not any(os.path.exists(f"/proc/{pid}") for pid in children)


def test_up_with_several_nodes(tmp_path):
    c = Cluster(tmp_path, prefill=2, decode=2)
    with Launched("up", c.yaml) as s:
        nodes = json.loads(get(s.url + "/admin/nodes")[1])["nodes"]
        assert sorted(n["name"] for n in nodes) == ["d0", "d1", "p0", "p1"]
        assert s.stop() == 0


def allowed_of_threads(pid):
    """{thread's name: processors it may run on}, the widest of each name."""
    out = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as f:
            name = f.read().strip()
        out[name] = max(out.get(name, set()), os.sched_getaffinity(int(task)), key=len)
    return out


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor cannot be shared out")
def test_nodes_started_together_have_processors_of_their_own(tmp_path):
    cpus = sorted(os.sched_getaffinity(0))
    c = Cluster(tmp_path, node={"threads": 1}, decode_node={"cpus": ",".join(map(str, cpus[1:]))})
    with Launched("up", c.yaml) as s:
        pids = {name: pid for pid, name in s.children().items()}
        decode = allowed_of_threads(pids["baton-decode"])
        assert decode["engine"] == {cpus[1]} and decode["baton-decode"] == set(cpus[1:])  # pinned, and within all it owns
        assert set().union(*allowed_of_threads(pids["baton-prefill"]).values()) == {cpus[0]}
        assert s.stop() == 0


def test_parent_killed_takes_the_children_along(tmp_path):
    with Launched("serve", "-m", MODEL, "--port", 0) as s:
        children = s.children()
        s.popen.kill()
        s.popen.wait()
        deadline = time.monotonic() + 40 * SLOW
        while any(os.path.exists(f"/proc/{pid}") for pid in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(os.path.exists(f"/proc/{pid}") for pid in children)


@pytest.mark.skipif(SANITIZED, reason="sanitizers change memory and speed")
def test_small_and_quick():
    with Launched("serve", "-m", MODEL, "--port", 0, "--kv-memory", "256MiB") as s:
        run("baton", "chat", "--url", s.url, "--prompt", "Hello", "--max-tokens", 8)
        rss, pss = {}, {}
        for pid, name in s.children().items():
            text = open(f"/proc/{pid}/smaps_rollup").read()
            rss[name] = int(re.search(r"Rss: +(\d+)", text)[1]) / 1024
            pss[name] = int(re.search(r"Pss: +(\d+)", text)[1]) / 1024
        assert s.stop() == 0
        weights = MODEL.stat().st_size / 2**20
        print("start", s.start_seconds, "rss", rss, "pss", pss)
        assert rss["baton-coordinat"] < 100
        assert all(rss[n] < weights * 1.25 + 256 + 100 for n in ("baton-prefill", "baton-decode"))
        assert sum(pss.values()) < weights * 1.25 + 2 * 256 + 2 * 100 + 100  # the weights once


def test_drain_finishes_streams_then_exits_0(tmp_path):
    with Cluster(tmp_path) as c:
        events = []
        t = threading.Thread(target=lambda: events.extend(stream(c, "/v1/completions", {
            "prompt": "Once upon a time", "max_tokens": 150, "ignore_eos": True, "temperature": 0})))
        t.start()
        c.wait_for(lambda: c.busy_blocks(), "the request to run")
        c.processes["coordinator"].popen.send_signal(signal.SIGTERM)
        c.wait_for(lambda: c.get("/ready")[0] in (503, 0), "draining")
        t.join(120 * SLOW)
        assert events and events[-1] == "[DONE]"
        assert c.processes["coordinator"].popen.wait(60 * SLOW) == 0


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["p0", "d0"])
def test_a_nodes_health_and_drain(tmp_path, name):
    with Cluster(tmp_path) as c:
        admin = "http://" + c.processes[name].ready["admin"]
        assert get(admin + "/live")[0] == 200 and get(admin + "/ready")[0] == 200
        assert c.processes[name].stop() == 0
        c.wait_for(lambda: all(n["name"] != name or n["state"] != "up" for n in
                               json.loads(c.get("/admin/nodes")[1])["nodes"]), "the node to be gone")


def test_decode_node_alone_serves(tmp_path):
    with Cluster(tmp_path, prefill=0) as c:
        assert "Paris" in c.complete("The capital of France is", max_tokens=4)["choices"][0]["text"]


def test_several_nodes_share_the_work(tmp_path):
    with Cluster(tmp_path, prefill=2, decode=2) as c:
        want = c.complete("The capital of France is", max_tokens=8)["choices"][0]["text"]
        got = []
        threads = [threading.Thread(target=lambda: got.append(c.complete("The capital of France is", max_tokens=8)))
                   for _ in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert all(g["choices"][0]["text"] == want for g in got) and len(got) == 12
        assert len({g["timings"]["decode_node"] for g in got}) == 2
        c.wait_idle()


@pytest.mark.parametrize("victim", ["p0", "d0"])
def test_a_killed_node_loses_no_request(tmp_path, victim):
    with Cluster(tmp_path, prefill=2, decode=2) as c:
        body = {"prompt": "A story about a lighthouse: " * 20, "max_tokens": 200, "temperature": 0, "ignore_eos": True}
        want = c.complete(**body)["choices"][0]["text"]
        got = []
        threads = [threading.Thread(target=lambda: got.append(c.complete(**body))) for _ in range(6)]
        for t in threads:
            t.start()
        c.wait_for(lambda: c.busy_blocks(), "the requests to run")
        c.processes[victim].popen.kill()
        for t in threads:
            t.join()
        assert [g["choices"][0]["text"] for g in got] == [want] * 6
        c.wait_idle()


def test_full_queue_answers_429_with_retry_after(tmp_path):
    with Cluster(tmp_path, coordinator={"max_queue": 2}, decode_node={"max_seqs": 1}) as c:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(c.request("POST", "/v1/completions", {
            "prompt": "Once", "max_tokens": 100, "ignore_eos": True}))) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        codes = sorted(a[0] for a in answers)
        assert codes[0] == 200 and codes[-1] == 429
        refused = next(a for a in answers if a[0] == 429)
        assert int(refused[2]["Retry-After"]) >= 1 and json.loads(refused[1])["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("text,words", [
    ("coordinator: { http: 1 2 3", ["bad.yaml"]),
    ("coordinatr: {}\n", ["bad.yaml:1", "coordinatr", "coordinator"]),
    ("models: [ { name: m, path: x.gguf } ]\ndecode:\n  - { name: d0, max_seq: 3 }\n", ["bad.yaml:3", "max_seq", "max_seqs"]),
    ("kv: { lanes: 99 }\n", ["bad.yaml:1", "lanes", "16"]),
    ("models: [ { name: m, path: x.gguf } ]\ncoordinator: { http: 0.0.0.0:80 }\n", ["0.0.0.0", "insecure"]),
    ("security: { curve: on }\n", ["curve"]),
])
def test_wrong_configuration_is_refused_with_its_place(tmp_path, text, words):
    (tmp_path / "bad.yaml").write_text(text)
    r = subprocess.run([str(BIN / "baton-coordinator"), "--config", "bad.yaml", "--check-config"], cwd=tmp_path,
                       capture_output=True, text=True, timeout=30)
    assert r.returncode == 2 and all(w in r.stderr for w in words), r.stderr


def test_the_sample_configuration_is_fine():
    for binary, extra in (("baton-coordinator", []), ("baton-prefill", ["--name", "p0"]), ("baton-decode", ["--name", "d0"])):
        r = run(binary, "--config", ROOT / "deploy/config/local.yaml", "--check-config", *extra, cwd=ROOT)
        assert r.returncode == 0, r.stderr


@pytest.mark.parametrize("binary", ["baton-coordinator", "baton-prefill", "baton-decode", "baton"])
def test_help_and_usage(binary):
    assert run(binary, "--help").returncode == 0
    assert run(binary, "--no-such-flag").returncode == 2


def test_a_missing_or_broken_model_is_refused(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(MODEL.read_bytes()[:5_000_000])
    for path, word in ((tmp_path / "none.gguf", "none.gguf"), (broken, "broken.gguf"), (ROOT / "README.md", "GGUF")):
        for binary in ("baton-coordinator", "baton-prefill", "baton-decode"):
            extra = [] if binary == "baton-coordinator" else ["--coordinator", "tcp://127.0.0.1:1", "--name", "x"]
            r = run(binary, "--model", path, *extra)
            assert r.returncode in (1, 2) and word in r.stderr, (binary, path, r.stderr)


def test_another_model_is_refused_at_the_join(tmp_path):
    other = tmp_path / "other.gguf"
    data = bytearray(MODEL.read_bytes())
    data[-1000] ^= 0xFF  # another tensor sample gives another fingerprint
    at = data.find(b"llama.rope.freq_base")
    data[at + len(b"llama.rope.freq_base") + 4 + 2] ^= 0x40
    other.write_bytes(data)
    with Cluster(tmp_path) as c:
        cfg = {**c.cfg, "models": [{"name": "smollm2", "path": str(other)}]}
        alien = tmp_path / "alien.yaml"
        alien.write_text(json.dumps(cfg))
        p = subprocess.Popen([str(BIN / "baton-decode"), "--config", str(alien), "--name", "d0", "--coordinator", c.control],
                             stderr=subprocess.PIPE, text=True)
        lines = []
        threading.Thread(target=lambda: lines.extend(p.stderr), daemon=True).start()
        c.wait_for(lambda: any("fingerprint" in line for line in lines), "the refusal", 30, lambda: lines)
        p.kill()
        assert c.complete("Hello", max_tokens=2)["usage"]["completion_tokens"] == 2

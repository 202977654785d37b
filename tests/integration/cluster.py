"""A cluster of real processes on loopback with free ports, for tests."""
import json
import os
import pathlib
import re
import select
import signal
import subprocess
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / os.environ.get("BATON_BUILD", "build") / "bin"
MODEL = ROOT / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
SANITIZED = "san" in os.environ.get("BATON_BUILD", "")
SLOW = 10 if SANITIZED else 1  # sanitizers stretch every wait


class Process:
    """One child with a ready line and its log in a file."""

    def __init__(self, name, binary, args, log_dir, env=None):
        self.name = name
        self.log_path = pathlib.Path(log_dir) / f"{name}.log"
        read_fd, write_fd = os.pipe()
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                [str(BIN / binary), *map(str, args), "--ready-fd", str(write_fd)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=[write_fd],
                env={**os.environ, **(env or {})})
        os.close(write_fd)
        self.ready_fd = read_fd
        self.ready = {}

    def wait_ready(self, timeout=60):
        deadline, line = time.monotonic() + timeout * SLOW, b""
        ready = select.poll()  # select() takes no descriptor past 1023
        ready.register(self.ready_fd, select.POLLIN)
        while b"\n" not in line:
            left = deadline - time.monotonic()
            if left <= 0 or not ready.poll(left * 1000):
                raise AssertionError(f"{self.name} was not ready in time\n{self.log()[-3000:]}")
            piece = os.read(self.ready_fd, 4096)
            if not piece:
                raise AssertionError(f"{self.name} ended before it was ready\n{self.log()[-3000:]}")
            line += piece
        if line.startswith(b"failed "):
            raise AssertionError(f"{self.name} did not start: {line.decode()}{self.log()[-3000:]}")
        self.ready = dict(word.split("=", 1) for word in line.decode().split() if "=" in word)
        return self

    def log(self):
        return self.log_path.read_text(errors="replace")

    def alive(self):
        return self.popen.poll() is None

    def stop(self, sig=signal.SIGTERM, timeout=30):
        if self.alive():
            self.popen.send_signal(sig)
        try:
            rc = self.popen.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise AssertionError(f"{self.name} did not stop\n{self.log()[-3000:]}")
        finally:
            if self.ready_fd >= 0:
                os.close(self.ready_fd)
                self.ready_fd = -1
        return rc


class Cluster:
    """coordinator + nodes. Sections go into the YAML as they are; `dial` has endpoints of the control plane by
    node, for those that dial another one than the coordinator says it has."""

    def __init__(self, tmp, prefill=1, decode=1, model=MODEL, kv=None, coordinator=None, node=None, prefill_node=None,
                 decode_node=None, models=None, security=None, dial=None):
        self.tmp = pathlib.Path(tmp)
        self.processes = {}
        node = {"threads": 1, "max_seqs": 32, "kv_memory": "256MiB", **(node or {})}
        cfg = {
            "models": models or [{"name": "smollm2", "path": str(model)}],
            "coordinator": {"http": "127.0.0.1:0", "control": "tcp://127.0.0.1:0",
                            "progress_timeout": "120s" if SANITIZED else "10s", **(coordinator or {})},
            "kv": {"codec": "int8", "lanes": 2, **(kv or {})},
            "prefill": [{"name": f"p{i}", **node, **(prefill_node or {})} for i in range(prefill)],
            "decode": [{"name": f"d{i}", **node, "kv": "tcp://127.0.0.1:0", **(decode_node or {})} for i in range(decode)],
        }
        if security:
            cfg["security"] = security
        self.cfg, self.dial = cfg, dial or {}
        self.yaml = self.tmp / "cluster.yaml"
        self.yaml.write_text(json.dumps(cfg, indent=1))  # JSON is YAML
        self.url = None

    def start(self):
        c = self._spawn("coordinator", "baton-coordinator", []).wait_ready()
        self.url, self.control = "http://" + c.ready["http"], c.ready["control"]
        names = [(n["name"], "baton-prefill") for n in self.cfg["prefill"]]
        names += [(n["name"], "baton-decode") for n in self.cfg["decode"]]
        for name, binary in names:
            self.start_node(name, binary, wait=False)
        for name, _ in names:
            self.processes[name].wait_ready()
        self.wait_for(lambda: self.get("/ready")[0] == 200, "ready")
        return self

    def start_node(self, name, binary, wait=True):
        p = self._spawn(name, binary, ["--name", name, "--coordinator", self.dial.get(name, self.control)])
        return p.wait_ready() if wait else p

    def _spawn(self, name, binary, args):
        self.processes[name] = Process(name, binary, ["--config", self.yaml, *args], self.tmp)
        return self.processes[name]

    def stop(self):
        """Stops everything; every process that still runs must end with 0."""
        codes = {name: p.stop() for name, p in self.processes.items() if p.ready_fd >= 0 or p.alive()}
        for name, p in self.processes.items():
            log = p.log()
            assert not re.search(r"(ERROR|WARNING): \w+Sanitizer|runtime error:", log), f"{name}: {log[-5000:]}"
        return codes

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.kill_all()
            raise

    def __exit__(self, kind, value, trace):
        if kind:
            for name, p in self.processes.items():
                print(f"--- {name} (alive: {p.alive()})\n{p.log()[-2500:]}")
            self.kill_all()
            return
        codes = self.stop()
        assert all(rc in (0, -signal.SIGKILL) for rc in codes.values()), codes

    def kill_all(self):
        for p in self.processes.values():
            if p.alive():
                p.popen.kill()
                p.popen.wait()

    # --- HTTP

    def request(self, method, path, body=None, headers=None, timeout=120, raw=False):
        data = body if raw or body is None else json.dumps(body).encode()
        req = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **(headers or {})},
                                     method=method)
        try:
            with urllib.request.urlopen(req, timeout=timeout * SLOW) as r:
                return r.status, r.read(), r.headers
        except urllib.error.HTTPError as e:
            return e.code, e.read(), e.headers

    def get(self, path):
        try:
            status, body, _ = self.request("GET", path)
        except (urllib.error.URLError, ConnectionError):
            return 0, b""
        return status, body

    def post(self, path, body, **kw):
        status, answer, headers = self.request("POST", path, body, **kw)
        return status, json.loads(answer), headers

    def complete(self, prompt, **kw):
        status, answer, _ = self.post("/v1/completions", {"prompt": prompt, "temperature": 0, "max_tokens": 16, **kw})
        assert status == 200, answer
        return answer

    def metrics(self, path_url=None):
        """{'name{labels}': value} of /metrics."""
        url = path_url or self.url + "/metrics"
        with urllib.request.urlopen(url, timeout=30 * SLOW) as r:
            text = r.read().decode()
        out = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                key, value = line.rsplit(" ", 1)
                out[key] = float(value)
        return out

    def node_metrics(self, name):
        return self.metrics("http://" + self.processes[name].ready["admin"] + "/metrics")

    def busy_blocks(self):
        """KV blocks that are neither free nor cached, over all nodes that live."""
        busy = {}
        for name, p in self.processes.items():
            if name.startswith("coordinator") or not p.alive():
                continue
            for key, value in self.node_metrics(name).items():
                if key.startswith("baton_kv_blocks{") and value and not re.search(r'state="(free|cached)"', key):
                    busy[key] = value
        return busy

    def wait_idle(self, timeout=30):
        self.wait_for(lambda: not self.busy_blocks(), "no KV block taken", timeout, self.busy_blocks)

    def wait_for(self, condition, what, timeout=30, shown=None):
        deadline = time.monotonic() + timeout * SLOW
        while not condition():
            for name, p in self.processes.items():
                if p.popen.poll() not in (None, 0, -signal.SIGKILL):
                    raise AssertionError(f"{name} ended with {p.popen.poll()} while waiting for {what}\n{p.log()[-4000:]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"timed out waiting for {what}: {shown() if shown else ''}")
            time.sleep(0.02)


def stream(cluster, path, body, timeout=120):
    """Yields the data of each SSE event as text."""
    req = urllib.request.Request(cluster.url + path, json.dumps({**body, "stream": True}).encode(),
                                 {"Content-Type": "application/json"})
    with urllib.request.urlopen(req, timeout=timeout * SLOW) as r:
        for line in r:
            if line.startswith(b"data: "):
                yield line[6:].decode().rstrip("\n")

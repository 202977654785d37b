#!/usr/bin/env python3
"""SmolLM2 on a GPU beside its golden file: prompts by a GPU's prefill node, answers by a GPU's decode node on the KV that was handed over.

tests/gpu_exact.py --bin DIR --model SmolLM2-135M-Instruct.Q4_1.gguf     on a machine with a GPU; python3 alone is needed
Thresholds are those of tests/integration/test_exact.py, whose code this is. Exits 1 where one is missed.
"""
import argparse
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "integration"))
from exact import decode_pass, golden, prefill_pass  # noqa: E402


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class GpuCluster:
    """One prefill and one decode node, both on the GPU."""

    def __init__(self, binaries, model, numerics, folder):
        self.port = free_port()
        node = {"backend": "cuda", "numerics": numerics, "max_seqs": 16, "kv_memory": "512MiB", "gpu_memory": "8GiB"}
        config = {"models": [{"name": "m", "path": str(model)}],
                  "coordinator": {"http": f"127.0.0.1:{self.port}", "control": f"tcp://127.0.0.1:{free_port()}"},
                  "prefill": [{"name": "p0", **node}],
                  "decode": [{"name": "d0", "local_prefill": "never", **node}]}
        path = pathlib.Path(folder, "cluster.json")
        path.write_text(json.dumps(config))
        self.log = open(pathlib.Path(folder, "log"), "w+")
        self.process = subprocess.Popen([f"{binaries}/baton", "up", path], stdout=self.log, stderr=self.log)
        end = time.time() + 60
        while self.post("/v1/completions", {"prompt": [1], "max_tokens": 1})[0] != 200:
            if self.process.poll() is not None or time.time() > end:
                sys.exit("error: the cluster does not start:\n" + pathlib.Path(self.log.name).read_text()[-3000:])
            time.sleep(0.2)

    def post(self, path, body, timeout=60):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
                                         {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as r:
                return r.status, json.loads(r.read()), r.headers
        except urllib.error.HTTPError as e:
            return e.code, e.read().decode(), e.headers
        except OSError as e:
            return 0, str(e), {}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(60) != 0:
            sys.exit("error: baton up did not end well:\n" + pathlib.Path(self.log.name).read_text()[-3000:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    options = parser.parse_args()
    for numerics in "exact", "fast":
        with tempfile.TemporaryDirectory() as folder:
            cluster = GpuCluster(options.bin, options.model.resolve(), numerics, folder)
            prefill_pass(cluster, golden()).check(f"{numerics}, prefill")
            decode_pass(cluster, golden())[0].check(f"{numerics}, decode on handed-over KV")
            cluster.stop()


if __name__ == "__main__":
    main()

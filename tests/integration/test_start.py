"""Starts that fail, and ends that were not asked for: one reason, and exit code 1."""
import concurrent.futures
import json
import os
import random
import re
import signal
import socket
import subprocess

import pytest
from cluster import BIN, MODEL, ROOT, SLOW

TAKEN = socket.socket()  # a port that another process has, for as long as the tests run
TAKEN.bind(("127.0.0.1", 0))
TAKEN.listen()
PORT = TAKEN.getsockname()[1]


def write_cluster(path, coordinator=None, node=None, decode=None, kv=None, model=MODEL):
    node = {"threads": 1, "kv_memory": "32MiB", **(node or {})}
    path.write_text(json.dumps({
        "models": [{"name": "m", "path": str(model)}],
        "coordinator": {"http": "127.0.0.1:0", "control": "tcp://127.0.0.1:0", **(coordinator or {})},
        "kv": kv or {}, "prefill": [{"name": "p0", **node}],
        "decode": [{"name": "d0", **node, **(decode or {})}, {"name": "d1", **node}]}))
    return ["up", path]


def failing(tmp):
    """name: (arguments, what the reason says)"""
    (tmp / "broken.gguf").write_bytes(MODEL.read_bytes()[:5_000_000])
    serve = ["serve", "--port", 0, "-m"]
    taken = f"127.0.0.1:{PORT}"
    return {
        "missing file": (serve + [tmp / "none.gguf"], "none.gguf: cannot open"),
        "wrong file": (serve + [ROOT / "README.md"], "not a GGUF file"),
        "half a file": (serve + [tmp / "broken.gguf"], "broken.gguf"),
        "port in use": (["serve", "-m", MODEL, "--port", PORT], taken),
        "too little memory": (serve + [MODEL, "--kv-memory", "900GiB"], "are available ("),
        "up: missing file": (write_cluster(tmp / "a.yaml", model=tmp / "none.gguf"), "none.gguf: cannot open"),
        "up: port in use": (write_cluster(tmp / "b.yaml", {"http": taken}), taken),
        "up: control port in use": (write_cluster(tmp / "c.yaml", {"control": f"tcp://{taken}"}), taken),
        "up: a node's admin port in use": (write_cluster(tmp / "d.yaml", decode={"admin": taken}), f"d0: admin: cannot listen on {taken}"),
        "up: a node's kv port in use": (write_cluster(tmp / "e.yaml", decode={"kv": f"tcp://{taken}"}), "d0: "),
        "up: no folder for the tier": (write_cluster(tmp / "f.yaml", kv={"tier_path": str(tmp / "no-folder"), "tier_bytes": "64MiB",
                                                                         "tier_disk_bytes": "64MiB"}), "no-folder"),
    }


def run(args, cpus=None, timeout=60):
    return subprocess.run([str(BIN / "baton"), *map(str, args)], capture_output=True, text=True, timeout=timeout * SLOW,
                          stdin=subprocess.DEVNULL, preexec_fn=(lambda: os.sched_setaffinity(0, cpus)) if cpus else None)


def errors(text):
    return re.findall(r"^error: .*", text, re.M)


def test_forty_starts_that_fail_exit_with_one_and_say_why_once(tmp_path):
    cases = failing(tmp_path)
    rng = random.Random(8)
    # Alone or beside others, on one processor or on all: children end before, while and after their parent looks.
    runs = [(name, rng.choice([None, {min(os.sched_getaffinity(0))}])) for name in cases for _ in range(4)]
    rng.shuffle(runs)
    assert len(runs) >= 40

    def judge(one):
        name, cpus = one
        args, says = cases[name]
        r = run(args, cpus)
        said = errors(r.stderr)
        fine = r.returncode == 1 and len(said) == 1 and says in said[0] and r.stderr.count(said[0][7:60]) == 1
        return None if fine else (name, cpus, r.returncode, r.stderr)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        wrong = [w for w in pool.map(judge, runs[:len(runs) // 2]) if w]
    wrong += [w for w in map(judge, runs[len(runs) // 2:]) if w]
    assert not wrong, wrong


@pytest.mark.parametrize("args,says", [
    (["serve"], "no model"), (["serve", "-m", "x", "--prot", 1], "did you mean --port?"), (["up"], "which cluster?"),
    (["up", "none.yaml"], "none.yaml: No such file"), (["serve", "-m", "x", "--port", 70000], "0..65535")])
def test_a_wrong_command_line_exits_with_two(args, says):
    r = run(args)
    assert r.returncode == 2 and len(errors(r.stderr)) == 1 and says in r.stderr, r.stderr
    assert r.stderr.count("\n") == 1


class Launched:
    """`baton up` on a cluster file, with the pids of its children."""

    def __init__(self, args):
        self.popen = subprocess.Popen([str(BIN / "baton"), *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      text=True)

    def wait_ready(self):
        assert self.popen.stdout.readline().startswith("ready "), self.popen.communicate()
        return self

    def child(self, word):
        with open(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children") as f:
            pids = f.read().split()
        for pid in pids:
            with open(f"/proc/{pid}/cmdline") as f:
                if word in f.read():
                    return int(pid)
        raise AssertionError(f"no child {word}")

    def end(self):
        out, err = self.popen.communicate(timeout=60 * SLOW)
        return self.popen.returncode, err


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGABRT])
def test_the_coordinators_death_is_a_failure(tmp_path, sig):
    up = Launched(write_cluster(tmp_path / "up.yaml")).wait_ready()
    os.kill(up.child("baton-coordinator"), sig)
    code, err = up.end()
    assert code == 1 and errors(err) == [f"error: coordinator was ended by signal {sig.value} ({signal.strsignal(sig)})"]


def test_a_nodes_death_is_told_and_the_cluster_goes_on(tmp_path):
    up = Launched(write_cluster(tmp_path / "up.yaml")).wait_ready()
    os.kill(up.child("d1"), signal.SIGKILL)
    for line in up.popen.stderr:
        if "event=child_ended child=d1" in line:
            break
    up.popen.send_signal(signal.SIGTERM)
    code, err = up.end()
    assert code == 0 and not errors(err), err


def test_a_node_that_dies_while_others_start_fails_the_start(tmp_path):
    up = Launched(write_cluster(tmp_path / "up.yaml"))
    for line in up.popen.stderr:  # its first line, long before all are ready
        if "node=d1" in line:
            break
    try:
        os.kill(up.child("d1"), signal.SIGKILL)
    finally:
        code, err = up.end()
    assert code == 1 and errors(err) == ["error: d1 was ended by signal 9 (Killed)"], err


def test_a_signal_during_the_start_is_no_failure(tmp_path):
    up = Launched(write_cluster(tmp_path / "up.yaml"))
    for line in up.popen.stderr:
        if "node=coordinator" in line:
            break
    up.popen.send_signal(signal.SIGTERM)
    code, err = up.end()
    assert code == 0 and not errors(err), err


def test_a_level_that_the_processor_lacks_is_told_of_before_weights_are_read(tmp_path):
    flags = set(re.search(r"^flags\s*: (.*)", open("/proc/cpuinfo").read(), re.M).group(1).split())
    lacks = [level for level, flag in (("amx", "amx_int8"), ("avxvnni", "avx_vnni"), ("vnni", "avx512_vnni"))
             if flag not in flags]
    if not lacks:
        pytest.skip("this processor has all levels")
    r = run(write_cluster(tmp_path / "c.yaml", decode={"isa": lacks[0]}))
    assert r.returncode == 1 and len(errors(r.stderr)) == 1
    assert f'd0: isa "{lacks[0]}": this processor does not have it' in errors(r.stderr)[0]
    assert "weights_read" not in r.stderr and "loading" not in r.stderr, r.stderr

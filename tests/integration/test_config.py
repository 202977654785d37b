"""Options of real processes: lists, and what is said twice."""
import contextlib
import json
import random
import re
import socket
import subprocess

import pytest
from cluster import BIN, MODEL, Cluster, Process


def run(binary, *args, env=None):
    return subprocess.run([str(BIN / binary), *map(str, args)], capture_output=True, timeout=120, env=env, text=True)


def test_a_node_works_for_all_coordinators_that_are_named(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with Cluster(tmp_path, prefill=0, decode=1) as c:
        b = Process("b", "baton-coordinator", ["--config", c.yaml], other).wait_ready()
        node = Process("d1", "baton-decode", ["--model", MODEL, "--model-name", "smollm2", "--name", "d1", "--threads", 1,
                                              "--coordinator", c.control, "--coordinator", b.ready["control"]], other)
        try:
            node.wait_ready()
            c.wait_for(lambda: c.get("/admin/nodes")[1].count(b'"up"') == 2, "the second node", shown=node.log)
            first = c.complete("The sky is")["choices"][0]["text"]
            c.url = "http://" + b.ready["http"]
            c.wait_for(lambda: c.get("/ready")[0] == 200, "the second coordinator", shown=node.log)
            assert c.complete("The sky is")["choices"][0]["text"] == first
        finally:
            node.stop()
            b.stop()


@pytest.mark.parametrize("binary,args,says", [
    ("baton-decode", ["--model", "m", "--threads", 1, "-t", 2], "--threads is given twice, as \"1\" and as \"2\""),
    ("baton-coordinator", ["--model", "m", "--control", "tcp://127.0.0.1:1", "--control", "tcp://127.0.0.1:2"],
     "2 control planes are named and a coordinator has one"),
    ("baton", ["serve", "-m", "a.gguf", "-m", "b.gguf"], "--model is given twice")])
def test_what_is_said_twice_is_a_usage_error(binary, args, says):
    r = run(binary, *args, "--check-config")
    assert r.returncode == 2 and says in r.stderr, r.stderr


def test_the_operators_default_bounds_chats_that_name_no_limit(tmp_path):
    with Cluster(tmp_path, prefill=0, coordinator={"default_max_tokens": 7}, node={"max_context": 128}) as c:
        def chat(**kw):
            status, answer, _ = c.post("/v1/chat/completions", {
                "messages": [{"role": "user", "content": "Count from one to fifty."}], "temperature": 0, **kw})
            assert status == 200, answer
            return answer["usage"]["completion_tokens"]

        assert chat() == 7
        assert chat(max_tokens=9) == 9
        assert 9 < chat(max_tokens=-1) < 128
        c.complete("One, two,", max_tokens=4)
        said = [re.search(r"max_tokens=(\d+) limit=(\w+)", line)
                for line in c.processes["coordinator"].log().splitlines() if "event=request_done" in line]
        assert [m[2] for m in said] == ["default", "request", "context", "request"]
        assert [int(m[1]) for m in said][:2] == [7, 9]


@contextlib.contextmanager
def ports(n, taken):
    """The first of `n` neighbouring ports, of which those at `taken` belong to somebody else."""
    while True:
        first = random.randrange(20000, 30000)
        with contextlib.ExitStack() as stack:
            try:
                held = [stack.enter_context(socket.create_server(("127.0.0.1", first + i))) for i in range(n)]
            except OSError:
                continue
            for i, s in enumerate(held):
                if i not in taken:
                    s.close()
            yield first
            return


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def test_processes_take_free_ports_of_a_range(tmp_path):
    with ports(8, taken=[1, 4]) as first:
        span = f"{first}-{first + 7}"
        c = Cluster(tmp_path, decode=2,
                    decode_node={"kv": f"tcp://0.0.0.0:{span}", "kv_advertise": "tcp://127.0.0.1:0",
                                 "local_prefill": "never"})
        c.cfg["security"] = {"insecure": True}
        c.cfg["kv"]["lanes"] = 3
        c.yaml.write_text(json.dumps(c.cfg))
        with c:
            used = {port_of(c.processes[f"d{i}"].ready["kv"]) for i in range(2)}
            assert len(used) == 2 and used <= {first + i for i in (0, 2, 3, 5, 6, 7)}
            answers = {c.complete("The sky is")["choices"][0]["text"] for _ in range(4)}
            assert len(answers) == 1


@pytest.mark.parametrize("key,address", [("kv", "tcp://127.0.0.1:{}"), ("admin", "127.0.0.1:{}")])
def test_a_range_without_a_free_port_is_said(key, address):
    with ports(3, taken=[0, 1, 2]) as first:
        r = run("baton-decode", "--model", MODEL, "--threads", 1, f"--{key}", address.format(f"{first}-{first + 2}"))
    assert r.returncode == 1 and re.search(r"event=start_failed .*reason=\".*ddress already in use", r.stderr), r.stderr
    assert str(first + 2) in r.stderr


def test_check_config_compares_the_ports_of_a_host(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("models: [ { path: m.gguf } ]\n"
                    "coordinator: { http: \"127.0.0.1:8080\" }\n"
                    "decode:\n  - { kv: \"tcp://127.0.0.1:8079\" }\n")
    r = run("baton", "up", path, "--check-config")
    assert r.returncode == 2 and ":4: decode[0].kv: ports 8079-8080" in r.stderr and ":2: coordinator.http" in r.stderr
    path.write_text(path.read_text().replace("8079", "8078"))
    assert run("baton", "up", path, "--check-config").returncode == 0

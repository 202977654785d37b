"""Options of real processes: lists, and what is said twice."""
import re
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

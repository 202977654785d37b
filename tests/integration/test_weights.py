"""Weights that are streamed from disk give the tokens of weights in memory; a file that breaks gives an error."""
import json
import os
import re
import shutil

import pytest
from cluster import MODEL, Cluster
from gguf_edit import split
from test_operations import Launched, run

PROMPTS = ["The capital of France is", "Water boils at " * 20]


def tokens(cluster, prompt):
    answer = cluster.complete(prompt, max_tokens=6, temperature=0, ignore_eos=True, return_tokens_as_token_ids=True,
                              logprobs=0)
    return [answer["choices"][0]["logprobs"][k] for k in ("tokens", "token_logprobs")]


def test_streamed_nodes_answer_as_resident_ones_until_the_file_is_cut(cluster, tmp_path):
    model = tmp_path / MODEL.name
    shutil.copy(MODEL, model)
    with Cluster(tmp_path, model=model, node={"weights": "stream"}) as c:
        assert [tokens(c, p) for p in PROMPTS] == [tokens(cluster, p) for p in PROMPTS]
        assert all("event=weights_stream" in c.processes[n].log() for n in ("p0", "d0"))
        os.truncate(model, model.stat().st_size // 2)
        code, answer, _ = c.request("POST", "/v1/completions", {"prompt": PROMPTS[0], "max_tokens": 6})
        assert code >= 500 and json.loads(answer)["error"]["message"]
        assert "changed while in use" in c.processes["p0"].log()
        assert all(p.alive() for p in c.processes.values())


def test_reading_by_threads_is_announced(tmp_path):
    with Cluster(tmp_path, prefill=0, node={"weights": "stream", "io": "pread"}) as c:
        assert c.complete("Hi", max_tokens=2)["choices"]
        assert "io=pread" in c.processes["d0"].log()


def test_memory_that_will_not_fit_is_refused_with_numbers(tmp_path):
    out = run("baton-decode", "--model", MODEL, "--name", "d0", "--kv-memory", "900GiB", "--kv-swap-bytes", 0,
              "--coordinator", "tcp://127.0.0.1:1")
    assert out.returncode == 1
    for word in ("weights (", "MiB if streamed)", "KV 921600.0 MiB", "are available ("):
        assert word in out.stderr, out.stderr


def test_serve_streams_without_a_shared_copy():
    with Launched("serve", "-m", MODEL, "--port", 0, "--weights", "stream") as s:
        out = run("baton", "chat", "--url", s.url, "--prompt", "What is the capital of Germany?", "--temperature", 0)
        assert out.returncode == 0 and "Berlin" in out.stdout
        assert s.stop() == 0


@pytest.mark.parametrize("args", [["--kv-memory", "{}MiB"], ["--kv-tier-bytes", "{}MiB"]])
def test_nodes_that_fit_alone_but_not_together_are_refused(args):
    """Memory is promised to one node before the other asks, and none of it is touched at the start."""
    with open("/proc/meminfo") as f:
        left = int(re.search(r"MemAvailable: +(\d+)", f.read())[1]) >> 10
    out = run("baton", "serve", "-m", MODEL, "--port", 0, "--weights", "stream", *[a.format(left * 7 // 10) for a in args])
    assert out.returncode == 1 and "are available (" in out.stderr, out.stderr


def test_a_split_model_is_served_by_its_first_parts_name(cluster, tmp_path):
    parts = split(tmp_path / "smol", 3)
    with Cluster(tmp_path, model=parts[0], prefill_node={"weights": "stream"}) as c:
        assert [tokens(c, p) for p in PROMPTS] == [tokens(cluster, p) for p in PROMPTS]
        out = run("baton", "inspect", parts[0])
        assert ", 3 parts)" in out.stdout and "tensors (272)" in out.stdout
    out = run("baton", "serve", "-m", parts[1], "--port", 0)
    assert out.returncode == 1 and f"part 2 of 3 of a model, which is opened by its first part, {parts[0]}" in out.stderr
    parts[2].unlink()
    out = run("baton", "serve", "-m", parts[0], "--port", 0)
    assert out.returncode == 1 and f"part 3 of 3: {parts[2]}: cannot open" in out.stderr

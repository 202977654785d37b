"""Every model family: a prefill node and a decode node give the tokens that one engine gives by itself.

The models are the tiny ones of tests/golden/families; what their logits must be, unit/model/families.c knows.
"""
import concurrent.futures
import json
import re

import pytest
from cluster import ROOT, SANITIZED, Cluster, stream

FOLDER = ROOT / "tests" / "golden" / "families"
FAMILIES = sorted(p.name.removesuffix(".q.gguf") for p in FOLDER.glob("*.q.gguf"))
# Within a block, just after its border, two blocks and a part.
LENGTHS = [5, 65, 140]
# For 16 sequences, but not for all that they grow to; by default 1 MiB.
MEMORY = {"qwen35": "2MiB"}
SNAPSHOTS = {"snapshot_bytes": "512KiB"}  # shared with that memory
SETTINGS = [{}, {"temperature": 0.9, "top_p": 0.95, "seed": 11}]


def path(name):
    return FOLDER / f"{name}.q.gguf"


def cluster(tmp_path, name, prefill):
    tmp_path = tmp_path / f"with{prefill}"
    tmp_path.mkdir()
    return Cluster(tmp_path, prefill=prefill, decode=1, models=[{"name": name, "path": str(path(name))}],
                   node={"kv_memory": "32MiB"}, decode_node={"local_prefill": "never"} if prefill else {})


def answers(c, tokens, cached):
    """The tokens of each run, which ends within the context and crosses a block's border; how many were in the cache."""
    runs, n_cached = [], 0
    for n in LENGTHS:
        for i, setting in enumerate(SETTINGS):
            salt = {} if cached else {"cache_salt": f"{n} {i}"}
            answer = c.complete(tokens[:n], max_tokens=70, ignore_eos=True, logprobs=0, return_tokens_as_token_ids=True,
                                **setting, **salt)
            runs.append(answer["choices"][0]["logprobs"]["tokens"])
            n_cached += answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return runs, n_cached


@pytest.mark.parametrize("name", ["llama"] if SANITIZED else FAMILIES)
def test_neither_a_hand_over_nor_a_cached_prefix_changes_a_token(tmp_path, name):
    tokens = json.loads((FOLDER / f"{name}.q.json").read_text())["tokens"]
    with cluster(tmp_path, name, 0) as c:
        alone, n_cached = answers(c, tokens, cached=False)
        assert n_cached == 0
    with cluster(tmp_path, name, 1) as c:
        handed_over, n_cached = answers(c, tokens, cached=True)
        done = re.findall(r"event=request_done .*", c.processes["coordinator"].log())
        assert len(done) == len(handed_over) and all(" prefill=p0 " in line for line in done), done
        assert n_cached > 0
    assert handed_over == alone
    assert len({tuple(run) for run in alone}) == len(alone)  # prompts and seeds do matter


def sampled(c, tokens, i):
    """Tokens of a prompt of its own, as they come: more of them than are reckoned with when it is taken on."""
    body = {"prompt": [i, *tokens[:5]], "max_tokens": 500, "ignore_eos": True, "temperature": 0.7, "seed": i, "logprobs": 0,
            "return_tokens_as_token_ids": True}
    for data in stream(c, "/v1/completions", body):
        if data != "[DONE]":
            yield from (json.loads(data)["choices"][0]["logprobs"] or {"tokens": []})["tokens"]


@pytest.mark.skipif(SANITIZED, reason="thousands of tokens")
@pytest.mark.parametrize("name", FAMILIES)
def test_neither_preemption_nor_a_death_changes_a_token(tmp_path, name):
    tokens = json.loads((FOLDER / f"{name}.q.json").read_text())["tokens"]
    models, n, memory = [{"name": name, "path": str(path(name))}], 32, MEMORY.get(name, "1MiB")
    with Cluster(tmp_path, prefill=0, models=models, node={"kv_memory": memory, "max_seqs": 16},
                 kv=SNAPSHOTS) as c:
        def all_at_once(kill):
            def run(i):
                got = []
                for token in sampled(c, tokens, i):
                    got.append(token)
                    if kill and i == 0 and len(got) == 20:  # others wait for a place
                        c.processes["d0"].popen.kill()
                        c.processes["d0"].popen.wait()
                        c.start_node("d0", "baton-decode", wait=False)
                return got
            with concurrent.futures.ThreadPoolExecutor(n) as pool:
                return list(pool.map(run, range(n)))

        alone = [list(sampled(c, tokens, i)) for i in range(n)]
        assert all_at_once(kill=False) == alone
        preempted = {k: v for k, v in c.node_metrics("d0").items() if k.startswith("baton_preemptions_total")}
        assert (sum(preempted.values()) > 0) == (name != "mamba2"), preempted  # its states do not grow
        assert all_at_once(kill=True) == alone
        assert re.search("event=request_migrates", c.processes["coordinator"].log())
        c.processes["d0"].wait_ready()

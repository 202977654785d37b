"""Prompts that the KV pool has no room for come back from RAM or disk, with the same answers; a bad disk changes nothing."""
import pytest
from cluster import Cluster

STORIES = [f"Chapter {i}. " + "The lighthouse keeper climbed the stairs and looked at the sea. " * 20 for i in range(4)]
POOL = {"prefill_node": {"kv_memory": "8MiB"}, "decode_node": {"kv_memory": "8MiB", "local_prefill": "never"}}


def ask(cluster, prompt):
    r = cluster.complete(prompt, max_tokens=8, ignore_eos=True, logprobs=0, return_tokens_as_token_ids=True)
    lp = r["choices"][0]["logprobs"]
    return (lp["tokens"], lp["token_logprobs"]), r["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize("level", ["ram", "disk"])
def test_a_prompt_comes_back_from_the_tier(tmp_path, level):
    kv = {"tier_bytes": "64MiB"} if level == "ram" else {
        "tier_bytes": "10MiB", "tier_path": str(tmp_path), "tier_disk_bytes": "64MiB"}
    with Cluster(tmp_path, kv=kv, **POOL) as c:
        first = [ask(c, s) for s in STORIES]
        c.wait_idle()
        again = [ask(c, s) for s in STORIES]
        assert [t for t, _ in again] == [t for t, _ in first]
        assert all(n == 0 for _, n in first) and any(n > 0 for _, n in again)
        for node in "p0", "d0":
            m = c.node_metrics(node)
            assert m[f'baton_kv_tier_hit_tokens_total{{node="{node}",level="{level}"}}'] > 0
            assert m[f'baton_kv_tier_blocks{{node="{node}",level="{level}"}}'] > 0
            assert m[f'baton_kv_tier_dropped_total{{node="{node}",reason="corrupt"}}'] == 0
        assert not list(tmp_path.glob("baton-kv-*"))

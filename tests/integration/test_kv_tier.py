"""Prompts that the KV pool has no room for come back from RAM or disk, with the same answers; a bad disk changes nothing."""
import pytest
from cluster import ROOT, Cluster

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


@pytest.mark.parametrize("family", ["qwen35", "gemma3"])
def test_states_and_windows_come_back_with_their_blocks(tmp_path, family):
    """A prompt that others have pushed out of the pool goes on from its snapshot or its windows, which the tier has kept."""
    path = ROOT / "tests" / "golden" / "families" / f"{family}.q.gguf"
    kv = {"tier_bytes": "16MiB", "snapshot_bytes": "256KiB"}
    with Cluster(tmp_path, prefill=0, models=[{"name": family, "path": str(path)}], node={"kv_memory": "1MiB"}, kv=kv) as c:
        prompts = [[(i + k * k) % 300 for k in range(200)] for i in range(30)]
        first = [ask(c, p) for p in prompts]
        again = [ask(c, p) for p in prompts]
        assert [t for t, _ in again] == [t for t, _ in first]
        assert all(n == 0 for _, n in first) and [n for _, n in again] == [192] * len(prompts)
        m = c.node_metrics("d0")
        assert m['baton_kv_tier_hit_tokens_total{node="d0",level="ram"}'] > 0
        assert m['baton_kv_tier_dropped_total{node="d0",reason="corrupt"}'] == 0

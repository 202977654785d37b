"""Answers are as exact as the thresholds say, on both paths, with both codecs; and every shipped byte is counted."""
import pytest
from cluster import SANITIZED, Cluster
from exact import decode_pass, golden, prefill_pass

BYTES_PER_TOKEN = 30 * 3 * 2 * (64 + 4)  # layers x kv heads x (K, V) x (int8 values + fp32 scale)


def shipped_bytes(cluster):
    return sum(v for k, v in cluster.metrics().items() if k.startswith("baton_kv_transfer_bytes_total"))


def hit_tokens(cluster):
    return sum(v for k, v in cluster.node_metrics("d0").items() if k.startswith("baton_prefix_cache_hit_tokens_total"))


@pytest.mark.slow
def test_prefill_logprobs_are_exact(cluster):
    prefill_pass(cluster, golden(130 if SANITIZED else None)).check("prefill")


@pytest.mark.slow
def test_decode_on_handed_over_kv_is_exact_and_bytes_agree(cluster):
    before, hits = shipped_bytes(cluster), hit_tokens(cluster)
    tally, tokens = decode_pass(cluster, golden(130 if SANITIZED else None), every=16 if SANITIZED else 4)
    tally.check("decode")
    tokens -= hit_tokens(cluster) - hits  # prompts grow: what the decode node has is not shipped again
    cluster.wait_for(lambda: shipped_bytes(cluster) - before >= tokens * BYTES_PER_TOKEN, "the byte metric", 10)
    assert shipped_bytes(cluster) - before == tokens * BYTES_PER_TOKEN


@pytest.mark.slow
def test_codec_f16_is_exact(tmp_path):
    with Cluster(tmp_path, kv={"codec": "f16"}, decode_node={"local_prefill": "never"}) as c:
        prefill_pass(c, golden(130)).check("prefill f16")
        tally, tokens = decode_pass(c, golden(130), every=8)
        tally.check("decode f16")
        c.wait_idle()
        tokens -= hit_tokens(c)
        c.wait_for(lambda: shipped_bytes(c) == tokens * 30 * 3 * 2 * 128, "the byte metric", 10)

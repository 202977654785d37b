"""The KV plane under a TCP proxy: counted bytes, a flipped bit, a cut connection."""
import concurrent.futures
import itertools

import pytest
from cluster import SANITIZED, Cluster
from tcp_proxy import free_ports, proxy_lanes

PROMPT = "The history of the lighthouse keeper began long ago. " * 40


@pytest.fixture
def proxied(tmp_path):
    base = free_ports(2)
    near, proxies = proxy_lanes(base, 2)
    with Cluster(tmp_path, coordinator={"progress_timeout": "20s" if SANITIZED else "6s"},
                 decode_node={"kv": f"tcp://127.0.0.1:{base}", "kv_advertise": f"tcp://127.0.0.1:{near}",
                              "local_prefill": "never"}) as c:
        yield c, proxies
        c.wait_idle()
    for p in proxies:
        p.close()


salts = itertools.count()


def tokens(c, prompt=PROMPT, salt=None):
    """Without a salt of its own nothing of earlier requests is found: the whole prompt is shipped."""
    answer = c.complete(prompt, max_tokens=12, ignore_eos=True, logprobs=0, return_tokens_as_token_ids=True,
                        cache_salt=salt or f"fresh {next(salts)}")
    return answer["choices"][0]["logprobs"]["tokens"], answer["usage"]["prompt_tokens"]


def forward_bytes(proxies):
    return sum(p.forward.bytes for p in proxies)


def metric_bytes(c):
    return sum(v for k, v in c.node_metrics("p0").items() if k.startswith("baton_kv_transfer_bytes_total"))


def test_bytes_on_the_wire_agree_with_the_metric(proxied):
    c, proxies = proxied
    for _ in range(4):
        _, n_prompt = tokens(c)
    counted = forward_bytes(proxies)
    shipped = metric_bytes(c)
    assert shipped == 4 * n_prompt * 12240
    assert abs(counted - shipped) <= 0.02 * shipped, (counted, shipped)


@pytest.mark.parametrize("share", [0.2, 0.55, 0.9])
def test_one_flipped_bit_is_noticed_and_retried(proxied, share):
    c, proxies = proxied
    want, n_prompt = tokens(c)
    victim = max(proxies, key=lambda p: p.forward.bytes)
    victim.flip(after=int(victim.forward.bytes * share))
    got, _ = tokens(c)
    assert victim.flips == 1 and got == want
    assert tokens(c)[0] == want


def test_a_flipped_bit_in_a_header_is_not_the_clients_fault(proxied):
    """Lengths, ids, ranges: whatever the parser calls it, the answer is 200 and the same."""
    c, proxies = proxied
    want, _ = tokens(c)
    for i, at in enumerate(range(4, 100, 20)):
        victim = proxies[i % 2]
        flips = victim.flips
        victim.flip(after=at)
        got, _ = tokens(c)
        assert victim.flips == flips + 1 and got == want, at


@pytest.mark.threads
@pytest.mark.parametrize("lane", [0, 1])
def test_a_cut_connection_is_retried(proxied, lane):
    c, proxies = proxied
    want, _ = tokens(c)
    victim = proxies[lane]
    victim.cut_after(after=max(2000, victim.forward.bytes // 2))
    got, _ = tokens(c)
    assert victim.cuts == 1 and got == want
    assert tokens(c)[0] == want


@pytest.mark.parametrize("lane", [0, 1])
def test_a_lane_that_hangs_is_given_up(proxied, lane):
    """No byte passes and no connection ends: a length with a flipped bit looks like that, and so does a process that stands still."""
    c, proxies = proxied
    want, _ = tokens(c)
    proxies[lane].stall()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tokens, c)
        c.wait_for(lambda: "has read nothing of lane" in c.processes["p0"].log(), "the silence is noticed")
        proxies[lane].stall(False)
        assert answer.result()[0] == want


def test_a_new_epoch_keeps_the_hits(proxied):
    c, proxies = proxied
    longer = PROMPT + "One night a storm came up from the sea. " * 25
    want, n_prompt = tokens(c, longer)
    _, n_first = tokens(c, salt="kept")
    before = metric_bytes(c)
    for p in proxies:
        p.cut_after(after=50000)
    got, _ = tokens(c, longer, salt="kept")
    cuts = sum(p.cuts for p in proxies)
    assert cuts >= 1 and got == want
    # the last attempt shipped what was new and no more, those that were cut (both lanes at once, or one by one) less
    new = (n_prompt - n_first // 64 * 64) * 12240
    assert new < metric_bytes(c) - before < (1 + cuts) * new

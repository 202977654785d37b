"""A decode node that is short of KV blocks: preempted streams go on as if nothing had happened, priorities order the queue."""
import threading

import pytest
from cluster import SANITIZED, Cluster, stream

LONG = "count " * 300  # with room for its answer, all of the pool


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("small"), prefill=0, decode_node={"kv_memory": "10MiB"}) as c:
        yield c
        c.wait_idle()


def started(target, *args):
    t = threading.Thread(target=target, args=args)
    t.start()
    return t


@pytest.mark.skipif(SANITIZED, reason="hundreds of tokens; tests/unit/engine has the same with a small model")
def test_a_preempted_stream_is_swapped_and_goes_on(small):
    def ask(i):
        answer = small.complete(f"{i} and", max_tokens=390, ignore_eos=True, logprobs=0, return_tokens_as_token_ids=True)
        return answer["choices"][0]["logprobs"]

    alone, together = [ask(i) for i in range(2)], [None] * 2
    for t in [started(lambda i: together.__setitem__(i, ask(i)), i) for i in range(2)]:
        t.join()
    assert together == alone
    small.wait_idle()
    m = small.node_metrics("d0")
    assert m['baton_preemptions_total{node="d0",kind="swap"}'] > 0
    assert m['baton_preemptions_total{node="d0",kind="recompute"}'] == 0
    assert m['baton_kv_swapped_blocks{node="d0"}'] == 0


def test_swap_takes_no_more_than_there_is(tmp_path):
    with Cluster(tmp_path, prefill=0, kv={"swap_bytes": "12TiB"}) as c:
        assert "event=swap_smaller wanted_mib=12582912" in c.processes["d0"].log()
        assert c.complete("Hi", max_tokens=2)["choices"]


def test_the_queue_goes_by_priority(small):
    def queued(n):
        small.wait_for(lambda: small.metrics()['baton_num_requests_waiting{stage="admit"}'] == n, f"{n} requests in the queue")

    def ask(priority):
        for _ in stream(small, "/v1/completions", {"prompt": LONG, "max_tokens": 260, "priority": priority}):
            order.append(priority)
            break  # the client leaves, the next one's turn

    order, threads = [], []
    blocker = stream(small, "/v1/completions", {"prompt": LONG, "max_tokens": 300, "ignore_eos": True})
    next(blocker)
    for n, priority in enumerate([5, 0, -3]):
        threads.append(started(ask, priority))
        queued(n + 1)
    blocker.close()
    for t in threads:
        t.join()
    assert order == [-3, 0, 5]

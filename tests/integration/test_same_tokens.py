"""A request gets the same tokens alone and among 31 others, greedy and sampled with a seed."""
import threading

import pytest
from cluster import SANITIZED

PROMPTS = [f"Tell me {n} facts about the number {n} and why {'they matter. ' * (1 + n % 7 * 9)}" for n in range(32)]
N = 8 if SANITIZED else 32


def ask(cluster, i):
    sampled = {"temperature": 0.8, "top_p": 0.95, "seed": 1000 + i} if i % 2 else {}
    answer = cluster.complete(PROMPTS[i], max_tokens=8 + i % 5 * 8, ignore_eos=True, return_tokens_as_token_ids=True,
                              logprobs=0, **sampled)
    return answer["choices"][0]["logprobs"]["tokens"]


@pytest.mark.smoke
def test_streams_at_once_give_each_the_tokens_it_gets_alone(cluster):
    alone = [ask(cluster, i) for i in range(N)]
    together = [None] * N

    def run(i):
        together[i] = ask(cluster, i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(N)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert together == alone
    assert len({tuple(t) for t in alone}) > N // 2  # prompts do matter

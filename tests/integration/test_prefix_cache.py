"""A prompt that begins like an earlier one is neither computed nor shipped again, and its answer is the same."""
import json

import pytest
from cluster import Cluster, stream

BYTES_PER_TOKEN = 30 * 3 * 2 * (64 + 4)
STORY = "The history of the lighthouse keeper began long ago, when ships still had sails. " * 12
ASK = {"model": "smollm2", "temperature": 0, "max_tokens": 24}


def counter(metrics, name):
    return sum(v for k, v in metrics.items() if k.startswith(name))


def shipped(cluster):
    return counter(cluster.metrics(), "baton_kv_transfer_bytes_total")


def hits(cluster, node):
    return counter(cluster.node_metrics(node), "baton_prefix_cache_hit_tokens_total")


def cached(answer):
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def tokens_of(answer):
    lp = answer["choices"][0]["logprobs"]
    return lp["tokens"], lp["token_logprobs"]


def ask(cluster, prompt, **kw):
    return cluster.complete(prompt, max_tokens=12, ignore_eos=True, logprobs=0, return_tokens_as_token_ids=True, **kw)


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("off"), kv={"prefix_cache": "off"}, decode_node={"local_prefill": "never"}) as c:
        yield c


@pytest.mark.smoke
def test_the_second_prompt_ships_what_is_new(cluster, client):
    first = client.completions.create(prompt=STORY, extra_body={"cache_salt": "second"}, **ASK)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    cluster.wait_idle()
    before, had = shipped(cluster), hits(cluster, "d0")
    second = client.completions.create(prompt=STORY + "One night", extra_body={"cache_salt": "second"}, **ASK)
    n, found = second.usage.prompt_tokens, second.usage.prompt_tokens_details.cached_tokens
    assert found % 64 == 0 and first.usage.prompt_tokens - 64 <= found < n
    assert hits(cluster, "d0") - had == found
    cluster.wait_for(lambda: shipped(cluster) > before, "the byte metric", 10)
    assert shipped(cluster) - before == (n - found) * BYTES_PER_TOKEN
    assert counter(cluster.metrics(), "baton_prompt_tokens_cached_total") >= found


def test_hits_change_no_token_and_no_logprob(cluster, without):
    for prompt in STORY, STORY + "One night", STORY + "Every morning", STORY:
        assert tokens_of(ask(cluster, prompt)) == tokens_of(ask(without, prompt))
    assert cached(ask(cluster, STORY)) > 0 and cached(ask(without, STORY)) == 0


def test_only_the_decode_node_has_the_answer(cluster):
    """The next turn of a conversation: prefill computes the answer's tokens, which need not be shipped."""
    prompt = {"cache_salt": "turns"}
    first = cluster.complete(STORY, max_tokens=150, ignore_eos=True, logprobs=0, return_tokens_as_token_ids=True, **prompt)
    _, told, _ = cluster.post("/tokenize", {"content": STORY})
    ids = told["tokens"] + [int(t.rsplit(":", 1)[1]) for t in first["choices"][0]["logprobs"]["tokens"]]
    cluster.wait_idle()
    before, had = shipped(cluster), hits(cluster, "d0")
    second = cluster.complete(ids, **prompt)
    at_decode = hits(cluster, "d0") - had
    assert at_decode == (len(ids) - 1) // 64 * 64 > cached(second) > 0
    cluster.wait_for(lambda: shipped(cluster) > before, "the byte metric", 10)
    assert shipped(cluster) - before == (len(ids) - at_decode) * BYTES_PER_TOKEN
    salted = cluster.complete(ids, cache_salt="cold")
    assert cached(salted) == 0 and salted["choices"][0]["text"] == second["choices"][0]["text"]


def test_streams_say_it_too_and_salts_do_not_share(cluster):
    body = {"prompt": STORY, "temperature": 0, "max_tokens": 4, "stream_options": {"include_usage": True}}

    def found(salt):
        events = list(stream(cluster, "/v1/completions", {**body, "cache_salt": salt}))
        return json.loads(events[-2])["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert [found(s) for s in ("mine", "yours", "mine")] == [0, 0, found("yours")] and found("mine") > 0


def test_a_prefill_node_that_dies_leaves_the_hits(tmp_path):
    with Cluster(tmp_path, prefill=2, decode_node={"local_prefill": "never"}) as c:
        want = tokens_of(ask(c, STORY))
        for name in "p0", "p1":
            assert tokens_of(ask(c, STORY)) == want
        c.processes["p0"].popen.kill()
        assert tokens_of(ask(c, STORY)) == want
        c.wait_idle()


def test_local_prefill_finds_it_as_well(tmp_path):
    with Cluster(tmp_path, prefill=0, decode_node={"local_prefill": "always"}) as c:
        first, second = ask(c, STORY), ask(c, STORY)
        assert cached(first) == 0 and cached(second) == second["usage"]["prompt_tokens"] - 1
        assert tokens_of(first) == tokens_of(second)


@pytest.mark.parametrize("salt", [7, "x" * 257])
def test_bad_salts_are_refused(cluster, salt):
    status, answer, _ = cluster.post("/v1/completions", {"prompt": "a", "cache_salt": salt})
    assert status == 400 and answer["error"]["param"] == "cache_salt"


def test_several_answers_share_their_prompt(cluster, client):
    sampled = {**ASK, "temperature": 1.0, "seed": 5, "max_tokens": 16}
    alone = client.completions.create(prompt=STORY, extra_body={"cache_salt": "one", "ignore_eos": True}, **sampled)
    cluster.wait_idle()
    before = shipped(cluster)
    r = client.completions.create(prompt=STORY, n=4, extra_body={"cache_salt": "four", "ignore_eos": True}, **sampled)
    assert [c.index for c in r.choices] == [0, 1, 2, 3] and len({c.text for c in r.choices}) == 4
    assert r.choices[0].text == alone.choices[0].text
    n = r.usage.prompt_tokens
    assert n == alone.usage.prompt_tokens and r.usage.completion_tokens == 4 * 16
    new = n - (n - 1) // 64 * 64
    cluster.wait_for(lambda: shipped(cluster) - before >= (n + 3 * new) * BYTES_PER_TOKEN, "the byte metric", 10)
    assert shipped(cluster) - before == (n + 3 * new) * BYTES_PER_TOKEN
    again = client.completions.create(prompt=STORY, n=4, extra_body={"cache_salt": "four", "ignore_eos": True}, **sampled)
    assert [c.text for c in again.choices] == [c.text for c in r.choices]


def test_several_answers_compute_their_prompt_once(cluster, without):
    """Full blocks are shared, the last 60 tokens' block is copied: of the prompt each further answer computes one token."""
    _, told, _ = cluster.post("/tokenize", {"content": STORY})
    body = {"prompt": told["tokens"][:2 * 64 + 60], "n": 8, "max_tokens": 12, "temperature": 1.0, "seed": 9, "logprobs": 3,
            "ignore_eos": True, "return_tokens_as_token_ids": True, "cache_salt": "eight"}

    def computed(c):
        c.wait_idle()
        return counter(c.node_metrics("p0"), "baton_prompt_tokens_total")

    def answers(c):
        before = computed(c)
        _, r, _ = c.post("/v1/completions", body)
        return sorted((x["index"], x["logprobs"]) for x in r["choices"]), computed(c) - before

    mine, n_mine = answers(cluster)
    alone, n_alone = answers(without)
    assert mine == alone and len({str(lp["tokens"]) for _, lp in mine}) > 2
    assert n_mine == 188 + 7 and n_alone == 8 * 188


@pytest.mark.parametrize("n_tokens", [1, 8])
def test_several_answers_stream_side_by_side(client, n_tokens):
    chunks = list(client.chat.completions.create(
        messages=[{"role": "user", "content": "Hi"}], n=3, stream=True, stream_options={"include_usage": True},
        **{**ASK, "max_tokens": n_tokens}))
    texts = ["".join(c.choices[0].delta.content or "" for c in chunks if c.choices and c.choices[0].index == i)
             for i in range(3)]
    ends = [c.choices[0].index for c in chunks if c.choices and c.choices[0].finish_reason]
    assert texts[0] and texts == [texts[0]] * 3 and sorted(ends) == [0, 1, 2]
    assert chunks[-1].usage.completion_tokens == 3 * n_tokens


def test_several_answers_to_each_of_several_prompts(cluster):
    body = {"prompt": ["The sky is", "Two plus two is"], "temperature": 0, "max_tokens": 4, "n": 2, "echo": True}
    _, r, _ = cluster.post("/v1/completions", body)
    texts = [c["text"] for c in sorted(r["choices"], key=lambda c: c["index"])]
    assert texts[0] == texts[1] and texts[2] == texts[3]
    assert texts[0].startswith("The sky is") and texts[2].startswith("Two plus two is")

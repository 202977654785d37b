"""Usage, metrics and log count the same tokens, for every endpoint and any n, echo, cache state and abort."""
import json
import random
import re
import urllib.request

from cluster import SLOW, Cluster

COUNTERS = {"prompt": "baton_prompt_tokens_total", "cached": "baton_prompt_tokens_cached_total",
            "output": "baton_generation_tokens_total"}
WORDS = "the old lighthouse keeper counts ships and writes their names into a small blue book every night".split()


def random_request(rng):
    """(path, body): any mixture of what changes how tokens are counted."""
    text = " ".join(rng.choices(WORDS, k=rng.choice([1, 5, 40, 90])))
    body = {"max_tokens": rng.choice([1, 2, 9, 24]), "temperature": rng.choice([0, 1]), "n": rng.choice([1, 1, 2, 3]),
            "stream": rng.random() < 0.5, "ignore_eos": rng.random() < 0.5}
    if rng.random() < 0.3:
        body["stop"] = ["e", " the"]
    if rng.random() < 0.5:  # some prompts are found in the cache, some come again and again
        text = "Once upon a time there was a machine that counted all it said. " * 8 + text
    if rng.random() < 0.5:
        return "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": text}]}
    if rng.random() < 0.5:
        body["echo"] = True
        body["max_tokens"] = rng.choice([0, 0, 4])
    if rng.random() < 0.4:
        body["logprobs"] = 1
    return "/v1/completions", {**body, "prompt": rng.choice([text, [text, "And then"], [[5, 6, 7], [8] * 70]])}


def open_request(c, path, body, name):
    req = urllib.request.Request(c.url + path, json.dumps(body).encode(),
                                 {"Content-Type": "application/json", "X-Request-Id": name})
    return urllib.request.urlopen(req, timeout=120 * SLOW)


def usage_of(c, path, body, name):
    """What the answer says of itself."""
    if body["stream"]:
        body = {**body, "stream_options": {"include_usage": True}}
    with open_request(c, path, body, name) as r:
        text = r.read().decode()
    if body["stream"]:
        events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]", events[-1]
        text = events[-2]
    u = json.loads(text)["usage"]
    assert u["total_tokens"] == u["prompt_tokens"] + u["completion_tokens"]
    return {"prompt": u["prompt_tokens"], "cached": u["prompt_tokens_details"]["cached_tokens"],
            "output": u["completion_tokens"]}


def abort(c, path, body, name):
    with open_request(c, path, {**body, "stream": True, "max_tokens": 300, "ignore_eos": True, "stop": []}, name) as r:
        for _ in range(8):
            r.readline()  # it runs; then the connection closes


def logged(c):
    """{name of the request: tokens} over all its answers, as the log has it."""
    out = {}
    for line in c.processes["coordinator"].log().splitlines():
        if "request_done" not in line:
            continue
        name = re.search(r'\breq="?([^\s"/]+)', line)[1]
        n = out.setdefault(name, dict.fromkeys(COUNTERS, 0))
        for key in COUNTERS:
            n[key] += int(re.search(rf"\b{key}=(\d+)", line)[1])
    return out


def total(counts):
    counts = list(counts)
    return {key: sum(n[key] for n in counts) for key in COUNTERS}


def idle(c):
    m = c.metrics()
    return not m["baton_num_requests_running"] and not any(v for k, v in m.items() if k.startswith("baton_num_requests_waiting"))


def test_usage_metrics_and_log_agree(tmp_path):
    rng = random.Random(20)
    with Cluster(tmp_path) as c:
        said, aborted = {}, []
        for i in range(24):
            path, body = random_request(rng)
            if i % 8 == 7:
                abort(c, path, body, f"t-{i}")
                aborted.append(f"t-{i}")
            else:
                said[f"t-{i}"] = usage_of(c, path, body, f"t-{i}")
        c.wait_for(lambda: idle(c) and set(aborted) <= set(logged(c)), "all requests ended")
        log, metrics = logged(c), c.metrics()
        for name, usage in said.items():
            assert log[name] == usage, name
        counted = {key: metrics[name] for key, name in COUNTERS.items()}
        assert counted == total(log.values())
        assert {k: counted[k] - total(log[a] for a in aborted)[k] for k in COUNTERS} == total(said.values())
        assert total(said.values())["cached"] > 0 and all(log[a]["output"] > 0 for a in aborted)
        answers = sum(v for k, v in metrics.items() if k.startswith("baton_requests_total") and "completions" in k)
        assert answers == 24
        left = sum(v for k, v in metrics.items() if k.startswith("baton_requests_total") and 'status="499"' in k)
        assert left == metrics["baton_client_disconnects_total"] == len(aborted)


def test_every_answer_is_counted(cluster):
    paths = [("GET", "/live", "live"), ("GET", "/ready", "ready"), ("GET", "/health", "health"), ("GET", "/v1/models", "models"),
             ("GET", "/admin/nodes", "admin"), ("OPTIONS", "/live", "none")]
    for method, path, endpoint in paths:
        status = 204 if method == "OPTIONS" else 200
        key = f'baton_requests_total{{model="",endpoint="{endpoint}",status="{status}"}}'
        before = cluster.metrics().get(key, 0)
        cluster.request(method, path)
        assert cluster.metrics()[key] == before + 1, path

"""Nodes that die, stay away and come back under running requests: what the client sees of it."""
import json
import re
import threading

import pytest
from cluster import Cluster, stream

BODY = {"prompt": "A story about a lighthouse:", "temperature": 0, "ignore_eos": True}


def deltas(c, body):
    """Yields the text of each event of a stream; an error event ends the test."""
    for data in stream(c, "/v1/completions", body):
        if data == "[DONE]":
            return
        event = json.loads(data)
        assert "error" not in event, event
        yield event["choices"][0]["text"]


def restart(c, name, binary="baton-decode", wait=True):
    c.processes[name].popen.kill()
    c.processes[name].popen.wait()
    c.start_node(name, binary, wait)


def in_threads(n, work):
    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    return threads


def events(c, name):
    return re.findall(rf"event={name} .*", c.processes["coordinator"].log())


def test_the_only_decode_node_is_killed_and_started_again(tmp_path):
    with Cluster(tmp_path) as c:
        body = {**BODY, "max_tokens": 60}
        want = c.complete(**body)["choices"][0]["text"]
        got = ""
        for i, text in enumerate(deltas(c, body)):
            got += text
            if i == 20:
                restart(c, "d0", wait=False)
        assert got == want
        assert not events(c, "request_given_up")
        c.processes["d0"].wait_ready()
        c.wait_idle()


def test_a_long_stream_outlives_more_deaths_than_attempts(tmp_path):
    with Cluster(tmp_path, prefill=0) as c:
        body = {**BODY, "max_tokens": 330}
        want = c.complete(**body)["choices"][0]["text"]
        got, since, kills = "", 0, 0
        for text in deltas(c, body):
            got, since = got + text, since + 1
            if since >= 70 and kills < 4:
                restart(c, "d0", wait=False)
                since, kills = 0, kills + 1
        assert kills == 4 and got == want
        c.processes["d0"].wait_ready()


def test_three_deaths_without_progress_end_the_request_once(tmp_path):
    with Cluster(tmp_path, prefill=0) as c:
        answers = []
        threads = in_threads(1, lambda i: answers.append(c.request("POST", "/v1/completions", {**BODY, "max_tokens": 4000})))
        for _ in range(3):
            c.wait_for(lambda: c.metrics()["baton_num_requests_running"] == 1, "the request to be taken on")
            restart(c, "d0")
        threads[0].join()
        status, body, headers = answers[0]
        error = json.loads(body)["error"]
        assert status == 500 and headers["x-should-retry"] == "false" and error["code"] == "nodes_failed", body
        assert len(events(c, "request_given_up")) == 1 and "nodes=d0,d0,d0" in events(c, "request_given_up")[0]
        c.wait_for(lambda: c.get("/ready")[0] == 200, "the node to join")
        assert c.complete("Once", max_tokens=4)["usage"]["completion_tokens"] == 4


def test_requests_go_on_when_the_only_prefill_node_is_killed(tmp_path):
    with Cluster(tmp_path) as c:
        body = {**BODY, "max_tokens": 12}
        want = c.complete(**body)["choices"][0]["text"]
        got = []
        c.processes["p0"].popen.kill()
        for t in in_threads(6, lambda i: got.append(c.complete(**body, cache_salt=f"salt {i}"))):
            t.join()
        assert [g["choices"][0]["text"] for g in got] == [want] * 6
        assert not events(c, "request_given_up")
        c.wait_idle()


@pytest.mark.parametrize("before", [False, True], ids=["killed", "not yet come"])
def test_requests_wait_for_a_decode_node(tmp_path, before):
    c = Cluster(tmp_path, prefill=0)
    try:
        if before:
            first = c._spawn("coordinator", "baton-coordinator", []).wait_ready()
            c.url, c.control = "http://" + first.ready["http"], first.ready["control"]
        else:
            c.start()
            c.processes["d0"].popen.kill()
            c.processes["d0"].popen.wait()
        got = []
        threads = in_threads(4, lambda i: got.append(c.request("POST", "/v1/completions", {**BODY, "max_tokens": 6})))
        c.wait_for(lambda: c.metrics()['baton_num_requests_waiting{stage="admit"}'] == 4, "four to wait",
                   shown=lambda: {k: v for k, v in c.metrics().items() if "waiting" in k})
        c.start_node("d0", "baton-decode")
        for t in threads:
            t.join()
        assert [g[0] for g in got] == [200] * 4, got
    finally:
        c.kill_all()


def test_waiting_for_a_node_ends_with_503(tmp_path):
    with Cluster(tmp_path, prefill=0, coordinator={"node_wait": "1s"}) as c:
        c.processes["d0"].popen.kill()
        status, answer, headers = c.post("/v1/completions", {**BODY, "max_tokens": 6})
        assert status == 503 and answer["error"]["code"] == "no_decode_node", answer
        assert headers["x-should-retry"] == "true" and int(headers["Retry-After"]) >= 1

"""The control link: deaths are told, stops and damage cost nothing, and who leaves says so."""
import concurrent.futures
import json
import signal
import time

import pytest
from cluster import Cluster, stream
from tcp_proxy import TcpProxy

PROMPTS = ["The capital of France is", "Once upon a time", "A list of colours:"]
TOKENS = 100


def answer(cluster, prompt):
    """A streamed answer's text."""
    text = ""
    for event in stream(cluster, "/v1/completions", {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0,
                                                     "ignore_eos": True}):
        if event == "[DONE]":
            break
        event = json.loads(event)
        assert "error" not in event, event
        text += event["choices"][0]["text"] if event.get("choices") else ""
    return text


class Proxied(Cluster):
    """Each node reaches the coordinator through a proxy of its own."""

    def start_node(self, name, binary, wait=True):
        self.proxies = getattr(self, "proxies", {})
        self.proxies[name] = TcpProxy(int(self.control.rsplit(":", 1)[1]))
        p = self._spawn(name, binary, ["--name", name, "--coordinator", f"tcp://127.0.0.1:{self.proxies[name].port}"])
        return p.wait_ready() if wait else p

    def stop(self):
        codes = super().stop()
        for p in getattr(self, "proxies", {}).values():
            p.close()
        return codes


def under(cluster, want, harm, times):
    """Answers while harm() is done again and again: all of them as before."""
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        answers = [pool.submit(answer, cluster, p) for p in PROMPTS]
        for i in range(times):
            time.sleep(0.15)  # the moment is what varies
            harm(i)
        assert [a.result() for a in answers] == want


def no_deaths(cluster):
    log = cluster.processes["coordinator"].log()
    assert "node_dead" not in log and "request_migrates" not in log
    for name in ("p0", "d0"):
        assert "coordinator_lost" not in cluster.processes[name].log()


@pytest.mark.threads
def test_damage_and_cuts_cost_nothing(tmp_path):
    with Proxied(tmp_path, prefill=1, decode=1, coordinator={"dead_after": "20s"}) as c:
        want = [answer(c, p) for p in PROMPTS]

        def harm(i):
            proxy = c.proxies["p0" if i % 5 == 4 else "d0"]
            # into what a token's message takes, header included, at a place of its own each time
            proxy.flip("backward" if i % 3 == 2 else "forward", after=(i * 37) % 400)

        under(c, want, harm, 12)
        flips = sum(p.flips for p in c.proxies.values())
        assert flips >= 4, flips
        under(c, want, lambda i: c.proxies["d0"].cut_now(), 4)
        under(c, want, lambda i: c.proxies["p0"].cut_now(), 2)
        for p in c.proxies.values():
            p.disarm()
        assert [answer(c, p) for p in PROMPTS] == want
        assert "event=control_redialled" in c.processes["d0"].log()
        # a node that needs more than 200 ms to dial again, as on a busy machine, counts as dead and is welcomed again


def test_a_stalled_network_costs_nothing(tmp_path):
    with Proxied(tmp_path, prefill=1, decode=1, coordinator={"dead_after": "20s"}) as c:
        want = [answer(c, p) for p in PROMPTS]

        def harm(_):
            c.proxies["d0"].stall()
            time.sleep(2.5)  # longer than the silence after which a link is dialled anew
            c.proxies["d0"].stall(False)

        under(c, want, harm, 1)
        no_deaths(c)


@pytest.mark.parametrize("who", ["coordinator", "d0"])
def test_who_stood_still_and_has_no_substitute_goes_on(tmp_path, who):
    """4 s are longer than what makes a node dead and than what makes a request stalled."""
    with Cluster(tmp_path, prefill=1, decode=1, coordinator={"progress_timeout": "3500ms"}) as c:
        want = [answer(c, p) for p in PROMPTS]

        def harm(_):
            c.processes[who].popen.send_signal(signal.SIGSTOP)
            time.sleep(4)
            c.processes[who].popen.send_signal(signal.SIGCONT)

        under(c, want, harm, 1)
        no_deaths(c)


def decode_metric(cluster, name):
    return sum(v for key, v in cluster.node_metrics("d0").items() if key.split("{")[0] == name)


def stands_still(cluster):
    """Whether the decode node has made no token for half a second."""
    tokens = [decode_metric(cluster, "baton_generation_tokens_total")]
    for _ in range(5):
        time.sleep(0.1)
        tokens.append(decode_metric(cluster, "baton_generation_tokens_total"))
    return tokens[0] == tokens[-1]


def test_a_coordinator_that_does_not_acknowledge_holds_its_work_back(tmp_path):
    """What nodes say to one that stands still is bounded: its requests stand still, too, and go on when it does."""
    with Cluster(tmp_path, prefill=1, decode=1, coordinator={"link_bytes": "64KiB"}) as c:
        def answers():
            done = c.complete(PROMPTS[1], max_tokens=250, ignore_eos=True, logprobs=5, n=4)
            return [choice["text"] for choice in done["choices"]]

        want = answers()
        coordinator = c.processes["coordinator"].popen
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            got = pool.submit(answers)
            c.wait_for(lambda: decode_metric(c, "baton_node_requests_running") == 4, "four streams")
            coordinator.send_signal(signal.SIGSTOP)
            try:
                c.wait_for(lambda: "event=control_behind" in c.processes["d0"].log(), "the node to hold back")
                c.wait_for(lambda: stands_still(c), "its streams to stand still")
                assert decode_metric(c, "baton_node_requests_running") == 4
            finally:
                coordinator.send_signal(signal.SIGCONT)
            assert got.result() == want
        assert "event=control_caught_up" in c.processes["d0"].log()
        no_deaths(c)


def test_a_killed_node_is_known_by_its_connection(tmp_path):
    with Cluster(tmp_path, prefill=1, decode=2, coordinator={"dead_after": "60s"}) as c:
        want = [answer(c, p) for p in PROMPTS]
        with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
            answers = [pool.submit(answer, c, p) for p in PROMPTS]
            time.sleep(0.3)
            c.processes["d0"].popen.kill()
            died = time.monotonic()
            log = c.processes["coordinator"]
            c.wait_for(lambda: "event=node_dead node=d0" in log.log(), "the death")
            assert time.monotonic() - died < 20  # silence would take 60 s
            assert [a.result() for a in answers] == want
        dead = [line for line in log.log().splitlines() if "event=node_dead" in line]
        assert len(dead) == 1 and 'reason="it has disconnected"' in dead[0], dead
        c.start_node("d0", "baton-decode")  # its name is free


def test_a_frozen_node_is_known_by_its_silence_and_welcome_again(tmp_path):
    with Cluster(tmp_path, prefill=1, decode=2) as c:
        want = [answer(c, p) for p in PROMPTS]
        log = c.processes["coordinator"]

        def harm(_):
            c.processes["d0"].popen.send_signal(signal.SIGSTOP)
            c.wait_for(lambda: "event=node_dead node=d0" in log.log(), "the death")
            c.processes["d0"].popen.send_signal(signal.SIGCONT)

        under(c, want, harm, 1)
        assert 'reason="no heartbeat"' in log.log()
        c.wait_for(lambda: log.log().count("event=node_joined node=d0") == 2, "its return")
        c.wait_idle()  # its old epochs are closed
        assert [answer(c, p) for p in PROMPTS] == want


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_successor_is_found_at_once(tmp_path, how):
    with Cluster(tmp_path, prefill=1, decode=1) as c:
        want = answer(c, PROMPTS[0])
        port = c.control.rsplit(":", 1)[1]
        c.processes["coordinator"].stop(how)
        if how == signal.SIGTERM:
            for name in ("p0", "d0"):
                node = c.processes[name]
                c.wait_for(lambda node=node: 'reason="the coordinator has stopped"' in node.log(), "its goodbye")
        cfg = json.loads(c.yaml.read_text())
        cfg["coordinator"]["control"] = f"tcp://127.0.0.1:{port}"
        c.yaml.write_text(json.dumps(cfg))
        ready = c._spawn("coordinator", "baton-coordinator", []).wait_ready().ready
        c.url = "http://" + ready["http"]
        c.wait_for(lambda: c.get("/ready")[0] == 200, "its nodes")
        assert answer(c, PROMPTS[0]) == want


def test_goodbye_frees_a_name_at_once(tmp_path):
    with Cluster(tmp_path, prefill=1, decode=1) as c:
        assert c.processes["d0"].stop(signal.SIGTERM) == 0
        assert c.get("/ready")[0] == 503  # known at once, not after missed heartbeats
        c.start_node("d0", "baton-decode")
        c.wait_for(lambda: c.get("/ready")[0] == 200, "ready again")
        assert c.complete("The capital of France is")["usage"]["completion_tokens"] == 16
        log = c.processes["coordinator"].log()
        assert "event=node_left node=d0" in log
        assert "node_dead" not in log and "node_refused" not in log

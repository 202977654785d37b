"""What anybody who reaches a port can do: fill neither tables nor logs, and hurt no request."""
import random
import socket

import pytest
import zmtp
from cluster import Cluster

PROMPT = "The lighthouse keeper wrote in the log each night. " * 20


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("guarded"), decode_node={"local_prefill": "never"}) as c:
        yield c
        c.wait_idle()


def failures(c):
    return sum(v for name in ("p0", "d0") for k, v in c.node_metrics(name).items()
               if k.startswith("baton_kv_transfer_failures_total") and 'reason="timeout"' in k)


def seen(c):
    """Bad peers that the decode node has counted."""
    return sum(v for k, v in c.node_metrics("d0").items() if k.startswith("baton_kv_transfer_failures_total"))


def test_a_flood_of_hellos_pushes_no_prefill_node_out(guarded):
    c = guarded
    want = c.complete(PROMPT, max_tokens=8, cache_salt="before")["choices"][0]["text"]
    sent = c.node_metrics("p0")['baton_kv_transfers_total{node="p0",direction="sent"}']
    before, counted = failures(c), seen(c)
    rng = random.Random(7)
    endpoint = c.processes["d0"].ready["kv"]
    strangers = [zmtp.Dealer(endpoint) for _ in range(300)]
    for s in strangers:
        s.send(zmtp.kv_hello(rng.getrandbits(64), rng.getrandbits(64)))
    c.wait_for(lambda: seen(c) >= counted + 300, "300 Hellos heard", shown=lambda: seen(c))
    got = c.complete(PROMPT, max_tokens=8, cache_salt="after")["choices"][0]["text"]
    after = c.node_metrics("p0")['baton_kv_transfers_total{node="p0",direction="sent"}']
    assert got == want and after == sent + 1
    assert failures(c) == before  # the same lanes carried it: no attempt waited for a peer that was forgotten
    for s in strangers:
        s.close()


def test_bad_registers_do_not_fill_the_log(guarded):
    c = guarded
    before = len(c.processes["coordinator"].log())
    stranger = zmtp.Dealer(c.control)
    n = 20000
    stranger.send(zmtp.session_hello(7))
    for i in range(n):
        stranger.send(zmtp.session_data(7, i + 1, zmtp.register("someone else", 1000 + i)))
    stranger.send(zmtp.session_data(7, n + 1, zmtp.register("the last", 1)))
    log = c.processes["coordinator"]
    left_out = lambda: sum(int(line.split("lines=")[1]) for line in log.log()[before:].splitlines()
                           if "event=log_left_out of=node_refused" in line)
    written = lambda: log.log()[before:].count("event=node_refused")
    c.wait_for(lambda: left_out() + written() == n + 1, "all refusals counted", 60, lambda: (left_out(), written()))
    assert len(log.log()) - before < 200_000
    assert c.complete("Still here", max_tokens=2)["usage"]["completion_tokens"] == 2
    stranger.close()


def has_ipv6_loopback():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6_loopback(), reason="this host has no ::1 to bind to")
def test_a_cluster_on_ipv6(tmp_path):
    base = socket.create_server(("::1", 0), family=socket.AF_INET6)
    port = base.getsockname()[1]
    base.close()
    with Cluster(tmp_path, coordinator={"control": "tcp://[::1]:0"}, kv={"lanes": 1},
                 decode_node={"kv": f"tcp://[::1]:{port}", "kv_advertise": f"tcp://[::1]:{port}", "local_prefill": "never"}) as c:
        assert c.control.startswith("tcp://[::1]:") and c.processes["d0"].ready["kv"] == f"tcp://[::1]:{port}"
        assert c.complete(PROMPT, max_tokens=4)["usage"]["completion_tokens"] == 4
        sent = c.node_metrics("p0")['baton_kv_transfers_total{node="p0",direction="sent"}']
        assert sent == 1


@pytest.mark.parametrize("plane", ["control", "kv"])
def test_a_failing_bind_names_its_key(tmp_path, plane):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        c = Cluster(tmp_path, coordinator={"control": endpoint} if plane == "control" else None,
                    decode_node={"kv": endpoint} if plane == "kv" else None)
        try:
            with pytest.raises(AssertionError) as e:
                c.start()
        finally:
            c.kill_all()
    key = {"control": "coordinator.control", "kv": "decode.kv of d0, lane 0"}[plane]
    assert f"{key}: cannot bind {endpoint}: Address already in use" in str(e.value)

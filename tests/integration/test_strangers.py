"""What anybody who reaches a port can do: fill neither tables nor logs, and hurt no request."""
import random
import socket
import urllib.request

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


needs_ipv6 = pytest.mark.skipif(not has_ipv6_loopback(), reason="this host has no ::1 to bind to")


def free_port(host="::1"):
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        return s.getsockname()[1]


def hands_off(c):
    """Both planes carry a request."""
    before = c.node_metrics("p0")['baton_kv_transfers_total{node="p0",direction="sent"}']
    assert c.complete(PROMPT, max_tokens=4, cache_salt=str(before))["usage"]["completion_tokens"] == 4
    assert c.node_metrics("p0")['baton_kv_transfers_total{node="p0",direction="sent"}'] == before + 1


@needs_ipv6
def test_every_plane_works_on_ipv6(tmp_path):
    kv, admin = f"tcp://[::1]:{free_port()}", free_port()
    with Cluster(tmp_path, coordinator={"control": "tcp://[::1]:0", "http": "[::1]:0", "admin": f"[::1]:{admin}"},
                 kv={"lanes": 1}, node={"admin": "[::1]:0"},
                 decode_node={"kv": kv, "kv_advertise": kv, "local_prefill": "never"}) as c:
        assert c.control.startswith("tcp://[::1]:") and c.processes["d0"].ready["kv"] == kv
        assert c.url.startswith("http://[::1]:") and c.processes["p0"].ready["admin"].startswith("[::1]:")
        with urllib.request.urlopen(f"http://[::1]:{admin}/metrics", timeout=60) as answer:
            assert b"baton_requests_total" in answer.read()
        hands_off(c)


@needs_ipv6
@pytest.mark.parametrize("told", ["[::1]", "127.0.0.1"])
def test_what_listens_on_all_addresses_is_reached_by_both_kinds(tmp_path, told):
    """One node dials IPv4, the other IPv6; senders are told an address of one kind."""
    control = free_port()
    with Cluster(tmp_path, coordinator={"control": f"tcp://[::]:{control}", "http": "[::]:0"}, security={"insecure": True},
                 decode_node={"kv": f"tcp://[::]:0", "kv_advertise": f"tcp://{told}:0", "local_prefill": "never"},
                 dial={"p0": f"tcp://127.0.0.1:{control}", "d0": f"tcp://[::1]:{control}"}) as c:
        port = c.url.rsplit(":", 1)[1]
        for host in ("127.0.0.1", "[::1]"):
            with urllib.request.urlopen(f"http://{host}:{port}/ready", timeout=60) as answer:
                assert answer.status == 200
        hands_off(c)


def clients_know_localhost():
    try:
        return bool(socket.getaddrinfo("localhost", 1))
    except OSError:
        return False


def test_a_cluster_that_says_localhost(tmp_path):
    """Baton knows it everywhere; where no /etc/hosts has it, this test's own HTTP client does not."""
    web = "localhost:0" if clients_know_localhost() else "127.0.0.1:0"
    control, kv = free_port("127.0.0.1"), f"tcp://localhost:{free_port('127.0.0.1')}"
    with Cluster(tmp_path, coordinator={"control": f"tcp://localhost:{control}", "http": web}, kv={"lanes": 1},
                 node={"admin": web}, decode_node={"kv": kv, "kv_advertise": kv, "local_prefill": "never"},
                 dial={name: f"tcp://localhost:{control}" for name in ("p0", "d0")}) as c:
        hands_off(c)


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

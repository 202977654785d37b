"""KV lanes are opened when nodes join, not by the first request, and opened anew after a loss."""
import re
import signal

from cluster import Cluster
from tcp_proxy import free_ports, proxy_lanes

PROMPT = "The lighthouse keeper wrote in the log each night. " * 8


def links(c, name="p0"):
    return c.node_metrics(name).get(f'baton_kv_links{{node="{name}"}}')


def handoffs_ms(c):
    """Of each request: from the last KV computed until it was stored."""
    return [float(ms) for ms in re.findall(r"event=request_done .* kv_ms=([\d.]+)", c.processes["coordinator"].log())]


def test_lanes_stand_before_the_first_request_and_come_back(tmp_path):
    base = free_ports(2)
    near, proxies = proxy_lanes(base, 2)
    opened = []
    with Cluster(tmp_path, prefill=2, decode_node={"kv": f"tcp://127.0.0.1:{base}", "kv_advertise": f"tcp://127.0.0.1:{near}",
                                                    "local_prefill": "never"}) as c:
        c.wait_for(lambda: links(c, "p0") == 1 and links(c, "p1") == 1, "lanes without any request", shown=lambda: links(c))
        opened = [p.forward.bytes for p in proxies]
        assert all(opened)
        connections = [p.connections for p in proxies]
        assert connections == [2, 2]
        for i in range(4):
            c.complete(PROMPT, max_tokens=4, cache_salt=str(i))
        assert [p.connections for p in proxies] == connections  # requests open none
        print("hand-offs, ms:", handoffs_ms(c))

        for p in proxies:
            p.cut_now()
        c.wait_for(lambda: all(p.connections >= 4 for p in proxies) and links(c, "p0") == links(c, "p1") == 1, "lanes anew",
                   shown=lambda: ([p.connections for p in proxies], links(c, "p0"), links(c, "p1")))

        c.processes["d0"].stop(signal.SIGKILL)
        c.wait_for(lambda: links(c) == 0, "a dead node's lanes are gone")
        c.start_node("d0", "baton-decode")
        c.wait_for(lambda: links(c, "p0") == links(c, "p1") == 1, "lanes to its successor", 60)
        assert c.complete(PROMPT, max_tokens=4, cache_salt="again")["usage"]["completion_tokens"] == 4
    for p in proxies:
        p.close()

"""A prefill and a decode node that live and cannot reach each other: requests go the other way."""
import concurrent.futures
import json
import math
import re
import time

import pytest
from cluster import Cluster
from tcp_proxy import free_ports, proxy_lanes

PROMPT = "A story about a lighthouse:"


class OneProxied(Cluster):
    """d0's lanes are reached through proxies, d1's are not; no decode node reads prompts itself."""

    def __init__(self, tmp):
        super().__init__(tmp, prefill=1, decode=2, decode_node={"local_prefill": "never"})
        base = free_ports(2)
        near, self.proxies = proxy_lanes(base, 2)
        self.cfg["decode"][0].update(kv=f"tcp://127.0.0.1:{base}", kv_advertise=f"tcp://127.0.0.1:{near}")
        self.yaml.write_text(json.dumps(self.cfg))

    def refuse(self, on):
        for p in self.proxies:
            p.refuse(on)

    def events(self, name, **fields):
        """Lines of the coordinator's log."""
        lines = re.findall(rf"event={name} .*", self.processes["coordinator"].log())
        return [line for line in lines if all(f" {key}={value} " in line + " " for key, value in fields.items())]


@pytest.mark.threads
def test_requests_go_the_other_way(tmp_path):
    with OneProxied(tmp_path) as c, concurrent.futures.ThreadPoolExecutor(4) as pool:
        def answers(n):
            def one(_):
                return c.complete(PROMPT, max_tokens=8, ignore_eos=True)["choices"][0]["text"]
            return list(pool.map(one, range(n)))

        want = answers(8)[0]
        assert c.events("request_done", decode="d0") and c.events("request_done", decode="d1")
        c.refuse(True)
        began = time.monotonic()
        assert answers(60) == [want] * 60
        took = time.monotonic() - began
        failed = c.events("request_migrates")
        assert failed and c.events("pair_unreached", prefill="p0", decode="d0")
        # four may be under way when it breaks; then one tries after 1 s, one 2 s later, one 4 s later
        assert len(failed) <= 4 + math.log2(1 + took), failed
        assert not c.events("request_given_up")
        c.refuse(False)
        healed = len(c.events("request_done", decode="d0"))
        c.wait_for(lambda: answers(4) and len(c.events("request_done", decode="d0")) > healed + 4,
                   "the pair to be used again", 60)
        c.wait_idle()
        for p in c.proxies:
            p.close()

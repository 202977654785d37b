"""The control link: deaths are told, stops and damage cost nothing, and who leaves says so."""
import signal

from cluster import Cluster


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


def test_a_coordinator_says_goodbye_too(tmp_path):
    with Cluster(tmp_path, prefill=1, decode=1) as c:
        assert c.processes["coordinator"].stop(signal.SIGTERM) == 0
        for name in ("p0", "d0"):
            log = c.processes[name]
            c.wait_for(lambda: "event=coordinator_lost" in log.log(), "the coordinator's goodbye")
            assert 'reason="the coordinator has stopped"' in log.log()

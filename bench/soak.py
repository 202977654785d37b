#!/usr/bin/env python3
"""Faults under load: streams go on, none is lost, none is different, and the gap that a client sees has a limit.

usage: bench/soak.py [--rounds 5] [--minutes M] [--faults NAME,...] [--bin build] [-o FILE.json]

A cluster of real processes on loopback (1 coordinator, 2 prefill and 3 decode nodes that share the cores; 1 and 1 where a fault
says `only`) serves streams of prompts of up to --prompt tokens, half of them greedy, half sampled with a seed. What it sustains with 16
streams at once is measured first; then requests arrive at half that rate, undisturbed, then through each round of each fault. Every
answer is compared with the undisturbed one, token for token. A stream's gaps are those between two pieces, the first one's wait included;
*extra gap* is the longest one of a round minus the longest of an undisturbed round (median of those). The column `running` is the same without
the first pieces' waits, which on a slow machine are mostly other prompts' prefill. Ends with 0 if nothing was lost or different and every
round's extra gap was within its fault's limit. --minutes bounds the whole: rounds of all faults in turn until then.
"""
import argparse
import concurrent.futures
import dataclasses
import http.client
import json
import os
import pathlib
import random
import signal
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "integration"), str(ROOT / "bench")]
STREAMS = 16
MIN_ARRIVALS = 4
CONTROL, KV = "control", "kv"


# ---- faults: each breaks something, waits, heals it, and says for how long something was away

def kill_nodes(bed, names, again_after=3.0):
    """kill -9; started again later, so that the next round has them."""
    for name in names:
        bed.cluster.processes[name].popen.kill()
    for name in names:
        bed.cluster.processes[name].popen.wait()
    time.sleep(again_after)
    for name in names:
        bed.start_again(name)
    return 0.0


def kill9(role):
    return lambda bed: kill_nodes(bed, [bed.rng.choice(bed.names(role))])


def kill9_all(role):
    return lambda bed: kill_nodes(bed, bed.names(role))


def kill_only(role):
    def act(bed):
        start = time.monotonic()
        kill_nodes(bed, bed.names(role), again_after=0)
        return time.monotonic() - start
    return act


def stop_process(bed, name, seconds):
    p = bed.cluster.processes[name].popen
    p.send_signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        p.send_signal(signal.SIGCONT)
    return seconds


def stop(what, seconds):
    """A role's node, or the coordinator."""
    return lambda bed: stop_process(bed, what if what == "coordinator" else bed.rng.choice(bed.names(what)), seconds)


def cut(plane):
    def act(bed):
        bed.rng.choice(bed.proxies[plane]).cut_now()
        return 0.0
    return act


def flip(plane):
    """One bit soon, on a connection that is in use: either way on the control plane, towards the decode node on the KV plane."""
    def act(bed):
        way = bed.rng.choice(["forward", "backward"]) if plane == CONTROL else "forward"
        proxies = bed.proxies[plane]
        before = sum(p.flips for p in proxies)
        for p in proxies:
            p.flip(way, after=bed.rng.randrange(1, 4000 if plane == CONTROL else 200000))
        deadline = time.monotonic() + 3
        while sum(p.flips for p in proxies) == before and time.monotonic() < deadline:
            time.sleep(0.005)
        for p in proxies:
            p.disarm()
        bed.missed += sum(p.flips for p in proxies) == before
        return 0.0
    return act


@dataclasses.dataclass(frozen=True)
class Fault:
    act: object
    limit: float           # seconds of extra gap; beside the absence where `plus_absence`
    only: bool = False     # 1 prefill and 1 decode node
    proxied: bool = False  # both planes through TCP proxies
    plus_absence: bool = False


FAULTS = {
    "kill9_decode": Fault(kill9("decode"), 1.5),
    "kill9_prefill": Fault(kill9("prefill"), 1.5),
    "kill9_both_prefill": Fault(kill9_all("prefill"), 1.5),
    "stop_decode_4": Fault(stop("decode", 4), 4.5),
    "stop_decode_10": Fault(stop("decode", 10), 4.5),
    "stop_prefill_4": Fault(stop("prefill", 4), 4.5),
    "stop_prefill_10": Fault(stop("prefill", 10), 4.5),
    "stop_coordinator_4": Fault(stop("coordinator", 4), 1.0, plus_absence=True),
    "stop_coordinator_10": Fault(stop("coordinator", 10), 1.0, plus_absence=True),
    "only_decode_killed_restarted": Fault(kill_only("decode"), 1.5, only=True, plus_absence=True),
    "stop_only_decode_4": Fault(stop("decode", 4), 1.0, only=True, plus_absence=True),
    "stop_only_prefill_4": Fault(stop("prefill", 4), 1.0, only=True, plus_absence=True),
    "cut_control": Fault(cut(CONTROL), 2.0, proxied=True),
    "cut_kv": Fault(cut(KV), 2.0, proxied=True),
    "flip_control": Fault(flip(CONTROL), 2.0, proxied=True),
    "flip_kv": Fault(flip(KV), 2.0, proxied=True),
}


# ---- the cluster that is broken

def make_cluster(tmp, n_prefill, n_decode, proxied, threads):
    """A Cluster; with `proxied` its nodes reach the coordinator, and prefill nodes the decode nodes, through proxies."""
    from cluster import Cluster
    from tcp_proxy import TcpProxy, free_ports, proxy_lanes
    cluster = Cluster(tmp, prefill=n_prefill, decode=n_decode, node={"threads": threads})
    proxies = {CONTROL: [], KV: []}
    if not proxied:
        return cluster, proxies
    lanes = cluster.cfg["kv"]["lanes"]
    for node in cluster.cfg["decode"]:
        base = free_ports(lanes)
        near, some = proxy_lanes(base, lanes)
        node.update(kv=f"tcp://127.0.0.1:{base}", kv_advertise=f"tcp://127.0.0.1:{near}")
        proxies[KV] += some
    cluster.yaml.write_text(json.dumps(cluster.cfg, indent=1))
    plain_start = cluster.start_node

    def start_node(name, binary, wait=True):
        if not proxies[CONTROL]:
            proxies[CONTROL].append(TcpProxy(int(cluster.control.rsplit(":", 1)[1])))
            cluster.control = f"tcp://127.0.0.1:{proxies[CONTROL][0].port}"
        return plain_start(name, binary, wait)

    cluster.start_node = start_node
    return cluster, proxies


class Bed:
    """One cluster, its load, and what the undisturbed answers and gaps are."""

    def __init__(self, a, only, proxied, rng):
        self.a, self.rng = a, rng
        self.tmp = tempfile.TemporaryDirectory(prefix="baton-soak-")
        shape = (1, 1) if only else (a.prefill, a.decode)
        self.cluster, self.proxies = make_cluster(self.tmp.name, *shape, proxied, a.threads)
        self.requests = make_requests(a, random.Random(a.seed))
        self.want = {}
        self.serial = self.missed = 0
        try:
            self.cluster.start()
            self.wait_whole()
            self.measure()
        except BaseException:
            self.close(failed=True)
            raise

    def names(self, role):
        return [n["name"] for n in self.cluster.cfg[role]]

    def start_again(self, name):
        binary = "baton-prefill" if name in self.names("prefill") else "baton-decode"
        self.cluster.start_node(name, binary)

    def wait_whole(self):
        """Every node is known and alive, and all blocks are back."""
        n_nodes = len(self.names("prefill")) + len(self.names("decode"))

        def whole():
            status, body = self.cluster.get("/admin/nodes")
            alive = {n["name"] for n in json.loads(body)["nodes"] if n["state"] == "up"} if status == 200 else ()
            return len(alive) == n_nodes
        self.cluster.wait_for(whole, "all nodes alive", 60)
        self.cluster.wait_idle(60)

    def measure(self):
        """The sustained rate, with every answer once; then undisturbed rounds at half of it."""
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
            results = list(pool.map(lambda i: self.ask(i), range(len(self.requests))))
        bad = [r for r in results if r["error"]]
        if bad:
            raise SystemExit(f"soak: undisturbed requests fail: {bad[0]['error']}")
        self.want = {r["index"]: r["tokens"] for r in results}
        half = len(results) / (time.monotonic() - start) / 2
        self.rate = max(half, MIN_ARRIVALS / self.a.seconds)  # a round without streams would show nothing
        self.floored = self.rate > half
        rounds = [self.round(lambda bed: 0.0) for _ in range(self.a.calm)]
        self.calm_gap, self.calm_running = (statistics.median(r[what] for r in rounds) for what in ("gap", "running"))
        self.calm = summary(rounds)

    def ask(self, index):
        self.serial += 1
        return stream_once(self.cluster.url, {**self.requests[index], "cache_salt": f"{os.getpid()} {self.serial}"}, index)

    def round(self, act):
        """Requests arrive evenly for a while, the fault comes after a third of it; ends when all have ended."""
        results, lock = [], threading.Lock()
        pool = concurrent.futures.ThreadPoolExecutor(4 * STREAMS)
        stop_arrivals = threading.Event()

        def one(index):
            got = self.ask(index)
            with lock:
                results.append(got)

        def arrive():
            due = time.monotonic()
            while not stop_arrivals.is_set():
                pool.submit(one, self.rng.randrange(len(self.requests)))
                due += 1 / self.rate
                stop_arrivals.wait(max(0.0, due - time.monotonic()))

        arrivals = threading.Thread(target=arrive)
        start = time.monotonic()
        arrivals.start()
        time.sleep(self.a.seconds / 3)
        absence = act(self)
        time.sleep(max(self.a.seconds / 3, start + self.a.seconds - time.monotonic()))
        stop_arrivals.set()
        arrivals.join()
        pool.shutdown(wait=True)
        self.wait_whole()
        return judge(results, self.want, absence)

    def close(self, failed=False):
        try:
            if failed:
                for name, p in self.cluster.processes.items():
                    print(f"--- {name} (alive: {p.alive()})\n{p.log()[-1500:]}", file=sys.stderr)
            self.cluster.kill_all()
        finally:
            for some in self.proxies.values():
                for p in some:
                    p.close()
            self.tmp.cleanup()


# ---- requests and answers

def make_requests(a, rng):
    out = []
    for i in range(a.requests):
        n = rng.randrange(max(1, a.prompt // 10), a.prompt + 1)
        r = {"prompt": [rng.randrange(100, 30000) for _ in range(n)], "max_tokens": rng.randrange(a.tokens // 2, a.tokens + 1),
             "ignore_eos": True, "logprobs": 0, "return_tokens_as_token_ids": True, "stream": True, "temperature": 0}
        if i % 2:
            r.update(temperature=0.8, seed=rng.randrange(1 << 31))
        out.append(r)
    return out


def stream_once(url, body, index, timeout=120):
    """Tokens, gaps, and why it is lost if it is."""
    host = url.split("//")[1]
    out = {"index": index, "tokens": [], "gap": 0.0, "running": 0.0, "error": None}
    last = time.monotonic()
    conn = http.client.HTTPConnection(host, timeout=timeout)
    finished = False
    try:
        conn.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = conn.getresponse()
        if answer.status != 200:
            out["error"] = f"status {answer.status}: {answer.read(300).decode(errors='replace')}"
            return out
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                out["error"] = f"error event: {event['error'].get('message')}"
                return out
            for choice in event["choices"]:
                finished = finished or choice.get("finish_reason") == "length"
                if choice.get("logprobs") and choice["logprobs"]["tokens"]:
                    now = time.monotonic()
                    gap, last = now - last, now
                    out["gap"] = max(out["gap"], gap)
                    if out["tokens"]:
                        out["running"] = max(out["running"], gap)
                    out["tokens"] += choice["logprobs"]["tokens"]
        if not finished or len(out["tokens"]) != body["max_tokens"]:
            out["error"] = f"ended after {len(out['tokens'])} of {body['max_tokens']} tokens"
    except (OSError, http.client.HTTPException, ValueError) as e:
        out["error"] = f"{type(e).__name__}: {e}"
    finally:
        out["gap"] = max(out["gap"], time.monotonic() - last if out["error"] else 0.0)
        conn.close()
    return out


def judge(results, want, absence):
    lost = [r for r in results if r["error"]]
    different = [r for r in results if not r["error"] and want and r["tokens"] != want[r["index"]]]
    return {"requests": len(results), "lost": len(lost), "different": len(different), "absence": absence,
            "gap": max((r["gap"] for r in results), default=0.0), "running": max((r["running"] for r in results), default=0.0), "errors": sorted({r["error"] for r in lost})[:3]}


# ---- results

def summary(rounds):
    gaps = [r["gap"] for r in rounds]
    return {"rounds": len(rounds), "requests": sum(r["requests"] for r in rounds), "lost": sum(r["lost"] for r in rounds),
            "different": sum(r["different"] for r in rounds), "gap": spread_of(gaps), "running": spread_of([r["running"] for r in rounds])}


def spread_of(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def row_of(name, rounds, calm_gap, calm_running):
    """All rounds of a fault; `held` if every one was within the limit."""
    f = FAULTS[name]
    over = [r["gap"] - calm_gap - (r["absence"] if f.plus_absence else 0.0) for r in rounds]
    row = {"fault": name, **summary(rounds), "calm_gap": calm_gap, "extra": spread_of([r["gap"] - calm_gap for r in rounds]),
           "extra_running": spread_of([r["running"] - calm_running for r in rounds]),
           "limit": f.limit, "plus_absence": f.plus_absence, "absence": spread_of([r["absence"] for r in rounds]),
           "beyond_absence": spread_of(over), "errors": sorted({e for r in rounds for e in r["errors"]})[:3]}
    row["whole"] = row["lost"] == 0 and row["different"] == 0
    row["held"] = row["whole"] and max(over) <= f.limit
    return row


def show_head():
    print(f"{'fault':30s} {'rounds':>6s} {'reqs':>5s} {'lost':>4s} {'diff':>4s} {'extra gap s: median (min to max)':>34s} {'running':>8s}  limit", flush=True)


def show(row):
    x = row["extra"]
    limit = f"{row['limit']:.1f}"
    if row["plus_absence"]:
        limit = f"{row['absence']['median']:.1f} away + {limit}"
    print(f"{row['fault']:30s} {row['rounds']:6d} {row['requests']:5d} {row['lost']:4d} {row['different']:4d} "
          f"{x['median']:16.2f} ({x['min']:5.2f} to {x['max']:5.2f})  {row['extra_running']['max']:8.2f}  {limit}{'' if row['held'] else '   over' if row['whole'] else '   BROKEN'}", flush=True)
    for e in row["errors"]:
        print(f"    {e}", flush=True)


def run_group(a, names, deadline, rng, done):
    """The faults that share a cluster, in turn."""
    f = FAULTS[names[0]]
    proxied = f.proxied or a.proxied
    bed = Bed(a, f.only, proxied, rng)
    failed = True
    try:
        shape = "1 + 1" if f.only else f"{a.prefill} + {a.decode}"
        print(f"{shape} nodes{', proxied' if proxied else ''}: {bed.rate:.2f} requests/s ({'more than ' if bed.floored else ''}half of what is sustained), undisturbed "
              f"longest gap {bed.calm_gap:.2f} s, {bed.calm_running:.2f} s of running streams", flush=True)
        for turn in range(a.rounds):
            for name in names:
                if time.monotonic() > deadline and (turn or name != names[0]):
                    break  # but one round there is
                done.setdefault(name, []).append(bed.round(FAULTS[name].act))
                if a.verbose:
                    show(row_of(name, done[name][-1:], bed.calm_gap, bed.calm_running))
        if bed.missed:
            print(f"in {bed.missed} rounds nothing passed where a bit was to be flipped", flush=True)
        failed = False
        return {name: row_of(name, done[name], bed.calm_gap, bed.calm_running) for name in names if name in done}, bed
    finally:
        bed.close(failed)


def groups_of(a):
    out = {}
    for name in a.names:
        out.setdefault((FAULTS[name].only, FAULTS[name].proxied or a.proxied), []).append(name)
    return list(out.values())


def options():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--faults", default=",".join(FAULTS), help="names, separated by commas (default: all)")
    ap.add_argument("--rounds", type=int, default=5, help="of each fault")
    ap.add_argument("--minutes", type=float, help="bound of the whole; no new round begins after its share (default: none)")
    ap.add_argument("--seconds", type=float, default=9, help="arrivals of a round, at least")
    ap.add_argument("--calm", type=int, default=3, help="undisturbed rounds of each cluster")
    ap.add_argument("--prefill", type=int, default=2)
    ap.add_argument("--decode", type=int, default=3)
    ap.add_argument("--threads", type=int, help="of a node (default: the cores, less one, divided among them)")
    ap.add_argument("--proxied", action="store_true", help="proxies for every fault: one cluster less")
    ap.add_argument("--requests", type=int, default=32, help="different ones")
    ap.add_argument("--prompt", type=int, default=600, help="tokens, at most")
    ap.add_argument("--tokens", type=int, default=96, help="of an answer, at most")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--gaps", choices=["judge", "show"], default="judge", help="show: only lost and different are judged")
    ap.add_argument("-v", "--verbose", action="store_true", help="a line for every round")
    ap.add_argument("--bin", default="build", help="build folder")
    ap.add_argument("-o", "--out", help="JSON file")
    a = ap.parse_args()
    a.names = a.faults.split(",")
    a.threads = a.threads or max(1, (os.cpu_count() - 1) // (a.prefill + a.decode))
    unknown = [n for n in a.names if n not in FAULTS]
    if unknown:
        ap.error(f"no fault is called {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    return a


def main():
    a = options()
    os.environ["BATON_BUILD"] = os.path.abspath(a.bin)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that finally clauses end the clusters
    from peer import machine, write
    rng, start, done, rows, beds = random.Random(a.seed), time.monotonic(), {}, [], []
    groups = groups_of(a)
    for i, names in enumerate(groups):
        left = float("inf") if a.minutes is None else 60 * a.minutes - (time.monotonic() - start)
        group_rows, bed = run_group(a, names, time.monotonic() + left / (len(groups) - i), rng, done)
        beds.append({"faults": names, "rate": bed.rate, "undisturbed": bed.calm})
        show_head()
        for row in group_rows.values():
            rows.append(row)
            show(row)
    bad_calm = sum(b["undisturbed"]["lost"] + b["undisturbed"]["different"] for b in beds)
    ok = bool(rows) and bad_calm == 0 and all(r["held"] if a.gaps == "judge" else r["whole"] for r in rows)
    missing = [n for n in a.names if n not in done]
    if missing:
        print(f"no time was left for {', '.join(missing)}")
    if a.out:
        write(a.out, {"machine": machine(), "command": " ".join(sys.argv), "held": ok, "clusters": beds, "results": rows})
    print({("judge", True): "all limits held", ("judge", False): "NOT all limits held", ("show", True): "nothing lost or different; gaps are not judged",
           ("show", False): "something was lost or different"}[a.gaps, ok])
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

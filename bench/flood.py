#!/usr/bin/env python3
"""How much a flood of large bodies disturbs running streams: bench/flood.py [--minutes 2] [--streams 16] [--clients 4]

Starts a cluster of its own on this machine, runs streams all the time, and floods the coordinator in every second window. For
each window it prints the longest gap between two events of any stream and the slowest answer of /live; in the end, medians
over the windows with and without the flood. Both share the machine with whatever else runs on it, so windows are interleaved."""
import argparse
import http.client
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration"))
from cluster import Cluster  # noqa: E402

MIB = 1 << 20
WORDS = "The quick brown fox jumps over the lazy dog. "


def bodies(size):
    """One of each kind that used to be read on the loop."""
    text = (WORDS * (size // len(WORDS)))[: size - 200]
    return [("/tokenize", json.dumps({"content": text})),
            ("/v1/completions", json.dumps({"prompt": text, "max_tokens": 1})),
            ("/v1/chat/completions", json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 1})),
            ("/tokenize", json.dumps({"content": text[: 4 * MIB]}))]  # the largest that is really tokenized


class Watch:
    """The longest gap, and the slowest /live, since the last reset."""

    def __init__(self):
        self.lock = threading.Lock()
        self.gap = self.live = 0.0
        self.events = self.answers = self.posts = 0

    def take(self):
        with self.lock:
            seen = (self.gap, self.live, self.events, self.answers, self.posts)
            self.gap = self.live = 0.0
            self.events = self.answers = self.posts = 0
            return seen


def stream_for_ever(address, watch, stop, seed):
    while not stop.is_set():
        conn = http.client.HTTPConnection(*address, timeout=120)
        try:
            body = {"prompt": f"Story {seed}:", "max_tokens": 1500, "ignore_eos": True, "stream": True, "seed": seed}
            conn.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer, last = conn.getresponse(), None
            while not stop.is_set():
                line = answer.readline()
                if not line or line.startswith(b"data: [DONE]"):
                    break
                if not line.startswith(b"data: "):
                    continue
                now = time.monotonic()
                with watch.lock:
                    watch.events += 1
                    if last is not None:
                        watch.gap = max(watch.gap, now - last)
                last = now
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            conn.close()


def probe_for_ever(address, watch, stop):
    conn = http.client.HTTPConnection(*address, timeout=120)
    while not stop.is_set():
        began = time.monotonic()
        try:
            conn.request("GET", "/live")
            conn.getresponse().read()
        except (OSError, http.client.HTTPException):
            conn.close()  # counts as what it took; the next request dials again
        with watch.lock:
            watch.live = max(watch.live, time.monotonic() - began)
            watch.answers += 1
        time.sleep(0.02)


def flood(url, size, clients, seconds):
    """Its own process, with the lowest priority: what it costs to send must not count as what it costs to be asked."""
    code = ("import sys, threading, time, http.client; sys.path.insert(0, %r); import flood\n"
            "flood.flood_here(%r, %d, %d, %f)" % (str(ROOT / "bench"), url, size, clients, seconds))
    return subprocess.Popen(["nice", "-n", "19", sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def flood_here(url, size, clients, seconds):
    host, port = url.removeprefix("http://").rsplit(":", 1)
    asks = [(path, body.encode()) for path, body in bodies(size)]
    end, counts = time.monotonic() + seconds, {}
    lock = threading.Lock()

    def one(i):
        while time.monotonic() < end:
            path, body = asks[i % len(asks)]
            conn = http.client.HTTPConnection(host, int(port), timeout=120)
            try:
                conn.request("POST", path, body, {"Content-Type": "application/json"})
                status = conn.getresponse().status
            except (OSError, http.client.HTTPException) as e:
                status = type(e).__name__
            finally:
                conn.close()
            with lock:
                counts[status] = counts.get(status, 0) + 1
            i += 1

    threads = [threading.Thread(target=one, args=(i,)) for i in range(clients)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    print(json.dumps({str(k): v for k, v in sorted(counts.items(), key=str)}))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--minutes", type=float, default=2)
    p.add_argument("--window", type=float, default=10, help="seconds")
    p.add_argument("--streams", type=int, default=16)
    p.add_argument("--clients", type=int, default=4, help="connections of the flood")
    p.add_argument("--mib", type=int, default=31, help="of a body")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp, Cluster(tmp, prefill=0, node={"max_seqs": a.streams}) as c:
        host, port = c.url.removeprefix("http://").rsplit(":", 1)
        watch, stop = Watch(), threading.Event()
        threads = [threading.Thread(target=stream_for_ever, args=((host, int(port)), watch, stop, i), daemon=True)
                   for i in range(a.streams)]
        threads.append(threading.Thread(target=probe_for_ever, args=((host, int(port)), watch, stop), daemon=True))
        for t in threads:
            t.start()
        time.sleep(a.window)  # all streams run
        rows = {False: [], True: []}
        print(f"{'window':>6} {'flood':>6} {'longest gap ms':>15} {'slowest /live ms':>17} {'events':>7}  flood's answers")
        for i in range(max(2, int(a.minutes * 60 / a.window))):
            on = i % 2 == 1
            sender = flood(c.url, a.mib * MIB, a.clients, a.window) if on else None
            watch.take()
            time.sleep(a.window)
            gap, live, events, _, _ = watch.take()
            answers = sender.communicate()[0].strip() if sender else ""
            rows[on].append((gap * 1000, live * 1000))
            print(f"{i:6} {'yes' if on else 'no':>6} {gap * 1000:15.0f} {live * 1000:17.1f} {events:7}  {answers}", flush=True)
        stop.set()
        quiet, loud = ([statistics.median(r[k] for r in rows[on]) for k in (0, 1)] for on in (False, True))
        print(f"medians: longest gap {quiet[0]:.0f} ms without, {loud[0]:.0f} ms with the flood ({loud[0] - quiet[0]:+.0f}); "
              f"slowest /live {quiet[1]:.1f} and {loud[1]:.1f} ms; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        for t in threads:
            t.join(30)  # their connections close, and the cluster drains at once


if __name__ == "__main__":
    main()

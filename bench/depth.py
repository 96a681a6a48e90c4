#!/usr/bin/env python3
"""Milliseconds of one decode step at a depth, kvcl's caches beside its peers', interleaved.

  bench/depth.py [--kvcl build/kvcl] [--caches f16,quant4] [--peer NAME=PATH=CACHES ...]
                 [-d 32768] [-n 16] [-r 1] [-t 2] [--rounds 5] [--device cpu] [--csv FILE]
                 MODEL.gguf

  bench/depth.py --caches f16,quant4,q8_0 --peer llama.cpp=/path/llama-bench=f16,q4_0 \\
                 --peer ik_llama.cpp=/path/llama-bench=f16,q8_0 --rounds 3 model.gguf
  bench/depth.py --caches q8_0 --peer kvcl-before=/path/kvcl=q8_0 -d 4096 model.gguf

Each round starts every program once for each cache: it fills the cache with d tokens of prompt,
then generates -n tokens, -r times, and times them.  Rounds begin at another entry each, so that
none always follows the same one.  kvcl's caches are codecs of the cold tier behind 64 hot tokens
(f16: the raw cache).  A peer whose name begins with kvcl is another build of it; one that begins
with ik is ik_llama.cpp, whose llama-bench knows depth as -gp; any other is llama.cpp's, called with
flash attention.  Ratios are kvcl's speed over the peer's: of the medians, and, so that one sees
what they are worth, the least and the most of the rounds.  Python 3, standard library only.
"""
import argparse
import csv
import json
import statistics
import subprocess
import sys


def run(cmd):
    r = subprocess.run(cmd, capture_output=True, text=True)
    if r.returncode:
        sys.exit("%s failed (%d): %s" % (" ".join(cmd), r.returncode, r.stderr.strip()[-400:]))
    return json.loads(r.stdout)


def kvcl_step(a, path, cache):
    """Milliseconds, and what share of the read bandwidth, measured beside it, that is."""
    tiers = [] if cache == "f16" else ["--tier", "hot=raw:64", "--tier", "cold=" + cache]
    out = run([path, "bench", "-m", a.model, "-p", "0", "-n", str(a.n), "-d", str(a.d), "-r",
               str(a.r), "-t", str(a.t), "--device", a.device, "--json"] + tiers)
    rate = [r["tokens_per_s"] for r in out["results"] if r["test"].startswith("tg")][0]
    reads = out["cache_read_bytes_per_token"] + out["weight_bytes_per_token"]
    return 1e3 / rate, reads * rate / out["read_bytes_per_s"] if out["read_bytes_per_s"] else None


def llama_step(a, path, cache):
    rows = run([path, "-m", a.model, "-p", "0", "-n", str(a.n), "-d", str(a.d), "-r", str(a.r),
                "-t", str(a.t), "-fa", "on", "-ctk", cache, "-ctv", cache, "-o", "json"])
    return 1e3 / rows[-1]["avg_ts"], None


def ik_step(a, path, cache):
    rows = run([path, "-m", a.model, "-p", "0", "-n", "0", "-gp", "%d,%d" % (a.d, a.n), "-r",
                str(a.r), "-t", str(a.t), "-fa", "1", "-ctk", cache, "-ctv", cache, "-o", "json"])
    return 1e3 / rows[-1]["avg_ts"], None


class Entry:
    """One program with one cache, and what it took in each round."""

    def __init__(self, name, path, cache):
        self.name, self.path, self.cache = name, path, cache
        self.step = (kvcl_step if name.startswith("kvcl") else
                     ik_step if name.startswith("ik") else llama_step)
        self.ms, self.shares = [], []

    def measure(self, a):
        ms, share = self.step(a, self.path, self.cache)
        self.ms.append(ms)
        self.shares += [] if share is None else [share]

    def row(self):
        share = statistics.median(self.shares) if self.shares else None
        ms = [statistics.median(self.ms), min(self.ms), max(self.ms)]
        return [self.name, self.cache] + ms + [share]


def entries_of(a):
    ours = [Entry("kvcl", a.kvcl, c) for c in a.caches.split(",")]
    peers = []
    for peer in a.peer:
        parts = peer.split("=")
        if len(parts) != 3 or not all(parts):
            sys.exit("--peer %s: want NAME=PATH=CACHES" % peer)
        peers += [Entry(parts[0], parts[1], c) for c in parts[2].split(",")]
    return ours, peers


def measure(a, entries):
    for i in range(a.rounds):
        k = i % len(entries)
        for e in entries[k:] + entries[:k]:
            e.measure(a)
            print("round %d of %d: %s %s %.2f ms" % (i + 1, a.rounds, e.name, e.cache, e.ms[-1]),
                  file=sys.stderr)


def ratios_of(ours, peers):
    """Rows of: kvcl's cache, peer, its cache, speed ratio of the medians, least, most."""
    rows = []
    for o in ours:
        for p in peers:
            rounds = [y / x for x, y in zip(o.ms, p.ms)]
            ratio = statistics.median(p.ms) / statistics.median(o.ms)
            rows.append([o.cache, p.name, p.cache, ratio, min(rounds), max(rounds)])
    return rows


def report(a, rows, ratios):
    print("Depth %d, %d tokens timed %d times, %d threads, %d interleaved rounds\n" %
          (a.d, a.n, a.r, a.t, a.rounds))
    print("| engine | cache | ms per token, median | least | most | of read bandwidth |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for r in rows:
        share = "" if r[5] is None else "%.0f %%" % (100 * r[5])
        print("| %s | %s | %.2f | %.2f | %.2f | %s |" % (*r[:5], share))
    if ratios:
        print("\n| kvcl's cache | peer | its cache | kvcl's speed / peer's | least | most |")
        print("| --- | --- | --- | ---: | ---: | ---: |")
        for r in ratios:
            print("| %s | %s | %s | %.2f | %.2f | %.2f |" % tuple(r))


def write_csv(a, rows, ratios):
    told = {}
    for r in ratios:
        told.setdefault((r[1], r[2]), []).append("%s %.3f" % (r[0], r[3]))
    with open(a.csv, "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(["engine", "cache", "depth", "tokens", "repeats", "threads", "rounds",
                    "ms_median", "ms_min", "ms_max", "share_of_read_bandwidth",
                    "kvcl_speed_over_this"])
        for r in rows:
            ms = ["%.4f" % x for x in r[2:5]]
            share = "" if r[5] is None else "%.4f" % r[5]
            w.writerow([r[0], r[1], a.d, a.n, a.r, a.t, a.rounds] + ms +
                       [share, "; ".join(told.get((r[0], r[1]), []))])


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--kvcl", default="build/kvcl", metavar="PATH")
    p.add_argument("--caches", default="f16,quant4", metavar="LIST", help="kvcl's")
    p.add_argument("--peer", action="append", default=[], metavar="NAME=PATH=CACHES")
    p.add_argument("-d", type=int, default=32768, help="tokens before")
    p.add_argument("-n", type=int, default=16, help="tokens that are timed")
    p.add_argument("-r", type=int, default=1, help="times, behind one filling of the cache")
    p.add_argument("-t", type=int, default=2, help="threads")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--device", default="cpu", help="kvcl's")
    p.add_argument("--csv", metavar="FILE")
    a = p.parse_args()
    ours, peers = entries_of(a)
    measure(a, ours + peers)
    rows, ratios = [e.row() for e in ours + peers], ratios_of(ours, peers)
    report(a, rows, ratios)
    if a.csv:
        write_csv(a, rows, ratios)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Speed of kvcl beside its peers, interleaved: A B C A B C ..., medians and ratios.

  bench/peers.py --kvcl build/kvcl --peer llama.cpp=/path/llama-bench [--peer NAME=PATH ...]
                 [--devices cpu,opencl:pocl:0] [--rounds 5] [-p 512] [-n 64] [-t 2]
                 [--csv FILE] MODEL.gguf ...

Each round starts every program once for each test: a prompt of -p tokens (pp) and -n generated
tokens (tg); 0 leaves a test out.  Peers are llama-bench programs built natively from their public
sources.  The machine's read bandwidth is measured by kvcl in every round.  Every program waits as
it does by default.  Python 3, standard library only.
"""
import argparse
import csv
import json
import os
import statistics
import subprocess
import sys


def run(cmd):
    r = subprocess.run(cmd, capture_output=True, text=True)
    if r.returncode:
        sys.exit("%s failed (%d): %s" % (" ".join(cmd), r.returncode, r.stderr.strip()[-400:]))
    return r.stdout


def kvcl_round(a, device, model):
    """{test: tokens/s}, and the bandwidth measured beside it, bytes/s."""
    out = json.loads(run([a.kvcl, "bench", "-m", model, "-p", str(a.p), "-n", str(a.n), "-r", "1",
                          "-t", str(a.t), "--device", device, "--json"]))
    rates = {r["test"]: r["tokens_per_s"] for r in out["results"]}
    return rates, out["read_bytes_per_s"], out["weight_bytes_per_token"]


def peer_round(a, path, model):
    rates = {}
    for flags, test in ((["-p", str(a.p), "-n", "0"], "pp%d" % a.p),
                        (["-p", "0", "-n", str(a.n)], "tg%d" % a.n)):
        if test in ("pp0", "tg0"):
            continue
        rows = json.loads(run([path, "-m", model, "-r", "1", "-t", str(a.t), "-o", "json"] + flags))
        rates[test] = rows[0]["avg_ts"]
    return rates


def measure(a, model):
    """Rows of (engine, test, [tokens/s per round], [bandwidth share per round])."""
    peers = [p.split("=", 1) for p in a.peer]
    rates = {}
    shares = {}
    for i in range(a.rounds):
        for device in a.devices.split(","):
            got, bandwidth, weights = kvcl_round(a, device, model)
            for test, rate in got.items():
                rates.setdefault(("kvcl " + device, test), []).append(rate)
                if test.startswith("tg") and bandwidth:
                    share = rate * weights / bandwidth
                    shares.setdefault(("kvcl " + device, test), []).append(share)
        for name, path in peers:
            for test, rate in peer_round(a, path, model).items():
                rates.setdefault((name, test), []).append(rate)
        print("round %d of %d: %s" % (i + 1, a.rounds, os.path.basename(model)), file=sys.stderr)
    return rates, shares


def report(a, model, rates, shares, writer):
    first = "kvcl " + a.devices.split(",")[0]
    print("\n%s, %d threads, median of %d interleaved rounds" %
          (os.path.basename(model), a.t, a.rounds))
    print("%-24s %-7s %10s %10s %10s %12s %12s" %
          ("engine", "test", "tokens/s", "min", "max", "kvcl cpu/it", "of read b/w"))
    for (engine, test), v in sorted(rates.items(), key=lambda x: x[0][1]):
        ours = rates.get((first, test), v)
        ratio = statistics.median(x / y for x, y in zip(ours, v))
        share = shares.get((engine, test))
        text = "%.0f %%" % (100 * statistics.median(share)) if share else ""
        print("%-24s %-7s %10.2f %10.2f %10.2f %12.2f %12s" %
              (engine, test, statistics.median(v), min(v), max(v), ratio, text))
        writer.writerow([os.path.basename(model), engine, test, a.t, a.rounds,
                         "%.3f" % statistics.median(v), "%.3f" % min(v), "%.3f" % max(v),
                         "%.3f" % ratio, "%.3f" % statistics.median(share) if share else ""])


def main():
    raw = argparse.RawDescriptionHelpFormatter
    p = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    p.add_argument("models", nargs="+")
    p.add_argument("--kvcl", default="build/kvcl")
    p.add_argument("--peer", action="append", default=[], metavar="NAME=PATH")
    p.add_argument("--devices", default="cpu")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("-p", type=int, default=512)
    p.add_argument("-n", type=int, default=64)
    p.add_argument("-t", type=int, default=2)
    p.add_argument("--csv", default=os.devnull)
    a = p.parse_args()
    with open(a.csv, "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(["model", "engine", "test", "threads", "rounds", "tokens_per_s", "min", "max",
                    "kvcl_over_this", "share_of_read_bandwidth"])
        for model in a.models:
            rates, shares = measure(a, model)
            report(a, model, rates, shares, w)


if __name__ == "__main__":
    main()

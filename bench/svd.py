#!/usr/bin/env python3
"""kvcl svd beside LAPACK (accuracy) and scikit-learn's randomized_svd (time, one thread each).

  bench/svd.py --kvcl build/kvcl [--model FILE.gguf] [--text FILE ...] [--pages 1000] [-k 32]
               [--devices cpu] [--rounds 7]

Pages of 512 tokens x head_dim: real ones are keys before and after rotation and values that
`kvcl capture` takes from the model on the texts, in turn; as many again are Gaussian, so that half
of the pages are random.  Accuracy of a page: ||A - U S V^T|| over that of LAPACK's best matrix of
rank k in double precision.  Time: medians over interleaved rounds.
Needs NumPy, scikit-learn and threadpoolctl.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import numpy as np  # noqa: E402  (after the variables that its libraries read)
from sklearn.utils.extmath import randomized_svd  # noqa: E402

TOKENS = 512


def run(cmd):
    r = subprocess.run(cmd, capture_output=True, text=True)
    if r.returncode:
        sys.exit("%s failed (%d): %s" % (" ".join(cmd), r.returncode, r.stderr.strip()[-400:]))
    return r.stdout


def real_pages(a, folder):
    """Pages of every text, layer, head and kind, shuffled by a seed."""
    pages = []
    for n, text in enumerate(a.text):
        rows = os.path.join(folder, "rows%d" % n)
        run([a.kvcl, "capture", "-q", "--device", "cpu", "-f", text, "--limit-tokens",
             str(a.tokens), "-o", rows] + (["-m", a.model] if a.model else []))
        for name in sorted(os.listdir(rows)):
            if not name.endswith("-q.npy"):
                for head in np.load(os.path.join(rows, name)):
                    last = len(head) - TOKENS
                    pages += [head[t:t + TOKENS] for t in range(0, last + 1, TOKENS)]
    order = np.random.default_rng(1).permutation(len(pages))
    return [pages[i] for i in order]


def decompose(a, folder, pages, device, threads=1, factors=True):
    """Factors of a batch, and the time of a page in ms."""
    path, prefix = os.path.join(folder, "in.npy"), os.path.join(folder, "out")
    np.save(path, np.ascontiguousarray(pages, np.float32))
    out = run([a.kvcl, "svd", path, "-k", str(a.rank), "--threads", str(threads), "--device",
               device, "--json", "-q"] + (["-o", prefix] if factors else []))
    ms = json.loads(out)["ms"] / len(pages)
    if not factors:
        return ms, None
    return ms, [np.load("%s.%s.npy" % (prefix, f)).astype(float) for f in "USV"]


def accuracy(a, pages, factors):
    """Per page: error over the best one for kvcl and for scikit-learn, the best relative error."""
    u, s, v = factors
    rows = []
    for i, page in enumerate(pages):
        page = page.astype(float)
        best = np.sqrt((np.linalg.svd(page, compute_uv=False)[a.rank:] ** 2).sum())
        mine = np.linalg.norm(page - (u[i] * s[i]) @ v[i].T)
        su, ss, sv = randomized_svd(page.astype(np.float32), a.rank, random_state=0)
        theirs = np.linalg.norm(page - (su * ss).astype(float) @ sv.astype(float))
        off = max(np.abs(x.T @ x - np.eye(a.rank)).max() for x in (u[i], v[i]))
        rows.append((mine / best, theirs / best, best / np.linalg.norm(page), off))
    return np.array(rows)


def times(a, folder, pages):
    """{name: [ms per page, one a round]}, interleaved."""
    result = {d: [] for d in a.devices}
    result["scikit-learn"] = []
    for _ in range(a.rounds):
        for device in a.devices:
            result[device].append(decompose(a, folder, pages, device, factors=False)[0])
        begin = time.perf_counter()
        for page in pages[:16]:
            randomized_svd(page, a.rank, random_state=0)
        result["scikit-learn"].append((time.perf_counter() - begin) * 1e3 / 16)
    return result


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--kvcl", default="build/kvcl")
    p.add_argument("--model")
    p.add_argument("--text", nargs="*", default=["README.md", "CONTRIBUTING.md"])
    p.add_argument("--tokens", type=int, default=4096)
    p.add_argument("--pages", type=int, default=1000)
    p.add_argument("-k", "--rank", type=int, default=32)
    p.add_argument("--devices", type=lambda s: s.split(","), default=["cpu"])
    p.add_argument("--rounds", type=int, default=7)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        real = real_pages(a, folder)[:a.pages // 2]
        dim = real[0].shape[1]
        rng = np.random.default_rng(2)
        made = [rng.standard_normal((TOKENS, dim), np.float32) for _ in range(a.pages - len(real))]
        print("| pages | n | best error, median | kvcl / best: median, 99 %, worst "
              "| scikit-learn / best: median, worst | U, V from orthonormal, worst |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, pages in (("real", real), ("Gaussian", made)):
            r = accuracy(a, pages, decompose(a, folder, pages, a.devices[0])[1])
            print("| %s | %d | %.4f | %.5f, %.5f, %.5f | %.5f, %.5f | %.1e |" % (
                name, len(r), np.median(r[:, 2]), np.median(r[:, 0]), np.quantile(r[:, 0], 0.99),
                r[:, 0].max(), np.median(r[:, 1]), r[:, 1].max(), r[:, 3].max()),
                flush=True)
        t = times(a, folder, (real + made)[:256])
        theirs = t["scikit-learn"]
        print("\n| what | ms per page, median | least "
              "| scikit-learn / this, median of the rounds |")
        print("| --- | --- | --- | --- |")
        for name, ms in t.items():
            ratio = statistics.median(x / y for x, y in zip(theirs, ms))
            print("| %s | %.3f | %.3f | %.2f |" % (name, statistics.median(ms), min(ms), ratio))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Several load clients on one mock server, each held against the server's own record.

    side_by_side.py --tokentape target/release/tokentape --tokenizer DIR [--vllm BIN]... [--evalscope BIN]...
                    [--vllm-rust BIN] [--streams 50,500] [--rounds 5] [--json]

Each client replays the same load (chat, 100 tokens in, 100 out, closed loop) in turn, against a mock of its own with
the same settings, and reports by its own definitions in its own result file. The truth log says what was true in that
very run. Printed: the median over the rounds of each figure's error, its size, in microseconds. Nothing but Python's
standard library; the clients are given as paths and none is needed.
"""

import argparse
import json
import pathlib
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile

OUTPUT_TOKENS = 100
FIGURES = ["mean TTFT", "p99 TTFT", "mean ITL", "p50 ITL", "p99 ITL", "mean TPOT", "mean E2EL", "p99 E2EL"]


def percentile(values, p):
    """numpy's linear percentile."""
    values = sorted(values)
    at = (len(values) - 1) * p / 100
    low = int(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def figures(ttfts, itls, tpots, e2els):
    """The figures of values in microseconds."""
    return dict(zip(FIGURES, [
        statistics.fmean(ttfts), percentile(ttfts, 99),
        statistics.fmean(itls), percentile(itls, 50), percentile(itls, 99),
        statistics.fmean(tpots), statistics.fmean(e2els), percentile(e2els, 99),
    ]))


def truth(path, requests, output):
    """What was true of the last `requests` answers: clients send trial requests before the ones they measure. `output`
    names the events that the client takes for output: most take the one that names only the role for a first token."""
    records = []
    with open(path) as lines:
        for line in lines:
            record = json.loads(line)
            if record["type"] == "request" and record["outcome"] == "complete":
                records.append(record)
    records = sorted(records, key=lambda record: record["arrival_ns"])[-requests:]
    if len(records) < requests:
        sys.exit(f"{path}: {len(records)} complete answers, and {requests} were to be measured")
    ttfts, itls, tpots, e2els = [], [], [], []
    for record in records:
        kinds = [kind for kind, count in record["events"] for _ in range(count)]
        written = record["written_ns"]
        tokens = [at for kind, at in zip(kinds, written) if kind in output]
        ttfts.append((tokens[0] - record["arrival_ns"]) / 1e3)
        e2els.append((written[-1] - record["arrival_ns"]) / 1e3)
        itls.extend((b - a) / 1e3 for a, b in zip(tokens, tokens[1:]))
        tpots.append((tokens[-1] - tokens[0]) / 1e3 / (record["completion_tokens"] - 1))
    return figures(ttfts, itls, tpots, e2els)


class Client:
    """A load client: `run` sends the load and returns the figures that it reports, in microseconds."""

    def __init__(self, name, binary):
        self.name, self.binary = name, binary

    def start(self, command):
        done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            sys.exit(f"{self.name} ended with {done.returncode}:\n{done.stdout[-3000:]}")


class Tokentape(Client):
    output = ["token"]

    def run(self, url, streams, requests, folder, _tokenizer):
        tape, run = folder / "load.tape.zst", folder / "run"
        self.start([self.binary, "generate", "random", "--requests", requests, "--input-tokens", 100,
                    "--output-tokens", OUTPUT_TOKENS, "-o", tape])
        self.start([self.binary, "replay", tape, "--url", url, "--concurrency", streams, "--quiet", "-o", run])
        native = json.loads((run / "summary.json").read_text())
        places = [("ttft_ms", "mean"), ("ttft_ms", "p99"), ("itl_ms", "mean"), ("itl_ms", "p50"), ("itl_ms", "p99"),
                  ("tpot_ms", "mean"), ("e2el_ms", "mean"), ("e2el_ms", "p99")]
        return {name: native[metric][key] * 1e3 for name, (metric, key) in zip(FIGURES, places)}


class Vllm(Client):
    arguments = ["bench", "serve"]
    output = ["role", "token"]

    def run(self, url, streams, requests, folder, tokenizer):
        self.start([self.binary, *self.arguments, "--backend", "openai-chat", "--base-url", url,
                    "--endpoint", "/v1/chat/completions", "--model", "tokentape", "--tokenizer", tokenizer,
                    "--dataset-name", "random", "--random-input-len", 100, "--random-output-len", OUTPUT_TOKENS,
                    "--ignore-eos", "--num-prompts", requests, "--max-concurrency", streams, "--disable-tqdm",
                    "--percentile-metrics", "ttft,tpot,itl,e2el", "--save-result", "--result-dir", folder,
                    "--result-filename", "result.json"])
        return of_vllm(json.loads((folder / "result.json").read_text()))


class VllmRust(Vllm):
    arguments = []


def of_vllm(result):
    keys = ["mean_ttft_ms", "p99_ttft_ms", "mean_itl_ms", "median_itl_ms", "p99_itl_ms", "mean_tpot_ms",
            "mean_e2el_ms", "p99_e2el_ms"]
    return {name: result[key] * 1e3 for name, key in zip(FIGURES, keys)}


class Evalscope(Client):
    output = ["role", "token"]

    def run(self, url, streams, requests, folder, tokenizer):
        self.start([self.binary, "perf", "--url", f"{url}/v1/chat/completions", "--api", "openai",
                    "--model", "tokentape", "--tokenizer-path", tokenizer, "--dataset", "random",
                    "--min-prompt-length", 100, "--max-prompt-length", 100, "--max-tokens", OUTPUT_TOKENS,
                    "--min-tokens", OUTPUT_TOKENS, "--number", requests, "--parallel", streams, "--stream",
                    "--extra-args", '{"ignore_eos": true}', "--outputs-dir", folder])
        database = next(folder.rglob("benchmark_data.db"))
        rows = sqlite3.connect(database).execute(
            "select first_chunk_latency, latency, inter_token_latencies, time_per_output_token from result "
            "where success").fetchall()
        itls = [gap * 1e6 for row in rows for gap in json.loads(row[2])]
        return figures([row[0] * 1e6 for row in rows], itls, [row[3] * 1e6 for row in rows],
                       [row[1] * 1e6 for row in rows])


def measure(client, args, streams):
    """One run: each figure measured and true."""
    requests = streams * args.requests_per_stream
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
        folder = pathlib.Path(folder)
        log = folder / "truth.jsonl"
        mock = subprocess.Popen([args.tokentape, "mock", "--port", "0", "--ttft", args.ttft, "--itl", args.itl,
                                 "--truth-log", log,
                                 # A client may ask the server to count its prompts.
                                 *(["--tokenizer", args.tokenizer] if args.tokenizer else [])], stdout=subprocess.PIPE, text=True)
        try:
            url = mock.stdout.readline().strip().removeprefix("listening on ")
            measured = client.run(url, streams, requests, folder, args.tokenizer)
        finally:
            mock.send_signal(signal.SIGTERM)
            mock.wait()
        true = truth(log, requests, client.output)
        return {name: (measured[name], true[name]) for name in FIGURES}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokentape", required=True, help="the tokentape binary; its mock serves every client")
    parser.add_argument("--tokenizer", help="a Hugging Face tokenizer folder, which the peers make prompts with")
    parser.add_argument("--vllm", action="append", default=[], metavar="NAME=BIN", help="a vllm with `bench serve`")
    parser.add_argument("--vllm-rust", action="append", default=[], metavar="NAME=BIN", help="vLLM's Rust client")
    parser.add_argument("--evalscope", action="append", default=[], metavar="NAME=BIN", help="an evalscope with `perf`")
    parser.add_argument("--streams", default="50,500")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests-per-stream", type=int, default=4)
    parser.add_argument("--ttft", default="20ms")
    parser.add_argument("--itl", default="10ms")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()

    clients = [Tokentape("tokentape", args.tokentape)]
    for kind, given in ((VllmRust, args.vllm_rust), (Vllm, args.vllm), (Evalscope, args.evalscope)):
        for text in given:
            name, _, binary = text.rpartition("=")
            clients.append(kind(name or binary, binary))
    if len(clients) > 1 and not args.tokenizer:
        parser.error("the peers make their prompts with a tokenizer: give --tokenizer")
    for streams in map(int, args.streams.split(",")):
        runs = {client.name: [] for client in clients}
        for _ in range(args.rounds):
            for client in clients:
                runs[client.name].append(measure(client, args, streams))
        show(streams, args, runs)


def show(streams, args, runs):
    if not args.json:
        print(f"\n{streams} streams, medians of {args.rounds} rounds: measured less true, in us (true)")
        print(f"{'':<12}" + "".join(f"{name:>24}" for name in runs))
    for figure in FIGURES:
        row = {}
        for name, rounds in runs.items():
            pairs = [run[figure] for run in rounds]
            # The run in the middle, so that an error stands beside its own truth.
            pairs.sort(key=lambda pair: abs(pair[0] - pair[1]))
            row[name] = pairs[len(pairs) // 2]
        if args.json:
            print(json.dumps({"streams": streams, "rounds": args.rounds, "figure": figure,
                              "us": {name: {"measured": m, "true": t} for name, (m, t) in row.items()}}))
        else:
            print(f"{figure:<12}" + "".join(f"{m - t:>+12.1f} ({t:>9.1f})" for m, t in row.values()))
    sys.stdout.flush()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Compares static file servers, in one run, on this machine.

    benches/servers.py                                   everything; about 20 minutes
    benches/servers.py --write-docs                      also writes tables and chart into docs/performance.md
    benches/servers.py --scenario small-1k --only sanserve-mio,nginx,limit --rounds 5

It builds sanserve, makes a tree of files, starts each server for each round, pinned to one CPU, and loads it with
wrk, pinned to another one. Each round goes through all servers before the next round begins, so a machine that
becomes slower does so for all. Every figure is the median of the rounds. Trust the ratios within one run, not the
absolute numbers.

How long a small request takes next to downloads, listings, slow disks and scripts, and what slow readers cost, is
measured by beside.py.

It needs Linux and wrk (Debian: apt-get install wrk). nginx, lighttpd, caddy, static-web-server, miniserve and httpsd
take part if they are installed. `limit` is the upper bound: limit.c, a loop that parses nothing; it needs gcc. It
has no listings, and no 304 or 404.

The results for each scenario: requests per second; CPU time of the server's processes for a request, user and system,
in microseconds; the utilization of its CPU (if that is low, the load generator was the bottleneck, and the CPU time of
a request is the figure to compare); latency, median and 99th percentile; peak resident memory.
"""
import argparse
import http.client
import json
import os
import select
import shutil
import socket
import sys
import time

sys.dont_write_bytecode = True  # no __pycache__ among the sources

import harness
from harness import Setup, Running, SERVERS, ask, bytes_text, median, number, table, warm, wrk

BROWSER = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "Accept-Language: en-US,en;q=0.5",
    "Accept-Encoding: gzip, deflate, br", "DNT: 1", "Upgrade-Insecure-Requests: 1", "Cookie: a=1; b=2; session=0123456789abcdef",
]
SINCE = ["If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT"]


class Scenario:
    """One row of the table: the request, and the correct response."""

    def __init__(self, what, path="/1k.html", connections=64, status=200, size=None, ceiling=True, kind="load", **more):
        self.what, self.path, self.connections, self.status, self.size = what, path, connections, status, size
        self.ceiling, self.kind, self.more = ceiling, kind, more


SCENARIOS = {
    "small-1k": Scenario("1 KiB, 64 connections", size=1024),
    "small-1k-c1": Scenario("1 KiB, 1 connection", connections=1, size=1024),
    "small-1k-c1000": Scenario("1 KiB, 1,000 connections", connections=1000, size=1024),
    "browser-4k": Scenario("4 KiB, the fields of a browser", path="/4k.html", size=4096, fields=BROWSER),
    "not-modified": Scenario("304 to If-Modified-Since", status=304, size=0, ceiling=False, fields=SINCE),
    "missing": Scenario("404", path="/no-such-file", status=404, ceiling=False),
    "pipeline-16": Scenario("1 KiB, 16 requests at once", size=1024, depth=16),
    "new-conn": Scenario("1 KiB, a connection for each", connections=32, size=1024, fields=["Connection: close"], close=True),
    "file-100k": Scenario("100 KiB, 32 connections", path="/100k.bin", connections=32, size=100 << 10),
    "file-1m": Scenario("1 MiB, 16 connections", path="/1m.bin", connections=16, size=1 << 20),
    "file-100m": Scenario("100 MiB, 4 connections", path="/100m.bin", connections=4, size=100 << 20),
    "list-1000": Scenario("listing of 1,000 files", path="/list1000/", connections=8, ceiling=False),
    "small-1k-log": Scenario("small-1k, access log to a file", size=1024, ceiling=False, log=True),
    "one-worker": Scenario("small-1k, 1 worker, 2 processors shared by all", size=1024, connections=128, workers=1, spread=True),
    "two-workers": Scenario("small-1k, 2 workers, 2 processors shared by all", size=1024, connections=128, workers=2, spread=True),
    "idle-10k": Scenario("idle connections: memory of each", kind="idle"),
    "ready": Scenario("from start to the first connection", ceiling=False, kind="ready"),
}


def make_tree(folder):
    os.makedirs(folder + "/list1000")
    for name, size in (("1k.html", 1024), ("4k.html", 4096), ("100k.bin", 100 << 10), ("1m.bin", 1 << 20), ("100m.bin", 100 << 20)):
        harness.write_file(f"{folder}/{name}", size)
    for i in range(1000):
        harness.write_file(f"{folder}/list1000/file-{i:04}.txt", i % 10)
    for where, _, files in os.walk(folder):
        os.chmod(where, 0o755)
        for name in files:
            path = os.path.join(where, name)
            os.chmod(path, 0o644)
            os.utime(path, (harness.STAMP, harness.STAMP))
    harness.settle()


def check(running, name, scenario):
    """Checks that the server gives the correct response; returns what is wrong with it."""
    if SERVERS[name].ceiling:
        return ""
    try:
        status, body = ask(running, scenario.path, scenario.more.get("fields", ()))
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"
    if status != scenario.status:
        return f"status {status}, not {scenario.status}"
    if scenario.size is not None and len(body) != scenario.size:
        return f"{len(body)} bytes, not {scenario.size}"
    if scenario.path.endswith("/") and (b"file-0000.txt" not in body or b"file-0999.txt" not in body):
        return "an incomplete listing"
    return ""


def idle(running, count):
    """Resident memory for each idle connection, after one request on each."""
    request = b"GET /1k.html HTTP/1.1\r\nHost: x\r\n\r\n"
    sockets = []

    def opened(n):
        # One source address for every few thousand connections, so that ports do not run out.
        s = socket.socket()
        sockets.append(s)
        s.settimeout(5)
        s.bind((f"127.0.1.{n // 5000 + 1}", 0))
        s.connect(("127.0.0.1", running.port))
        s.sendall(request)
        got = b""
        while b"\r\n\r\n" not in got or len(got) - got.index(b"\r\n\r\n") - 4 < 1024:
            more = s.recv(65536)
            if not more:
                raise OSError("closed")
            got += more

    error = ""
    before = running.memory()
    try:
        for n in range(100):
            opened(n)
        time.sleep(0.3)
        before = running.memory()
        for n in range(100, 100 + count):
            opened(n)
    except OSError as e:
        error = f"only {len(sockets)} connections: {e}"
    time.sleep(0.5)
    each = (running.memory() - before) / max(len(sockets) - 100, 1)
    poll = select.poll()
    for s in sockets:
        poll.register(s, select.POLLIN | select.POLLHUP)
    gone = len(poll.poll(0))
    for s in sockets:
        s.close()
    if not error and gone:
        error = f"{gone} of {len(sockets)} were closed"
    return {"idle_bytes": each, "errors": error}


def measure(name, program, key, folder, tmp, arguments):
    """One round of one scenario on one server."""
    scenario = SCENARIOS[key]
    more = scenario.more
    log = f"{tmp}/access.log" if more.get("log") else None
    setup = Setup(folder, tmp, file=scenario.path.lstrip("/"), close=more.get("close", False), log=log,
                  workers=more.get("workers", 1), pipelined="depth" in more)
    if scenario.kind == "ready":
        starts = []
        for _ in range(5):
            with Running(name, program, setup) as running:
                starts.append({"ready_ms": running.ready_ms, "rss": running.memory(), "errors": ""})
        return median(starts)
    spread = f"{harness.SERVER_CPU},{harness.CLIENT_CPU}" if more.get("spread") else None
    with Running(name, program, setup, spread) as running:
        if scenario.kind == "idle":
            warm(running, "/1k.html")
            return idle(running, arguments.idle)
        wrong = check(running, name, scenario)
        if wrong:
            return {"errors": wrong}
        fields = more.get("fields", ())
        warm(running, scenario.path, fields, 200 if (scenario.size or 0) < 1 << 20 else 2)
        threads = 2 if spread else 1
        return wrk(running, tmp, scenario.path, scenario.connections, arguments.seconds, fields, more.get("depth", 1), threads, spread)


def takes_part(name, scenario):
    server = SERVERS[name]
    if server.ceiling and not scenario.ceiling:
        return False
    if scenario.more.get("log") and not server.log:
        return False
    return server.workers or "workers" not in scenario.more


def run(arguments, chosen, scenarios, results):
    tmp = harness.temporary()
    folder = tmp + "/www"
    try:
        make_tree(folder)
        for key in scenarios:
            scenario = SCENARIOS[key]
            names = [name for name in chosen if takes_part(name, scenario)]
            measured = {name: [] for name in names}
            for turn in range(1 if scenario.kind == "idle" else arguments.rounds):
                # Shuffled, so that no server always runs after the same one.
                for name in names[turn % len(names):] + names[:turn % len(names)]:
                    try:
                        measured[name].append(measure(name, chosen[name], key, folder, tmp, arguments))
                    except RuntimeError as error:
                        measured[name].append({"errors": str(error)})
            results[key] = {name: median(values) for name, values in measured.items()}
            print(f"\n### {key}: {scenario.what}\n\n{one_table(results[key])}", flush=True)
            if arguments.json:
                save(arguments.json, results, chosen)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


# ---- Tables ------------------------------------------------------------------------------------

def figure(row):
    """The figure to compare in a scenario, and whether more is better."""
    for key, more in (("rps", True), ("idle_bytes", False), ("ready_ms", False)):
        if any(key in one for one in row.values()):
            return key, more
    return "rps", True


def ratio(row, name, base, key=None):
    key = key or figure(row)[0]
    a, b = row.get(name, {}).get(key), row.get(base, {}).get(key)
    return a / b if a is not None and b else None


def sound(one):
    """Whether the figures of a server are reliable."""
    return bool(one) and not one.get("errors") and ("rps" not in one or one["rps"] > 0)


COLUMNS = [("rps", "requests/s", 1), ("busy", "busy %", 100), ("cpu_us", "CPU µs/request", 1), ("p50_us", "p50 µs", 1), ("p99_us", "p99 µs", 1),
           ("idle_bytes", "bytes/connection", 1), ("ready_ms", "ready ms", 1), ("rss", "RSS MiB", 2**-20)]


def one_table(row):
    key, more = figure(row)
    used = [(column, title, scale) for column, title, scale in COLUMNS if any(column in one for one in row.values())]
    head = ["server", *(title for _, title, _ in used), "x nginx", "x limit", ""]
    lines = []
    for name in sorted(row, key=lambda name: (row[name].get(key) is None, (-1 if more else 1) * (row[name].get(key) or 0))):
        cells = [number(row[name][column] * scale) if column in row[name] else "–" for column, _, scale in used]
        lines.append([name, *cells, *(number(ratio(row, name, base)) for base in ("nginx", "limit")), row[name].get("errors", "")])
    return table(head, lines)


def peers(row):
    return {name: one for name, one in row.items() if not name.startswith("sanserve") and name != "limit" and sound(one)}


def best_peer(row):
    key, more = figure(row)
    rated = [(one[key], name) for name, one in peers(row).items() if key in one]
    return (max if more else min)(rated, default=(None, None))


def at_least(base, goal):
    return lambda row: [(f"{goal} x {base}", ratio(row, "sanserve-mio", base), lambda v: v >= goal)]


def large_file(row):
    return [("0.9 x limit", ratio(row, "sanserve-mio", "limit"), lambda v: v >= 0.9),
            ("CPU a byte at most 1.15 x limit", ratio(row, "sanserve-mio", "limit", "cpu_us_mib"), lambda v: v <= 1.15)]


def new_connections(row):
    best, _ = best_peer(row)
    own = row.get("sanserve-mio", {}).get("rps")
    return [("CPU a request at most nginx's", ratio(row, "sanserve-mio", "nginx", "cpu_us"), lambda v: v <= 1),
            ("requests of the best peer", own / best if own and best else None, lambda v: v >= 1)]


def ready(row):
    own = row.get("sanserve-mio", {})
    return [("nginx's start", ratio(row, "sanserve-mio", "nginx"), lambda v: v <= 1),
            ("at most 5 MiB resident", own["rss"] / 2**20 if "rss" in own else None, lambda v: v <= 5)]


#: The goals for sanserve-mio: for each scenario (goal, value, test).
GOALS = {
    "small-1k": at_least("limit", 0.9), "browser-4k": at_least("limit", 0.9), "small-1k-c1000": at_least("limit", 0.9),
    "not-modified": at_least("nginx", 1.15), "missing": at_least("nginx", 1.15), "pipeline-16": at_least("limit", 0.7),
    "new-conn": new_connections, "file-100k": large_file, "file-1m": large_file, "file-100m": large_file,
    "list-1000": at_least("nginx", 3),
    "idle-10k": lambda row: [("at most 200 bytes", row.get("sanserve-mio", {}).get("idle_bytes"), lambda v: v <= 200)],
    "ready": ready,
}


def goals_table(results):
    lines = []
    for key, row in results.items():
        goals = GOALS.get(key, lambda row: [])(row) if "sanserve-mio" in row else []
        if "sanserve-smol" in row and "rps" in row["sanserve-smol"] and "workers" not in SCENARIOS[key].more:
            goals.append(("smol: 0.8 x our mio", ratio(row, "sanserve-smol", "sanserve-mio"), lambda v: v >= 0.8))
        if key == "small-1k" and "sanserve-std" in row:
            goals.append(("std: 0.9 x nginx", ratio(row, "sanserve-std", "nginx"), lambda v: v >= 0.9))
        if key == "small-1k-c1" and "sanserve-std" in row:
            # limit is not a real server.
            others = [one["rps"] for name, one in row.items() if name not in ("sanserve-std", "limit") and "rps" in one]
            best = row["sanserve-std"].get("rps", 0) / max(others, default=1)
            goals.append(("std: the best of all servers", best, lambda v: v >= 1))
        lines += [[key, goal, number(value), "met" if test(value) else "**missed**"] for goal, value, test in goals if value is not None]
    if "small-1k-log" in results and "small-1k" in results:
        both = [results[key].get("sanserve-mio", {}).get("rps") for key in ("small-1k-log", "small-1k")]
        if all(both):
            lines.append(["small-1k-log", "0.9 x our small-1k", number(both[0] / both[1]), "met" if both[0] / both[1] >= 0.9 else "**missed**"])
    if "two-workers" in results and "one-worker" in results:
        scale = {name: results["two-workers"][name]["rps"] / results["one-worker"][name]["rps"]
                 for name in results["two-workers"] if "rps" in results["two-workers"][name] and results["one-worker"].get(name, {}).get("rps")}
        if "sanserve-mio" in scale and "limit" in scale:
            value = scale["sanserve-mio"] / scale["limit"]
            lines.append(["two-workers", "scales as limit does", number(value), "met" if value >= 0.95 else "**missed**"])
    return table(["scenario", "goal", "measured", ""], lines)


def summary_table(results):
    """A row for each scenario: sanserve, the ratios, the best of the others."""
    lines = []
    for key, row in results.items():
        measure_key, _ = figure(row)
        value, name = best_peer(row)
        unit = {"rps": "", "idle_bytes": " B", "ready_ms": " ms"}[measure_key]
        own = row.get("sanserve-mio", {}).get(measure_key)
        lines.append([f"{key}<br>{SCENARIOS[key].what}", number(own) + unit if own is not None else "–",
                      number(ratio(row, "sanserve-mio", "limit")), number(ratio(row, "sanserve-mio", "nginx")),
                      number(ratio(row, "sanserve-mio", "limit", "cpu_us")), number(ratio(row, "sanserve-mio", "nginx", "cpu_us")),
                      number(ratio(row, "sanserve-smol", "sanserve-mio")), number(ratio(row, "sanserve-std", "sanserve-mio")),
                      f"{name}: {number(value)}{unit}" if name else "–"])
    return table(["scenario", "mio", "mio / limit", "mio / nginx", "CPU mio / limit", "CPU mio / nginx", "smol / mio", "std / mio", "best other server"], lines)


def matrix(results, key, scale=1):
    rows = {sc: row for sc, row in results.items() if any(key in one for one in row.values())}
    names = [name for name in SERVERS if any(key in row.get(name, {}) for row in rows.values())]
    lines = []
    for sc, row in rows.items():
        cells = []
        for name in names:
            one = row.get(name, {})
            cells.append(number(one[key] * scale) + ("\\*" if one.get("errors") else "") if key in one else "–")
        lines.append([sc, *cells])
    return table(["scenario", *names], lines)


def trouble(results):
    lines = [f"- {sc}, {name}: {one['errors']}" for sc, row in results.items() for name, one in row.items() if one.get("errors")]
    return "Marked with \\* or left out:\n\n" + "\n".join(lines) if lines else "Nothing was left out, and no request failed."


def chart(results):
    panels = []
    for key, row in results.items():
        measure_key, _ = figure(row)
        unit = {"rps": "requests/s", "idle_bytes": "bytes a connection (less is better)", "ready_ms": "ms (less is better)"}[measure_key]
        bars = [(name, row[name][measure_key]) for name in SERVERS if measure_key in row.get(name, {}) and sound(row[name])]
        panels.append((f"{key}: {SCENARIOS[key].what}", unit, bars))
    return harness.bar_panels("Static file servers, one processor each", panels, "Longer is better unless a panel says otherwise. limit is no server: it parses nothing.")


# ---- A larger machine --------------------------------------------------------------------------

#: For each 1,448 bytes of payload: Ethernet with preamble and gap 38, IPv4 20, TCP with timestamps 32.
SEGMENT, OVERHEAD = 1448, 90
#: The approximate size of a response head.
HEAD = 240


def on_the_wire(body):
    size = body + HEAD
    return size + -(-size // SEGMENT) * OVERHEAD


def larger(results):
    """What follows from the CPU time of a request, with the formulas in the document."""
    sizes = [("small-1k", 1024), ("browser-4k", 4096), ("file-100k", 100 << 10), ("file-1m", 1 << 20), ("file-100m", 100 << 20)]
    lines = []
    for key, body in sizes:
        cpu = results.get(key, {}).get("sanserve-mio", {}).get("cpu_us")
        if not cpu:
            continue
        wire = on_the_wire(body)
        cells = [number(1e6 / cpu), number(1e6 / cpu * wire * 8 / 1e9)]
        for gigabits in (1, 10, 25, 100):
            requests = gigabits * 1e9 / 8 / wire
            cells.append(number(requests * cpu / 1e6, 2))
        lines.append([bytes_text(body), number(cpu), *cells])
    out = [table(["answer", "CPU µs", "requests/s a core", "Gbit/s a core", "cores for 1 Gbit/s", "10 Gbit/s", "25 Gbit/s", "100 Gbit/s"], lines)]
    each = results.get("idle-10k", {}).get("sanserve-mio", {}).get("idle_bytes")
    if each and each > 0:
        out.append(f"Idle connections: at {number(each)} bytes of the server's memory each, a million of them take {number(each * 1e6 / 2**20)} MiB, "
                   f"and the kernel's own structures for a socket, which are several KiB each, decide.")
    small = results.get("small-1k", {})
    if all(small.get(name, {}).get("cpu_us") for name in ("sanserve-mio", "limit")):
        own, floor = small["sanserve-mio"]["cpu_us"], small["limit"]["cpu_us"]
        out.append(f"Of the {number(own)} µs of a small answer, {number(floor)} µs are what `limit` pays too: the kernel's receive, send and wait. "
                   f"HTTP, files, limits and timeouts are the other {number(own - floor)} µs.")
    return "\n\n".join(out)


#: The markers in docs/performance.md between which this writes.
BLOCKS = [f"servers-{name}" for name in ("machine", "summary", "goals", "figures", "larger")]


def blocks(results, names, arguments):
    figures = "\n\n".join([
        "Requests a second:\n\n" + matrix(results, "rps"),
        "Processor time of the server for a request, µs:\n\n" + matrix(results, "cpu_us"),
        "How busy the server's processor was, %:\n\n" + matrix(results, "busy", 100),
        "Latency, median, µs:\n\n" + matrix(results, "p50_us"),
        "Latency, 99th percentile, µs:\n\n" + matrix(results, "p99_us"),
        "Most memory resident, MiB:\n\n" + matrix(results, "rss", 2**-20),
        "Bytes for each idle connection:\n\n" + matrix(results, "idle_bytes"),
        "Start, ms:\n\n" + matrix(results, "ready_ms"), trouble(results)])
    return {"servers-machine": harness.machine(names) + f"\n- rounds: {arguments.rounds} of {arguments.seconds} s for each server and scenario",
            "servers-summary": "![Requests a second of all servers in all scenarios; the tables below have the figures](performance/servers.svg)\n\n" + summary_table(results), "servers-goals": goals_table(results),
            "servers-figures": figures, "servers-larger": larger(results)}


def save(path, results, chosen):
    with open(path, "w") as f:
        json.dump({"servers": list(chosen), "results": results}, f, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="SERVER,..", help=f"one or more of {', '.join(SERVERS)}")
    parser.add_argument("--scenario", default="", metavar="NAME,..", help=f"one or more of {', '.join(SCENARIOS)}")
    harness.add_options(parser, "scenario", "scenarios")
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections in idle-10k")
    parser.add_argument("--svg", metavar="FILE", help="write the chart to FILE")
    arguments = parser.parse_args()
    scenarios = harness.selected(parser, arguments.scenario, SCENARIOS, "scenario")
    if arguments.write_docs:
        harness.check_document(BLOCKS)
    results, chosen = {}, {}
    if arguments.load:
        with open(arguments.load) as f:
            loaded = json.load(f)
        results, chosen = loaded["results"], dict.fromkeys(loaded["servers"])
    if not arguments.no_run:
        harness.prepare(("wrk", "taskset"))
        found = harness.choose(arguments.only, arguments.binary and os.path.abspath(arguments.binary))
        run(arguments, found, scenarios, results)
        chosen |= found
    results = {key: results[key] for key in SCENARIOS if key in results}
    print(f"\n## Summary\n\n{summary_table(results)}\n\n## Goals\n\n{goals_table(results)}\n\n{trouble(results)}")
    if arguments.svg:
        with open(arguments.svg, "w") as f:
            f.write(chart(results))
    if arguments.write_docs:
        harness.write_blocks(blocks(results, chosen, arguments))
        print(f"\nwritten: {harness.DOCUMENT}, {harness.save_chart('servers.svg', chart(results))}")


if __name__ == "__main__":
    sys.exit(main())

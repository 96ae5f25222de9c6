#!/usr/bin/env python3
"""How the cost of a request grows with connections, file size, pipeline depth, fields and directory entries.

    benches/growth.py                       everything on sanserve-mio and nginx; about 15 minutes
    benches/growth.py --write-docs          also writes tables and charts into docs/performance.md
    benches/growth.py --series fields --only sanserve-mio,sanserve-smol,nginx

The cost is the CPU time of the server's processes, user and system, divided by the number of requests. Server
and load generator are pinned to one CPU each; the figures are medians of interleaved rounds. For each series a
line is fitted, cost = fixed + each * x, and the exponent of the growth over the upper half of the range (on a
logarithmic axis): about 0 is flat, about 1 is linear.

It needs Linux and wrk; nginx is measured too if it is installed. The largest file needs its size in free memory,
since it is served from the page cache.
"""
import argparse
import json
import math
import os
import shutil
import sys

sys.dont_write_bytecode = True  # no __pycache__ among the sources

import harness
from harness import Running, Setup, bytes_text, median, number, table, warm, wrk

MIB = 1 << 20


class Series:
    """A quantity that grows. `load` returns the arguments of wrk for each value."""

    def __init__(self, title, xlabel, values, load, prepare=None, xtext=lambda x: f"{x:,}"):
        self.title, self.xlabel, self.values, self.load, self.prepare, self.xtext = title, xlabel, values, load, prepare, xtext


def make_size(folder, size):
    path = f"{folder}/size-{size}.bin"
    with open(path, "wb") as f:
        f.truncate(size)
    os.chmod(path, 0o644)
    # Load it into the page cache.
    with open(path, "rb") as f:
        while f.read(MIB):
            pass


def make_entries(folder, count):
    where = f"{folder}/entries-{count}"
    os.makedirs(where)
    os.chmod(where, 0o755)
    for i in range(count):
        os.close(os.open(f"{where}/file-{i:06}.txt", os.O_CREAT | os.O_WRONLY, 0o644))


def short(x):
    return bytes_text(x).replace("iB", "").replace(" ", "")


def connections_for(size):
    return 32 if size <= MIB else 4


SERIES = {
    # The cost of accepting must not matter, so more connections need a longer load.
    "connections": Series("CPU per request by connections", "connections", [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000],
                          lambda x: {"path": "/1k.html", "connections": x, "longer": x // 1000}),
    "size": Series("CPU per request by file size", "file size", [0, 1, 1 << 10, 1 << 12, 1 << 14, 1 << 16, (1 << 16) + 1, 1 << 18, MIB, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30],
                   lambda x: {"path": f"/size-{x}.bin", "connections": connections_for(x)}, make_size, short),
    "pipeline": Series("CPU per request by pipeline depth", "requests sent at once", [1, 2, 4, 8, 16, 32, 64, 128],
                       lambda x: {"path": "/1k.html", "connections": 16, "depth": x}),
    # wrk always sends Host, which HTTP/1.1 requires, so the series starts at 1.
    "fields": Series("CPU per request by header fields", "fields, Host included", [1, 2, 5, 10, 20, 50, 99],
                     lambda x: {"path": "/1k.html", "connections": 32, "fields": [f"X-Field-{i:02}: value of field {i:02}" for i in range(1, x)]}),
    "entries": Series("CPU per listing by directory entries", "entries", [10, 100, 1000, 10_000, 100_000],
                      lambda x: {"path": f"/entries-{x}/", "connections": 4}, make_entries),
}


def measure(name, program, series, x, folder, tmp, seconds):
    load = dict(series.load(x))
    path, connections = load.pop("path"), load.pop("connections")
    seconds += load.pop("longer", 0)
    with Running(name, program, Setup(folder, tmp, pipelined=load.get("depth", 1) > 1)) as running:
        large = path.startswith("/size-") and x >= MIB or path.startswith("/entries-") and x >= 10_000
        if x <= 1 << 24:
            warm(running, path, times=2 if large else 100)
        one = wrk(running, tmp, path, connections, seconds, **load)
    if one["status_errors"]:
        one["errors"] = f"{one['status_errors']} answers were errors"
    if path.startswith("/size-") and x >= MIB:
        # Responses that were incomplete at the end count in proportion to their bytes.
        one["cpu_us"] = one["cpu_us_mib"] * x / MIB
    elif not one["requests"]:
        one = {"errors": "no answer was complete"}
    return one


def line_fit(points):
    """cost = fixed + each * x, by least squares of the relative error."""
    weights = [1 / (y * y) for _, y in points]
    total = sum(weights)
    mx = sum(w * x for w, (x, _) in zip(weights, points)) / total
    my = sum(w * y for w, (_, y) in zip(weights, points)) / total
    spread = sum(w * (x - mx) ** 2 for w, (x, _) in zip(weights, points))
    each = sum(w * (x - mx) * (y - my) for w, (x, y) in zip(weights, points)) / spread if spread else 0
    return my - each * mx, each


def exponent(points):
    """The exponent of a power law through the upper half of the range; fixed costs dominate the lower half."""
    points = [(x, y) for x, y in points if x > 0 and y > 0]
    if len(points) < 2:
        return None
    middle = math.sqrt(points[0][0] * points[-1][0])
    upper = [(math.log(x), math.log(y)) for x, y in points if x >= middle]
    if len(upper) < 2:
        upper = [(math.log(x), math.log(y)) for x, y in points[-2:]]
    mx, my = (sum(p[i] for p in upper) / len(upper) for i in (0, 1))
    return sum((x - mx) * (y - my) for x, y in upper) / sum((x - mx) ** 2 for x, _ in upper)


def verdict(k):
    if k is None:
        return "not enough points"
    for bound, word in ((-0.1, "falls"), (0.1, "flat"), (0.85, "less than linear"), (1.15, "linear")):
        if k < bound:
            return word
    return "more than linear"


def points(rows, name):
    return [(x, rows[x][name]["cpu_us"]) for x in sorted(rows) if "cpu_us" in rows[x].get(name, {}) and rows[x][name]["cpu_us"] > 0]


def report(key, rows):
    """The table of a series and a summary, as Markdown."""
    series = SERIES[key]
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    # For growing costs, the cost per unit is more useful.
    apiece = {"size": (MIB, "µs/MiB"), "entries": (1000, "µs/1,000 entries")}.get(key)
    head = [series.xlabel, *(f"{name}, µs" for name in names), *(f"{name}, {apiece[1]}" for name in names if apiece)]
    lines = []
    for x in sorted(rows):
        one = rows[x]
        cells = [number(one[n]["cpu_us"]) + ("\\*" if one[n].get("errors") else "") if "cpu_us" in one.get(n, {}) else "–" for n in names]
        if apiece:
            cells += [number(one[n]["cpu_us"] / x * apiece[0]) if x >= apiece[0] and "cpu_us" in one.get(n, {}) else "–" for n in names]
        lines.append([bytes_text(x) if key == "size" else f"{x:,}", *cells])
    out = [table(head, lines)]
    for name in names:
        line = points(rows, name)
        if len(line) < 3:
            continue
        fixed, each = line_fit(line)
        k = exponent(line)
        scale, unit = apiece or (1, {"connections": "µs for each connection", "pipeline": "µs for each step of depth", "fields": "µs for each field"}.get(key, ""))
        unit = unit.replace("µs/", "µs for each ")
        fitted = f"; fitted: {number(fixed)} µs + {number(each * scale)} {unit}" if each > 0 else ""
        out.append(f"- {name}: **{verdict(k)}**, exponent {k:.2f} over the upper half{fitted}")
    errors = [f"- \\* {name} at {x:,}: {one['errors']}" for x, row in rows.items() for name, one in row.items() if one.get("errors")]
    return "\n".join([out[0], "", *out[1:], *errors])


def chart(key, rows):
    series = SERIES[key]
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return harness.line_chart(series.title, series.xlabel, "CPU µs", {name: points(rows, name) for name in names}, series.xtext)


def values_of(series, arguments):
    """The values that are possible on this machine and with these arguments."""
    most = arguments.max
    if series is SERIES["size"]:
        with open("/proc/meminfo") as f:
            free = next(int(line.split()[1]) * 1024 for line in f if line.startswith("MemAvailable"))
        most = min(most or 1 << 30, free // 2)
    if series is SERIES["connections"]:
        import resource
        most = min(most or 10_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64) * 3 // 4)
    return [x for x in series.values if not most or x <= most]


def run(arguments, chosen, wanted, results):
    tmp = harness.temporary()
    folder = tmp + "/www"
    try:
        os.mkdir(folder)
        os.chmod(folder, 0o755)
        harness.write_file(folder + "/1k.html", 1024)
        os.chmod(folder + "/1k.html", 0o644)
        for key in wanted:
            series = SERIES[key]
            values = values_of(series, arguments)
            if series.prepare:
                for x in values:
                    series.prepare(folder, x)
            harness.settle()
            measured = {x: {name: [] for name in chosen} for x in values}
            for _ in range(arguments.rounds):
                for x in values:
                    for name, program in chosen.items():
                        try:
                            one = measure(name, program, series, x, folder, tmp, arguments.seconds)
                        except RuntimeError as error:
                            one = {"errors": str(error)}
                        measured[x][name].append(one)
            results[key] = {x: {name: median(ones) for name, ones in row.items()} for x, row in measured.items()}
            print(f"\n### {series.title}\n\n{report(key, results[key])}", flush=True)
            if arguments.json:
                with open(arguments.json, "w") as f:
                    json.dump(results, f, indent=1)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", default="", metavar="NAME,..", help=f"one or more of {', '.join(SERIES)}")
    parser.add_argument("--only", default="sanserve-mio,nginx", metavar="SERVER,..", help=f"one or more of {', '.join(harness.SERVERS)}")
    harness.add_options(parser, "series", "series", each="for each value in each round")
    parser.add_argument("--max", type=int, help="skip larger values")
    arguments = parser.parse_args()
    wanted = harness.selected(parser, arguments.series, SERIES, "series")
    if arguments.write_docs:
        harness.check_document(f"growth-{key}" for key in SERIES)
    results = {}
    if arguments.load:
        with open(arguments.load) as f:
            results = {key: {int(x): row for x, row in rows.items()} for key, rows in json.load(f).items()}
    if not arguments.no_run:
        harness.prepare(("wrk", "taskset"))
        chosen = harness.choose(arguments.only, arguments.binary and os.path.abspath(arguments.binary))
        if "limit" in chosen:
            parser.error("limit serves one file; it has no place here")
        run(arguments, chosen, wanted, results)
    if arguments.write_docs:
        harness.write_blocks({f"growth-{key}": f"![{SERIES[key].title}; the table has the figures](performance/growth-{key}.svg)\n\n{report(key, rows)}"
                              for key, rows in results.items()})
        for key, rows in results.items():
            harness.save_chart(f"growth-{key}.svg", chart(key, rows))
        print(f"\nwritten: {harness.DOCUMENT}, {harness.CHARTS}/growth-*.svg")


if __name__ == "__main__":
    sys.exit(main())

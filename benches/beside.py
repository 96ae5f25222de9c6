#!/usr/bin/env python3
"""How long a small request takes while others ask for much, and what slow readers cost.

    benches/beside.py                                  everything; about 12 minutes
    benches/beside.py --write-docs                     also writes tables and charts into docs/performance.md
    benches/beside.py --row downloads,scripts --only sanserve-mio,nginx --rounds 5

A file of 1 KiB is requested at a fixed, low rate over 20 kept connections, while a neighbour keeps the server busy:
downloads, a listing of 200,000 entries, a disk that takes its time, scripts. A request that could not be sent when it
was due counts from when it was due, so a server that stalls does not hide it. The figures are medians of interleaved
rounds. Each server has one worker (std: a thread for each connection) and is pinned to one CPU; the load has another.

The growth of the same with 1 to 64 neighbours is measured in one round. `memory` is the memory of a connection whose
client takes the first bytes of 1 MiB and no more, and `accept` is the rate of requests with a connection for each.

It needs Linux, gcc and wrk. nginx (also with a pool of threads for reads, as nginx-aio), lighttpd and caddy take part
if they are installed. The rows with a slow disk need root: slowfs.c is a file system whose reads and lookups take
their time, and `cold-disk` is a loop device of which a control group may read 16 times a second.
"""
import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # no __pycache__ among the sources

import harness
from harness import Running, Server, Setup, ask, find, median, number, table

ENTRIES, SCRIPTS, READERS = 200_000, 50, 1_000
COLD_FILES, COLD_READS = 8, 16
NEIGHBOURS = [1, 2, 4, 8, 16, 32, 64]
#: Where servers stall, and each figure takes its time.
FEWER_NEIGHBOURS = [1, 4, 16, 64]
#: Connections that ask for the small file, and the milliseconds between two requests of each.
PROBES, INTERVAL = 20, 100
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
SCRIPT = "#!/bin/sh\ni=0; while [ $i -lt 20000 ]; do i=$((i+1)); done\nprintf 'Content-Type: text/plain\\n\\nok\\n'\n"


# ---- Servers -----------------------------------------------------------------------------------

def sanserve(runtime):
    plain = harness.sanserve(runtime)

    def command(program, setup):
        first, *arguments = plain(program, setup)
        return [*NOBODY, first, "--cgi", *arguments] if setup.scripts else [first, *arguments]
    return command


def nginx_aio(program, setup):
    command = harness.nginx("aio threads;")(program, setup)
    with open(command[2], "r+") as f:
        text = f.read()
        f.seek(0)
        f.write("thread_pool default threads=32;\n" + text)
    return command


def lighttpd(program, setup):
    first, *arguments = harness.lighttpd(program, setup)
    if not setup.scripts:
        return [first, *arguments]
    with open(arguments[-1], "a") as f:
        f.write('server.modules+=("mod_cgi")\n$HTTP["url"] =~ "^/cgi-bin/" { cgi.assign=("" => "") }\n')
    return [*NOBODY, first, *arguments]


SERVERS = {f"sanserve-{runtime}": Server(sanserve(runtime), "sanserve") for runtime in ("mio", "std", "smol")}
SERVERS |= {"nginx": harness.SERVERS["nginx"], "nginx-aio": Server(nginx_aio, "nginx"), "lighttpd": Server(lighttpd, "lighttpd"),
            "caddy": harness.SERVERS["caddy"]}
# The setup for `Running` and `choose`.
harness.SERVERS.clear()
harness.SERVERS.update(SERVERS)
RUN_SCRIPTS = ("sanserve-mio", "sanserve-std", "sanserve-smol", "lighttpd")


# ---- Neighbours --------------------------------------------------------------------------------

class Bench:
    """What all rows share: the tree, the programs, and the disk."""

    def __init__(self, tmp, seconds):
        self.tmp, self.seconds = tmp, seconds
        self.folder, self.load, self.slowfs = f"{tmp}/www", f"{tmp}/load", f"{tmp}/slowfs"
        self.disk = None
        for name in ("load", "slowfs"):
            source = os.path.join(harness.ROOT, "benches", f"{name}.c")
            subprocess.run([find("gcc"), "-O2", "-o", f"{tmp}/{name}", source, "-lpthread"], check=True)

    def make_tree(self, with_listing):
        os.makedirs(self.folder + "/cgi-bin")
        for name, size in (("1k.html", 1024), ("1m.bin", 1 << 20), ("100m.bin", 100 << 20)):
            harness.write_file(f"{self.folder}/{name}", size)
        with open(f"{self.folder}/cgi-bin/busy", "w") as f:
            f.write(SCRIPT)
        for name in ("many", "slow", "disk"):
            os.mkdir(f"{self.folder}/{name}")
        for i in range(ENTRIES if with_listing else 0):
            os.close(os.open(f"{self.folder}/many/file-{i:06}.txt", os.O_CREAT | os.O_WRONLY, 0o644))
        for name in ("", "/cgi-bin", "/cgi-bin/busy", "/many", "/slow", "/disk"):
            os.chmod(self.folder + name, 0o755)
        harness.settle()

    def pinned(self, *command, **more):
        return subprocess.Popen(["taskset", "-c", str(harness.CLIENT_CPU), *map(str, command)], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, **more)

    def downloads(self, path, count):
        return lambda running: [self.pinned(self.load, "bulk", running.port, path, count, 600)]

    def wrk(self, path, count):
        return lambda running: [self.pinned(find("wrk"), "-t1", f"-c{count}", "-d600", "--timeout", "60",
                                            f"http://127.0.0.1:{running.port}{path}")]

    def cold_downloads(self, running):
        return [self.pinned(self.load, "bulk", running.port, f"/disk/cold{i}", 1, 600) for i in range(COLD_FILES)]

    def said(self, mode, port, path, *arguments):
        """What the load generator prints at its end, as numbers."""
        command = ["taskset", "-c", str(harness.CLIENT_CPU), self.load, mode, str(port), path, *map(str, arguments)]
        return [int(word) for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


class Row:
    """A neighbour, and what it takes."""

    def __init__(self, what, load, needs=None, delays=(0, 0)):
        self.what, self.load, self.needs, self.delays = what, load, needs, delays


ROWS = {
    "nothing": Row("nothing", lambda bench: lambda running: []),
    "downloads": Row("64 downloads of 100 MiB", lambda bench: bench.downloads("/100m.bin", 64)),
    "listing": Row(f"a listing of {ENTRIES:,} entries, again and again", lambda bench: bench.wrk("/many/", 1)),
    "slow-reads": Row("one download from a disk that takes 200 ms for each read", lambda bench: bench.downloads("/slow/slow", 1), "fuse", (0, 200)),
    "slow-open": Row("a file whose name takes 500 ms to look up", lambda bench: bench.downloads("/slow/slowopen", 1), "fuse", (500, 0)),
    "cold-disk": Row(f"{COLD_FILES} downloads from a disk with {COLD_READS} reads a second", lambda bench: bench.cold_downloads, "disk"),
    "scripts": Row(f"{SCRIPTS} busy scripts", lambda bench: bench.wrk("/cgi-bin/busy", SCRIPTS), "cgi"),
}

#: Growth: the neighbour, given their number.
GROWTH = {
    "downloads": Row("downloads of 100 MiB", lambda bench, count: bench.downloads("/100m.bin", count)),
    "slow-reads": Row("downloads from a disk that takes 200 ms for each read", lambda bench, count: bench.downloads("/slow/slow", count), "fuse", (0, 200)),
    "scripts": Row("busy scripts", lambda bench, count: bench.wrk("/cgi-bin/busy", count), "cgi"),
}
OTHERS = {"memory": f"memory of {READERS:,} slow readers", "accept": "a connection for each request"}


@contextlib.contextmanager
def slow_file_system(bench, delays):
    """A file system with these delays, in milliseconds, for opening and for reading. Nothing of it is cached before."""
    where = f"{bench.folder}/slow"
    process = subprocess.Popen([bench.slowfs, where, *map(str, delays)], stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout.readline() != "mounted\n":
            raise RuntimeError("the slow file system could not be mounted")
        yield
    finally:
        subprocess.run(["umount", "-l", where], stderr=subprocess.DEVNULL)
        # Whoever waits for a read is let go.
        process.kill()
        process.wait()


class Disk:
    """A loop device of which a control group may read a few times a second."""

    def __init__(self, bench):
        self.where, self.stack = f"{bench.folder}/disk", contextlib.ExitStack()
        image = f"{bench.tmp}/disk.img"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["truncate", "-s", "200M", image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, **quiet)
        device = subprocess.run(["losetup", "-f", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
        self.stack.callback(subprocess.run, ["losetup", "-d", device], **quiet)
        subprocess.run(["mount", device, self.where], check=True)
        self.stack.callback(self.unmount)
        for i in range(COLD_FILES):
            harness.write_file(f"{self.where}/cold{i}", 10 << 20)
        subprocess.run(["sync", "-f", self.where], check=True)
        number_of = os.stat(device).st_rdev
        device = f"{os.major(number_of)}:{os.minor(number_of)}"
        if os.path.isdir("/sys/fs/cgroup/blkio"):
            self.group, self.members = "/sys/fs/cgroup/blkio/sanserve-bench", "cgroup.procs"
            limit = "blkio.throttle.read_iops_device", f"{device} {COLD_READS}"
        else:
            self.group, self.members = "/sys/fs/cgroup/sanserve-bench", "cgroup.procs"
            limit = "io.max", f"{device} riops={COLD_READS}"
        os.makedirs(self.group, exist_ok=True)
        self.stack.callback(self.disband)
        with open(f"{self.group}/{limit[0]}", "w") as f:
            f.write(limit[1])

    def unmount(self):
        for _ in range(50):
            if subprocess.run(["umount", self.where], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.1)

    def disband(self):
        with contextlib.suppress(OSError):
            os.rmdir(self.group)

    def hold(self, running):
        """Nothing is cached, and this server may read as often as the group may."""
        for i in range(COLD_FILES):
            fd = os.open(f"{self.where}/cold{i}", os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
        for pid in harness.family(running.pid):
            with open(f"{self.group}/{self.members}", "w") as f:
                f.write(str(pid))

    def close(self):
        self.stack.close()


def missing(bench, needs):
    """Why rows that need this cannot be measured here."""
    if needs in ("fuse", "disk") and os.getuid() != 0:
        return "needs root"
    if needs == "fuse" and not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse"
    if needs == "disk" and bench.disk is None:
        try:
            bench.disk = Disk(bench)
        except (OSError, subprocess.CalledProcessError) as error:
            return f"no throttled disk: {error}"
    return ""


# ---- Measuring ---------------------------------------------------------------------------------

def setup_of(bench, scripts=False):
    setup = Setup(bench.folder, bench.tmp)
    setup.scripts = scripts
    return setup


def beside(name, program, bench, row, load, seconds):
    """The latency of the small file beside a neighbour."""
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(Running(name, program, setup_of(bench, row.needs == "cgi")))
        if row.needs == "fuse":
            stack.enter_context(slow_file_system(bench, row.delays))
        if row.needs == "disk":
            bench.disk.hold(running)
        harness.warm(running, "/1k.html", times=20)
        if row.needs == "cgi" and ask(running, "/cgi-bin/busy") != (200, b"ok\n"):
            return {"errors": "it does not run scripts"}
        for process in load(running):
            stack.callback(process.wait)
            stack.callback(process.kill)
        time.sleep(0.5)
        requests, errors, p50, p99, worst = bench.said("probe", running.port, "/1k.html", PROBES, INTERVAL, seconds)
    return {"p50_ms": p50 / 1e3, "p99_ms": p99 / 1e3, "max_ms": worst / 1e3, "requests": requests,
            "errors": f"{errors} of {requests} requests had no response in time" if errors else ""}


def memory(name, program, bench):
    """What a connection takes whose client has taken the first bytes of 1 MiB."""
    with Running(name, program, setup_of(bench)) as running:
        def readers(count):
            process = subprocess.Popen([bench.load, "slow", str(running.port), "/1m.bin", str(count), "600"], stdout=subprocess.PIPE, text=True)
            ready = process.stdout.readline()
            time.sleep(0.5)
            return process, ready, running.memory()

        # What the first need for all does not count.
        first, _, before = readers(100)
        others, ready, after = readers(READERS)
        for process in (first, others):
            process.kill()
            process.wait()
    each = (after - before) / READERS
    return {"reader_bytes": each, "errors": "" if ready == f"ready {READERS}\n" else f"not all are served: {ready.strip()}"}


def accept(name, program, bench):
    with Running(name, program, setup_of(bench)) as running:
        harness.warm(running, "/1k.html", times=20)
        before = running.cpu_seconds()
        requests, errors = bench.said("accept", running.port, "/1k.html", 32, bench.seconds)
        cpu = running.cpu_seconds() - before
    return {"accepts": requests / bench.seconds, "cpu_us": cpu / max(requests, 1) * 1e6, "errors": f"{errors} failed" if errors else ""}


def rounds_of(chosen, rounds, measure):
    """The medians of interleaved rounds: {server: figures}."""
    measured = {name: [] for name in chosen}
    names = list(chosen)
    for turn in range(rounds):
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            try:
                measured[name].append(measure(name, chosen[name]))
            except (RuntimeError, subprocess.CalledProcessError, OSError, ValueError) as error:
                measured[name].append({"errors": str(error)})
    return {name: median(ones) for name, ones in measured.items()}


def able(chosen, row):
    return {name: program for name, program in chosen.items() if row.needs != "cgi" or name in RUN_SCRIPTS}


def run(arguments, chosen, wanted, results):
    tmp = harness.temporary()
    bench = Bench(tmp, arguments.seconds)
    keep = lambda: arguments.json and save(arguments.json, results, chosen)
    try:
        bench.make_tree("listing" in wanted)
        for key in wanted:
            if key in OTHERS:
                measure = memory if key == "memory" else accept
                times = 1 if key == "memory" else arguments.rounds
                results[key] = rounds_of(chosen, times, lambda name, program: measure(name, program, bench))
            elif key in ROWS:
                row = ROWS[key]
                why = missing(bench, row.needs)
                if why:
                    print(f"skipped: {key} {why}", file=sys.stderr)
                    continue
                load = row.load(bench)
                results[key] = rounds_of(able(chosen, row), arguments.rounds,
                                         lambda name, program: beside(name, program, bench, row, load, arguments.seconds))
            else:
                key = key.removeprefix("growth-")
                row = GROWTH[key]
                why = missing(bench, row.needs)
                if why:
                    print(f"skipped: growth-{key} {why}", file=sys.stderr)
                    continue
                shown = {name: program for name, program in able(chosen, row).items() if name not in ("nginx-aio", "caddy")}
                results[f"growth-{key}"] = {
                    count: rounds_of(shown, 1, lambda name, program: beside(name, program, bench, row, row.load(bench, count), 1))
                    for count in (FEWER_NEIGHBOURS if row.needs == "fuse" else NEIGHBOURS)}
                print(f"\n### with 1 to 64 {row.what}\n\n{growth_table(results[f'growth-{key}'])}", flush=True)
                keep()
                continue
            print(f"\n### {key}\n\n{one_table(results[key])}", flush=True)
            keep()
    finally:
        if bench.disk:
            bench.disk.close()
        shutil.rmtree(tmp, ignore_errors=True)


# ---- Tables ------------------------------------------------------------------------------------

COLUMNS = [("p50_ms", "p50, ms", 1), ("p99_ms", "p99, ms", 1), ("max_ms", "longest, ms", 1), ("reader_bytes", "KiB a connection", 2**-10),
           ("accepts", "requests/s", 1), ("cpu_us", "CPU µs/request", 1)]


def one_table(row):
    used = [(column, title, scale) for column, title, scale in COLUMNS if any(column in one for one in row.values())]
    lines = [[name, *(number(one[column] * scale) if column in one else "–" for column, _, scale in used), one.get("errors", "")]
             for name, one in row.items()]
    return table(["server", *(title for _, title, _ in used), ""], lines)


def cell(one):
    if "p50_ms" not in one:
        return "–"
    return f"{number(one['p50_ms'])} / {number(one['p99_ms'])}" + ("\\*" if one.get("errors") else "")


def names_in(rows):
    return [name for name in SERVERS if any(name in row for row in rows)]


def rows_table(results):
    rows = {key: results[key] for key in ROWS if key in results}
    names = names_in(rows.values())
    return table(["beside", *names], [[ROWS[key].what, *(cell(row.get(name, {})) for name in names)] for key, row in rows.items()])


def others_table(results):
    names = names_in([results[key] for key in OTHERS if key in results])
    lines = []
    for key, column, title, scale in (("memory", "reader_bytes", f"a slow reader of 1 MiB, one of {READERS:,}, KiB", 2**-10),
                                      ("accept", "accepts", "a connection for each request, requests/s", 1),
                                      ("accept", "cpu_us", "… processor time of a request, µs", 1)):
        row = results.get(key, {})
        if row:
            lines.append([title, *(number(row[name][column] * scale) if column in row.get(name, {}) else "–" for name in names)])
    return table(["", *names], lines) if lines else ""


def growth_table(rows):
    names = names_in(rows.values())
    return table(["neighbours", *names], [[count, *(cell(row.get(name, {})) for name in names)] for count, row in sorted(rows.items())])


def chart(key, rows):
    lines = {name: [(count, row[name]["p99_ms"]) for count, row in sorted(rows.items()) if "p99_ms" in row.get(name, {})] for name in names_in(rows.values())}
    return harness.line_chart(f"99th percentile of a small request beside {GROWTH[key].what}", "neighbours", "ms", lines)


def trouble(results):
    flat = [(key, row) for key, row in results.items() if not key.startswith("growth-")]
    flat += [(f"{key}, {count}", row) for key, rows in results.items() if key.startswith("growth-") for count, row in rows.items()]
    lines = [f"- {key}, {name}: {one['errors']}" for key, row in flat for name, one in row.items() if one.get("errors")]
    return "Marked with \\* or left out:\n\n" + "\n".join(lines) if lines else "Nothing was left out, and no request failed."


#: The markers in docs/performance.md between which this writes.
BLOCKS = ["beside-machine", "beside-rows", "beside-others", *(f"beside-growth-{key}" for key in GROWTH)]


def blocks(results, names, arguments):
    found = {"beside-machine": harness.machine(names) + f"\n- rounds: {arguments.rounds} of {arguments.seconds} s; of growth: one of 1 s"}
    if any(key in results for key in ROWS):
        found["beside-rows"] = f"{rows_table(results)}\n\n{trouble(results)}"
    if any(key in results for key in OTHERS):
        found["beside-others"] = others_table(results)
    for key, row in GROWTH.items():
        rows = results.get(f"growth-{key}")
        if rows:
            picture = f"![99th percentile of a small request beside 1 to 64 {row.what}; the table has the figures](performance/beside-{key}.svg)"
            found[f"beside-growth-{key}"] = f"{picture}\n\n{growth_table(rows)}"
    return found


def save(path, results, chosen):
    with open(path, "w") as f:
        json.dump({"servers": list(chosen), "results": results}, f, indent=1)


def main():
    every = [*ROWS, *OTHERS, *(f"growth-{key}" for key in GROWTH)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="SERVER,..", help=f"one or more of {', '.join(SERVERS)}")
    parser.add_argument("--row", default="", metavar="NAME,..", help=f"one or more of {', '.join(every)}")
    harness.add_options(parser, "row", "rows", rounds=2)
    arguments = parser.parse_args()
    wanted = harness.selected(parser, arguments.row, every, "row")
    if arguments.write_docs:
        harness.check_document(BLOCKS)
    results, chosen = {}, {}
    if arguments.load:
        with open(arguments.load) as f:
            loaded = json.load(f)
        numbered = lambda key, row: {int(count): one for count, one in row.items()} if key.startswith("growth-") else row
        results, chosen = {key: numbered(key, row) for key, row in loaded["results"].items()}, dict.fromkeys(loaded["servers"])
    if not arguments.no_run:
        harness.prepare(("wrk", "taskset", "gcc"))
        found = harness.choose(arguments.only, arguments.binary and os.path.abspath(arguments.binary))
        run(arguments, found, wanted, results)
        chosen |= found
    print(f"\n## Beside neighbours: median and 99th percentile, ms\n\n{rows_table(results)}\n\n{others_table(results)}\n\n{trouble(results)}")
    if arguments.write_docs:
        harness.write_blocks(blocks(results, chosen, arguments))
        for key in GROWTH:
            if f"growth-{key}" in results:
                harness.save_chart(f"beside-{key}.svg", chart(key, results[f"growth-{key}"]))
        print(f"\nwritten: {harness.DOCUMENT}, {harness.CHARTS}/beside-*.svg")


if __name__ == "__main__":
    sys.exit(main())

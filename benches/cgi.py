#!/usr/bin/env python3
"""CGI scripts: requests per second, compared with lighttpd's mod_cgi, and the effect of scripts on requests for files.

    benches/cgi.py                            everything; about 3 minutes
    benches/cgi.py --rounds 5 --seconds 4
    benches/cgi.py --binary target/release/sanserve --part rate --only sanserve-mio,lighttpd
    benches/cgi.py --part rate --as-root --write-docs    the servers begin as root; figures go to docs/performance.md

The script is cgi.c, statically linked, so that the server is measured and not a dynamic linker or an interpreter.
The first part requests it over 1, 8, 32 and 100 connections. The second requests a file of 1 KiB over one
connection: alone, while 50 scripts sleep, and while short scripts run over 50 other connections.

Servers and their scripts are pinned to one CPU, and wrk to another one. All servers have one worker (`std`: a
thread for each connection). Each round goes through all servers before the next round begins. Every figure is the
median of the rounds. If this is run as root, the servers run as the user nobody, so that none of them changes its
user for a script. With --as-root they start as root: sanserve changes the user for each script, and lighttpd its own
at the start. Either way scripts run as nobody.

It needs Linux, wrk, a C compiler and, for the comparison, lighttpd.
"""
import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time

sys.dont_write_bytecode = True  # no __pycache__ among the sources

import harness
from harness import Running, Server, Setup, ask, bytes_text, median, number, table, wrk

#: Connections in the first part.
CONNECTIONS = [1, 8, 32, 100]
#: Concurrent scripts in the second part.
SCRIPTS = 50
FILE, SCRIPT = "/1k.html", "/cgi-bin/hello"

AS_ROOT = os.getuid() == 0 and "--as-root" in sys.argv
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 and not AS_ROOT else []

#: In docs/performance.md.
BLOCK = "cgi-as-root"


def sanserve(runtime):
    plain = harness.sanserve(runtime)

    def command(program, setup):
        first, *arguments = plain(program, setup)
        return [*NOBODY, first, "--cgi", *arguments]
    return command


LIGHTTPD_USER = 'server.username="nobody"\nserver.groupname="nogroup"\n'


def lighttpd(program, setup):
    conf = f"{setup.tmp}/lighttpd-{setup.port}.conf"
    with open(conf, "w") as f:
        f.write(f'server.document-root="{setup.folder}"\nserver.port={setup.port}\nserver.bind="127.0.0.1"\n'
                'server.modules=("mod_cgi")\n$HTTP["url"] =~ "^/cgi-bin/" { cgi.assign=("" => "") }\n'
                'server.max-keep-alive-requests=65535\nserver.max-keep-alive-idle=600\nserver.listen-backlog=4096\n'
                f'{LIGHTTPD_USER if AS_ROOT else ""}server.upload-dirs=("{setup.tmp}")\nmimetype.assign=(".html"=>"text/html")\n')
    return [*NOBODY, program, "-D", "-f", conf]


SERVERS = {f"sanserve-{runtime}": Server(sanserve(runtime), "sanserve") for runtime in ("mio", "std", "smol")}
SERVERS["lighttpd"] = Server(lighttpd, "lighttpd")
# The setup for `Running` and `choose`.
harness.SERVERS.clear()
harness.SERVERS.update(SERVERS)


def make_tree(tmp):
    folder = f"{tmp}/root"
    os.makedirs(f"{folder}/cgi-bin")
    subprocess.run(["cc", "-O2", "-static", "-o", f"{folder}{SCRIPT}", os.path.join(harness.ROOT, "benches", "cgi.c")], check=True)
    harness.write_file(folder + FILE, 1024)
    for path in (folder, f"{folder}/cgi-bin", folder + FILE, folder + SCRIPT):
        os.chmod(path, 0o755)
    harness.settle()
    return folder


def checked(running):
    """A server that can run scripts."""
    status, body = ask(running, SCRIPT)
    if (status, body) != (200, b"hello\n"):
        raise RuntimeError(f"not the script's answer: {status} {body[:60]}")
    return running


# ---- The first part ----------------------------------------------------------------------------

def answered(one):
    """The figures of a load, for requests that a script has responded to."""
    share = max(one["requests"] - one["status_errors"], 1) / max(one["requests"], 1)
    return one | {"rps": one["rps"] * share, "cpu_us": one["cpu_us"] / share, "refused": 1 - share}


def rates(arguments, chosen, folder, tmp):
    measured = {}
    for turn in range(arguments.rounds):
        for name, program in chosen.items():
            with Running(name, program, Setup(folder, tmp)) as running:
                checked(running)
                for connections in CONNECTIONS:
                    one = answered(wrk(running, tmp, SCRIPT, connections, arguments.seconds))
                    measured.setdefault((connections, name), []).append(one)
            print(f"round {turn + 1}: {name}", file=sys.stderr)
    return {key: median(all_rounds) for key, all_rounds in measured.items()}


def rates_table(results, names):
    lines = []
    for connections in CONNECTIONS:
        cells = [results[connections, name] for name in names]
        peer = results.get((connections, "lighttpd"))
        over = lambda one, key: number(one[key] / peer[key]) if peer and peer[key] else "–"
        mark = lambda one: "\\*" if one["errors"] or one["refused"] else ""
        lines += [[f"{connections} connection{'s' * (connections > 1)}, requests/s", *(number(one["rps"]) + mark(one) for one in cells)],
                  ["… as a multiple of lighttpd", *(over(one, "rps") for one in cells)],
                  ["processor time of a request, µs", *(number(one["cpu_us"]) for one in cells)],
                  ["… as a multiple of lighttpd", *(over(one, "cpu_us") for one in cells)]]
    refused = [f"{name}, {connections} connections: {number(100 * one['refused'])} %"
               for (connections, name), one in results.items() if one["refused"]]
    note = "\n\n\\* Some requests were refused; they do not count. " + "; ".join(refused) + "." if refused else ""
    return table(["", *names], lines) + note


# ---- The second part ---------------------------------------------------------------------------

class Alone:
    """No other load."""
    what = "alone"

    def __init__(self, running, tmp, seconds):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Sleeping(Alone):
    """Scripts that sleep."""
    what = f"{SCRIPTS} scripts sleep"

    def __init__(self, running, tmp, seconds):
        self.sockets = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(SCRIPTS)]
        for one in self.sockets:
            one.sendall(f"GET {SCRIPT}?600 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        until = time.monotonic() + 10
        while len(harness.family(running.pid)) <= SCRIPTS:
            if time.monotonic() > until:
                raise RuntimeError("the scripts do not run")
            time.sleep(0.01)

    def __exit__(self, *_):
        for one in self.sockets:
            one.close()


class Busy(Alone):
    """Short scripts at the highest rate."""
    what = f"short scripts over {SCRIPTS} connections"

    def __init__(self, running, tmp, seconds):
        url = f"http://127.0.0.1:{running.port}{SCRIPT}"
        self.load = subprocess.Popen([harness.find("wrk"), "-t1", f"-c{SCRIPTS}", f"-d{seconds + 30}s", url],
                                     stdout=subprocess.DEVNULL)
        time.sleep(0.3)

    def __exit__(self, *_):
        self.load.terminate()
        self.load.wait()


def latencies(arguments, chosen, folder, tmp):
    measured = {}
    for turn in range(arguments.rounds):
        for name, program in chosen.items():
            for scene in (Alone, Sleeping, Busy):
                with Running(name, program, Setup(folder, tmp)) as running:
                    checked(running)
                    harness.warm(running, FILE)
                    with scene(running, tmp, arguments.seconds):
                        one = wrk(running, tmp, FILE, 1, arguments.seconds)
                measured.setdefault((scene.what, name), []).append(one)
            print(f"round {turn + 1}: latency, {name}", file=sys.stderr)
    return {key: median(all_rounds) for key, all_rounds in measured.items()}


def latencies_table(results, names):
    lines = []
    for scene in (Alone, Sleeping, Busy):
        for name in names:
            one, alone = results[scene.what, name], results[Alone.what, name]
            over = lambda key: number(one[key] / max(alone[key], 1))
            lines.append([scene.what, name, number(one["p50_us"]), over("p50_us"), number(one["p99_us"]), over("p99_us"), number(one["rps"])])
    return table(["", "", "median, µs", "… of alone", "99th percentile, µs", "… of alone", "requests/s"], lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="SERVER,..", help=f"one or more of {', '.join(SERVERS)}")
    parser.add_argument("--part", choices=["rate", "latency"], help="run only this part")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="duration of the load in each round")
    parser.add_argument("--binary", help="a sanserve to measure instead of building one")
    parser.add_argument("--as-root", action="store_true", help="start the servers as root, if this runs as root")
    parser.add_argument("--write-docs", action="store_true", help="write the first part into docs/performance.md; with --as-root")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    arguments = parser.parse_args()
    if arguments.as_root and not AS_ROOT:
        parser.error("--as-root is for root")
    if arguments.write_docs:
        if not AS_ROOT or arguments.part == "latency":
            parser.error("--write-docs is for the rates with --as-root")
        harness.check_document([BLOCK])
    harness.prepare(("wrk", "taskset", "cc", *NOBODY[:1]))
    chosen = harness.choose(arguments.only, arguments.binary and os.path.abspath(arguments.binary))
    tmp = harness.temporary()
    figures = {}
    try:
        if NOBODY:
            os.chown(tmp, 65534, 65534)
        # The user nobody may have no access to the directory of the binary.
        for name, program in chosen.items():
            if SERVERS[name].program == "sanserve":
                chosen[name] = shutil.copy(program, f"{tmp}/sanserve")
        folder = make_tree(tmp)
        if arguments.part != "latency":
            figures["rate"] = rates(arguments, chosen, folder, tmp)
            print(f"\n## Requests for a script of {bytes_text(os.path.getsize(folder + SCRIPT))}\n\n{rates_table(figures['rate'], list(chosen))}")
        if arguments.part != "rate":
            some = {name: program for name, program in chosen.items() if name in ("sanserve-mio", "lighttpd")}
            figures["latency"] = latencies(arguments, some, folder, tmp)
            print(f"\n## Requests for a file of 1 KiB, one connection\n\n{latencies_table(figures['latency'], list(some))}")
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    if arguments.write_docs:
        machine = harness.machine(list(chosen))
        rounds = f"- rounds: {arguments.rounds} of {arguments.seconds} s for each server and number of connections"
        harness.write_blocks({BLOCK: f"{machine}\n{rounds}\n\n{rates_table(figures['rate'], list(chosen))}"})
        print(f"\nwritten: {harness.DOCUMENT}")
    if arguments.json:
        with open(arguments.json, "w") as f:
            json.dump({part: [[*key, one] for key, one in rows.items()] for part, rows in figures.items()}, f, indent=1)


if __name__ == "__main__":
    sys.exit(main())

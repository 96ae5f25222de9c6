"""Shared by servers.py, growth.py and cgi.py: starting servers, load, CPU time, tables and charts.

It uses only Python's standard library. The load comes from wrk. Linux only: the figures are read from /proc.
"""
import html
import http.client
import json
import math
import os
import platform
import re
import resource
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOCUMENT = os.path.join(ROOT, "docs", "performance.md")
CHARTS = os.path.join(ROOT, "docs", "performance")
#: The timestamp of every generated file: Sun, 06 Nov 1994 08:49:37 GMT.
STAMP = 784_111_777

CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, CLIENT_CPU = CPUS[0], CPUS[-1]

PACKAGES = {
    "wrk": "apt-get install wrk",
    "nginx": "apt-get install nginx-light",
    "lighttpd": "apt-get install lighttpd",
    "gcc": "apt-get install gcc libc6-dev",
    "caddy": "apt-get install caddy",
    "static-web-server": "cargo install static-web-server",
    "miniserve": "cargo install miniserve",
    "httpsd": "not packaged; put a binary of that name on PATH",
}


def find(program):
    """Finds a program on PATH, or where Debian installs servers."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def prepare(needs=("wrk",)):
    """Moves this process to the CPU of the load generator, and raises its limits."""
    for program in needs:
        if not find(program):
            sys.exit(f"{program} is missing; on Debian: {PACKAGES.get(program, 'apt-get install ' + program)}")
    if SERVER_CPU == CLIENT_CPU:
        print("warning: this machine has one CPU; server and load generator share it, so the figures are not meaningful", file=sys.stderr)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Load generators inherit this; servers are pinned one by one.
    os.sched_setaffinity(0, {CLIENT_CPU})


def build_sanserve():
    """Builds the release binary and returns its path."""
    # The compiler may use all CPUs.
    os.sched_setaffinity(0, CPUS)
    try:
        subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "sanserve"], cwd=ROOT, check=True)
        told = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version", "1"], cwd=ROOT, check=True,
                              capture_output=True, text=True).stdout
    finally:
        os.sched_setaffinity(0, {CLIENT_CPU})
    return os.path.join(json.loads(told)["target_directory"], "release", "sanserve")


# ---- Servers -----------------------------------------------------------------------------------

class Setup:
    """How to start a server."""

    def __init__(self, folder, tmp, file="1k.html", close=False, log=None, workers=1, pipelined=False):
        self.folder, self.tmp, self.file, self.close, self.log, self.workers = folder, tmp, file, close, log, workers
        # With tcp_nopush, nginx delays the ends of pipelined responses for tens of milliseconds, so that would
        # measure a timer. In all other scenarios nginx is faster with it.
        self.pipelined = pipelined
        self.port = 0


def sanserve(runtime):
    def command(program, setup):
        workers = [] if runtime == "std" else ["--workers", str(setup.workers)]
        return [program, "--runtime", runtime, "-b", "127.0.0.1", "-d", setup.folder, *workers, "--keep-alive", "600",
                "--max-connections", "40000", *([] if setup.log else ["--quiet"]), str(setup.port)]
    return command


def nginx(cache):
    def command(program, setup):
        conf = f"{setup.tmp}/nginx-{setup.port}.conf"
        log = f"access_log {setup.log}" if setup.log else "access_log off"
        several = setup.workers > 1
        with open(conf, "w") as f:
            f.write(f"""worker_processes {setup.workers}; daemon off; master_process {'on' if several else 'off'};
pid {setup.tmp}/nginx-{setup.port}.pid; error_log /dev/null crit; {'user root;' if os.getuid() == 0 else ''}
events {{ worker_connections 40000; }}
http {{
  types {{ text/html html; text/plain txt; }} default_type application/octet-stream;
  {log}; sendfile on; tcp_nopush {'off' if setup.pipelined else 'on'}; keepalive_requests 1000000000; keepalive_timeout 600s; {cache}
  large_client_header_buffers 8 64k;
  client_body_temp_path {setup.tmp}/n1; proxy_temp_path {setup.tmp}/n2; fastcgi_temp_path {setup.tmp}/n3;
  uwsgi_temp_path {setup.tmp}/n4; scgi_temp_path {setup.tmp}/n5;
  server {{ listen 127.0.0.1:{setup.port} backlog=4096{' reuseport' if several else ''}; root {setup.folder}; autoindex on; }}
}}
""")
        return [program, "-c", conf, "-p", setup.tmp]
    return command


def lighttpd(program, setup):
    conf = f"{setup.tmp}/lighttpd-{setup.port}.conf"
    log = f'server.modules += ("mod_accesslog")\naccesslog.filename="{setup.log}"\n' if setup.log else ""
    with open(conf, "w") as f:
        f.write(f'server.document-root="{setup.folder}"\nserver.port={setup.port}\nserver.bind="127.0.0.1"\n'
                f'server.modules=("mod_dirlisting")\n{log}dir-listing.activate="enable"\n'
                'server.max-keep-alive-requests=65535\nserver.max-keep-alive-idle=600\nserver.max-connections=30000\n'
                'server.max-fds=60000\nserver.listen-backlog=4096\n'
                'mimetype.assign=(".html"=>"text/html",".txt"=>"text/plain",""=>"application/octet-stream")\n')
    return [program, "-D", "-f", conf]


def limit(program, setup):
    binary = f"{setup.tmp}/limit"
    if not os.path.exists(binary):
        source = os.path.join(ROOT, "benches", "limit.c")
        subprocess.run([program, "-O2", "-o", binary, source], check=True)
    return [binary, str(setup.port), os.path.join(setup.folder, setup.file), *(["close"] if setup.close else []), str(setup.workers)]


def plain(*arguments):
    """A server that is configured with flags; {folder} and {port} are replaced."""
    return lambda program, setup: [program, *(a.format(folder=setup.folder, port=setup.port) for a in arguments)]


class Server:
    """A server that can be started, and what it supports: an access log, several workers."""

    def __init__(self, command, program, log=False, workers=False, ceiling=False):
        self.command, self.program, self.log, self.workers, self.ceiling = command, program, log, workers, ceiling


SERVERS = {
    "sanserve-mio": Server(sanserve("mio"), "sanserve", log=True, workers=True),
    "sanserve-smol": Server(sanserve("smol"), "sanserve", log=True, workers=True),
    "sanserve-std": Server(sanserve("std"), "sanserve", log=True),
    "limit": Server(limit, "gcc", workers=True, ceiling=True),
    "nginx": Server(nginx(""), "nginx", log=True, workers=True),
    "nginx-cached": Server(nginx("open_file_cache max=10000 inactive=60s; open_file_cache_valid 60s;"), "nginx", log=True, workers=True),
    "lighttpd": Server(lighttpd, "lighttpd", log=True),
    "caddy": Server(plain("file-server", "--root", "{folder}", "--listen", "127.0.0.1:{port}", "--browse"), "caddy"),
    "static-web-server": Server(plain("-a", "127.0.0.1", "-p", "{port}", "-d", "{folder}", "-z", "true", "-x", "false", "-g", "error", "-n", "1"), "static-web-server"),
    "miniserve": Server(plain("-i", "127.0.0.1", "-p", "{port}", "{folder}"), "miniserve"),
    "httpsd": Server(plain("{folder}", "-l", "127.0.0.1:{port}"), "httpsd"),
    "python": Server(plain("-m", "http.server", "-b", "127.0.0.1", "-d", "{folder}", "-p", "HTTP/1.1", "{port}"), sys.executable),
}


def choose(only, binary=None):
    """The requested servers that are installed; prints which are missing and how to install them."""
    wanted = [name for name in only.split(",") if name] if only else list(SERVERS)
    unknown = [name for name in wanted if name not in SERVERS]
    if unknown:
        sys.exit(f"no such server: {', '.join(unknown)}; there are {', '.join(SERVERS)}")
    if binary is None and any(SERVERS[name].program == "sanserve" for name in wanted):
        binary = build_sanserve()
    chosen, missing = {}, {}
    for name in wanted:
        program = binary if SERVERS[name].program == "sanserve" else find(SERVERS[name].program)
        if program:
            chosen[name] = program
        else:
            missing[SERVERS[name].program] = PACKAGES.get(SERVERS[name].program, "")
    for program, how in missing.items():
        print(f"skipped, because it is not installed: {program} ({how})", file=sys.stderr)
    return chosen


class Running:
    """A started server, pinned to its processor; stopped at the end of `with`."""

    def __init__(self, name, program, setup, cpus=None):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            setup.port = self.port = s.getsockname()[1]
        server = SERVERS[name]
        command = server.command(program, setup)
        pinned = ["taskset", "-c", cpus or str(SERVER_CPU), *command]
        # sanserve logs to stderr; the others open their log file themselves.
        ours = setup.log and server.program == "sanserve"
        stderr = open(setup.log, "wb") if ours else subprocess.DEVNULL
        start = time.perf_counter()
        self.process = subprocess.Popen(pinned, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                        cwd=setup.folder)
        self.pid = self.process.pid
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if self.process.poll() is not None or time.perf_counter() - start > 10:
                    self.stop()
                    raise RuntimeError(f"did not start: {shlex.join(command)}") from None
                time.sleep(0.0002)
        self.ready_ms = (time.perf_counter() - start) * 1e3

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(0.5)
            except subprocess.TimeoutExpired:
                for pid in reversed(family(self.pid)):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except OSError:
                        pass
                self.process.wait()

    def cpu_seconds(self):
        """User and system time of the process and its descendants."""
        ticks = 0
        for pid in family(self.pid):
            try:
                with open(f"/proc/{pid}/stat") as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                ticks += sum(map(int, fields[11:15]))
            except OSError:
                pass
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self, key="VmRSS"):
        """Resident bytes of the process and its descendants."""
        total = 0
        for pid in family(self.pid):
            try:
                with open(f"/proc/{pid}/status") as f:
                    total += int(re.search(key + r":\s+(\d+)", f.read()).group(1)) * 1024
            except (OSError, AttributeError):
                pass
        return total


def family(pid):
    """A process and its descendants."""
    children = {}
    for other in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{other}/stat") as f:
                children.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(other))
        except OSError:
            pass
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


# ---- Load --------------------------------------------------------------------------------------

# wrk's own output is rounded; this is not.
REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("@@ %d %d %d %d %d %d %d %d %d %d\\n", summary.requests, summary.bytes, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect, e.read, e.write, e.timeout, e.status))
end
"""


def pipelined(path, depth):
    return f"""init = function() local all = {{}} for i = 1, {depth} do all[i] = wrk.format("GET", "{path}") end
  pipeline = table.concat(all) end
request = function() return pipeline end
"""


def wrk(running, tmp, path, connections, seconds, fields=(), depth=1, threads=1, cpus=None):
    """Loads a server for some seconds. Returns figures per request, which are unreliable if there are `errors`."""
    script = f"{tmp}/load-{depth}.lua"
    with open(script, "w") as f:
        f.write((pipelined(path, depth) if depth > 1 else "") + REPORT)
    command = ["taskset", "-c", cpus or str(CLIENT_CPU), find("wrk"), f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script]
    for field in fields:
        command += ["-H", field]
    before = running.cpu_seconds()
    out = subprocess.run([*command, f"http://127.0.0.1:{running.port}{path}"], capture_output=True, text=True)
    cpu = running.cpu_seconds() - before
    found = re.search(r"@@ (.*)", out.stdout)
    if not found:
        raise RuntimeError(f"wrk failed: {(out.stderr or out.stdout).strip()[-200:]}")
    n, size, micros, p50, p99, *errors = map(int, found.group(1).split())
    connect, read, write, timeout, status = errors
    wrong = [f"{count} {what}" for count, what in ((connect, "not connected"), (read, "reads failed"), (write, "writes failed"), (timeout, "timed out")) if count]
    return {"requests": n, "bytes": size, "rps": n / micros * 1e6, "bps": size / micros * 1e6, "cpu": cpu,
            "busy": cpu / (micros / 1e6),
            "cpu_us": cpu / max(n, 1) * 1e6, "cpu_us_mib": cpu * 1e6 / max(size / 2**20, 1e-9), "p50_us": p50, "p99_us": p99,
            "rss": running.memory("VmHWM"), "status_errors": status, "errors": ", ".join(wrong)}


def ask(running, path, fields=()):
    """One request: status, body length and the start of the body. Raises if there is no response."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    try:
        connection.request("GET", path, headers=dict(f.split(": ", 1) for f in fields))
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, body
    finally:
        connection.close()


def warm(running, path, fields=(), times=200):
    """Warms up the server and the page cache for a path."""
    for _ in range(times):
        try:
            ask(running, path, fields)
        except (OSError, http.client.HTTPException):
            return


def median(measured):
    """The median of each figure; of texts, the first that is not empty."""
    keys = {key for one in measured for key in one}
    out = {}
    for key in sorted(keys):
        values = [one[key] for one in measured if key in one]
        texts = [value for value in values if isinstance(value, str)]
        out[key] = next((t for t in texts if t), "") if texts else statistics.median(values)
    return out


def settle():
    """Waits two seconds, since sanserve does not cache files that were modified more recently."""
    time.sleep(2.2)


def write_file(path, size):
    with open(path, "wb") as f:
        left = size
        block = os.urandom(min(size, 1 << 20))
        while left > 0:
            f.write(block[:left])
            left -= min(left, len(block))


def temporary():
    folder = tempfile.mkdtemp(prefix="sanserve-bench-")
    os.chmod(folder, 0o755)
    return folder


# ---- Output -------- ---------------------------------------------------------------------------

def commit():
    """The commit that was measured, and whether there are uncommitted changes."""
    try:
        git = lambda *command: subprocess.run(["git", "-C", ROOT, *command], capture_output=True, text=True, check=True).stdout.strip()
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "core", "os", "frontend-mio", "frontend-std", "frontend-smol", "src")
        return git("rev-parse", "--short", "HEAD") + (", with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine(names):
    """The machine, the system and the versions, as a Markdown list."""
    def first(pattern, path, default="unknown"):
        try:
            with open(path) as f:
                found = re.search(pattern, f.read(), re.M)
            return found.group(1).strip() if found else default
        except OSError:
            return default

    def version(*command):
        try:
            out = subprocess.run(command, capture_output=True, text=True, timeout=10)
            return next((line.strip() for line in (out.stdout + out.stderr).splitlines() if line.strip()), "unknown")
        except OSError:
            return None

    model = first(r"^model name\s*:\s*(.*)$", "/proc/cpuinfo", platform.machine())
    memory = int(first(r"MemTotal:\s+(\d+)", "/proc/meminfo", "0")) / 2**20
    virtual = "a virtual machine" if re.search(r"^flags.*\bhypervisor\b", open("/proc/cpuinfo").read(), re.M) else "not a virtual machine"
    lines = [f"- processor: {model}, {os.cpu_count()} logical processors, {virtual}",
             f"- memory: {memory:.0f} GiB",
             f"- system: {platform.system()} {platform.release()}, glibc {platform.libc_ver()[1]}",
             f"- compiler: {version('rustc', '--version')}",
             f"- commit: {commit()}",
             f"- day: {time.strftime('%Y-%m-%d', time.gmtime())}"]
    asked = {"nginx": ("nginx", "-v"), "lighttpd": ("lighttpd", "-v"), "python": (sys.executable, "--version"), "caddy": ("caddy", "version"),
             "static-web-server": ("static-web-server", "--version"), "miniserve": ("miniserve", "--version"), "httpsd": ("httpsd", "--version")}
    versions = []
    for name, (program, *flags) in asked.items():
        if name in names and find(program):
            said = version(find(program), *flags)
            versions.append(said.removeprefix("nginx version: ").split(" - ")[0].removeprefix("static-web-server ") if name != "static-web-server" else said)
    return "\n".join(lines + [f"- servers beside ours: {', '.join(versions) or 'none'}; load: {version(find('wrk') or 'wrk', '-v').split(' Copyright')[0]}"])


def table(head, rows, right=True):
    """A Markdown table; all columns except the first are numbers."""
    align = ["---"] + ["---:" if right else "---"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in [head, align, *rows])


def number(value, digits=3):
    """A number with the given number of significant digits, and commas at the thousands."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, places)
    return f"{rounded:,.{max(places, 0)}f}"


def bytes_text(size):
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << power and size % (1 << power) == 0:
            return f"{size >> power} {unit}"
    return f"{size:,} B"


def add_options(parser, part, parts, rounds=3, each="in each round"):
    """The options that the benchmarks share; `part` and `parts` are their words for what they measure separately."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--seconds", type=int, default=2, help=f"duration of the load {each}")
    parser.add_argument("--binary", help="a sanserve to measure instead of building one")
    parser.add_argument("--json", metavar="FILE", help=f"write all results to FILE, after each {part}")
    parser.add_argument("--load", metavar="FILE", help=f"start with the results in FILE (from --json); {parts} measured now replace them")
    parser.add_argument("--no-run", action="store_true", help="measure nothing: only render the results from --load")
    parser.add_argument("--write-docs", action="store_true", help="write tables and charts into docs/performance.md and docs/performance/")


def selected(parser, names, every, part):
    """The parts in `names`, which are separated by commas; without any, all of them."""
    wanted = [key for key in names.split(",") if key] or list(every)
    unknown = [key for key in wanted if key not in every]
    if unknown:
        parser.error(f"no such {part}: {', '.join(unknown)}")
    return wanted


def check_document(names):
    """Exits if a marker is missing, before a long run instead of after it."""
    with open(DOCUMENT) as f:
        text = f.read()
    for name in names:
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            sys.exit(f"{DOCUMENT} must have {begin} and {end} once each, in this order")


def write_blocks(blocks):
    """Writes each text between its markers in docs/performance.md; nothing else is changed."""
    check_document(blocks)
    with open(DOCUMENT) as f:
        text = f.read()
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{block.strip()}\n\n{end}{rest.split(end)[1]}"
    with open(DOCUMENT, "w") as f:
        f.write(text)


def save_chart(name, svg):
    os.makedirs(CHARTS, exist_ok=True)
    path = os.path.join(CHARTS, name)
    with open(path, "w") as f:
        f.write(svg)
    return path


# Colors that are distinguishable for color-blind readers too (Okabe and Ito), on light and on dark.
STYLE = """
  svg { background: #ffffff; font-family: system-ui, sans-serif; font-size: 12px; }
  text { fill: #24292f; } .soft { fill: #57606a; } .title { font-size: 13px; font-weight: 600; }
  .grid { stroke: #d0d7de; stroke-width: 1; } .axis { stroke: #8c959f; stroke-width: 1; }
  .c0 { fill: #0072b2; stroke: #0072b2; } .c1 { fill: #4a9fd0; stroke: #4a9fd0; } .c2 { fill: #8fc4e4; stroke: #8fc4e4; }
  .c3 { fill: #8c959f; stroke: #8c959f; } .c4 { fill: #d55e00; stroke: #d55e00; } .c5 { fill: #b8bfc6; stroke: #b8bfc6; }
  .line { fill: none; stroke-width: 2; } .bar { stroke: none; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; } text { fill: #e6edf3; } .soft { fill: #9198a1; }
    .grid { stroke: #30363d; } .axis { stroke: #656c76; }
    .c0 { fill: #56b4e9; stroke: #56b4e9; } .c1 { fill: #3a86b4; stroke: #3a86b4; } .c2 { fill: #265a7a; stroke: #265a7a; }
    .c3 { fill: #848d97; stroke: #848d97; } .c4 { fill: #e69f00; stroke: #e69f00; } .c5 { fill: #4d555e; stroke: #4d555e; }
    .line { fill: none; } .bar { stroke: none; }
  }
"""
CLASSES = {"sanserve-mio": "c0", "sanserve-smol": "c1", "sanserve-std": "c2", "limit": "c3", "nginx": "c4", "nginx-cached": "c4"}


def svg(width, height, title, description, body):
    title, description = html.escape(title), html.escape(description)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-labelledby="title desc">\n<title id="title">{title}</title>\n<desc id="desc">{description}</desc>\n'
            f'<style>{STYLE}</style>\n' + "\n".join(body) + "\n</svg>\n")


def text(x, y, words, kind="", anchor="start"):
    kind = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{kind} text-anchor="{anchor}">{html.escape(str(words))}</text>'


def bar_panels(title, panels, note):
    """A chart of small panels. Each panel has a name, a unit, and (server, value) for each bar."""
    columns, width, names, bar, gap = 2, 470, 118, 13, 4
    rows = [panels[i:i + columns] for i in range(0, len(panels), columns)]
    body, y = [text(16, 26, title, "title"), text(16, 44, note, "soft")], 64
    for row in rows:
        for column, (name, unit, bars) in enumerate(row):
            left = 16 + column * width
            body.append(text(left, y + 12, name, "title"))
            body.append(text(left, y + 28, unit, "soft"))
            most = max((value for _, value in bars), default=1) or 1
            room = width - names - 110
            for i, (server, value) in enumerate(bars):
                top = y + 38 + i * (bar + gap)
                length = max(value / most * room, 1)
                body.append(text(left + names - 6, top + bar - 2, server, "", "end"))
                body.append(f'<rect class="bar {CLASSES.get(server, "c5")}" x="{left + names}" y="{top}" width="{length:.1f}" height="{bar}" rx="2"/>')
                body.append(text(left + names + length + 5, top + bar - 2, number(value), "soft"))
        y += 60 + max(len(bars) for _, _, bars in row) * (bar + gap)
    description = "; ".join(f"{name} in {unit}: " + ", ".join(f"{server} {number(value)}" for server, value in bars) for name, unit, bars in panels)
    return svg(16 + columns * width, y, title, description, body)


def line_chart(title, xlabel, ylabel, lines, xtext=str):
    """Lines on two logarithmic axes. `lines`: {server: [(x, y), ..]}. A zero is shown left of everything else, with its own label."""
    points = [(x, y) for line in lines.values() for x, y in line if y > 0]
    if not points:
        return svg(640, 60, title, "nothing was measured", [text(16, 26, title, "title")])
    positive = [x for x, _ in points if x > 0]
    low = math.log10(min(positive))
    zero = low - max((math.log10(max(positive)) - low) * 0.1, 0.3)
    at = lambda x: math.log10(x) if x > 0 else zero
    x0, x1 = min(at(x) for x, _ in points), max(max(at(x) for x, _ in points), low + 1e-9)
    y0 = math.floor(math.log10(min(y for _, y in points)))
    y1 = max(math.ceil(math.log10(max(y for _, y in points))), y0 + 1)
    left, top, width, height = 64, 44, 500, 230
    px = lambda x: left + (at(x) - x0) / (x1 - x0) * width
    py = lambda y: top + height - (math.log10(y) - y0) / (y1 - y0) * height
    body = [text(16, 24, title, "title")]
    for power in range(y0, y1 + 1):
        y = py(10.0**power)
        body.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}"/>')
        body.append(text(left - 6, y + 4, f"{10.0**power:g}" if -3 <= power <= 5 else f"1e{power}", "soft", "end"))
    shown = -1e9
    for x in sorted({x for x, _ in points}):
        if px(x) - shown >= 44:
            shown = px(x)
            body.append(f'<line class="grid" x1="{shown:.1f}" y1="{top}" x2="{shown:.1f}" y2="{top + height}"/>')
            body.append(text(shown, top + height + 16, xtext(x), "soft", "middle"))
    body.append(f'<line class="axis" x1="{left}" y1="{top + height}" x2="{left + width}" y2="{top + height}"/>')
    body.append(text(left + width / 2, top + height + 36, xlabel, "soft", "middle"))
    body.append(text(left, top - 6, ylabel, "soft"))
    labels = []
    for server, line in lines.items():
        kind = CLASSES.get(server, "c5")
        line = [(x, y) for x, y in line if y > 0]
        if not line:
            continue
        way = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in line)
        body.append(f'<polyline class="{kind} line" points="{way}" style="fill:none"/>')
        body += [f'<circle class="{kind}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="2.5"/>' for x, y in line]
        y = py(line[-1][1]) + 4
        while any(abs(y - other) < 14 for other in labels):
            y += 14
        labels.append(y)
        body.append(text(left + width + 8, y, server))
    description = f"{ylabel} by {xlabel}, both logarithmic. " + "; ".join(
        f"{server}: " + ", ".join(f"{xtext(x)} {number(y)}" for x, y in line) for server, line in lines.items())
    return svg(left + width + 110, top + height + 48, title, description, body)

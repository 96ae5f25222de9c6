#!/usr/bin/env python3
"""Compares HTTPS of sanserve (mio) with that of nginx, in one run, on this machine.

    benches/tls.py                     everything; about two minutes
    benches/tls.py --seconds 5 --rounds 5

Both have one worker, pinned to one CPU, the same certificate (ECDSA, P-256), TLS 1.3 with AES-256-GCM, session tickets,
and no access log. The load is wrk, pinned to another CPU, and for handshakes clients of Python's `ssl`. Each round goes
through both before the next begins. Every figure is the median of the rounds.

For each row: operations a second, and processor time of the server's process for an operation, user and system, in
microseconds. If the load generator was the bottleneck, the processor time is the figure to compare: its ratio says how many
operations one core would do. It is counted in hundredths of a second, so runs should not be shorter than a few seconds.

It needs Linux, wrk, nginx and openssl, and builds `frontend-mio/examples/mio_https.rs`.
"""
import argparse
import os
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = {"small-1k": (1 << 10, 64), "file-100k": (100 << 10, 32), "file-1m": (1 << 20, 16)}
IDLE = 1000
NGINX = """
worker_processes 1; daemon off; pid {tmp}/nginx.pid; error_log {tmp}/error.log;
events {{ worker_connections 20000; }}
http {{
    access_log off; sendfile on; keepalive_requests 100000000; keepalive_timeout 600; default_type text/plain;
    client_body_temp_path {tmp}/1; proxy_temp_path {tmp}/2; fastcgi_temp_path {tmp}/3;
    uwsgi_temp_path {tmp}/4; scgi_temp_path {tmp}/5;
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096; root {tmp}/www;
        ssl_certificate {tmp}/cert.pem; ssl_certificate_key {tmp}/key.pem; ssl_protocols TLSv1.3;
        ssl_session_tickets on; ssl_session_cache off; ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
    }}
}}
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(name, tmp, cpu):
    """Starts a server. Returns it, the process that serves, and its port."""
    port = free_port()
    if name == "nginx":
        config = tmp / "nginx.conf"
        config.write_text(NGINX.format(tmp=tmp, port=port))
        command = ["nginx", "-p", str(tmp), "-c", str(config)]
    else:
        program = ROOT / "target/release/examples/mio_https"
        command = [str(program), str(tmp / "www"), str(tmp / "cert.pem"), str(tmp / "key.pem"), str(port)]
    server = subprocess.Popen(["taskset", "-c", str(cpu), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.02)
    children = subprocess.run(["pgrep", "-P", str(server.pid)], stdout=subprocess.PIPE, text=True).stdout.split()
    return server, int(children[0]) if children else server.pid, port


def spent(pid):
    """Processor time in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid):
    return int(re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def client():
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def fetch(connection):
    connection.sendall(b"GET /small-1k HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while len(received) < 1024 or b"\r\n\r\n" not in received or len(received.split(b"\r\n\r\n", 1)[1]) < 1024:
        piece = connection.recv(65536)
        if not piece:
            raise OSError("the response is incomplete")
        received += piece


def handshakes(port, seconds, resumed):
    """How many connections with a request each were made in this time."""
    context, session, count, end = client(), None, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            with context.wrap_socket(plain, session=session) as connection:
                fetch(connection)
                if resumed:
                    assert count == 0 or connection.session_reused
                    session = connection.session
                count += 1
    return count


def loaded(port, name, connections, seconds, cpu):
    command = ["taskset", "-c", str(cpu), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", f"https://127.0.0.1:{port}/{name}"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    if "Non-2xx" in output:
        sys.exit(f"{name}: {output}")
    return int(re.search(r"(\d+) requests in", output)[1])


def measure(name, tmp, arguments):
    """One round: operations a second, and microseconds for an operation, by row."""
    server, pid, port = start(name, tmp, 0)
    found = {}
    try:
        rows = {row: lambda row=row, n=n: loaded(port, row, n, arguments.seconds, 1) for row, (_, n) in FILES.items()}
        rows["full handshakes"] = lambda: handshakes(port, arguments.seconds, False)
        rows["resumed handshakes"] = lambda: handshakes(port, arguments.seconds, True)
        for row, run in rows.items():
            before, begun = spent(pid), time.monotonic()
            count = run()
            found[row] = (count / (time.monotonic() - begun), (spent(pid) - before) * 1e6 / count)
        before, idle = resident(pid), []
        for _ in range(IDLE):
            connection = client().wrap_socket(socket.create_connection(("127.0.0.1", port)))
            fetch(connection)
            idle.append(connection)
        found["idle connection, KiB"] = (None, (resident(pid) - before) / IDLE)
        for connection in idle:
            connection.close()
    finally:
        server.terminate()
        server.wait()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    build = ["cargo", "build", "--release", "-q", "-p", "sanserve-mio", "--features", "tls", "--example", "mio_https"]
    subprocess.run(build, cwd=ROOT, check=True)
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as folder:
        tmp = Path(folder)
        (tmp / "www").mkdir()
        for row, (size, _) in FILES.items():
            path = tmp / "www" / row
            path.write_bytes(os.urandom(size))
            os.utime(path, (1_600_000_000, 1_600_000_000))
        os.chmod(tmp, 0o755)
        key = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"]
        key += ["-keyout", str(tmp / "key.pem"), "-out", str(tmp / "cert.pem"), "-subj", "/CN=localhost"]
        subprocess.run([*key, "-addext", "subjectAltName=DNS:localhost"], check=True, stderr=subprocess.DEVNULL)
        rounds = {"sanserve": [], "nginx": []}
        for _ in range(arguments.rounds):
            for name, results in rounds.items():
                results.append(measure(name, tmp, arguments))
    print("| row | sanserve /s | nginx /s | sanserve us | nginx us | nginx us / sanserve us |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rounds["nginx"][0]:
        cells = []
        for at in (0, 1):
            for results in rounds.values():
                values = [one[row][at] for one in results if one[row][at] is not None]
                cells.append(statistics.median(values) if values else None)
        ratio = cells[3] / cells[2] if cells[2] else float("nan")
        shown = ["" if cell is None else f"{cell:,.1f}" for cell in cells]
        print(f"| {row} | {' | '.join(shown)} | {ratio:.2f} |")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Reports the fields of a form: with the module cgi if Python has it, else by hand."""
import hashlib
import os
import sys
import urllib.parse


def fields():
    try:
        import warnings
        warnings.simplefilter("ignore")
        import cgi
    except ImportError:
        yield from by_convention()
        return
    form = cgi.FieldStorage(keep_blank_values=True)
    for part in form.list or []:
        value = part.file.read() if part.filename else part.value
        yield part.name, part.filename, value if isinstance(value, bytes) else value.encode()


def by_convention():
    kind = os.environ.get("CONTENT_TYPE", "")
    if os.environ["REQUEST_METHOD"] != "POST":
        pairs = urllib.parse.parse_qsl(os.environ["QUERY_STRING"], keep_blank_values=True)
        yield from ((name, None, value.encode()) for name, value in pairs)
        return
    body = sys.stdin.buffer.read(int(os.environ["CONTENT_LENGTH"]))
    if not kind.startswith("multipart/form-data"):
        pairs = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True)
        yield from ((name, None, value.encode()) for name, value in pairs)
        return
    boundary = b"--" + kind.partition("boundary=")[2].encode()
    for part in body.split(boundary)[1:-1]:
        head, _, value = part[2:-2].partition(b"\r\n\r\n")
        line = next(line for line in head.decode().split("\r\n") if line.lower().startswith("content-disposition"))
        said = dict(item.strip().split("=", 1) for item in line.split(";")[1:])
        name = said.get("filename")
        yield said["name"].strip('"'), name and name.strip('"'), value


lines = [f"{name} {filename} {len(value)} {hashlib.md5(value).hexdigest()}\n" for name, filename, value in fields()]
sys.stdout.write("Content-Type: text/plain\n\n" + "".join(lines))

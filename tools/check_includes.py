#!/usr/bin/env python3
"""Prints which folder includes which, and fails when an arrow points the wrong way.

usage: check_includes.py [ROOT]     exit status 1 and a line per offence if there is one
"""
import collections
import pathlib
import re
import sys

# A folder may include itself and these. Leaves (tools, tests, bench, fuzz) may include anything.
ALLOWED = {
    "kernels": set(),
    "configs": set(),
    "cache": {"kernels", "configs"},
    "moe": {"cache", "kernels", "configs"},
    "prefetch": {"cache", "kernels", "configs"},
    "engine": {"moe", "prefetch", "cache", "kernels", "configs"},
}
LEAVES = ("tools", "tests", "bench", "fuzz")
SUFFIXES = {".h", ".cc", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"')


def find_includes(root):
    """Yields (file, line number, including folder, included folder) for project includes."""
    for folder in (*ALLOWED, *LEAVES):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in SUFFIXES:
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                match = INCLUDE.match(line)
                if match:
                    yield path.relative_to(root), number, folder, match.group(1).split("/")[0]


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    known = {*ALLOWED, *LEAVES}
    counts = collections.Counter()
    offences = []
    for path, number, source, target in find_includes(root):
        if target not in known:
            offences.append(f"{path}:{number}: include \"{target}\": name it from the project root")
            continue
        counts[source, target] += 1
        if target != source and source in ALLOWED and target not in ALLOWED[source]:
            offences.append(f"{path}:{number}: {source}/ must not include {target}/")
    columns = [*ALLOWED, *LEAVES]
    width = max(map(len, columns)) + 2
    print("includes of".ljust(12) + "".join(c.rjust(width) for c in columns))
    for source in columns:
        print(source.ljust(12) + "".join((str(counts[source, t] or ".")).rjust(width) for t in columns))
    for offence in offences:
        print(offence)
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())

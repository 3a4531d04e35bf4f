#!/usr/bin/env python3
"""Reads every #include of ours and fails on an edge that the house's rules do not allow, on a
library used outside its one door, on an include of a file that is not there, and on a source file
that CMakeLists.txt does not list."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# The folder a file belongs to -> the folders it may include, beside its own. The whole table of
# docs/architecture.md; a new folder gets a row there and here.
ALLOWED = {
    "utils": set(),
    "resp": {"utils"},
    "persistence": {"utils"},
    "src/values": {"utils"},
    "src/config": {"utils"},
    "src/keyspace": {"src/values", "utils"},
    "src/commands": {"src/keyspace", "src/values", "resp", "utils"},
    "src/execution": {"src/commands", "src/keyspace", "src/values", "resp", "persistence", "utils"},
    "src/wal_tool": {"src/keyspace", "persistence", "utils"},
    "src/server": {"src/execution", "src/commands", "src/keyspace", "src/values", "resp",
                   "persistence", "src/config", "utils"},
}
# A library's header -> the files that may name it.
DOORS = {
    r"uv\.h": r"src/server/",
    r"spdlog/": r"utils/log\.cc",
    r"toml\+\+": r"src/config\w*\.(cc|h)",
    r"roaring/": r"src/values/",
    r"hiredis/": r"(tests/support/|redis-compat/)",
    r"isa-l": r"utils/",
    r"(lz4|zstd|openssl/)": r"persistence/codec\.cc",
}
ANYTHING = ("src/main.cc", "src/wal_main.cc", "tests/", "redis-compat/")


def folder_of(path):
    if re.fullmatch(r"src/config\w*\.(cc|h)", path):
        return "src/config"
    return str(pathlib.PurePosixPath(path).parent)


def main():
    errors = []
    edges = 0
    for file in sorted(ROOT.rglob("*")):
        path = file.relative_to(ROOT).as_posix()
        if file.suffix not in (".cc", ".h") or path.startswith(("build", "data")) or \
                "node_modules" in path:
            continue
        free = path.startswith(ANYTHING)
        folder = folder_of(path)
        if not free and folder not in ALLOWED:
            errors.append(f"{path}: folder {folder} has no row in the layering table")
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            found = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
            if not found:
                continue
            edges += 1
            kind, target = found.groups()
            where = f"{path}:{number}"
            for library, door in DOORS.items():
                if re.match(library, target) and not re.match(door, path):
                    errors.append(f"{where}: {target} belongs behind {door}")
            if kind == "<":
                continue
            if not (ROOT / target).exists():
                errors.append(f"{where}: {target} is not there (includes are from the root)")
            elif not free and folder_of(target) != folder and \
                    folder_of(target) not in ALLOWED[folder]:
                errors.append(f"{where}: {folder} may not include {folder_of(target)}")
    # A file that no target lists is never built, and its tests never run.
    listed = set(re.findall(r"[\w/.]+", (ROOT / "CMakeLists.txt").read_text()))
    for file in sorted(ROOT.rglob("*.cc")):
        path = file.relative_to(ROOT).as_posix()
        if path.startswith(("build", "data")) or "node_modules" in path:
            continue
        name = re.sub(r"(_test)?\.cc$", "", file.name)
        if path not in listed and name not in listed:
            errors.append(f"{path}: not listed in CMakeLists.txt")
    for error in errors:
        print(error)
    print(f"layering: {edges} includes read")
    print(f"{0 if errors else 1} passed, {1 if errors else 0} failed")
    return 1 if errors else 0


sys.exit(main())

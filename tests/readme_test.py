#!/usr/bin/env python3
"""Reads the documents and fails on what they name and is not there: files, verbs of the Makefile,
options, environment variables, INFO fields, commands; and on a command that docs/compatibility.md
does not list. Source and documents are compared as text: nothing has to be built."""
import ast
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Where a path in a document may start, from the root; and from the document's own folder.
FOLDERS = ("src/", "resp/", "persistence/", "utils/", "tests/", "conf/", "docs/", "redis-compat/")


def text_of(path):
    return (ROOT / path).read_text()


def documents():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard",
                             "*.md", "conf/docker", "conf/systemd"],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return sorted(set(name for name in listed if (ROOT / name).exists()))


class Facts:
    """What there is, read from the places that say so."""

    def __init__(self):
        self.verbs = set(re.findall(r"^([a-z0-9-]+):", text_of("Makefile"), re.M))
        self.options, self.toml = set(), set()
        for row in re.findall(r"^\| (`[^|]+) \| (`[^|]+) \|", text_of("docs/configuration.md"),
                              re.M):
            self.toml.update(re.findall(r"`([^`]+)`", row[0]))
            self.options.update(re.findall(r"`([^`]+)`", row[1]))
        self.variables = {"CRABCACHE_" + name.upper().replace(".", "_") for name in self.toml}
        self.sources = {path.relative_to(ROOT).as_posix(): path.read_text()
                        for path in (ROOT / "src").rglob("*.cc")}
        everything = "".join(self.sources.values())
        self.rows = {name.upper() for name in re.findall(r'\bCommand\(\s*"([a-z|-]+)"', everything)}
        self.commands = {name for name in self.rows if "|" not in name}
        self.fields = set(re.findall(r'"([a-z0-9_]+)"', self.sources["src/server/info.cc"]))
        self.server_flags = set(re.findall(r'"--([a-z]+)"', everything)) | {"check"}
        tool = self.sources["src/wal_tool/arguments.cc"]
        self.tool_flags = set(re.findall(r"--([a-z-]+)", tool))
        self.tool_verbs = set(re.findall(r'^    \{"([a-z]+)", "[A-Z]', tool, re.M))


class Checks:
    def __init__(self):
        self.passed, self.failures = 0, []

    def hold(self, is_so, where, what):
        if is_so:
            self.passed += 1
        else:
            self.failures.append(f"{where}: {what}")


def exists(path, folder):
    """Whether a path, written from the root or from the document's folder, is there. It may leave
    off .h and .cc, hold * and <words>, and end in a slash."""
    path = re.sub(r"<\w+>", "*", path).rstrip("/").split("#")[0]
    for base in (ROOT, ROOT / folder):
        for pattern in (path, path + ".*"):
            if any(base.glob(pattern)):
                return True
    return False


def check_line(line, where, folder, facts, checks):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", line):
        if not target.startswith("http"):
            checks.hold((ROOT / folder / target).exists(), where, f"link to {target}")
    for path in re.findall(r"[\w.*<>/-]+", re.sub(r"\]\([^)]*\)", "]", line)):
        path = path.strip(".")
        if path.startswith(FOLDERS) and len(path) > 1 and not path.endswith("-"):
            checks.hold(exists(path, folder), where, f"path {path}")
    # Words of code: in backticks, or a line of an indented block.
    code = re.findall(r"`([^`]+)`", line)
    if line.startswith("    ") or not where.split(":")[0].endswith(".md"):
        code.append(line.strip("# ").removeprefix("$ "))
    for part in code:
        check_code(part, where, facts, checks)


def check_code(part, where, facts, checks):
    for verb in re.findall(r"(?:^|\s)make ([a-z0-9-]+)", part):
        checks.hold(verb in facts.verbs, where, f"make {verb}")
    for name in re.findall(r"\bCRABCACHE_[A-Z_]+\b", part):
        if not name.endswith("_"):
            checks.hold(name in facts.variables, where, f"variable {name}")
    command = part.split("#")[0]
    found = re.match(r"(?:.*[ /])?crabcache-server((?: (?!&&).+)?)$", command)
    if found and "cmake" not in command:
        for flag in re.findall(r"\s--([a-z][a-z-]*)", found[1]):
            checks.hold(flag in facts.options or flag in facts.server_flags, where,
                        f"crabcache-server --{flag}")
    found = re.search(r"crabcache-wal ([a-z]+)", command)
    if found:
        checks.hold(found[1] in facts.tool_verbs, where, f"crabcache-wal {found[1]}")
        for flag in re.findall(r"(?:^|\s)--([a-z-]+)", command.split(" | ")[0]):
            checks.hold(flag in facts.tool_flags, where, f"crabcache-wal --{flag}")
    for setting in re.findall(r"config (?:set|get) ([a-z-]+)", command, re.I):
        checks.hold(setting in facts.options, where, f"option {setting}")
    found = re.search(r"redis-cli((?: -\w \S+| -\w+)*) ([A-Za-z]+)", command)
    if found:
        checks.hold(found[2].upper() in facts.commands, where, f"command {found[2]}")
    found = re.fullmatch(r"(wal[-_][a-z_-]+)(?::\w+| [a-z]+)?", part)
    if found:
        name = found[1]
        checks.hold(name in facts.options or name in facts.toml or name in facts.fields or
                    name.replace("_", "-") in facts.options, where, f"option or field {name}")
    found = re.fullmatch(r"(\w+(?:\.\w+)?) = .+", part)
    if found and not where.startswith("persistence/"):  # FORMAT.md has formulas
        checks.hold(found[1] in facts.toml or "wal." + found[1] in facts.toml, where,
                    f"option {found[1]}")


def check_compatibility(facts, checks):
    """The first table lists what there is, all of it; the second what there is not."""
    page = text_of("docs/compatibility.md")
    present, absent = page.split("Not there;")
    listed = set()
    for cell in re.findall(r"^\| \w[^|]* \| ([A-Z][^|]+) \|", present, re.M):
        plain, *containers = re.split(r";\s*", cell)
        names = [plain.split()] + [container.split() for container in containers]
        listed.update(names[0])
        for container in names[1:]:
            listed.add(container[0])
            listed.update(f"{container[0]}|{word}" for word in container[1:])
    for name in sorted(listed | facts.rows):
        checks.hold(name in facts.rows, "docs/compatibility.md", f"{name} is listed, and not there")
        checks.hold(name in listed, "docs/compatibility.md", f"{name} is there, and not listed")
    for cell in re.findall(r"^\| \w[^|]* \| ([A-Z][^|]+) \|", absent, re.M):
        for name in cell.split():
            checks.hold(name not in facts.commands, "docs/compatibility.md",
                        f"{name} is there, and listed as not")


def check_verbs(facts, checks):
    """What the Makefile says it has, it has, with the scripts that it runs."""
    makefile = text_of("Makefile")
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)$", makefile, re.M)[1]
    for verb in phony.replace("\\", " ").split():
        checks.hold(verb in facts.verbs, "Makefile", f"{verb} is phony, and has no rule")
    for script in re.findall(r"^\t@?((?:tests|utils|redis-compat)/[\w./-]+)", makefile, re.M):
        checks.hold((ROOT / script).is_file(), "Makefile", f"script {script}")


def check_layers(checks):
    """The layering table of docs/architecture.md is that of tests/layering_test.py."""
    rules = re.search(r"ALLOWED = \{.*?^\}", text_of("tests/layering_test.py"), re.M | re.S)[0]
    allowed = ast.literal_eval(rules.removeprefix("ALLOWED = "))
    written = {}
    table = text_of("docs/architecture.md").split("## The folders")[1].split("\n## ")[0]
    for folders, targets in re.findall(r"^\| ([\w/ ·]+) \| ([\w/, ]+) \|", table, re.M):
        for folder in folders.split(" · "):
            written[folder] = set() if targets == "nothing of ours" else set(targets.split(", "))
    for folder, targets in allowed.items():
        checks.hold(written.get(folder) == targets, "docs/architecture.md",
                    f"{folder} may include {sorted(targets)}, not {sorted(written.get(folder, []))}")


def main():
    facts, checks = Facts(), Checks()
    pages = documents()
    for page in pages:
        folder = str(pathlib.PurePosixPath(page).parent)
        for number, line in enumerate(text_of(page).splitlines(), 1):
            check_line(line, f"{page}:{number}", folder, facts, checks)
    check_compatibility(facts, checks)
    check_verbs(facts, checks)
    check_layers(checks)
    for failure in checks.failures:
        print(failure)
    print(f"documents: {len(pages)} pages, {len(facts.rows)} rows, {len(facts.options)} options")
    print(f"{checks.passed} passed, {len(checks.failures)} failed")
    return 1 if checks.failures else 0


sys.exit(main())

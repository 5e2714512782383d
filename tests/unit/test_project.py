"""What must be true of the project itself, whatever it contains."""

import importlib
import importlib.metadata
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from itertools import chain, groupby
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("operate", "flows", "tasks", "blocks", "recovery")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LARGEST_FILE_BYTES = 1_000_000

# Joined here, so that this file does not hold what it looks for.
INDEX_HOSTS = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("crates", "io"),
        ("proxy", "golang", "org"),
    ]
]
MACHINE_PATHS = re.compile(r"(?<![\w.~-])/(?:work|root/[.]pyenv|root/[.]cache)/")
SCRATCH_PATHS = re.compile(r"(?<![\w.~-])/tmp/\w")
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{100,}")


def project_files():
    """Return what git has or would take: tracked and new files, without what it ignores."""
    options = ["--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", *options],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip(f"not a git work tree: {listed.stderr.decode().strip()}")
    paths = [ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


def texts():
    """Return every text file with its content."""
    found = []
    for path in project_files():
        content = path.read_bytes()
        if b"\0" not in content:
            found.append((path.relative_to(ROOT), content.decode(errors="replace")))
    return found


def lines_with(pattern, files):
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in files
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def our_modules():
    """Return every module of the five packages by its dotted name."""
    found = []
    for package in PACKAGES:
        found.append(package)
        places = [str(ROOT / package)]
        found += [module.name for module in pkgutil.walk_packages(places, prefix=f"{package}.")]
    return found


def locked():
    """Return what the lock holds: name to requirement and number of hashes."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    entries = {}
    for line in text.splitlines():
        if line and not line.lstrip().startswith("#"):
            wanted, *hashes = line.split("--hash=sha256:")
            requirement = Requirement(wanted.strip())
            entries.setdefault(canonicalize_name(requirement.name), []).append(
                (requirement, len(hashes))
            )
    return entries


def declared():
    """Return every requirement that pyproject.toml states, for running, testing and building."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    lists = [project["dependencies"], PYPROJECT["build-system"]["requires"], *extras]
    return [Requirement(text) for text in chain.from_iterable(lists)]


def test_no_module_has_the_name_of_an_installed_package_or_the_standard_library():
    ours = canonicalize_name(PYPROJECT["project"]["name"])
    installed = {
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if ours not in map(canonicalize_name, owners)
    }

    taken = {
        module
        for module in our_modules()
        if module.rpartition(".")[2] in installed | set(sys.stdlib_module_names)
    }

    assert not taken


def test_every_init_file_is_empty():
    full = [
        path for path in project_files() if path.name == "__init__.py" and path.stat().st_size > 0
    ]

    assert not full


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_can_be_imported(package):
    modules = [name for name in our_modules() if name.partition(".")[0] == package]

    for name in modules:
        importlib.import_module(name)

    assert modules


def test_every_import_goes_down_and_flows_touch_no_client_library():
    lint = Path(sys.executable).with_name("lint-imports")

    result = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stdout + result.stderr


def test_no_file_names_the_host_of_a_package_index():
    hosts = re.compile("|".join(map(re.escape, INDEX_HOSTS)), re.IGNORECASE)

    assert not lines_with(hosts, texts())


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    assert not lines_with(MACHINE_PATHS, texts())


def test_nothing_but_tests_names_a_place_in_the_shared_scratch_directory():
    outside_tests = [(path, text) for path, text in texts() if path.parts[0] != "tests"]

    assert not lines_with(SCRATCH_PATHS, outside_tests)


def test_no_file_holds_a_private_key():
    assert not [path for path, text in texts() if PRIVATE_KEY.search(text)]


def test_no_file_is_large():
    large = [path for path in project_files() if path.stat().st_size > LARGEST_FILE_BYTES]

    assert not large


def test_every_yaml_file_can_be_read():
    for path, text in texts():
        if path.suffix in {".yaml", ".yml"}:
            list(yaml.compose_all(text))


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_the_lock_holds_every_stated_requirement_in_a_version_that_fits(requirement):
    entries = locked().get(canonicalize_name(requirement.name), [])

    assert entries, f"{requirement} is not in requirements.lock: run `make lock`"
    for entry, _ in entries:
        (pin,) = entry.specifier
        assert requirement.specifier.contains(Version(pin.version), prereleases=True), entry


def test_every_locked_package_is_pinned_and_has_hashes():
    loose = [
        str(entry)
        for entries in locked().values()
        for entry, hashes in entries
        if hashes == 0 or [pin.operator for pin in entry.specifier] != ["=="]
    ]

    assert not loose


def test_the_lock_states_no_index_and_no_address():
    options = [
        line
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if re.match(r"\s*--(?!hash=sha256:)", line) or "://" in line or " @ " in line
    ]

    assert not options


def test_the_installed_versions_are_those_of_the_lock():
    meant = [
        entry
        for entry, _ in chain.from_iterable(locked().values())
        if entry.marker is None or entry.marker.evaluate()
    ]

    wrong = [
        f"{entry}, installed {importlib.metadata.version(entry.name)}"
        for entry in meant
        if not entry.specifier.contains(importlib.metadata.version(entry.name), prereleases=True)
    ]

    assert not wrong


def test_markdown_has_one_sentence_a_line():
    joined = re.compile(r"(?<!e\.g)(?<!i\.e)(?<=[a-z)`])\. [A-Z][a-z]+ ")
    prose = [
        (path, re.sub(r"```.*?```", lambda code: "\n" * code[0].count("\n"), text, flags=re.DOTALL))
        for path, text in texts()
        if path.suffix == ".md"
    ]

    found = [line for line in lines_with(joined, prose) if ": |" not in line]

    assert not found


def test_every_link_between_our_documents_leads_somewhere():
    broken = []
    for path, text in texts():
        if path.suffix == ".md":
            targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
            broken += [
                f"{path}: {target}"
                for target in targets
                if not ((ROOT / path).parent / target).exists()
            ]

    assert not broken


def test_every_decision_is_numbered_once():
    notes = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    by_number = {number: list(names) for number, names in groupby(notes, lambda name: name[:4])}

    assert notes
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name) for name in notes), notes
    assert all(len(names) == 1 for names in by_number.values()), by_number

"""Container images made of programs found on this machine, without a registry."""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab.processes import LabError, find_binary

PAUSE = """
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { _exit(0); }
static void reap(int number) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
    signal(SIGINT, end);
    signal(SIGTERM, end);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""


def pause_program(directory: Path) -> Path:
    """Compile the program that holds a pod's namespaces and does nothing.

    Raises:
        ServerMissing: there is no C compiler.
        LabError: it cannot link statically.
    """
    compiler = find_binary("cc")
    source, program = directory / "pause.c", directory / "pause"
    source.write_text(PAUSE)
    command = [compiler, "-static", "-Os", "-o", program, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"pause was not compiled: {done.stderr}")
    return program


def write_image(
    path: Path,
    name: str,
    program: Path,
    *,
    libraries: Sequence[Path] = (),
    links: Mapping[str, str] | None = None,
) -> None:
    """Write an archive as `docker save` does, of an image that holds one program and its libraries.

    Args:
        path: where the archive goes.
        name: of the image, with its tag.
        program: becomes the entry point.
        libraries: files that are to lie where they lie here.
        links: symbolic links, and what each leads to.
    """
    inside = f"usr/local/bin/{program.name}"
    layer = path.with_suffix(".layer")
    digest = hashlib.sha256()
    with tarfile.open(layer, "w") as tar:
        for source, name_inside in [(program, inside), *((f, str(f)[1:]) for f in libraries)]:
            member = tar.gettarinfo(str(source.resolve()), name_inside)
            member.mode, member.uid, member.gid, member.uname, member.gname = 0o755, 0, 0, "", ""
            with source.open("rb") as content:
                tar.addfile(member, content)
        for place, leads_to in (links or {}).items():
            link = tarfile.TarInfo(place)
            link.type, link.linkname = tarfile.SYMTYPE, leads_to
            tar.addfile(link)
        scratch = tarfile.TarInfo("tmp")
        scratch.type, scratch.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(scratch)
    with layer.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{inside}"], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for file, body in ((config_name, config), ("manifest.json", json.dumps(manifest).encode())):
            member = tarfile.TarInfo(file)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
        tar.add(layer, "layer.tar")
    layer.unlink()


def libraries_of(program: Path) -> list[Path]:
    """Return the shared libraries a program of this machine needs; none where it is static."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        return []
    words = (line.split() for line in listed.stdout.splitlines())
    return sorted({Path(word) for line in words for word in line if word.startswith("/")})

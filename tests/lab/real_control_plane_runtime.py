"""A private containerd, as Debian packages it, with its own folders and socket."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.lab.control_plane_host import BINARIES
from tests.lab.processes import (
    LabError,
    Server,
    ServerMissing,
    find_binary,
    scratch_directory,
)
from tests.lab.real_control_plane_images import pause_program, write_image

PAUSE_IMAGE = "registry.example.net/pause:3.10"
# No snapshotter but this one works on any file system; a process may not be favoured by the kernel
# where this machine does not let root do so.
CONFIG = """
version = 2
root = "{scratch}/root"
state = "{scratch}/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    conf_dir = "{scratch}/cni"
"""


def find_crictl() -> str:
    """Find the real crictl, beside Kubernetes or on PATH.

    Raises:
        ServerMissing: it is in neither.
    """
    return find_binary("crictl", Path(os.environ.get("KUBEBUILDER_ASSETS", BINARIES)))


class Containerd(Server):
    """A containerd of our own, with the image of a pause container."""

    name = "containerd"
    start_within_seconds = 60

    def __init__(self, directory: Path, scratch: Path, snapshotter: str) -> None:
        super().__init__(directory, scratch=scratch)
        self.socket = scratch / "s"
        self.scratch = scratch
        self._snapshotter = snapshotter

    @property
    def cgroup_parent(self) -> str:
        """Where the control groups of its containers belong, so that they can be taken away."""
        return f"/{self.scratch.name}"

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"unix://{self.socket}"

    def command(self) -> list[str]:
        file = self.scratch / "config.toml"
        file.write_text(
            CONFIG.format(
                scratch=self.scratch,
                socket=self.socket,
                pause=PAUSE_IMAGE,
                snapshotter=self._snapshotter,
            )
        )
        return [find_binary("containerd"), "--config", str(file)]

    def answers(self) -> object:
        return self.ctr("version")

    def ctr(self, *words: str) -> str:
        """Run containerd's own client.

        Raises:
            LabError: it failed.
        """
        argv = [find_binary("ctr"), "--address", self.socket, "--namespace", "k8s.io", *words]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            raise LabError(f"ctr {words} failed: {done.stderr}")
        return done.stdout

    def import_image(
        self,
        name: str,
        program: Path,
        libraries: tuple[Path, ...] = (),
        links: Mapping[str, str] | None = None,
    ) -> None:
        """Make an image of a program of this machine, and take it in."""
        archive = self.scratch / "image.tar"
        write_image(archive, name, program, libraries=libraries, links=links)
        self.ctr("images", "import", "--snapshotter", self._snapshotter, str(archive))
        archive.unlink()

    def end_containers(self) -> None:
        """Kill every container, whose shims outlive containerd, and unmount what they leave."""
        for line in self.ctr("tasks", "list").splitlines()[1:]:
            with contextlib.suppress(LabError):
                self.ctr("tasks", "kill", "--signal", "SIGKILL", line.split()[0])
        for line in self.ctr("containers", "list", "--quiet").splitlines():
            with contextlib.suppress(LabError):
                self.ctr("tasks", "delete", "--force", line)


@contextlib.contextmanager
def private_containerd(directory: Path, snapshotter: str = "native") -> Iterator[Containerd]:
    """Run a private containerd until the end of the block; its containers end with it.

    Raises:
        ServerMissing: containerd, runc or a C compiler is not installed, or this is not root.
        LabError: it did not start.
    """
    if os.geteuid() != 0:
        raise ServerMissing("containerd needs root")
    for binary in ("containerd", "runc", "ctr", "cc"):
        find_binary(binary)
    directory.mkdir(parents=True, exist_ok=True)
    with scratch_directory("ctd") as scratch:
        containerd = Containerd(directory, scratch, snapshotter)
        try:
            containerd.start()
            containerd.import_image(PAUSE_IMAGE, pause_program(scratch))
            yield containerd
        finally:
            with contextlib.suppress(LabError, subprocess.TimeoutExpired):
                containerd.end_containers()
            containerd.close()
            unmount_below(scratch)
            remove_groups(scratch.name)


def remove_groups(name: str) -> None:
    """Take away the control groups of this name, of containers that have ended."""
    for top in Path("/sys/fs/cgroup").iterdir():
        group = top / name
        for folder in [*sorted(group.rglob("*/"), reverse=True), group]:
            with contextlib.suppress(OSError):
                folder.rmdir()


def unmount_below(folder: Path) -> None:
    """Unmount what containers have left mounted in a folder."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)

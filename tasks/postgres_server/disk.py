"""How much is left on the file systems of a server."""

from collections.abc import Sequence
from dataclasses import dataclass

from blocks.ssh.host import SshHost
from recovery.errors import UnreadableOutput


@dataclass(frozen=True)
class FileSystem:
    """What is left where a folder lies."""

    mount: str
    free_bytes: int


def read_df(host: SshHost, folders: Sequence[str]) -> list[FileSystem]:
    """What is left where these folders lie, in their order.

    Raises:
        CommandFailed: there is no such folder on the host.
        UnreadableOutput: df printed something else.
    """
    argv = ["df", "-P", "-B1", "--", *folders]
    return parse_df(host.read(argv, within_seconds=30, as_root=True).whole())


def parse_df(printed: str) -> list[FileSystem]:
    """Read what `df -P -B1` prints (coreutils 8 and 9).

        Filesystem     1-blocks       Used   Available Capacity Mounted on
        /dev/vda1   20956397568 5030883328 15908737024      25% /

    Raises:
        UnreadableOutput: a line has not six fields, or no number where one belongs.
    """
    found = []
    for line in printed.splitlines()[1:]:
        fields = line.split(None, 5)
        try:
            found.append(FileSystem(fields[5], int(fields[3])))
        except (IndexError, ValueError) as error:
            raise UnreadableOutput("df -P -B1", printed) from error
    if not found:
        raise UnreadableOutput("df -P -B1", printed)
    return found


def is_out_of_inodes(printed: str) -> bool:
    """Whether `df -P -i` shows a file system that has inodes and none of them left.

    Filesystem      Inodes IUsed   IFree IUse% Mounted on
    /dev/vda1      1310720 94323 1216397    8% /
    """
    for line in printed.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 3 and fields[1].isdigit() and int(fields[1]) and fields[3] == "0":  # noqa: PLR2004 (the column IFree)
            return True
    return False


def megabytes(count: int) -> str:
    """A size as people say it."""
    return f"{count / 1e6:.0f} MB" if count < 10**9 else f"{count / 1e9:.1f} GB"

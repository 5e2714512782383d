"""Build what the hosts of the lab share, before the time of any test runs."""

import sys

from tests.lab.host_root import root_file_system
from tests.lab.nspawn_backend import Nspawn
from tests.lab.processes import ServerMissing


def main() -> None:
    """Build the root file system of the hosts, or say why there will be none."""
    missing = Nspawn().capabilities().ssh
    try:
        if not missing:
            root_file_system()
    except ServerMissing as error:
        missing = str(error)
    if missing:
        sys.stderr.write(f"no lab hosts: {missing}\n")


if __name__ == "__main__":
    main()

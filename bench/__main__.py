"""Run every benchmark, one after the other, each in a process of its own."""

import subprocess
import sys

NAMES = (
    "journal_cost",
    "resume_200",
    "kill_100",
    "migration",
    "ssh_50",
    "certificates",
    "etcd_quorum",
    "kubernetes",
    "alerts",
)

failed = [name for name in NAMES if subprocess.call([sys.executable, "-m", f"bench.{name}"])]
sys.exit(f"failed: {', '.join(failed)}" if failed else 0)

"""`python -m operate.alerts` is the receiver: the same as `recover alerts serve`."""

import sys

from operate.alerts.commands import alerts_app

if __name__ == "__main__":
    alerts_app(args=["serve", *sys.argv[1:]], prog_name="python -m operate.alerts")

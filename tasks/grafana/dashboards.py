"""Dashboards that are imported anew from JSON once Grafana runs on its new database."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from blocks.grafana.api import GrafanaApi
from recovery.errors import BadInput
from recovery.steps import act
from recovery.verdict import Verdict
from tasks import grafana_dashboards
from tasks.grafana_dashboard_files import DashboardFile, read_dashboards
from tasks.grafana_dashboards import Presence


@dataclass(frozen=True)
class WantedDashboard:
    """A dashboard file and the Grafana that shall have it."""

    grafana: GrafanaApi
    file: DashboardFile

    @property
    def label(self) -> str:
        """The dashboard by its uid, and the Grafana."""
        return f"{self.file.uid} on {self.grafana.target}"


def wanted_dashboards(folder: str, grafana_url: str) -> list[WantedDashboard]:
    """Read and check every file of the folder; none where no folder is named.

    Raises:
        BadInput: only one of the two is given, or a file is unfit; every unfit one is named.
    """
    if not folder and not grafana_url:
        return []
    if not folder or not grafana_url:
        missing = "grafana_url" if folder else "dashboards"
        raise BadInput(
            missing,
            "it is empty, but its counterpart is given",
            "Importing dashboards needs the folder of files and the URL of the moved Grafana",
        )
    grafana = GrafanaApi.from_url(grafana_url)
    return [WantedDashboard(grafana, file) for file in read_dashboards(Path(folder))]


def import_commands(dashboard: WantedDashboard) -> Iterable[str]:
    """What importing it sends."""
    return [grafana_dashboards.import_command(dashboard.grafana, dashboard.file)]


def is_imported(dashboard: WantedDashboard) -> Verdict:
    """Whether Grafana has the dashboard as the file has it."""
    presence = grafana_dashboards.dashboard_presence(dashboard.grafana, dashboard.file)
    return Verdict.of(presence is Presence.SAME)


def refuse_if_it_would_overwrite(dashboard: WantedDashboard) -> None:
    """Refuse where Grafana has another dashboard under the same uid.

    Raises:
        Refused: it has; names where it differs.
    """
    grafana_dashboards.refuse_if_it_would_overwrite(dashboard.grafana, [dashboard.file])


@act(
    commands=import_commands,
    done_when=is_imported,
    refuse_if=(refuse_if_it_would_overwrite,),
    each=("dashboard",),
)
def import_dashboard(dashboard: WantedDashboard) -> None:
    """Import one dashboard; no other one is touched.

    Done twice, the second is refused by Grafana. There is no way back but deleting it there.

    Raises:
        CommandFailed: Grafana refused the login, the permission or the dashboard.
        Unreachable: no answer; it may have been imported, which its probe tells.

    Runbook: docs/runbooks/grafana-sqlite-to-mysql.md, step 11.
    """
    grafana_dashboards.import_dashboard(dashboard.grafana, dashboard.file)

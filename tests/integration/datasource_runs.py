"""Running recoveries of data sources in this process: a stand-in Grafana, a real InfluxDB."""

from dataclasses import dataclass
from pathlib import Path

import flows.datasources  # noqa: F401 (declares the recovery)
from recovery.declare import RECOVERIES, run_plainly
from recovery.run import Options
from tests.lab.grafana_api import TOKEN, StandInGrafana
from tests.lab.influxdb import USER, InfluxdbServer

NAME = "InfluxDB"


@dataclass
class Datasources:
    """A Grafana, the InfluxDB behind it, and where files lie."""

    lab: StandInGrafana
    influxdb: InfluxdbServer
    database: str
    folder: Path

    @property
    def grafana_url(self):
        token = self.folder / "grafana.token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        return f"{self.lab.url}?token_file={token}"

    @property
    def parameters(self):
        """Those that lead to the InfluxDB."""
        return {
            "grafana_url": self.grafana_url,
            "name": NAME,
            "url": self.influxdb.url,
            "user": USER,
            "password_file": str(self.influxdb.password_file),
            "database": self.database,
            "within_seconds": 1,
        }

    def run(self, options=None, **parameters):
        declared = RECOVERIES["add-grafana-datasource"]
        given = {name: default for name, (_, default) in declared.parameters.items()}
        given.update(self.parameters)
        return run_plainly(declared, {**given, **parameters}, Options(**(options or {})))

    def undo(self, ended, **parameters):
        options = {"resume": ended.recovery_id, "undo_by": "kim", "break_glass": "a test"}
        return self.run(options, **parameters)

    def add(self, **fields):
        """Put a data source there that leads to the InfluxDB, apart from these fields."""
        whole = {
            "name": NAME,
            "type": "influxdb",
            "url": self.influxdb.url,
            "user": USER,
            "database": self.database,
            "jsonData": {"httpMode": "GET", "dbName": self.database},
            "secrets": {"password": self.influxdb.password},
        }
        return self.lab.datasources.add(**{**whole, **fields})

    def stored(self, name=NAME):
        return self.lab.datasources.named(name)

    def changes(self):
        """What was sent to change something."""
        return [one for one in self.lab.requests if not one.startswith("GET")]

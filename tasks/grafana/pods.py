"""A Grafana that runs in pods of a workload, with its SQLite database on a claim."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blocks.kube.copying import copy_out
from blocks.kube.exec import Command, Place, ask_in_pod
from blocks.kube.path import path_of
from blocks.kube.session import KubernetesSession
from recovery.errors import BadInput, Refused
from recovery.walk import current_fence
from tasks.workloads.pods import read_pod
from tasks.workloads.target import Workload, WorkloadOrder, find_workload, workload_order

ROUNDS_MAX = 5
COMPANIONS = ("-wal", "-journal")
SHA256_CHARACTERS = 64
SCHEME = "pod:"
HASHES = 'for f in "$@"; do [ -e "$f" ] && sha256sum "$f"; done; true'
WITHIN_SECONDS = 300


@dataclass(frozen=True)
class GrafanaPods:
    """The workload that runs Grafana. The label is the workload."""

    order: WorkloadOrder

    @property
    def label(self) -> str:
        """The workload."""
        return self.order.label

    @property
    def pods_path(self) -> str:
        """Where the API has the pods of its namespace."""
        return path_of("v1", "pods", namespace=self.order.namespace)

    @property
    def reader_name(self) -> str:
        """The pod of this recovery that reads the claim while Grafana is stopped."""
        return f"recovery-{current_fence().recovery_id}"

    def fetch_database(self, path: str, directory: Path) -> Path:
        """Copy a database and its -wal or -journal out of a pod; return where the main file lies.

        From the pod of this recovery where there is one, else from one of Grafana's own. The files
        are copied until they are the same before and after. Nothing is written in the pod.

        Raises:
            BadInput: there is no such file there.
            Refused: it kept changing, or no pod runs that could be asked.
            NotVerified, Unreachable, ClusterForbidden and the rest: as of `copy_out`.
        """
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        local = directory / Path(path).name
        with self.order.cluster.session() as session:
            place = self.place(session)
            for _ in range(ROUNDS_MAX):
                before = _hashes(session, place, path)
                if path not in before:
                    seen = f"{place} has no file {path}"
                    raise BadInput("source", seen, "Name the grafana.db of the Grafana to be moved")
                for suffix in ("", *COMPANIONS):
                    Path(f"{local}{suffix}").unlink(missing_ok=True)
                    if path + suffix in before:
                        copy_out(session, place, path + suffix, Path(f"{local}{suffix}"))
                if _hashes(session, place, path) == before:
                    return local
        raise Refused(
            self.label,
            f"{path} changed during each of {ROUNDS_MAX} copies",
            "Let fewer people work with it for a moment, then resume",
        )

    def place(self, session: KubernetesSession) -> Place:
        """The container that is asked for files.

        Raises:
            Refused: neither the pod of this recovery nor one of Grafana's runs.
        """
        reader = session.find(f"{self.pods_path}/{self.reader_name}")
        if reader is not None and read_pod(reader).is_ready:
            return place_in(reader)
        workload = find_workload(session, self.order)
        for pod in session.objects(workload.pods_path, labels=workload.selector):
            if read_pod(pod).is_ready and not read_pod(pod).is_terminating:
                return place_in(pod, self.container(pod))
        raise Refused(
            self.label,
            "no pod of it is ready, so nobody can be asked for its database",
            "Scale it up, also where it does not run on this database; it is stopped later on",
        )

    def container(self, pod: Mapping[str, Any]) -> str:
        """The name of Grafana's own container: the one called so, else the first."""
        names = [str(one["name"]) for one in pod["spec"]["containers"]]
        return "grafana" if "grafana" in names else names[0]


def grafana_pods(cluster: str, namespace: str, grafana: str) -> GrafanaPods | None:
    """Read the parameters; `None` where no cluster is given.

    Raises:
        BadInput: one is malformed, or no workload is named.
    """
    if not cluster:
        return None
    if "://" in grafana:
        remedy = "Give deployment/grafana, or leave cluster out"
        raise BadInput("grafana", "cluster is given, and this is no workload of it", remedy)
    return GrafanaPods(workload_order(cluster, grafana or "grafana", namespace, WITHIN_SECONDS))


def move_parts(cluster: str, namespace: str, grafana: str) -> list[str]:
    """What a move leases beside the target: the workload that runs Grafana, where there is one."""
    pods = grafana_pods(cluster, namespace, grafana)
    return [pods.label] if pods else []


def ready_pod(session: KubernetesSession, order: WorkloadOrder) -> Mapping[str, Any]:
    """A pod of a workload that is ready.

    Raises:
        Refused: there is none.
    """
    workload: Workload = find_workload(session, order)
    for pod in session.objects(workload.pods_path, labels=workload.selector):
        if read_pod(pod).is_ready and not read_pod(pod).is_terminating:
            return pod
    raise Refused(order.label, f"no pod of {workload} is ready", "See why, as by restart-service")


def place_in(pod: Mapping[str, Any], container: str = "") -> Place:
    """A container of a pod; the first where none is named."""
    meta = pod["metadata"]
    name = container or str(pod["spec"]["containers"][0]["name"])
    return Place(meta["namespace"], meta["name"], name, meta["uid"])


def _hashes(session: KubernetesSession, place: Place, path: str) -> dict[str, str]:
    names = [path + suffix for suffix in ("", *COMPANIONS)]
    command = Command(("sh", "-c", HASHES, "sh", *names), within_seconds=600)
    found = {}
    for line in ask_in_pod(session, place, command).stdout.splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) == SHA256_CHARACTERS:
            found[name] = digest
    return found

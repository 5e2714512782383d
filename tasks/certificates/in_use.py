"""What the processes of a control plane hold and present, beside what is on disk."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.certificates.catalogue import Component, held
from tasks.certificates.files import leaf_requests, leaves_of
from tasks.certificates.look import Host
from tasks.certificates.look_lines import Lines, served_in, started_in
from tasks.certificates.look_script import look_argv
from tasks.certificates.reading import Presence
from tasks.certificates.seen import FileSeen, Served

WITHIN_SECONDS = 45.0
PAUSE_SECONDS = 1.0
PORTS = {  # what is presented where, and the file it must be
    Component.APISERVER: (("kube-apiserver", "apiserver"),),
    # The client port of etcd answers only with quorum: it is waited for once there can be one.
    Component.ETCD: (("etcd-peer", "etcd-peer"),),
}


@dataclass(frozen=True)
class InUse:
    """One component: its files, what it presents, and when it was started (0 if it was not)."""

    component: Component
    files: tuple[FileSeen, ...]
    served: tuple[Served, ...]
    started_at: float

    @property
    def is_younger(self) -> bool:
        """Whether it was started since its files were last written."""
        return self.started_at > max((file.changed_at for file in self.files), default=0.0)

    @property
    def why_stale(self) -> str:
        """Why it does not use what is on disk; empty where it does."""
        if not self.started_at:
            return f"{self.component} does not run"
        if not self.is_younger:
            return f"{self.component} was started before its files were written"
        by_name = {file.name: file for file in self.files}
        for port, name in PORTS.get(self.component, ()):
            served = next(one for one in self.served if one.name == port)
            if why := difference(served, by_name[name]):
                return why
        return ""


def difference(served: Served, file: FileSeen) -> str:
    """What is presented on a port held against its file; empty where they are the same."""
    place = f"{served.name} ({served.address or 'no address'})"
    if served.certificate is None:
        return f"{place} presents nothing"
    if file.certificate is None:
        return f"{file.name} is {file.presence}"
    if served.certificate.serial != file.certificate.serial:
        return (
            f"{place} presents {served.certificate.serial}, which ends "
            f"{served.certificate.not_after:%Y-%m-%d %H:%M} UTC, not {file.name} "
            f"{file.certificate.serial}"
        )
    return ""


def in_use(host: Host, components: Sequence[Component]) -> list[InUse]:
    """Look at components: their files, what they present, when they were started.

    Raises:
        Unreachable: no answer.
        CommandFailed: it does not let us read as root.
    """
    names = [leaf.name for component in components for leaf in held(component)]
    ports = [port for component in components for port, _ in PORTS.get(component, ())]
    requests = [
        *leaf_requests(names),
        "processes",
        *(word for port in ports for word in ("served", port)),
    ]
    answer = host.read(look_argv(*requests), within_seconds=WITHIN_SECONDS, as_root=True)
    lines = Lines(answer.whole())
    files = {file.name: file for file in leaves_of(lines, names)}
    started = started_in(lines)
    return [
        InUse(
            component,
            tuple(
                files[leaf.name]
                for leaf in held(component)
                if files[leaf.name].presence is not Presence.MISSING
            ),
            tuple(served_in(lines, port) for port, _ in PORTS.get(component, ())),
            started.get(component, 0.0),
        )
        for component in components
    ]

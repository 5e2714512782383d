"""Five thousand pods listed and judged, and how soon a wait notices a change.

The API is a real kube-apiserver with etcd. Who lists is a process of its own, so that its memory is
its own; imports are not counted, except for kubectl and jq, which are nothing but whole processes.
"""

import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.scenario import be_quiet
from blocks.kube.cluster import KubernetesCluster
from blocks.kube.session import KubernetesSession
from blocks.kube.watch import wait_for
from tasks.workloads.pods import read_pod
from tests.lab.kubernetes_client import LabClient
from tests.lab.kubernetes_real import kubeconfig_text, real_api
from tests.lab.processes import ServerMissing

PODS, ROUNDS, CHANGES = 5000, 3, 30
NAMESPACE = "crowd"
PATH = f"/api/v1/namespaces/{NAMESPACE}/pods"
NOT_READY = (
    '[.items[] | select(any(.status.conditions[]?; .type == "Ready" and .status == "True") | not)'
    " | .metadata.name] | length"
)
POLL_SECONDS = 1.0


def make_pods(client: LabClient) -> None:
    """Pods as a busy namespace has them: most ready, every tenth in a crash loop."""
    client.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})

    def make(n: int) -> None:
        name = f"web-{n}"
        env = [{"name": f"SETTING_{i}", "value": "x" * 30} for i in range(20)]
        container = {"name": "web", "image": "web:1", "env": env}
        spec = {"containers": [container]}  # on no node: the pods stay as they are put here
        metadata = {"name": name, "labels": {"app": "web"}}
        client.post(PATH, {"metadata": metadata, "spec": spec})
        is_broken = n % 10 == 0
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
        ended = {"terminated": {"exitCode": 1, "reason": "Error"}}
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "False" if is_broken else "True"}],
            "containerStatuses": [
                {
                    "name": "web",
                    "image": "web:1",
                    "imageID": "sha256:1",
                    "ready": not is_broken,
                    "restartCount": 7 if is_broken else 0,
                    "state": waiting if is_broken else {"running": {}},
                    "lastState": ended if is_broken else {},
                }
            ],
        }
        client.patch(f"{PATH}/{name}/status", {"status": status})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, range(PODS)))


def by_us(kubeconfig: str) -> int:
    """The pods that are not ready, by what the recoveries use."""
    with KubernetesCluster.named(f"kubeconfig://{kubeconfig}").session() as session:
        pods = [read_pod(pod) for pod in session.objects(PATH)]
    return sum(bool(pod.causes) for pod in pods)


def by_models(kubeconfig: str) -> int:
    """The same by the models of the official client."""
    from kubernetes import client, config  # noqa: PLC0415 (it alone uses them)

    config.load_kube_config(kubeconfig)
    listed = client.CoreV1Api().list_namespaced_pod(NAMESPACE).items
    return sum(
        not any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or [])
        for pod in listed
    )


def by_kubectl(kubeconfig: str) -> int:
    """The same by kubectl and jq."""
    get = f"kubectl --kubeconfig {kubeconfig} get pods --namespace {NAMESPACE} --output json"
    done = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", f"{get} | jq '{NOT_READY}'"],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


WAYS: dict[str, Callable[[str], int]] = {
    "ours": by_us,
    "official models": by_models,
    "kubectl and jq": by_kubectl,
}


def measure(way: str, kubeconfig: str) -> None:
    """Print seconds, MiB at most, and what was counted: in a process of its own."""
    be_quiet()
    if way == "official models":
        import kubernetes.client  # noqa: F401, PLC0415
    started = time.monotonic()
    count = WAYS[way](kubeconfig)
    seconds = time.monotonic() - started
    who = resource.RUSAGE_CHILDREN if way == "kubectl and jq" else resource.RUSAGE_SELF
    mib = resource.getrusage(who).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "mib": mib, "count": count}))


def lists(kubeconfig: Path) -> None:
    """Print time and memory of each way, in turns."""
    rows: dict[str, list[dict[str, float]]] = {}
    for _ in range(ROUNDS):
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, "-m", "bench.kubernetes", way, str(kubeconfig)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                print(f"  {way}: {done.stderr.strip().splitlines()[-1:]}")
                continue
            told = json.loads(done.stdout.splitlines()[-1])
            if told["count"] != PODS // 10:
                raise SystemExit(f"{way} counted {told['count']} pods that are not ready")
            rows.setdefault(way, []).append(told)
    ours = statistics.median(row["seconds"] for row in rows["ours"])
    for way, told_rows in rows.items():
        seconds = statistics.median(row["seconds"] for row in told_rows)
        mib = max(row["mib"] for row in told_rows)
        print(f"{way:16} {seconds:6.2f} s  {seconds / ours:5.2f} x ours  {mib:5.0f} MiB at most")


def notices(client: LabClient, kubeconfig: Path) -> None:
    """Print how long after a change a wait of ours and one that polls each second end."""
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    client.post(path, {"metadata": {"name": "news"}, "data": {"n": "0"}})
    pauses = random.Random(0)  # noqa: S311 (no secret)

    def watched(session: KubernetesSession, n: str) -> None:
        def until(found: list[dict[str, object]]) -> bool | None:
            return any(one.get("data") == {"n": n} for one in found) or None

        wait_for(session, path, until, fields="metadata.name=news", within_seconds=30)

    def polled(session: KubernetesSession, n: str) -> None:
        while session.get(f"{path}/news").get("data") != {"n": n}:
            time.sleep(POLL_SECONDS)

    with KubernetesCluster.named(f"kubeconfig://{kubeconfig}").session() as session:
        numbers = iter(range(1, 10**6))
        for name, wait in (("watched", watched), ("polled", polled)):
            delays = []
            for n in map(str, (next(numbers) for _ in range(CHANGES))):
                ended: list[float] = []

                def waits(
                    wait: Callable[[KubernetesSession, str], None] = wait,
                    n: str = n,
                    ended: list[float] = ended,
                ) -> None:
                    wait(session, n)
                    ended.append(time.monotonic())

                waiter = threading.Thread(target=waits)
                waiter.start()
                time.sleep(1 + pauses.random())
                client.patch(f"{path}/news", {"data": {"n": n}})
                changed = time.monotonic()
                waiter.join()
                delays.append(max(0.0, ended[0] - changed))
            delays.sort()
            print(
                f"{name:16} noticed after {1000 * statistics.median(delays):6.1f} ms (p50), "
                f"{1000 * delays[int(0.95 * len(delays))]:6.1f} ms (p95)"
            )


def main() -> None:
    """Measure, and print what came of it."""
    be_quiet()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        try:
            with real_api(Path(scratch)) as server:
                kubeconfig = Path(scratch) / "kubeconfig"
                kubeconfig.write_text(kubeconfig_text(server.url, Path(scratch)))
                make_pods(server.client())
                lists(kubeconfig)
                notices(server.client(), kubeconfig)
        except ServerMissing as missing:
            print(f"left out: {missing}")


if __name__ == "__main__":
    os.environ.setdefault("TZ", "UTC")
    sys.exit(measure(*sys.argv[1:]) if len(sys.argv) > 1 else main())

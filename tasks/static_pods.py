"""Finding and removing the pods of static manifests, by the container runtime of their host."""

from collections.abc import Sequence

from tasks.certificates.seen import Runtime, RuntimeKind

LIST_CRI = '"$1" --runtime-endpoint "$2" pods --namespace kube-system --name "$3" -q'
LIST_DOCKER = '"$1" ps -a -q --no-trunc --filter "name=$3"'
# Only pods that were seen when it was decided: one made since is never removed, however often this
# is sent.
REMOVE_CRI = (
    'client=$1; endpoint=$2; shift 2; for pod; do "$client" --runtime-endpoint "$endpoint" pods -q '
    '| grep -qx "$pod" || continue; "$client" --runtime-endpoint "$endpoint" rmp -f "$pod" || '
    "exit 5; done"
)
REMOVE_DOCKER = (
    'client=$1; shift; for pod; do "$client" ps -a -q --no-trunc | grep -qx "$pod" || continue; '
    '"$client" rm -f "$pod" || exit 5; done'
)


def list_argv(runtime: Runtime, name: str) -> list[str]:
    """What prints the ids of the pods of a static manifest, one a line; also of ended ones.

    Args:
        runtime: of the host.
        name: of the pod, without the node's at its end or with it.
    """
    escaped = name.replace(".", r"\.")
    if runtime.kind is RuntimeKind.DOCKER:
        whole = f"^/?k8s_POD_{escaped}(-[^_]*)?_kube-system_"
        return ["sh", "-c", LIST_DOCKER, "list-static-pods", runtime.client, "", whole]
    whole = f"^{escaped}(-.*)?$"
    return ["sh", "-c", LIST_CRI, "list-static-pods", runtime.client, runtime.endpoint, whole]


def remove_argv(runtime: Runtime, pods: Sequence[str]) -> list[str]:
    """What removes these pods where they still are; the kubelet makes one anew."""
    if runtime.kind is RuntimeKind.DOCKER:
        return ["sh", "-c", REMOVE_DOCKER, "remove-static-pods", runtime.client, *pods]
    call = [runtime.client, runtime.endpoint, *pods]
    return ["sh", "-c", REMOVE_CRI, "remove-static-pods", *call]

"""The static pods of a control plane, written as kubeadm 1.36 writes them."""

from typing import Any

import yaml

from tests.lab.control_plane_design import EXTERNAL_ETCD, Design, Node
from tests.lab.pki_kubeadm import CERTIFICATES, KUBERNETES

MANIFESTS = f"{KUBERNETES}/manifests"
REGISTRY = "registry.example.net"
ETCD_VERSION = "3.4.23-0"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
APISERVER = {
    "allow-privileged": "true",
    "authorization-mode": "Node,RBAC",
    "client-ca-file": f"{CERTIFICATES}/ca.crt",
    "enable-admission-plugins": "NodeRestriction",
    "enable-bootstrap-token-auth": "true",
    "kubelet-client-certificate": f"{CERTIFICATES}/apiserver-kubelet-client.crt",
    "kubelet-client-key": f"{CERTIFICATES}/apiserver-kubelet-client.key",
    "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
    "proxy-client-cert-file": f"{CERTIFICATES}/front-proxy-client.crt",
    "proxy-client-key-file": f"{CERTIFICATES}/front-proxy-client.key",
    "requestheader-allowed-names": "front-proxy-client",
    "requestheader-client-ca-file": f"{CERTIFICATES}/front-proxy-ca.crt",
    "requestheader-extra-headers-prefix": "X-Remote-Extra-",
    "requestheader-group-headers": "X-Remote-Group",
    "requestheader-username-headers": "X-Remote-User",
    "secure-port": "6443",
    "service-account-key-file": f"{CERTIFICATES}/sa.pub",
    "service-account-signing-key-file": f"{CERTIFICATES}/sa.key",
    "tls-cert-file": f"{CERTIFICATES}/apiserver.crt",
    "tls-private-key-file": f"{CERTIFICATES}/apiserver.key",
}
CONTROLLER_MANAGER = {
    "authentication-kubeconfig": f"{KUBERNETES}/controller-manager.conf",
    "authorization-kubeconfig": f"{KUBERNETES}/controller-manager.conf",
    "bind-address": "127.0.0.1",
    "client-ca-file": f"{CERTIFICATES}/ca.crt",
    "cluster-name": "production",
    "cluster-signing-cert-file": f"{CERTIFICATES}/ca.crt",
    "cluster-signing-key-file": f"{CERTIFICATES}/ca.key",
    "controllers": "*,bootstrapsigner,tokencleaner",
    "kubeconfig": f"{KUBERNETES}/controller-manager.conf",
    "leader-elect": "true",
    "requestheader-client-ca-file": f"{CERTIFICATES}/front-proxy-ca.crt",
    "root-ca-file": f"{CERTIFICATES}/ca.crt",
    "service-account-private-key-file": f"{CERTIFICATES}/sa.key",
    "use-service-account-credentials": "true",
}
SCHEDULER = {
    "authentication-kubeconfig": f"{KUBERNETES}/scheduler.conf",
    "authorization-kubeconfig": f"{KUBERNETES}/scheduler.conf",
    "bind-address": "127.0.0.1",
    "kubeconfig": f"{KUBERNETES}/scheduler.conf",
    "leader-elect": "true",
}
ETCD = {
    "cert-file": f"{CERTIFICATES}/etcd/server.crt",
    "client-cert-auth": "true",
    "data-dir": "/var/lib/etcd",
    "election-timeout": "600",  # an extra argument, as kubeadm lets one give them; so is the next
    "heartbeat-interval": "60",
    "key-file": f"{CERTIFICATES}/etcd/server.key",
    "listen-metrics-urls": "http://127.0.0.1:2381",
    "peer-cert-file": f"{CERTIFICATES}/etcd/peer.crt",
    "peer-client-cert-auth": "true",
    "peer-key-file": f"{CERTIFICATES}/etcd/peer.key",
    "peer-trusted-ca-file": f"{CERTIFICATES}/etcd/ca.crt",
    "snapshot-count": "10000",
    "trusted-ca-file": f"{CERTIFICATES}/etcd/ca.crt",
}


def manifests(design: Design, node: Node) -> dict[str, bytes]:
    """Return the static pods of a node: the path of each file, and its content."""
    pods = {
        "kube-apiserver": _apiserver(design, node),
        "kube-controller-manager": _pod(
            design, "kube-controller-manager", CONTROLLER_MANAGER, ("127.0.0.1", 10257, "/healthz")
        ),
        "kube-scheduler": _pod(design, "kube-scheduler", SCHEDULER, ("127.0.0.1", 10259, "/livez")),
    }
    if design.etcd == "stacked":
        pods["etcd"] = _etcd(design, node)
    return {f"{MANIFESTS}/{name}.yaml": yaml.safe_dump(pod).encode() for name, pod in pods.items()}


def etcd_arguments(design: Design, node: Node) -> dict[str, str]:
    """Return what the etcd of a node is started with."""
    client, peer = f"https://{node.address}:2379", f"https://{node.address}:2380"
    return {
        **ETCD,
        "advertise-client-urls": client,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": design.initial_cluster(),
        "listen-client-urls": f"https://127.0.0.1:2379,{client}",
        "listen-peer-urls": peer,
        "name": node.name,
    }


def _etcd(design: Design, node: Node) -> dict[str, Any]:
    pod = _pod(design, "etcd", etcd_arguments(design, node), ("127.0.0.1", 2381, "/health"), "HTTP")
    folders = {"etcd-data": "/var/lib/etcd", "etcd-certs": f"{CERTIFICATES}/etcd"}
    pod["spec"]["containers"][0]["volumeMounts"] = [
        {"mountPath": path, "name": name} for name, path in folders.items()
    ]
    pod["spec"]["volumes"] = [
        {"hostPath": {"path": path, "type": "DirectoryOrCreate"}, "name": name}
        for name, path in folders.items()
    ]
    url = f"https://{node.address}:2379"
    pod["metadata"]["annotations"] = {"kubeadm.kubernetes.io/etcd.advertise-client-urls": url}
    return pod


def _apiserver(design: Design, node: Node) -> dict[str, Any]:
    arguments = {
        **APISERVER,
        "advertise-address": node.address,
        "service-account-issuer": f"https://kubernetes.default.svc.{design.dns_domain}",
        "service-cluster-ip-range": design.service_subnet,
    }
    if design.etcd == "stacked":
        arguments |= {
            "etcd-cafile": f"{CERTIFICATES}/etcd/ca.crt",
            "etcd-certfile": f"{CERTIFICATES}/apiserver-etcd-client.crt",
            "etcd-keyfile": f"{CERTIFICATES}/apiserver-etcd-client.key",
            "etcd-servers": "https://127.0.0.1:2379",
        }
    else:
        arguments |= {
            "etcd-cafile": f"{EXTERNAL_ETCD}/ca.pem",
            "etcd-certfile": f"{EXTERNAL_ETCD}/node-{node.name}.pem",
            "etcd-keyfile": f"{EXTERNAL_ETCD}/node-{node.name}-key.pem",
            "etcd-servers": ",".join(f"https://{one.address}:2379" for one in design.nodes),
        }
    pod = _pod(design, "kube-apiserver", arguments, (node.address, 6443, "/livez"))
    endpoint = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint"
    pod["metadata"]["annotations"] = {endpoint: f"{node.address}:6443"}
    return pod


def _pod(
    design: Design,
    name: str,
    arguments: dict[str, str],
    probe: tuple[str, int, str],
    scheme: str = "HTTPS",
) -> dict[str, Any]:
    host, port, path = probe
    asked = {"host": host, "path": path, "port": port, "scheme": scheme}
    version = ETCD_VERSION if name == "etcd" else f"v{design.version}"
    command = [name, *(f"--{key}={arguments[key]}" for key in sorted(arguments))]
    container = {
        "command": command,
        "image": f"{REGISTRY}/{name}:{version}",
        "imagePullPolicy": "IfNotPresent",
        "livenessProbe": {
            "failureThreshold": 8,
            "httpGet": asked,
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 15,
        },
        "name": name,
        "resources": {"requests": {"cpu": "100m"}},
        "volumeMounts": [{"mountPath": CERTIFICATES, "name": "k8s-certs", "readOnly": True}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "labels": {"component": name, "tier": "control-plane"},
            "name": name,
            "namespace": "kube-system",
        },
        "spec": {
            "containers": [container],
            "hostNetwork": True,
            "priority": 2000001000,
            "priorityClassName": "system-node-critical",
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [
                {
                    "hostPath": {"path": CERTIFICATES, "type": "DirectoryOrCreate"},
                    "name": "k8s-certs",
                }
            ],
        },
        "status": {},
    }

"""An inventory of kubespray: three hosts with etcd and the control plane, and its workers."""

PATH = "/srv/kubespray/inventory/inventory.ini"


def inventory(*workers):
    hosts = "".join(f"node{n} ansible_host=10.0.0.{n}\n" for n in sorted({1, 2, 3, *workers}))
    three = "node1\nnode2\nnode3\n"
    rest = "".join(f"node{n}\n" for n in workers)
    return f"{hosts}\n[kube_control_plane]\n{three}\n[etcd]\n{three}\n[kube_node]\n{rest}"

"""The nginx-proxy of kubespray on hosts of the lab: its manifest, its configuration, a stand-in.

The stand-in for nginx reads its configuration once, when it starts, as the real one does, and
leads each connection to the first API server that takes it.
"""

from collections.abc import Sequence

import yaml

from tests.lab.hosts import LabHost
from tests.lab.static_pods_runtime import IMAGES

MANIFEST = "/etc/kubernetes/manifests/nginx-proxy.yml"
CONF = "/etc/nginx/nginx.conf"
PORT = 7443  # the API server of the same host has 6443
NGINX = r"""#!/usr/bin/python3 -I
import re, socket, sys, threading
text = open("/etc/nginx/nginx.conf").read()
at = lambda word: [(h, int(p)) for h, p in re.findall(word + r"\s+([\d.]+):(\d+);", text)]
servers, listener = at("server"), socket.create_server(at("listen")[0])
print("serving", servers, file=sys.stderr, flush=True)

def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass

def lead(client):
    for server in servers:
        try:
            upstream = socket.create_connection(server, 1)
        except OSError:
            continue
        upstream.settimeout(None)
        back = threading.Thread(target=pump, args=(upstream, client))
        back.start()
        pump(client, upstream)
        back.join()
        break
    client.close()

while True:
    threading.Thread(target=lead, args=(listener.accept()[0],), daemon=True).start()
"""


def conf(servers: Sequence[str]) -> str:
    """Return the configuration as kubespray's template makes it."""
    named = "\n".join(f"    server {server}:6443;" for server in servers)
    return f"""error_log stderr notice;
worker_processes 2;

stream {{
  upstream kube_apiserver {{
    least_conn;
{named}
    }}

  server {{
    listen        127.0.0.1:{PORT};
    proxy_pass    kube_apiserver;
    proxy_timeout 10m;
    proxy_connect_timeout 1s;
  }}
}}

http {{
  server {{
    listen 8081;
    location /healthz {{
      access_log off;
      return 200;
    }}
  }}
}}
"""


def put_proxy(host: LabHost, servers: Sequence[str]) -> None:
    """Give a host the proxy, leading to these API servers."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "nginx-proxy",
            "namespace": "kube-system",
            "labels": {"k8s-app": "kube-nginx"},
        },
        "spec": {
            "hostNetwork": True,
            "containers": [
                {
                    "name": "nginx-proxy",
                    "image": "registry.example.net/nginx:1.29",
                    "command": ["nginx", "-g", "daemon off;"],
                }
            ],
        },
    }
    host.write(f"{IMAGES}/nginx", NGINX, 0o755)
    host.write(CONF, conf(servers))
    host.write(MANIFEST, yaml.safe_dump(pod))

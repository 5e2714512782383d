"""The one command that reads a control-plane host: what is asked of it stands in its arguments.

It changes nothing and needs no more than a POSIX shell, coreutils, sed, grep and openssl. No
private key leaves the host: of a key only the hash of its public half, of a kubeconfig only lines
that can hold no secret. Each answer is one line, `what<TAB>value`; texts are in base64.
"""

from tasks.certificates.catalogue import KUBERNETES, PKI, SCRATCH

# Keys of a kubeconfig whose values may be seen, and those whose presence alone may. Values that
# begin another YAML construct are left out with their line: they could go on with anything.
SEEN = (
    "apiVersion|kind|clusters|cluster|contexts|context|users|user|name|current-context|namespace|"
    "server|certificate-authority-data|client-certificate|client-certificate-data"
)
HIDDEN = "client-key-data|token|tokenFile|password|exec|auth-provider"
FLAGS = (
    "tls-cert-file|bind-address|secure-port|advertise-address|etcd-servers|etcd-certfile|"
    "listen-client-urls|listen-peer-urls|initial-cluster"
)
KUBELET_FLAGS = (
    "hostname-override|container-runtime-endpoint|container-runtime|tls-cert-file|cert-dir"
)
KUBELET_KEYS = (
    "rotateCertificates|serverTLSBootstrap|tlsCertFile|containerRuntimeEndpoint|address|port"
)

SCRIPT = rf"""
PATH="$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"; LC_ALL=C
export PATH LC_ALL
manifests={KUBERNETES}/manifests
tell() {{ printf '%s\t%s\n' "$1" "$2"; }}
encoded() {{ base64 -w 0; }}
flag() {{ sed -n "/^ *- --$2=/{{s///;s/[\"']//g;p;q;}}" "$manifests/$1.yaml" 2>/dev/null; }}
public() {{ openssl pkey -passin pass: -pubout -outform DER 2>/dev/null | hashed; }}
hashed() {{ sha256sum | {{ read -r hash rest; echo "$hash"; }}; }}
stamp() {{ stat -L -c '%a %u:%g %.9Y' "$1"; }}
in_pki() {{ case $1 in /*) echo "$1";; *) echo "$pki/$1";; esac; }}
kept() {{ sed -n -E -e 's/^( *(- )?({HIDDEN}):).*/\1 hidden/p;t' \
  -e '/^ *(- )?({SEEN}):( *| +[^][{{}}|>&!*]*)$/p' "$1"; }}
embedded_key() {{
  sed -n 's/^ *client-key-data: *"\{{0,1\}}\([A-Za-z0-9+/=]*\).*/\1/p' "$1" |
    base64 -d 2>/dev/null | public
}}
pair() {{
  crt=$(in_pki "$2.crt"); key=$(in_pki "$2.key"); hash=-
  [ -e "$crt" ] || {{ tell "pair:$1" missing; return; }}
  if [ -e "$key" ]; then hash=$(public <"$key"); fi
  tell "pair:$1" "$(stamp "$crt") $hash $(encoded <"$crt")"
}}
conf() {{
  [ -e "$2" ] || {{ tell "conf:$1" missing; return; }}
  tell "conf:$1" "$(stamp "$2") $(embedded_key "$2") $(kept "$2" | encoded)"
}}
pem() {{
  [ -e "$2" ] || {{ tell "pem:$1" missing; return; }}
  crt=$(sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p' "$2" | encoded)
  tell "pem:$1" "$(stamp "$2") $(public <"$2") $crt"
}}
account() {{
  entry=$(getent passwd "$1") || {{ tell "account:$1" missing; return; }}
  home=$(echo "$entry" | cut -d : -f 6); file=$home/.kube/config
  tell "account:$1" "$(echo "$entry" | cut -d : -f 3,4) $(readlink -f "$file" | encoded)"
  conf "account:$1" "$file"
}}
same() {{ # what option file
  tell "same:$1" "$(openssl pkey $2 -in "$(in_pki "$3")" -passin pass: -pubout -outform DER \
    2>/dev/null | hashed)"
}}
foreign() {{
  crt=$(flag kube-apiserver etcd-certfile)
  if [ -e "$crt" ]; then tell pem:foreign "$(stamp "$crt") - $(encoded <"$crt")"; fi
}}
address() {{
  case $1 in
    kube-apiserver)
      at=$(flag kube-apiserver bind-address)
      case $at in ''|0.0.0.0|::) at=127.0.0.1;; *:*) at="[$at]";; esac
      port=$(flag kube-apiserver secure-port); echo "$at:${{port:-6443}}";;
    etcd) flag etcd listen-client-urls | tr , '\n' | sed -n 's,^https://,,p' | head -n 1;;
    etcd-peer) flag etcd listen-peer-urls | tr , '\n' | sed -n 's,^https://,,p' | head -n 1;;
    kubelet)
      config=/var/lib/kubelet/config.yaml
      at=$(sed -n 's/^address: *//p' $config 2>/dev/null | tr -d "\"'")
      case $at in ''|0.0.0.0|::) at=127.0.0.1;; *:*) at="[$at]";; esac
      port=$(sed -n 's/^port: *//p' $config 2>/dev/null); echo "$at:${{port:-10250}}";;
    kube-controller-manager|kube-scheduler)
      at=$(flag "$1" bind-address)
      case $at in ''|0.0.0.0|::) at=127.0.0.1;; *:*) at="[$at]";; esac
      case $1 in kube-scheduler) port=10259;; *) port=10257;; esac
      own=$(flag "$1" secure-port); echo "$at:${{own:-$port}}";;
  esac
}}
served() {{
  at=$(address "$1")
  [ -n "$at" ] || {{ tell "served:$1" none; return; }}
  crt=$(timeout 4 openssl s_client -connect "$at" </dev/null 2>/dev/null | openssl x509 2>/dev/null)
  tell "served:$1" "$at $(echo "$crt" | encoded)"
}}
request() {{ printf '%s %s HTTP/1.0\r\nHost: %s\r\nContent-Length: %s\r\n\r\n%s' \
  "$1" "$2" "$3" "${{#4}}" "$4"; }}
call() {{ # address method path body options
  request "$2" "$3" "$1" "$4" | timeout 5 openssl s_client -quiet -connect "$1" $5 2>/dev/null |
    encoded
}}
health() {{ # address, or nothing for the member of this host
  own="-cert $pki/etcd/healthcheck-client.crt -key $pki/etcd/healthcheck-client.key"
  said=$(call "${{1:-$(address etcd)}}" GET /health '' "$own"); tell "health:$1" "$said"
}}
# Who is a member: from the client port, or else from the peer port, which tells it even without a
# quorum, but does not always close when it has answered (etcd 3.6).
members() {{
  health ''; list=
  if [ -n "$said" ]; then
    list=$(call "$(address etcd)" POST /v3/cluster/member/list '{{}}' "$own")
    case $(echo "$list" | base64 -d) in *'"members"'*) ;; *) list=;; esac
  fi
  at=$(address etcd-peer); own="-cert $pki/etcd/peer.crt -key $pki/etcd/peer.key"
  [ -n "$list" ] || list=$({{ request GET /members "$at" ''; sleep 1; }} | timeout 5 \
    openssl s_client -quiet -no_ign_eof -connect "$at" $own 2>/dev/null | encoded)
  tell members "$at $list"
}}
# With the credentials of admin.conf: by kubectl, or by hand where there is none.
api() {{
  conf={KUBERNETES}/admin.conf
  if command -v kubectl >/dev/null; then
    said=$(kubectl --kubeconfig "$conf" --request-timeout 10s get --raw "$2" 2>&1)
    tell "api:$1" "$? $(printf %s "$said" | encoded)"; return
  fi
  umask 077; own=$(mktemp -d /run/recover.XXXXXX) || return; trap 'rm -rf "$own"' EXIT
  for part in certificate-authority client-certificate client-key; do
    sed -n "s/^ *$part-data: *//p" "$conf" | tr -d "\"'" | base64 -d >"$own/$part"
  done
  at=$(sed -n 's,^ *server: *"*https://,,p' "$conf" | tr -d "\"'/")
  case $at in *:*) ;; *) at=$at:443;; esac
  said=$(call "$at" GET "$2" '' "-cert $own/client-certificate -key $own/client-key \
    -verify_return_error -CAfile $own/certificate-authority")
  rm -rf "$own"; tell "api:$1" "http $said"
}}
processes() {{
  up=$(cut -d ' ' -f 1 /proc/uptime)
  tell uptime "$(date +%s.%N) $up $(getconf CLK_TCK 2>/dev/null || echo 100)"
  for process in /proc/[0-9]*; do
    {{ read -r name <"$process/comm"; }} 2>/dev/null || continue
    case $name in etcd|kube-apiserver|kube-controller|kube-scheduler|kubelet) ;; *) continue;; esac
    line=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)
    case $name$line in kubelet*|*{KUBERNETES}/*) ;; *) continue;; esac
    tell "process:$name" "${{process#/proc/}} $(sed 's/.*) //' "$process/stat" | cut -d ' ' -f 20)"
  done
}}
# A controller manager or scheduler: its manifest without the values of variables, what it answers,
# the end of its log, what the kubelet says of the manifest, and one laid aside near the folder.
component() {{
  manifest=$manifests/$1.yaml
  if [ -e "$manifest" ]; then
    tell "text:$1" "$(sed -E 's/^( *(- )?"?value"?:).*/\1 hidden/' "$manifest" | encoded)"
  fi
  at=$(address "$1"); tell "healthz:$1" "$at $(call "$at" GET /healthz '' '')"
  for log in $(ls -t /var/log/pods/kube-system_"$1"-*/"$1"/*.log 2>/dev/null); do
    [ -s "$log" ] && tell "log:$1" "$(tail -n 8 "$log" | cut -c 1-300 | encoded)" && break
  done
  tell "complaint:$1" "$(journalctl -u kubelet -n 500 --no-pager -o cat 2>/dev/null |
    grep -F -- "$manifest" | tail -n 1 | cut -c 1-500 | encoded)"
  for aside in {KUBERNETES}/*/"$1.yaml" {KUBERNETES}/"$1.yaml"; do
    if [ -e "$aside" ] && [ "$aside" != "$manifest" ]; then tell "aside:$1" "$aside"; fi
  done
}}
facts() {{
  tell hostname "$(uname -n)"
  for tool in kubeadm kubectl crictl docker openssl tar sha256sum systemctl; do
    tell "tool:$tool" "$(command -v $tool)"
  done
  tell version "$(kubeadm version -o short 2>/dev/null)"
  tell pki "$(readlink -f "$pki")"
  tell same-pki "$([ "$pki" -ef {PKI} ] && echo yes || echo no)"
  tell kubespray-etcd "$([ -d /etc/ssl/etcd/ssl ] && echo yes || echo no)"
  for pod in etcd kube-apiserver kube-controller-manager kube-scheduler; do
    [ -e "$manifests/$pod.yaml" ] || {{ tell "manifest:$pod" missing; continue; }}
    tell "manifest:$pod" "$(sed -n -E 's/^ *(- )?(image: .*|--({FLAGS})=.*)/\2/p' \
      "$manifests/$pod.yaml" | encoded)"
  done
  kubelet=/var/lib/kubelet
  tell kubelet-config "$(grep -E '^({KUBELET_KEYS}):' $kubelet/config.yaml 2>/dev/null | encoded)"
  tell kubelet-flags "$(for process in /proc/[0-9]*; do
      {{ read -r name <"$process/comm"; }} 2>/dev/null && [ "$name" = kubelet ] &&
        tr '\0' ' ' <"$process/cmdline"
    done 2>/dev/null | cat - $kubelet/kubeadm-flags.env $kubelet/instance-config.yaml \
      /etc/default/kubelet /etc/sysconfig/kubelet 2>/dev/null |
    grep -o -E -- '(--({KUBELET_FLAGS})=[^ "]*|^containerRuntimeEndpoint: *[^ ]+)' | encoded)"
  tell kubelet-active "$(systemctl is-active kubelet 2>/dev/null)"
  tell renewing "$(systemctl is-active k8s-certs-renew.service 2>/dev/null)"
  tell timer "$(systemctl is-active k8s-certs-renew.timer 2>/dev/null)"
  for socket in /run/containerd/containerd.sock /run/crio/crio.sock /run/cri-dockerd.sock; do
    [ -S $socket ] && tell socket $socket
  done
  tell size "$(du -sk --exclude={SCRATCH} {KUBERNETES} $kubelet/pki 2>/dev/null |
    cut -f 1 | tr '\n' ' ')"
  for folder in /var {KUBERNETES} /var/lib/kubelet; do
    tell "free:$folder" "$(df -Pk "$folder" 2>/dev/null | sed -n '2s/  */ /gp' | cut -d ' ' -f 4)"
  done
}}
pki=$(flag kube-apiserver tls-cert-file); pki=${{pki%/*}}; pki=${{pki:-{PKI}}}
tell clock "$(date +%s.%N)"
while [ $# -gt 0 ]; do
  case $1 in
    pair|conf|pem|api) $1 "$2" "$3"; shift 3;;
    same) same "$2" "$3" "$4"; shift 4;;
    account|served|health|component) $1 "$2"; shift 2;;
    facts|processes|foreign|members) $1; shift;;
    ready) tell ready "$(call "$(address kube-apiserver)" GET /readyz '' '')"; shift;;
  esac
done
tell clock "$(date +%s.%N)"
""".strip()


def look_argv(*requests: str) -> list[str]:
    """The command that answers these requests, in their order."""
    return ["sh", "-c", SCRIPT, "look", *requests]


def parse_lines(printed: str) -> dict[str, list[str]]:
    """The answers by what was asked; most have one value."""
    found: dict[str, list[str]] = {}
    for line in printed.splitlines():
        what, _, value = line.partition("\t")
        found.setdefault(what, []).append(value.strip())
    return found

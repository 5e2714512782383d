"""Where a host has the tools of etcd: its own, or those in the container that runs it.

kubeadm puts none on the host. Those of a container that runs are started from its files, as
processes of the host: they are linked statically, and see the host's folders under their own names.
"""

# Where etcdctl may lie: what sudo leaves of the path mostly lacks /usr/local/bin.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"
# The process of an etcd by its data directory: on one host there may be that of Patroni as well.
# What only calls itself so does not see that very folder, or is nobody that it would belong to.
PROCESS = rf"""PATH=$PATH:{PATH}
is_its() {{ # whether a process could be that of the etcd that has its data there
  uid=$(stat -c %u "$1")
  [ "$1/root$2" -ef "$2" ] && {{ [ "$uid" = 0 ] || [ "$uid" = "$(stat -c %u "$2")" ]; }}
}}
etcd_of() {{ # the process of the etcd that has its data there
  for comm in $(grep -slx etcd /proc/[0-9]*/comm); do
    at=${{comm%/comm}}
    tr "\0" "\n" 2>/dev/null <"$at/cmdline" | grep -qxF -e "$1" -e "--data-dir=$1" \
      -e "-data-dir=$1" || continue
    [ ! -e "$1" ] || is_its "$at" "$1" || continue
    echo "${{at#/proc/}}"
    return
  done
  return 1
}}
"""
FIND_TOOLS = rf"""{PROCESS}
find_tools() {{ # those that the running etcd came with first: they are of its version
  [ -e "$1" ] && process=$(etcd_of "$1") || return 0
  # Of a process of the host itself none that root would not run anyway.
  [ "$(stat -c %u "/proc/$process")" = 0 ] || [ ! "/proc/$process/root" -ef / ] || return 0
  searched=$(tr "\0" "\n" <"/proc/$process/environ" | sed -n "s/^PATH=//p")
  found=
  for folder in $(echo "${{searched:-/usr/local/bin}}" | tr : " "); do
    found=$found/proc/$process/root$folder:
  done
  PATH=$found$PATH
}}
"""
WITH_TOOLS = f"""# by the etcdctl of this host, or that in the container of etcd
{FIND_TOOLS}
find_tools "$1"
shift
exec "$@"
"""

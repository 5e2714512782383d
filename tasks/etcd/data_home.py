"""The data directory of a member, on a host that has none yet."""

# Debian's etcd runs as a user of its own, who could not go into a directory of root's.
MAKE_HOME = """home() { # make the data directory where there is none, for whom the unit runs as
  [ ! -e "$1" ] || return 0
  user=$(systemctl show -p User --value -- "$2")
  (umask 022; mkdir -p "$(dirname "$1")")
  install -d -m 0700 -o "${user:-root}" -g "$(id -gn "${user:-root}")" "$1"
}
home "$(dirname "$data")" "$unit"
"""

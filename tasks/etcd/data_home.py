"""The data directory of a member: made where there is none, and brought back to what it was."""

EMPTIED = "emptied"  # a mark: nothing of before is in place any more
# Debian's etcd runs as a user of its own, who could not go into a directory of root's.
MAKE_HOME = """home() { # make the data directory where there is none, for whom the unit runs as
  [ ! -e "$1" ] || return 0
  user=$(systemctl show -p User --value -- "$2")
  (umask 022; mkdir -p "$(dirname "$1")")
  install -d -m 0700 -o "${user:-root}" -g "$(id -gn "${user:-root}")" "$1"
}
home "$(dirname "$data")" "$unit"
"""
# What is in place once data was moved aside is of the new cluster, or was begun at a boot then,
# before the mark was there. A member that had no data is not started again, nor set up as it was:
# two of them with `new` would begin an empty cluster. It may have had a directory all the same, and
# that was moved as if it held something.
MOVE_BACK = f"""if [ -e "$aside/before" ] || [ -e "$aside/{EMPTIED}" ]; then
  to=$aside/after n=1
  while [ -e "$to" ]; do to=$aside/after.$n n=$((n + 1)); done
  [ ! -e "$data" ] || mv -T "$data" "$to"
  rm -f "$aside/{EMPTIED}"
fi
[ -e "$data" ] || [ ! -e "$aside/before" ] || mv -T "$aside/before" "$data"
[ "$had" = yes ] && [ -e "$data" ] || exit 0
sync -f "$data"
"""

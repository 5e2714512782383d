"""What runs on a host to fence it, in POSIX sh with flock.

For each lease target there is a file that tells of the last attempt that acted here: its number in
order, its epoch, recovery and journal (`12 7 0123abcd 89ef .`, written whole or not at all), and
beside it an empty one that is locked: shared while a command runs, exclusively for a moment to find
out that none does. They lie where they survive a reboot, or, where that cannot be written (disk
full, read-only), in memory; both are looked at, and the later one counts.

A script that does not do what it is there for says why in one line that begins `recover-fence`.
`true >file` and not `: >file`, and a look before `exec 8<file`: a special built-in whose
redirection fails ends the whole script.
"""

EXIT_CODE = 93
SAYS = "recover-fence"
ROOT_FOLDERS = ("/var/lib/recover", "/run/recover")

_SEEN = """
name=$1 epoch=$2 recovery=$3 journal=$4; shift 4
last=0 at= by= of=
say() { echo "recover-fence $*" >&2; exit 93; }
number() { case $1 in ''|*[!0-9]*|0?*|???????????????????*) return 1;; esac; }
seen() { # the file $1, where it is later than what was seen before
  [ -r "$1" ] && [ ! -L "$1" ] || say unreadable "$1"
  n= e= r= j= end=; read -r n e r j end <"$1" || say garbage "$1"
  number "$n" && number "$e" && [ "$end" = . ] || say garbage "$1"
  [ "$n" -le "$last" ] || { last=$n at=$e by=$r of=$j; }
}
"""

# Arguments: name, epoch, recovery, journal, command, folder that lasts, folder that passes. Runs
# the command as it would be sent without a guard, with the locks held by the guard alone: what the
# command leaves running does not hold them.
GUARD = f"""{_SEEN}
command=$1
for root in {" ".join(ROOT_FOLDERS)}; do
  [ "$root" = "$2" ] || [ "$root" = "$3" ] || [ ! -e "$root/$name" ] || say foreign "$root/$name"
done
if [ -e "$2/$name" ]; then
  [ -r "$2/$name.lock" ] || say unreadable "$2/$name.lock"
  exec 8<"$2/$name.lock"; flock -s 8 || say lacks flock
  seen "$2/$name"
fi
if [ -e "$3/$name" ]; then
  [ -r "$3/$name.lock" ] || say unreadable "$3/$name.lock"
  exec 9<"$3/$name.lock"; flock -s 9 || say lacks flock
  seen "$3/$name"
fi
case $of in
  '') say missing;;
  "$journal") [ "$at" -ge "$epoch" ] || say missing
    [ "$at" = "$epoch" ] && [ "$by" = "$recovery" ] || say later "$at" "$by";;
  *) say later "$at" "$by";;
esac
( exec 8<&- 9<&-; eval "$command" )
"""

# Arguments: name, epoch, recovery, journal, `root` or `home`. Makes this attempt the last one, if
# no later one of the same journal has been here; that of another journal is followed, since whoever
# has a lease there does not have it here. Then says whether a command of before still runs. Prints
# the two folders.
RAISE = f"""{_SEEN}
umask 077; me=0; [ "$1" = root ] || me=$(id -u)
command -v flock >/dev/null || say lacks flock
if [ "${{RECOVER_FENCE_DIR-}}" ]; then
  lasting=$RECOVER_FENCE_DIR/lasting passing=$RECOVER_FENCE_DIR/passing
elif [ "$1" = root ]; then
  lasting={ROOT_FOLDERS[0]} passing={ROOT_FOLDERS[1]}
else
  for root in {" ".join(ROOT_FOLDERS)}; do
    [ ! -e "$root/$name" ] || say foreign "$root/$name"
  done
  lasting=${{HOME:-/nonexistent}}/.local/state/recover passing=/dev/shm/recover-$me
fi
safe() {{ # a folder of ours that nobody else can write to
  [ -d "$1" ] && [ ! -L "$1" ] || return 1
  set -- $(ls -ldn "$1")
  case $1 in ?????w*|????????w*) return 1;; esac
  [ "$3" = "$me" ]
}}
open() {{ # make the folder if need be; that of root lets others find what it has no secret in
  [ -e "$1" ] || {{ mkdir -p "$1" && [ "$me" = 0 ] && chmod 711 "$1"; }} 2>/dev/null
  [ -e "$1" ] || [ -L "$1" ] || return 1
  safe "$1" || say unsafe "$1"
}}
readable() {{ # by the account that calls sudo, now or when it was raised before
  group=${{SUDO_GID-$2}}
  [ "$group" ] || group=$(ls -ln "$1/$name.lock" | {{ read -r _ _ _ gid _; echo "$gid"; }})
  [ "$me" = 0 ] && [ "$group" != 0 ] || return 0
  chgrp "$group" "$1/$name" "$1/$name.lock" &&
    chmod 640 "$1/$name" "$1/$name.lock"
}}
write() {{
  new=$1/$name.new group=0
  [ ! -e "$1/$name.lock" ] || group=
  [ ! -e "$new" ] || rm -f "$new" 2>/dev/null
  {{ true >>"$1/$name.lock" &&
    echo "$((last + 1)) $epoch $recovery $journal ." >"$new" &&
    sync "$new" && mv -f "$new" "$1/$name" && sync "$1" && readable "$1" "$group"; }} 2>/dev/null &&
    return
  rm -f "$new" 2>/dev/null
  return 1
}}
open "$lasting" || open "$passing" || say unwritable "$lasting"
[ ! -d "$lasting" ] || {{ exec 6<"$lasting"; flock 6; }}
[ ! -d "$passing" ] || {{ safe "$passing" || say unsafe "$passing"; exec 7<"$passing"; flock 7; }}
for dir in "$lasting" "$passing"; do
  [ -e "$dir/$name" ] || [ -L "$dir/$name" ] || continue
  seen "$dir/$name"
done
if [ "$of" = "$journal" ]; then
  [ "$at" -le "$epoch" ] || say later "$at" "$by"
  [ "$at" -lt "$epoch" ] || [ "$by" = "$recovery" ] || say later "$at" "$by"
fi
if [ "$of" != "$journal" ] || [ "$at" -lt "$epoch" ]; then
  {{ [ -d "$lasting" ] && write "$lasting"; }} || {{ open "$passing" && write "$passing"; }} ||
    say unwritable "$lasting"
fi
for dir in "$lasting" "$passing"; do
  [ -e "$dir/$name" ] || continue
  lock=$dir/$name.lock
  [ -e "$lock" ] || true >>"$lock" || say unwritable "$dir"
  ( flock -n -x 9 ) 9<"$lock" && continue
  for process in /proc/[0-9]*; do
    [ "$process/fd/8" -ef "$lock" ] || [ "$process/fd/9" -ef "$lock" ] || continue
    what=$(tr '\\n\\0' ' \\n' <"$process/cmdline" | sed -n 9p | cut -c 1-300)
    [ -z "$what" ] || say held "${{process#/proc/}}" "$what"
  done
  say held 0
done
echo "recover-fence raised"
echo "$lasting"
echo "$passing"
"""

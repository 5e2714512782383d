"""What runs on the worker itself to start, look at and settle a command that outlives it.

No service manager is needed: the command runs in a session of its own, and it and all it starts
hold a lock on a file for as long as they live, which the kernel lets go when they are gone. A mark
in their environment tells whoever ends what a worker has left behind to pass them over.
"""

from blocks.ssh.detached_scripts import KILL_AFTER_SECONDS, STATUS

MARK = "RECOVER_DETACHED"
RUN = f"""folder=$1
exec 8>"$folder/alive"
flock -w 10 8 || exit 75
[ ! -e "$folder/began" ] || exit 75
: >"$folder/began"
code=0
exec </dev/null >"$folder/output" 2>&1
timeout -k {KILL_AFTER_SECONDS} "$2" sh "$folder/command" || code=$?
echo "$code" >"$folder/exit_code.new"
mv "$folder/exit_code.new" "$folder/exit_code"
"""
PLACE = """set -eu
umask 077
folder=$1
mkdir -p "$(dirname "$folder")"
exec 9>"$folder.lock"
flock -w 30 9
put_aside() {
  [ -e "$folder" ] || return 0
  n=1
  while [ -e "$folder.$n" ]; do n=$((n + 1)); done
  mv "$folder" "$folder.$n"
}
lives() { [ -e "$folder/alive" ] && ! flock -s -n "$folder/alive" true; }
"""
# An attempt that was paused, and wakes up when a later one has come, starts nothing any more.
START = f"""{PLACE}epoch=${{RECOVER_EPOCH:-0}}
known=$(cat "$folder.epoch" 2>/dev/null || echo 0)
if [ "$epoch" -lt "$known" ]; then
  echo "a later attempt, $known, has been here" >&2
  exit 76
fi
echo "$epoch" >"$folder.epoch"
if lives || [ -e "$folder/exit_code" ]; then
  if [ "$(cat "$folder/command")" != "$3" ]; then
    echo "$folder is there with another command" >&2
    exit 75
  fi
  echo "$folder is there already"
  exit 0
fi
if [ -e "$folder/began" ]; then put_aside; fi
mkdir -p "$folder"
printf "%s\\n" "$3" >"$folder/command"
cat >"$folder/run" <<\\EOF
{RUN}EOF
{MARK}="${{folder##*/}}" setsid sh "$folder/run" "$folder" "$2" </dev/null >/dev/null 2>&1 9>&- &
n=0
while [ ! -e "$folder/began" ] && [ "$n" -lt 300 ]; do
  sleep 0.1
  n=$((n + 1))
done
[ -e "$folder/began" ]
"""
SETTLE = f"""{PLACE}ended=$(cat "$folder/exit_code" 2>/dev/null || :)
if [ -z "$ended" ] && lives; then
  echo "$folder still runs" >&2
  exit 75
fi
if [ "$ended" = 0 ]; then rm -rf "$folder"; else put_aside; fi
"""
LOOK = f"""folder=$1
code=$(cat "$folder/exit_code" 2>/dev/null || :)
lives=
if [ -z "$code" ]; then
  if [ -e "$folder/alive" ] && ! flock -s -n "$folder/alive" true; then lives=yes; fi
  code=$(cat "$folder/exit_code" 2>/dev/null || :)
fi
tail -c 4000 "$folder/output" 2>/dev/null || :
began=$(test -e "$folder/began" && echo yes || :)
echo
echo "{STATUS} Lives=$lives Began=$began ExitCode=$code"
"""

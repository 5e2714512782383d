"""What runs at the host to start, look at and settle a detached command; see `ssh_detached`.

The scripts hold no single quote, so that they stand in a plan as they are. systemd-run is given
nothing that systemd would expand ($, %): what is to be run lies in a file.
"""

KILL_AFTER_SECONDS = 30  # from the deadline's polite signal to the one that cannot be caught
STATUS = "recover-unit"
FAST_LOOKS = 10  # a tenth of a second apart; then one a second
OUTPUT_BYTES_MAX, TAIL_BYTES_MAX = 200_000, 50_000  # kept at the host: the head and the tail

RUN = f"""cd /
: >"$1/began"
{{
  code=0
  timeout -k {KILL_AFTER_SECONDS} "$2" sh "$1/command" </dev/null || code=$?
  echo "$code" >"$1/exit_code.new"
  mv "$1/exit_code.new" "$1/exit_code"
}} 2>&1 | {{
  stdbuf -o0 head -c {OUTPUT_BYTES_MAX} >"$1/output"
  tail -c {TAIL_BYTES_MAX} >"$1/tail"
}}
exit "$(cat "$1/exit_code")"
"""
PLACE = """set -eu
umask 077
unit=$1
units=/run/recover/units
folder=$units/$unit
mkdir -p "$units"
exec 9>"$units/.lock"
flock -w 30 9
put_aside() {
  [ -e "$folder" ] || return 0
  n=1
  while [ -e "$folder.$n" ]; do n=$((n + 1)); done
  mv "$folder" "$folder.$n"
}
state=$(systemctl show -p ActiveState "$unit")
"""
START = f"""{PLACE}if [ "$state" != ActiveState=inactive ] || [ -e "$folder/exit_code" ]; then
  if [ "$(cat "$folder/command")" != "$3" ]; then
    echo "$unit is there with another command" >&2
    exit 75
  fi
  echo "$unit is there already"
  exit 0
fi
others=$(systemctl list-units --no-legend --state=running "recover-????????????-$4.service")
if [ -n "$others" ]; then
  echo "another recovery runs this: $others" >&2
  exit 75
fi
if [ -e "$folder/began" ]; then put_aside; fi
mkdir -p "$folder"
printf "%s\\n" "$3" >"$folder/command"
cat >"$folder/run" <<\\EOF
{RUN}EOF
systemd-run --unit="$unit" --remain-after-exit /bin/sh "$folder/run" "$folder" "$2"
n=0
while [ ! -e "$folder/began" ] && [ "$n" -lt 300 ]; do
  sleep 0.1
  n=$((n + 1))
done
[ -e "$folder/began" ]
"""
SETTLE = f"""{PLACE}ended=$(cat "$folder/exit_code" 2>/dev/null || :)
case $state in
ActiveState=failed | ActiveState=inactive) ;;
*)
  if [ -z "$ended" ]; then
    echo "$unit still runs" >&2
    exit 75
  fi
  systemctl stop "$unit"
  ;;
esac
systemctl reset-failed "$unit" 2>/dev/null || :
if [ "$ended" = 0 ]; then rm -rf "$folder"; else put_aside; fi
"""
# Prints what is new of the output while it comes, in whole lines, and last a line on how far the
# command is. Each answer is masked by itself, and half of a secret would not be known as one: half
# of a line is printed only at the end, or where one answer holds no more. Ends when the command
# has, after so many looks, or at the limit of what one answer holds.
LOOK = f"""unit=$1 looks=$2 from=$3 limit=$4
folder=/run/recover/units/$unit
n=0 until=$3
new() {{ [ "$count" -eq 0 ] || tail -c "+$((until + 1))" "$folder/output" | head -c "$count"; }}
while :; do
  seen=$(systemctl show -p LoadState -p ActiveState -p SubState -p Result "$unit") || exit
  code=$(cat "$folder/exit_code" 2>/dev/null)
  case $seen in
  *SubState=exited*) ended=yes ;;
  *ActiveState=active* | *ActiveState=activating* | *ActiveState=deactivating*) ended=$code ;;
  *) ended=yes ;;
  esac
  if [ "$code" ] && [ "$ended" != yes ]; then sleep 0.5; fi
  size=$(stat -c %s "$folder/output" 2>/dev/null || echo 0)
  count=$((size > until ? size - until : 0))
  left=$((limit - until + from))
  full=
  if [ "$count" -ge "$left" ]; then count=$left full=yes; fi
  if [ -z "$ended" ] || [ "$full" ] || [ "$size" -ge {OUTPUT_BYTES_MAX} ]; then
    if [ "$(new | tail -c 1)" ]; then
      broken=$(new | tail -n 1 | wc -c)
      if [ -z "$full" ] || [ "$broken" -lt "$count" ] || [ "$until" -gt "$from" ]; then
        count=$((count - broken))
      fi
    fi
  fi
  new
  until=$((until + count))
  if [ "$ended" ] || [ "$n" -ge "$looks" ] || [ "$full" ]; then break; fi
  n=$((n + 1))
  if [ "$n" -le {FAST_LOOKS} ]; then sleep 0.1; else sleep 1; fi
done
began=$(test -e "$folder/began" && echo yes)
echo
echo "{STATUS}" $seen "Began=$began ExitCode=$code Size=$size Until=$until"
"""
# The first line may be the end of one that is left out.
READ_TAIL = 'sed 1d "/run/recover/units/$1/tail" 2>/dev/null || :'

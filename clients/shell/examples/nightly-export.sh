#!/usr/bin/env bash
# Compresses the files of a folder into another, and reports its progress:
#
#   HEADWAY_SESSION=nightly nightly-export.sh /srv/export /srv/archive
#
# The export also works without a server: HEADWAY_OFFLINE saves undelivered reports, for the next night or `headway flush`.
# A file that cannot be compressed is a record error; the others go on. After a cancellation request, the current file is
# the last. Files that are already in the archive stay as they are, so that a second run continues where the first stopped.
set -euo pipefail
shopt -s nullglob
export HEADWAY_OFFLINE=1

from=$1 to=$2
written=0 failed=0 cancelled=''
files=("$from"/*)
notes=$(mktemp)

job=$(headway create --name "Nightly export" --invoker "${USER:-cron}" --size ${#files[@]} --unit files --heartbeat-timeout 1h)

end() {
  local status=$?
  if [[ $cancelled ]]; then
    headway fail "$job" --code CANCELLED --message "stopped after $((written + failed)) files"
  elif ((status)); then
    headway fail "$job" --message "exit status $status: $(tail -n 1 "$notes")"
  else
    headway finish "$job" --results "{\"written\": $written, \"failed\": $failed}"
  fi >/dev/null
  rm -f "$notes"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

mkdir -p "$to" 2>"$notes"
for file in "${files[@]}"; do
  name=${file##*/}
  words=(--advance 1 --message "$name")
  if [[ -e $to/$name.gz ]]; then
    words+=(--count skipped=1)
  elif gzip -c <"$file" 2>"$notes" >"$to/$name.part" && mv "$to/$name.part" "$to/$name.gz"; then
    ((++written))
    words+=(--count written=1)
  else
    ((++failed))
    rm -f "$to/$name.part"
    words+=(--error "$name:NOT_COMPRESSED:$(tail -n 1 "$notes")")
  fi
  if headway report "$job" "${words[@]}" --json | jq -e .cancellation.requested >/dev/null; then
    cancelled=yes
    exit 1
  fi
done

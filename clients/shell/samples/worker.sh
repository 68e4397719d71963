#!/usr/bin/env bash
set -euo pipefail
export HEADWAY_OFFLINE=1 # without a server the work goes on, and everything arrives later

batch=("record 1" "record 2" "record 3")
job=$(headway create --name "Stage MARC records" --size ${#batch[@]} --unit records)
trap 'headway fail "$job" --message "line $LINENO failed"' ERR
for record in "${batch[@]}"; do
  headway report "$job" --advance 1 --message "staging $record" --count added=1
done
headway finish "$job" --results "{\"added\": ${#batch[@]}, \"updated\": 0}" >/dev/null

#!/usr/bin/env bash
# Runs the samples of docs/verifying-webhooks.md against a delivery that batchd really signed, and against forgeries. A
# sample whose interpreter or library is missing is SKIPPED. $BATCHD is the binary, $PYTHON a Python with the libraries.
set -euo pipefail
cd "$(dirname "$0")/../.."
BATCHD=${BATCHD:-target/debug/batchd}
PYTHON=${PYTHON:-python3}

folder=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap cleanup EXIT
await() { # a file
  for _ in $(seq 300); do
    if [ -e "$1" ]; then return; fi
    sleep 0.1
  done
  echo "FAILED: $1 did not appear"
  cat "$folder/log" || true
  exit 1
}

for needed in python3 openssl; do
  if ! command -v "$needed" >/dev/null; then
    echo "SKIPPED: there is no $needed"
    exit 0
  fi
done

# A delivery of a running batchd.
BATCHD_WEBHOOK_SECRET="whsec_$(openssl rand -base64 32)"
export BATCHD_WEBHOOK_SECRET
python3 tests/docs/record.py "$folder" &
pids+=($!)
await "$folder/port"
cat >"$folder/config.toml" <<END
[state]
dir = "$folder/state"
[api]
socket = "$folder/socket"
[webhooks.pipeline]
url = "http://127.0.0.1:$(cat "$folder/port")/hook"
secret = { env = "BATCHD_WEBHOOK_SECRET" }
END
"$BATCHD" --config "$folder/config.toml" run 2>"$folder/log" &
pids+=($!)
await "$folder/socket"
"$BATCHD" --host "unix://$folder/socket" webhooks test pipeline --event batch.completed >/dev/null
await "$folder/headers"
{ read -r id && read -r timestamp && read -r signature; } <"$folder/headers"
body=$folder/body

# The same, signed long ago.
old=$((timestamp - 3600))
key=$(printf %s "${BATCHD_WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
late=v1,$({ printf '%s.%s.' "$id" "$old"; cat "$body"; } |
  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)

failed=0
tried() { # what it is, the command
  local name=$1
  shift
  local wrong=()
  if ! "$@" "$id" "$timestamp" "$signature" <"$body" >/dev/null 2>"$folder/why"; then
    wrong+=("refuses the real delivery: $(tail -n 1 "$folder/why")")
  fi
  # While a secret is changed there are two signatures.
  if ! "$@" "$id" "$timestamp" "v1,$(printf %032d 0 | openssl base64 -A) $signature" <"$body" >/dev/null 2>&1; then
    wrong+=("refuses a second signature")
  fi
  if { cat "$body" && printf ' '; } | "$@" "$id" "$timestamp" "$signature" >/dev/null 2>&1; then
    wrong+=("accepts another body")
  fi
  if "$@" evt_another "$timestamp" "$signature" <"$body" >/dev/null 2>&1; then wrong+=("accepts another id"); fi
  if "$@" "$id" "$old" "$late" <"$body" >/dev/null 2>&1; then wrong+=("accepts an old delivery"); fi
  if BATCHD_WEBHOOK_SECRET="whsec_$(openssl rand -base64 32)" \
    "$@" "$id" "$timestamp" "$signature" <"$body" >/dev/null 2>&1; then
    wrong+=("accepts another secret")
  fi
  if [ ${#wrong[@]} = 0 ]; then
    echo "ok       $name"
  else
    printf "FAILED   $name: %s\n" "${wrong[@]}"
    failed=1
  fi
}
skipped() { echo "SKIPPED  $1: $2"; }

samples=docs/examples/verify
tried verify.sh sh $samples/verify.sh
tried plain.py python3 $samples/plain.py
for pair in openai:openai_sdk.py standardwebhooks:standard_webhooks.py; do
  if "$PYTHON" -c "import ${pair%%:*}" 2>/dev/null; then
    tried "${pair#*:}" "$PYTHON" "$samples/${pair#*:}"
  else
    skipped "${pair#*:}" "$PYTHON has no ${pair%%:*}; PYTHON names another"
  fi
done
if command -v node >/dev/null; then tried verify.mjs node $samples/verify.mjs; else skipped verify.mjs "no node"; fi
if command -v ruby >/dev/null; then tried verify.rb ruby $samples/verify.rb; else skipped verify.rb "no ruby"; fi
if command -v go >/dev/null; then
  go build -o "$folder/verify-go" $samples/verify.go
  tried verify.go "$folder/verify-go"
else
  skipped verify.go "no go"
fi
exit $failed

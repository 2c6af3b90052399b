#!/bin/sh
# Verifies a delivery of batchd with openssl. For trying things by hand: a shell neither compares in constant time nor
# keeps the key out of the list of processes.
#
# Usage: verify.sh WEBHOOK-ID WEBHOOK-TIMESTAMP WEBHOOK-SIGNATURE < BODY
set -eu

age=$(($(date +%s) - $2))
if [ "${age#-}" -gt 300 ]; then
  echo "refused: the timestamp is too old, or a clock is wrong" >&2
  exit 1
fi
key=$(printf %s "${BATCHD_WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
expected=$({ printf '%s.%s.' "$1" "$2"; cat; } |
  openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
case " $3 " in
  *" v1,$expected "*) echo verified ;;
  *)
    echo "refused: no signature matches" >&2
    exit 1
    ;;
esac

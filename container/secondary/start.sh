#!/bin/sh
# Write NSD's settings and run it: secondary of PRIMARY (address@port) for ZONES, transfers signed
# with the key named KEY, whose secret lies in KEY_FILE. WORK and PORT: where it works and listens.
# REFRESH: seconds after which it asks for news at the latest, for a primary that does not notify.
set -eu
umask 077
work=${WORK:-/tmp/nsd}
mkdir -p "$work"
{
  printf 'server:\n  port: %s\n  username: ""\n  zonesdir: "%s"\n' "${PORT:-53}" "$work"
  printf '  pidfile: ""\n  database: ""\n  xfrd-reload-timeout: 1\n'
  printf '  zonelistfile: "%s/zones"\n  xfrdfile: "%s/xfrd"\n  xfrdir: "%s"\n' "$work" "$work" "$work"
  printf 'remote-control:\n  control-enable: no\n'
  printf 'key:\n  name: "%s"\n  algorithm: hmac-sha256\n  secret: "%s"\n' "$KEY" "$(cat "$KEY_FILE")"
  for zone in $ZONES; do
    printf 'zone:\n  name: "%s"\n  request-xfr: AXFR %s %s\n  allow-notify: %s %s\n' \
      "$zone" "$PRIMARY" "$KEY" "${PRIMARY%@*}" "$KEY"
    if [ -n "${REFRESH:-}" ]; then
      printf '  max-refresh-time: %s\n  max-retry-time: %s\n' "$REFRESH" "$REFRESH"
    fi
  done
} >"$work/nsd.conf"
exec nsd -d -c "$work/nsd.conf"

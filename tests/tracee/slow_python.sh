#!/bin/sh
# A Python whose start takes longer than a stop may.
sleep 2.5
exec "$SLOW_PYTHON" "$@"

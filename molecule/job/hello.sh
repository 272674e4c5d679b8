#!/bin/bash
# A job that takes a while, says something on both streams, and fails.
sleep 1
echo "$GREETING, $1"
echo "by $USER in $PWD on $HOSTNAME" >&2
exit 3

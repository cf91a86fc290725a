#!/bin/sh
# Pins every package by exact version and hash, for all platforms: lock.sh UV. The files hold no addresses.
set -eu
uv=$1
compile() { "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "$@"; }
compile pyproject.toml --group serve -o requirements/serve.txt
compile pyproject.toml --group serve --group dev -o requirements/dev.txt
# What a machine of a fleet has, in the versions that the tests ran with.
extras="--extra beansdb --extra celery --extra memcached --extra objects --extra postgresql --extra redis"
# shellcheck disable=SC2086  # they are words
compile pyproject.toml --group serve $extras --constraint requirements/dev.txt -o requirements/fleet.txt
compile --group bench -o requirements/bench.txt

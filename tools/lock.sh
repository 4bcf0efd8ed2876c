#!/bin/sh
# Write requirements/: a file for each environment that the Makefile and CI set up, every version and hash in it, for
# CPython 3.9 to 3.15 on Linux. pip alone installs from these files; this script needs uv (`make update` brings it).
set -eu
cd "$(dirname "$0")/.."
all=$(mktemp)
trap 'rm -f "$all"' EXIT

lock() {
    output=$1
    shift
    uv pip compile --quiet --upgrade --universal --python-version 3.9 --generate-hashes --no-annotate \
        --custom-compile-command "make update" "$@" -o "$output"
}

# What may stand in one environment is resolved together first, so that no file asks for another version than the next.
lock "$all" pyproject.toml --only-binary :all: --group build --extra test --extra docs --extra examples \
    --extra notebook --extra pictures --extra lint
lock requirements/base.txt pyproject.toml --group build -c "$all"
for extra in test docs examples notebook pictures lint; do
    lock "requirements/$extra.txt" pyproject.toml --extra "$extra" -c "$all"
done
lock requirements/uv.txt --group uv

# EasyVVUQ wants older releases than all else does, so its environment is its own; it requires this package by name.
lock requirements/clients.txt pyproject.toml --group build --extra clients --extra pictures --extra test \
    --no-emit-package qcg-pilotjob-executor-api

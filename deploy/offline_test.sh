#!/bin/sh
# Sets up a clone of this tree from a folder of wheels with no network to be had, and asks the command that came of it.
# Needs what `unshare --net` needs: root, or a kernel that gives users namespaces.
set -eu
cd "$(dirname "$0")/.."
here=$PWD
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
deploy/setup.sh wheels "$folder/wheels"
git clone -q "$here" "$folder/genba"
cd "$folder/genba"
unshare --map-root-user --net env PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS="$folder/wheels" make setup
unshare --map-root-user --net .venv/bin/genba version

#!/bin/sh
# Makes the secrets that docker-compose.yml hands to containers as files; those that are there stay as they are.
# Compose mounts a file with its owner and mode, and containers are no root: so the files are readable and their folder is not.
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"
for name in principal database_password redis_password qdrant_api_key audit llm_texts grafana_password; do
    [ -s "$folder/$name" ] || { od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$folder/.$name" && mv "$folder/.$name" "$folder/$name"; }
    chmod 0444 "$folder/$name"
done

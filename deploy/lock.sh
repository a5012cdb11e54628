#!/bin/sh
# Resolves every extra for Python 3.11 and writes the pins. torch is pinned without its build tag, so that CPU and CUDA machines share the file.
set -eu
cd "$(dirname "$0")/.."
find_links=$(.venv/bin/pip config get global.find-links 2>/dev/null || true)
[ -z "$find_links" ] || export UV_FIND_LINKS="$find_links"
{
    echo "# Every version the project is tested with. Written by \`make lock\`; read by deploy/setup.sh."
    echo "uv==$(.venv/bin/uv --version | cut -d' ' -f2)"
    .venv/bin/uv pip compile -q pyproject.toml --all-extras --no-header --no-annotate --no-emit-index-url --no-emit-find-links --python-version 3.11 "$@" | sed 's/^torch==\([0-9.]*\).*/torch==\1/'
} >constraints.new
mv constraints.new constraints.txt

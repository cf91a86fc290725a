#!/bin/sh
# Makes a virtual environment: venv.sh PYTHON FOLDER. On a bare Debian it installs what that needs, when it may.
set -eu
python=$1 folder=$2

if ! command -v "$python" >/dev/null 2>&1; then
    echo "lazypix needs Python 3.11 or newer, and '$python' is not installed." >&2
    echo "Debian, Ubuntu: apt-get install python3 python3-venv    macOS: brew install python" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "lazypix needs Python 3.11 or newer; '$python' is $("$python" -V 2>&1)." >&2
    echo "Name a newer one: make serve PYTHON=python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
    else
        echo "'$python' cannot make virtual environments; install $package (apt-get install $package)." >&2
        exit 1
    fi
fi
"$python" -m venv "$folder"

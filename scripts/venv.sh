# Sourced by the scripts beside it: makes the virtual environment they run in.

# Prints a Python of the version given (3.11 or later if none is), or says how to get one.
find_python() {
    local name
    for name in ${1:+"python$1"} ${1:-python3 python3.13 python3.12 python3.11}; do
        # A shim of a version manager may be on the PATH and run nothing: try it.
        if "$name" -c "import sys, venv; assert sys.version_info >= (3, 11)" 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    for name in "$HOME"/.pyenv/versions/"${1:-3.11}"*/bin/python3; do
        if "$name" -c "import sys, venv; assert sys.version_info >= (3, 11)" 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "no Python ${1:-3.11 or later} with venv: install it (Debian: apt-get install python3-venv)" >&2
    return 1
}

require_compiler() {
    if ! command -v cc >/dev/null && ! command -v gcc >/dev/null && ! command -v clang >/dev/null; then
        echo "no C compiler: the tests build small targets with one (Debian: apt-get install gcc libc6-dev)" >&2
        exit 1
    fi
}

# make_venv VERSION EXTRAS: activates .venv (or .venv-VERSION) with procvm and the extras in it.
make_venv() {
    local folder=.venv${1:+-$1} python stamp
    python=$(find_python "$1")
    stamp="$folder/.installed$2"
    if [ ! -x "$folder/bin/python" ]; then
        "$python" -m venv "$folder"
    fi
    # shellcheck disable=SC1091
    . "$folder/bin/activate"
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ]; then
        python -m pip install --quiet --disable-pip-version-check --editable ".$2"
        touch "$stamp"
    fi
}

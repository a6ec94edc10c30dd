# Sourced by the scripts beside it: makes the virtual environment they run in.
# shellcheck shell=bash

# Whether a command is a Python that can make a virtual environment, of the version given if one is.
is_python() {
    "$1" -c "import sys, ensurepip, venv
wanted = '${2:-}'
found = '%d.%d' % sys.version_info[:2]
raise SystemExit(sys.version_info < (3, 11) or (wanted or found) != found)" 2>/dev/null
}

# Prints a Python of the version given, or of 3.11 or later; prints nothing if there is none.
find_python() {
    local name path
    for name in "python${1:-3}" python3 python3.13 python3.12 python3.11; do
        # Every one on the PATH: the first may be a version manager's shim that runs nothing,
        # and then the interpreters it manages are beside it.
        for path in $(type -ap "$name") $(type -ap "$name" | sed -n 's|/shims/.*||p' | sort -u |
            while read -r root; do echo "$root"/versions/*/bin/python3; done); do
            if is_python "$path" "${1:-}"; then
                echo "$path"
                return
            fi
        done
    done
}

require_compiler() {
    if ! command -v cc >/dev/null && ! command -v gcc >/dev/null && ! command -v clang >/dev/null; then
        echo "no C compiler, and the tests build small targets with one: install gcc" \
            "(Debian: apt-get install gcc libc6-dev)" >&2
        exit 1
    fi
}

# make_venv VERSION EXTRAS: activates .venv (.venv-VERSION if one is given) with procvm in it.
make_venv() {
    local folder=.venv${1:+-$1} python stamp
    stamp=$folder/.installed-${2:-core}
    if [ ! -x "$folder/bin/python" ]; then
        python=$(find_python "$1")
        if [ -z "$python" ]; then
            echo "no Python ${1:-3.11 or later} with venv and ensurepip: install it" \
                "(Debian: apt-get install python3-venv)" >&2
            exit 1
        fi
        "$python" -m venv "$folder"
    fi
    # shellcheck disable=SC1091
    . "$folder/bin/activate"
    if [ ! -e "$stamp" ] || [ pyproject.toml -nt "$stamp" ] ||
        [ scripts/constraints.txt -nt "$stamp" ]; then
        echo "installing procvm${2:-} into $folder"
        python -m pip install --quiet --disable-pip-version-check \
            --constraint scripts/constraints.txt --editable ".${2:-}"
        touch "$stamp"
    fi
}

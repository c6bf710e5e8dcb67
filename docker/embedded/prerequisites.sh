#!/usr/bin/env bash
# Says what is missing on this machine before anything is set up, and how to get it.
set -u
python=${PYTHON:-python3}
missing=0
say() { printf 'missing: %s\n         %s\n' "$1" "$2" >&2; missing=1; }

if ! command -v "$python" >/dev/null 2>&1; then
    say "Python 3.11 or newer" "install it (Debian: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "Python 3.11 or newer ($("$python" --version 2>&1) found)" "name a newer one: make PYTHON=/path/to/python3"
elif ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    say "Python's venv module" "Debian: apt-get install python3-venv"
fi

if [ -z "${BRAID_OPENSEARCH_URL:-}" ]; then
    command -v mvn >/dev/null 2>&1 ||
        say "Maven (mvn)" "it fetches OpenSearch and the embedding model (Debian: apt-get install maven); or set BRAID_OPENSEARCH_URL and BRAID_EMBEDDING_PATH"
fi
exit "$missing"

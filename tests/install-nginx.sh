#!/usr/bin/env bash
# Installs Debian's nginx where that may be done; says so where it may not. Never fails: the tests that need it then do.
set -u
if command -v nginx >/dev/null || [ -x /usr/sbin/nginx ]; then exit 0; fi
if ! command -v apt-get >/dev/null; then echo "no nginx here and no apt-get to install it" >&2; exit 0; fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
    if sudo -n true 2>/dev/null; then as_root="sudo -n"; else
        echo "nginx is missing and may not be installed by this user (sudo apt-get install nginx)" >&2; exit 0
    fi
fi
export DEBIAN_FRONTEND=noninteractive
{ $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends nginx; } >/dev/null ||
    echo "nginx could not be installed" >&2
exit 0

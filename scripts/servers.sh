#!/bin/sh
# Installs the programs that tests and benchmarks run beside lazypix, where this is root on Debian. Elsewhere it
# names what is missing; the tests that need it are then skipped by name, and fail where CI is set.
set -eu

install() { # install PROGRAM PACKAGE
    if command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; then
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        [ -n "${updated:-}" ] || apt-get update -qq
        updated=yes
        # policy-rc.d: a package's service shall not be started; the tests start their own on free ports.
        printf '#!/bin/sh\nexit 101\n' > /tmp/lazypix-policy-rc.d
        [ -e /usr/sbin/policy-rc.d ] || { install_policy=yes; cp /tmp/lazypix-policy-rc.d /usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; }
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null || echo "could not install $2" >&2
        [ -z "${install_policy:-}" ] || rm -f /usr/sbin/policy-rc.d
        install_policy=
        rm -f /tmp/lazypix-policy-rc.d
    else
        echo "$1 is not installed: the tests that need it are skipped (Debian package: $2)" >&2
    fi
}

install curl curl
install nginx nginx-light
install wrk wrk
install redis-server redis-server
install memcached memcached
install rabbitmq-server rabbitmq-server
install openssl openssl
install chromium chromium
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || install initdb postgresql

# Azure's storage emulator comes from npm, into a folder of its own.
azurite=3.35.0
if [ ! -x .programs/node_modules/.bin/azurite-blob ]; then
    install npm npm
    npm install --silent --no-audit --no-fund --prefix .programs "azurite@$azurite" >/dev/null ||
        echo "azurite is not installed: the tests that need it are skipped (npm package: azurite)" >&2
fi

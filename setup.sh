#!/bin/sh
# Prepare a clone: Debian packages, then a virtual environment with locked dependencies. Quiet, and quick when done.
set -eu
cd "$(dirname "$0")"

packages="etcd-server etcd-client iproute2 nftables iptables conntrack iputils-ping tcpdump containernetworking-plugins util-linux openssl wireguard-go wireguard-tools groff-base chromium"
"$PYTHON" -c "import ensurepip, venv" 2>/dev/null || packages="$packages python3-venv"

missing=""
for package in $packages; do
	state=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) || state=absent
	[ "$state" = installed ] || missing="$missing $package"
done
if [ -n "$missing" ]; then
	echo "setup: installing Debian packages:$missing"
	log=$(mktemp)
	# The package's own etcd must not start: the lab runs its etcd inside its own namespaces.
	case "$missing" in *etcd-server*) [ ! -d /run/systemd/system ] || systemctl mask --quiet --runtime etcd.service ;; esac
	status=0
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1 || status=$?
	case "$missing" in *etcd-server*) [ ! -d /run/systemd/system ] || {
		systemctl unmask --quiet --runtime etcd.service
		systemctl disable --quiet etcd.service
	} ;; esac
	if [ "$status" != 0 ]; then
		tail -20 "$log" >&2
		echo "setup: apt-get could not install:$missing (are you root?)" >&2
		exit 1
	fi
	rm -f "$log"
fi

stamp=.venv/.complete
wanted=$(cat requirements-dev.lock pyproject.toml setup.sh | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
	echo "setup: preparing .venv with locked dependencies"
	rm -f "$stamp"
	"$PYTHON" -m venv --clear .venv
	.venv/bin/pip install -qq --disable-pip-version-check --require-hashes -r requirements-dev.lock
	.venv/bin/pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	echo "$wanted" >"$stamp"
fi

#!/usr/bin/env bash
# Install finsent on a node of `ray up`: setup.sh cpu|gpu. Ubuntu 24.04 brings Python 3.12.
set -euo pipefail

cd "$(dirname "$0")/../.."
if ! python3 -c 'import ensurepip' 2>/dev/null; then
  sudo apt-get update --quiet
  sudo DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes python3-venv
fi
[ -x ~/finsent-venv/bin/pip ] || python3 -m venv ~/finsent-venv
export PATH=~/finsent-venv/bin:$PATH
cluster/images/install.sh "$1"
pip install --no-cache-dir --no-deps --no-build-isolation .
chmod 600 ~/.ray/auth_token

#!/usr/bin/env bash
# Install the versions of a lock into the Python environment whose pip is first on PATH.
#
#   cluster/images/install.sh cpu|gpu|serve
#
# serve: the service without torch, from serve.lock. cpu, gpu: all of requirements.lock.
# gpu: PyPI's torch, with NVIDIA's libraries (several GB). cpu: the same version of torch from
# TORCH_INDEX, without them. The lock's hashes are of PyPI's files. For `cpu`, torch alone is
# therefore installed without a hash of the lock.
set -euo pipefail

variant=${1:-}
lock=requirements.lock
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
gpu_packages='torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+'

# Print the requirements whose names match ($2=1) or do not match ($2=0) the pattern $1.
select_requirements() {
  awk -v pattern="^($1)==" -v wanted="$2" '/^[^ #]/ {is_wanted = ($0 ~ pattern) == wanted} is_wanted' "$lock"
}

install_locked() {
  pip install --no-cache-dir --no-deps --no-build-isolation --require-hashes --requirement "$1"
}

case $variant in
  cpu | gpu | serve) ;;
  *)
    echo "error: variant='$variant': unknown. Write cpu, gpu or serve." >&2
    exit 2
    ;;
esac

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

select_requirements setuptools 1 >"$directory/build.lock" # builds the packages that have no wheel
install_locked "$directory/build.lock"
if [ "$variant" = gpu ]; then
  install_locked "$lock"
elif [ "$variant" = serve ]; then
  install_locked cluster/images/serve.lock
else
  torch=$(grep -oE '^torch==[^ ]+' "$lock")
  pip install --no-cache-dir --no-deps --index-url "$torch_index" "$torch"
  select_requirements "$gpu_packages" 0 >"$directory/cpu.lock"
  install_locked "$directory/cpu.lock"
fi
pip check

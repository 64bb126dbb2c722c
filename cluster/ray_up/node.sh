# shellcheck shell=bash
# The environment of a node of `ray up`: source it before Ray's commands.
export PATH=~/finsent-venv/bin:$PATH
export RAY_AUTH_TOKEN_PATH=~/.ray/auth_token
# shellcheck source=cluster/environment.sh
. ~/finsent-source/cluster/environment.sh

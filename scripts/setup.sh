#!/usr/bin/env bash
# Make the virtual environment that `make report` and `make test` use; quick when it is there.
# `setup.sh browser` also sees to the browser in which `make test` runs the notebooks.
# PYTHON chooses the interpreter. For a CPU-only torch where PyPI's is the CUDA build, point pip at
# PyTorch's CPU index first: pip config set global.extra-index-url https://download.pytorch.org/whl/cpu
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.setup
wanted=$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -d' ' -f1)

# MuJoCo draws through EGL; a bare Debian has neither the library nor Mesa's driver for it.
missing_gl() {
  [ "$(uname -s)" = Linux ] || return 1
  # The whole list first: with pipefail, grep -q would end ldconfig by a broken pipe.
  libraries=$(PATH=$PATH:/sbin ldconfig -p 2>/dev/null || true)
  case $libraries in *libEGL.so.1*) ;; *) return 0 ;; esac
  ! compgen -G '/usr/share/glvnd/egl_vendor.d/*.json' >/dev/null &&
    ! compgen -G '/etc/glvnd/egl_vendor.d/*.json' >/dev/null
}
# A system package for those who may install one, and how to get it for those who may not.
need() {
  what=$1
  shift
  install="apt-get install -y --no-install-recommends $*"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing $what"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >/dev/null && $install -qq >/dev/null
  else
    echo "setup: $what: run once: sudo $install" >&2
  fi
}
if missing_gl; then
  need "libEGL and Mesa's driver (for rendering without a display)" libegl1 libgl1-mesa-dri
fi
if [ "${1:-}" = browser ] && ! command -v chromedriver >/dev/null; then
  # Both from Debian, so that the driver is of the browser's version; Ubuntu has them as snaps.
  if grep -qs '^ID=debian' /etc/os-release; then
    need "Chromium and its driver (for the notebooks' test in JupyterLab)" chromium chromium-driver
  else
    echo "setup: no chromedriver on the PATH: the notebooks' test in JupyterLab is skipped" >&2
  fi
fi

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
  exit 0
fi

python=${PYTHON:-}
for candidate in python3 python3.13 python3.12 python3.11; do
  [ -n "$python" ] && break
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
  fi
done
if [ -z "$python" ]; then
  echo "setup: Python 3.11 or later is needed; name it with PYTHON=/path/to/python3.12" >&2
  exit 2
fi

if [ ! -x $venv/bin/python ]; then
  echo "setup: making $venv with $("$python" --version)"
  "$python" -m venv $venv || {
    echo "setup: no venv module; run once: sudo apt-get install -y python3-venv" >&2
    exit 2
  }
fi
pip="$venv/bin/python -m pip --disable-pip-version-check -q"
echo "setup: installing (a few minutes the first time)"
$pip install --upgrade pip
# torch first and pinned: otherwise a dependency may choose another build of it.
$pip install "$(grep -m1 '^torch==' constraints.txt)"
$pip install -e '.[all,dev]' -c constraints.txt
echo "$wanted" >"$stamp"
echo "setup: done"

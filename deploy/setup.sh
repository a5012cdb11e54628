#!/bin/sh
# Puts Genba and what it needs into .venv. Usage: deploy/setup.sh base|test|bench|openclip|tensorflow|gguf|flower
# Honours pip's own configuration (index-url, find-links), so a closed network needs nothing but its mirror, and a machine
# without any network nothing but the folder that `deploy/setup.sh wheels FOLDER` fills on one that has it.
set -eu
cd "$(dirname "$0")/.."
case "${1:-base}" in
base|wheels|flower) extras=sop,sem,pdf,llm,recommend ;;
openclip) extras=sop,sem,pdf,llm,openclip ;;
test) extras=sop,sem,s3,openclip,recommend,so8t,llm,test ;;
bench) extras=sop,sem,pdf,llm,bench ;;
tensorflow) extras=sop,sem,s3,openclip,recommend,so8t,llm,test,tensorflow ;;
gguf) # builds llama.cpp from source, for AVX2: with AMX it crashes on quantised weights (its issue 20824)
    extras=sop,sem,s3,openclip,recommend,so8t,llm,test,gguf
    export CMAKE_ARGS="${CMAKE_ARGS:--DGGML_NATIVE=OFF}" ;;
*) echo "usage: deploy/setup.sh base|test|bench|openclip|tensorflow|gguf|flower|wheels FOLDER" >&2; exit 2 ;;
esac
python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
[ -n "$python" ] || { echo "genba: Python 3.11 or newer is needed (Debian: apt-get install python3 python3-venv)" >&2; exit 2; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "genba: $python is older than Python 3.11; set PYTHON=" >&2; exit 2; }
if [ ! -x .venv/bin/pip ]; then
    "$python" -m venv .venv || { rm -rf .venv; echo "genba: no venv module (Debian: apt-get install python3-venv)" >&2; exit 2; }
fi
pip=.venv/bin/pip
export PIP_DISABLE_PIP_VERSION_CHECK=1 UV_LINK_MODE=copy
find_links=$($pip config get global.find-links 2>/dev/null || $pip config get :env:.find-links 2>/dev/null || true)
index_url=$($pip config get global.index-url 2>/dev/null || true)
[ -z "$find_links" ] || export UV_FIND_LINKS="$find_links"
[ -z "$index_url" ] || export UV_DEFAULT_INDEX="$index_url"

if [ "${1:-base}" = wheels ]; then # and what builds Genba itself
    exec $pip wheel -q -w "${2:?a folder for the wheels}" -c constraints.txt ".[$extras]" uv hatchling==1.27.0 editables
fi

# uv resolves the pins in a second where pip takes half a minute; where a mirror has no uv, pip does the same job.
if [ -x .venv/bin/uv ] || $pip install -q -c constraints.txt uv 2>/dev/null; then
    install=".venv/bin/uv pip install -q --python .venv/bin/python${PIP_NO_INDEX:+ --no-index}"
else
    install="$pip install -q"
fi
case ",$extras," in
*,openclip,*|*,recommend,*|*,bench,*)
    if ! .venv/bin/python -c 'import torch' 2>/dev/null; then
        backend=cpu
        command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1 && backend=auto
        # A CPU wheel in pip's find-links comes first; then PyTorch's own index for this backend; then whatever pip finds.
        { [ $backend = cpu ] && [ -n "$find_links" ] && $pip install -q --no-deps --no-index -c constraints.txt torch 2>/dev/null; } ||
            { [ -x .venv/bin/uv ] && $install -c constraints.txt --torch-backend $backend torch 2>/dev/null; } ||
            $pip install -q -c constraints.txt torch
    fi ;;
esac
$install -c constraints.txt -e ".[$extras]"
if [ "$1" = flower ]; then # Flower wants older protobuf, typer, rich and FastAPI: an environment in front of this one, for recommend.federated alone
    [ -x .venv/flower/bin/python ] || "$python" -m venv --without-pip .venv/flower
    if [ -x .venv/bin/uv ]; then
        .venv/bin/uv pip install -q --python .venv/flower/bin/python ${PIP_NO_INDEX:+--no-index} --no-deps -r deploy/flower.txt
    else
        $pip --python .venv/flower/bin/python install -q --no-deps -r deploy/flower.txt
    fi
    behind=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "import site; site.addsitedir('$behind')" >"$(.venv/flower/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/behind.pth"
    PYTHONPATH= .venv/flower/bin/python -c 'import flwr, genba_recommend.federated'
fi
if [ "$1" = bench ]; then # aeon's bound on numba is older than the numba it runs with
    $install --no-deps aeon==1.6.0
    $install deprecated
fi
# Compile once what a server imports: where PYTHONDONTWRITEBYTECODE is set, every start would do it anew.
env -u PYTHONDONTWRITEBYTECODE .venv/bin/python -c 'import genba_gateway.embedded, genba_llm.app, genba_recommend.app, genba_recommend.two_tower, genba_sem.app, genba_sem.training, genba_sop.app, genba_sop.cli, genba_sop.offline, genba_training.worker'
if [ "$1" = test ] && command -v npm >/dev/null; then # TensorFlow.js, for the tests of the export; without npm they are skipped
    npm ci --silent --prefix tests/recommend/tfjs || echo "genba: npm could not install TensorFlow.js; its tests are skipped" >&2
fi

.DEFAULT_GOAL := help
SHELL := /bin/sh
unexport PYTHONDONTWRITEBYTECODE # images like to set it; then every start compiles what it imports, 3 s instead of 1
PY := .venv/bin/python
PYTEST := $(PY) -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder
SOURCES := deploy docs gateway shared svc-sop svc-llm svc-recommend svc-sem svc-training tests benchmarks examples
PACKAGES := gateway/genba_gateway shared/genba_shared svc-sop/genba_sop svc-llm/genba_llm svc-recommend/genba_recommend svc-sem/genba_sem svc-training/genba_training
PINS := pyproject.toml constraints.txt deploy/setup.sh tests/recommend/tfjs/package-lock.json

help: ## list every target
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv/.base: $(PINS)
	@deploy/setup.sh base && touch $@
.venv/.test: $(PINS)
	@deploy/setup.sh test && touch .venv/.base $@
.venv/.bench: $(PINS)
	@deploy/setup.sh bench && touch .venv/.base $@

setup: .venv/.base ## a virtual environment with the pins, enough to run Genba
setup-test: .venv/.test ## the same, with what the tests need

demo: .venv/.base ## start embedded mode, score a generated trainee video against its gold, write the report
	@.venv/bin/genba demo
up: .venv/.base ## run Genba on this machine: API and worker, no server to install
	@.venv/bin/genba up

test: .venv/.test ## the tests that need no server and no minutes
	@$(PYTEST) -m "not long and not distributed" tests
test-long: .venv/.test ## the tests that take minutes: killed processes, the explored API, quality, whole lifecycles
	@$(PYTEST) -m "long and not distributed" tests
distributed-test: .venv/.test ## the tests that need real Postgres and Redis
	@$(PYTEST) -m distributed tests
chaos: .venv/.test ## kill -9 of workers and emptied brokers, in small; bench-jobs-chaos is the full matrix
	@$(PY) -m pytest -q tests/distributed/test_jobs_chaos.py
savedmodel-test: .venv/.test ## the TensorFlow export against torch; installs TensorFlow (1.3 GB) first
	@deploy/setup.sh tensorflow && $(PY) -m pytest -q tests/recommend/test_export_savedmodel.py
flower-test: .venv/.test ## federated averaging by Flower's engine against ours; installs Flower (30 MB) into .venv/flower first
	@deploy/setup.sh flower && $(PY) -m pytest -q tests/recommend/test_flower.py tests/recommend/service/test_recommend_flower.py
gguf-test: .venv/.test ## GGUF files against llama.cpp and its server; builds llama.cpp from source first (minutes; a C++ compiler and cmake)
	@deploy/setup.sh gguf && $(PY) -m pytest -q tests/llm/test_gguf_llama.py tests/llm/test_backends.py
windows-test: .venv/.test ## the Windows Event Log, by a Windows Python under Wine; gets both first (150 MB)
	@deploy/windows_python.sh && .venv/bin/mypy --platform win32 shared/genba_shared/windows_events.py tests/windows && $(PY) -m pytest -q -n 0 tests/shared/test_windows_events.py
offline-test: .venv/.base ## set up without a network, from a folder of wheels (700 MB are collected first)
	@deploy/offline_test.sh
lint: .venv/.test ## ruff: rules and format
	@.venv/bin/ruff check $(SOURCES) && .venv/bin/ruff format --check $(SOURCES)
format: .venv/.test ## let ruff mend what it can
	@.venv/bin/ruff check --fix $(SOURCES); .venv/bin/ruff format $(SOURCES)
types: .venv/.test ## mypy --strict
	@.venv/bin/mypy $(PACKAGES) deploy tests benchmarks examples
imports: .venv/.test ## who may import whom
	@.venv/bin/lint-imports --cache-dir .venv/.cache/imports
check: lint types imports test distributed-test test-long ## everything CI checks

bench-alignment: .venv/.bench ## DTW, soft-DTW and skip alignment against their peers
	@$(PY) benchmarks/sop_alignment.py
bench-deviations: .venv/.base ## deviation types on at least 200 seeded videos
	@$(PY) benchmarks/sop_deviations.py
bench-disturbed: .venv/.base ## good runs as people really film them: no false alarms
	@$(PY) benchmarks/sop_disturbed.py
bench-real: .venv/.base ## real footage against edits of itself (VIDEO= a film, FOREIGN= another one)
	@$(PY) benchmarks/sop_real.py --video $(VIDEO) $(if $(FOREIGN),--foreign $(FOREIGN))
bench-unfamiliar: .venv/.base ## films that nobody chose against copies of themselves and against each other (FILMS=)
	@$(PY) benchmarks/sop_unfamiliar.py $(FILMS)
bench-search: .venv/.base ## the same step in other videos, found by a clip of it
	@$(PY) benchmarks/sop_search.py
bench-manner: .venv/.base ## learn what tells a wrong object from another manner
	@$(PY) benchmarks/sop_manner.py
bench-speed: .venv/.base ## 60 s of 480p, decode to stored report
	@$(PY) benchmarks/sop_speed.py
bench-order: .venv/.base ## order and missing steps on CaptainCook4D's annotations
	@$(PY) benchmarks/sop_order.py
bench-gate: .venv/.base ## the language model's gate: quality on other sources, disguises, speed
	@$(PY) -m benchmarks.gate_quality --most 300 --disguises; OMP_NUM_THREADS=1 $(PY) benchmarks/gate_speed.py --no-model
bench-personal-data: .venv/.base ## Japanese personal data as it is written and as it is read aloud
	@$(PY) benchmarks/gate_personal_data.py
bench-recommend: .venv/.bench ## the recommender against its peers on film ratings (FOLDERS= of MovieLens, or --generated)
	@$(PY) -m benchmarks.recommend_quality $(FOLDERS)
bench-recommend-training: .venv/.bench ## CPU seconds to train on a million interactions, ALS beside it
	@$(PY) -m benchmarks.recommend_training
bench-sem: .venv/.base ## particles: encoders, fusion, unknowns, abstaining, few labels, sizes
	@$(PY) -m benchmarks.sem_quality
bench-sem-job: .venv/.base ## a batch of particles as a job, its worker killed -9 twice
	@$(PY) benchmarks/sem_job.py
bench-corpus: .venv/.test ## documents a second through the data line's quality filter, memory and hash of collecting
	@$(PY) benchmarks/llm_corpus.py
bench-rotations: .venv/.test ## what SO8T and PET cost beside plain LoRA
	@$(PY) benchmarks/so8t_step.py --steps 3 --rounds 1 --layers 6
bench-gpu: .venv/.test ## on a GPU: fine-tuning Phi-4-mini's shape, and OpenCLIP's frames a second
	@$(PY) benchmarks/so8t_gpu.py && $(PY) benchmarks/openclip_speed.py
bench-ablation: .venv/.test ## do the rotations and PET help? 2x2 over seeds on a tiny model
	@$(PY) -m benchmarks.so8t_ablation
build-model: .venv/.test ## make the small language model that ships anew, from its seed, and measure it (same commit and machine: same bytes)
	@OMP_NUM_THREADS=1 GENBA_LLM_LINE_DEVICE=cpu $(PY) -m benchmarks.so8t_model --train
bench-model: .venv/.test ## measure the small language model that ships (with genba[gguf], its GGUF files too)
	@$(PY) -m benchmarks.so8t_model
bench-model-words: .venv/.test ## that model on questions in free wording, beside a look-up and n-grams (FOREIGN= a folder of others' questions)
	@$(PY) -m benchmarks.so8t_by_hand $(if $(FOREIGN),--foreign $(FOREIGN))
bench-gateway: .venv/.bench ## the gateway against nginx (needs nginx and wrk)
	@$(PY) benchmarks/gateway.py
bench-audit: .venv/.base ## durable appends, verification, 10,000 tamperings and kill -9 of the audit log
	@$(PY) benchmarks/audit.py

bench-jobs-chaos: .venv/.base ## kill -9 of workers, brokers, databases and the API under 1,000 jobs, and plain Celery beside it
	@$(PY) -m benchmarks.jobs_chaos && $(PY) -m benchmarks.plain_celery
bench-recommend-refresh: .venv/.base ## everything embedded anew by a worker, once with a kill -9 half-way
	@$(PY) -m benchmarks.recommend_refresh

bench-recommend-serving: .venv/.base ## lists through the gateway at 50,000 items, search up to a million
	@$(PY) -m benchmarks.recommend_serving

docs: .venv/.test ## write docs/reference from the code
	@$(PY) docs/generate.py
dashboards: .venv/.test ## write deploy/grafana/dashboards from the code
	@$(PY) -m deploy.grafana.build

lock: .venv/.test ## write constraints.txt anew
	@deploy/lock.sh
clean: ## remove the virtual environment, which holds the tools' caches; data in .genba stays
	@rm -rf .venv

.PHONY: bench-recommend-training bench-model-words bench-ablation bench-disturbed bench-real bench-unfamiliar dashboards docs help setup setup-test demo up test test-long distributed-test savedmodel-test flower-test gguf-test windows-test lint format types imports check bench-alignment bench-deviations bench-search bench-manner bench-speed bench-order bench-recommend bench-sem bench-sem-job bench-corpus bench-rotations bench-gpu bench-gateway bench-audit lock clean chaos bench-jobs-chaos bench-recommend-serving bench-recommend-refresh bench-gate bench-personal-data bench-model build-model

# tests: integration/local. ktserve on loopback with the demo model; standard library only. test_questions.py needs the openai package: ./quickstart check
# runs it from a venv. KTSERVE=PROGRAM runs the same scripts on another build (sanitizers).
EXTRA_DIST += tests/integration/kts.py tests/integration/test_questions.py tests/integration/test_api.py tests/integration/test_streams.py \
	tests/integration/test_term.py tests/integration/test_smollm2.py tests/requirements.txt \
	tests/integration/metric_names.txt
TESTS += tests/integration/test_api.py tests/integration/test_streams.py tests/integration/test_term.py
EXTRA_DIST += %D%/test_llama_cpp.py
TESTS += tests/integration/test_profile_use.py
EXTRA_DIST += tests/integration/test_profile_use.py
TESTS += tests/integration/test_bench_kernels.py
EXTRA_DIST += tests/integration/test_bench_kernels.py
TESTS += tests/integration/test_load_memory.py
EXTRA_DIST += tests/integration/test_load_memory.py

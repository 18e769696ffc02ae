# Tests. Exit codes: 0 pass, 1 fail, 77 skip, 99 hard error. Each part has its own fragment.
AM_TESTS_ENVIRONMENT = \
	KT_FIXTURES="$${KT_FIXTURES:-$(abs_top_srcdir)/../shared/fixtures}"; export KT_FIXTURES; \
	KT_SRCDIR="$(abs_top_srcdir)"; export KT_SRCDIR; \
	KT_BUILDDIR="$(abs_top_builddir)"; export KT_BUILDDIR; \
	PYTHON3="$(PYTHON3)"; export PYTHON3; \
	PYTHONDONTWRITEBYTECODE=1; export PYTHONDONTWRITEBYTECODE;
TEST_EXTENSIONS = .sh .py
SH_LOG_COMPILER = sh
PY_LOG_COMPILER = $(PYTHON3)
include tests/house/local.mk
include tests/unit/base.mk
include tests/unit/model.mk
include tests/unit/tok.mk
include tests/unit/host.mk
include tests/unit/profile.mk
include tests/unit/cost.mk
include tests/unit/tune.mk
include tests/unit/engine.mk
include tests/unit/http.mk
include tests/unit/api.mk
include tests/kernels/local.mk
include tests/golden/local.mk
include tests/integration/local.mk
include tests/numa/local.mk
EXTRA_DIST += \
	%D%/bench/peers.py %D%/bench/chart.py %D%/bench/peer_llama.py %D%/bench/peer_kt_kernel.py \
	%D%/bench/requirements.txt

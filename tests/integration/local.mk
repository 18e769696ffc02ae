# tests: integration/local
EXTRA_DIST += %D%/kts.py %D%/test_smollm2.py tests/requirements.txt

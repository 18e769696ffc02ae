# models with known results
golden_scripts = %D%/reference.sh %D%/bits.sh %D%/convert.sh %D%/test_checkpoints.py %D%/profiles.py
TESTS += $(golden_scripts)
EXTRA_DIST += $(golden_scripts)

# models with known results
golden_scripts = %D%/reference.sh %D%/bits.sh
TESTS += $(golden_scripts)
EXTRA_DIST += $(golden_scripts)

# models with known results
golden_scripts = %D%/reference.sh %D%/bits.sh %D%/convert.sh
TESTS += $(golden_scripts)
EXTRA_DIST += $(golden_scripts)

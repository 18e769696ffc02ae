# models with known results; machines with known decisions
golden_scripts = %D%/reference.sh %D%/bits.sh %D%/convert.sh %D%/test_checkpoints.py %D%/test_kv_int8.py %D%/profiles.py %D%/test_topologies.py
TESTS += $(golden_scripts)
EXTRA_DIST += $(golden_scripts)
EXTRA_DIST += %D%/topologies.txt

# tests: numa. numa_facts says where pages and threads are; test_numa.py runs it inside emulated NUMA machines (QEMU without KVM, root or network) and judges.
check_PROGRAMS += %D%/numa_facts
tests_numa_numa_facts_SOURCES = %D%/numa_facts.c
tests_numa_numa_facts_LDADD = $(KT_ROOMS) $(KT_DEPLIBS)
EXTRA_DIST += %D%/numa_vm.py %D%/test_numa.py

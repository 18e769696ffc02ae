# documents and man pages
EXTRA_DIST += %D%/ARCHITECTURE.md %D%/TESTING.md

# tests: house/local

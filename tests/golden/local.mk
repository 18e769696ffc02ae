# tests: golden/local

# tests: integration/local

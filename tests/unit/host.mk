# tests: unit/host

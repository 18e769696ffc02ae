# tests: unit/engine

# tests: unit/model

# tests: unit/api

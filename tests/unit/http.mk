# tests: unit/http

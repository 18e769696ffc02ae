# tests: unit/profile

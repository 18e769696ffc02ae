# tests: unit/tok

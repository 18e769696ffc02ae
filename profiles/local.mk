# profiles: schema (installed, for editors and validators) and examples
dist_pkgdata_DATA = %D%/host.schema.json
EXTRA_DIST += %D%/example.json %D%/README.md
EXTRA_DIST += %D%/shapes/qwen3-30b-a3b.config.json

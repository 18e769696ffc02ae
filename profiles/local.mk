# profiles: schema and examples
EXTRA_DIST += %D%/host.schema.json %D%/example.json %D%/README.md
EXTRA_DIST += %D%/shapes/qwen3-30b-a3b.config.json

# profiles: schema and examples
EXTRA_DIST += %D%/host.schema.json %D%/example.json

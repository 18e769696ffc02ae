# profiles: schema and examples

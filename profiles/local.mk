# profiles: schema (installed, for editors and validators) and examples
dist_pkgdata_DATA = %D%/host.schema.json
EXTRA_DIST += %D%/example.json %D%/README.md %D%/desktop-9950x-256g-rtx5090.json %D%/epyc-9b14-2s-nps4-rtx5090.json \
	%D%/laptop-hx370-32g.json %D%/vm-zen4-2vcpu.json %D%/xeon-6454s-2s-8xl20.json %D%/xeon-6454s-2s-rtx4090.json
EXTRA_DIST += %D%/shapes/deepseek-v3.config.json %D%/shapes/deepseek-v4-flash.config.json %D%/shapes/glm-4.5-air.config.json \
	%D%/shapes/gpt-oss-120b.config.json %D%/shapes/kimi-k2.config.json %D%/shapes/qwen3-235b-a22b.config.json \
	%D%/shapes/qwen3-30b-a3b.config.json %D%/shapes/qwen3-next-80b-a3b.config.json
